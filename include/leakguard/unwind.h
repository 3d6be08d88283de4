/* Native stacks, by libunwind where it was there at build time (LG_WITH_LIBUNWIND).
 *
 * A stack is the addresses of its frames, innermost first. All but the innermost of a stack taken
 * from a signal are return addresses: the call stands before them.
 */
#ifndef LEAKGUARD_UNWIND_H
#define LEAKGUARD_UNWIND_H

#include <stdint.h>

/* Frames kept of a native stack. */
#define LG_NATIVE_DEPTH 64

/* libunwind's version ("1.6"), NULL where this build has none. */
const char *
lg_unwind_version(void);

/* The calling thread's stack, from the frame that `from` returns into; empty without libunwind.
 * Any thread; takes the locks of libunwind and of the dynamic linker. */
uint32_t
lg_unwind_here(const void *from, uintptr_t *frames, uint32_t capacity);

/* The stack that a signal has interrupted: `context` is the handler's third argument. Safe in a
 * signal handler, once lg_unwind_here has been called. */
uint32_t
lg_unwind_signal(void *context, uintptr_t *frames, uint32_t capacity);

#endif
