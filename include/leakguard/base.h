/* What every part of the core shares: status codes, kinds, frames.
 *
 * The core knows nothing of Python. It never prints and never aborts. Functions that can fail
 * return an lg_status and leave their ret_* parameters untouched on failure.
 */
#ifndef LEAKGUARD_BASE_H
#define LEAKGUARD_BASE_H

#include <stddef.h>
#include <stdint.h>

typedef enum {
    LG_OK = 0,
    LG_NO_MEMORY = -1,
    LG_FULL = -2,   /* a configured bound is reached */
    LG_EXISTS = -3, /* the key is there already */
    LG_NOT_FOUND = -4,
} lg_status;

/* The kinds of resources. The numbers are indexes of counters and bits of kind masks. */
typedef enum {
    LG_TASK,
    LG_THREAD,        /* a thread that Python knows */
    LG_NATIVE_THREAD, /* a thread that Python does not know */
    LG_TIMER,
    LG_ASYNCGEN,
    LG_LOOP,
    LG_EXECUTOR,
    LG_TRANSPORT,
    LG_SERVER,
    LG_PROCESS,
    LG_TEMPDIR,
    LG_KIND_COUNT, /* from here on: kinds that other extensions add */
    LG_KIND_LIMIT = 16,
} lg_kind;

/* For what hardly ever runs: kept out of the way of what does, so that a birth's and a death's
 * instructions lie together. */
#define LG_COLD __attribute__((noinline, cold))
#define LG_RARELY(condition) __builtin_expect(!!(condition), 0)

#define LG_KIND_BIT(kind) (1u << (kind))
#define LG_ALL_KINDS ((1u << LG_KIND_LIMIT) - 1u)

/* One frame of a stack: two words that only the binding can explain (for Python a code object
 * and the address of the last instruction). */
typedef struct {
    uintptr_t code;
    uintptr_t place;
} lg_frame;

#endif
