/* Takes over a function of a running process, in every object that calls it.
 *
 * Two places name a function to its callers: the GOT entry of each object that is loaded now, and
 * the dynamic symbol of the object that defines it, from which later entries are filled: those of
 * objects loaded later, before their constructors run, and those that are bound lazily. Both are
 * rewritten. Loading needs no watching then; a wrapper around dlopen() would change whose RUNPATH
 * it searches, since dlopen() looks at its caller.
 *
 * A GOT entry may already hold something else than the function: another library's wrapper. Each
 * such original gets a replacement of its own, which calls it in the end. Pages that are read-only
 * (RELRO) are writable for the time of one store. glibc on x86_64 and aarch64; elsewhere absent.
 */
#ifndef LEAKGUARD_INTERPOSE_H
#define LEAKGUARD_INTERPOSE_H

#include <stdatomic.h>

#include "leakguard/base.h"

#if defined(__GLIBC__) && (defined(__x86_64__) || defined(__aarch64__))
#define LG_CAN_INTERPOSE 1
#else
#define LG_CAN_INTERPOSE 0
#endif

/* How many originals are told apart: the function and wrappers of it. */
#define LG_INTERPOSE_ENTRIES 8

typedef struct {
    const char *name;                                 /* of the function */
    void (*replacements[LG_INTERPOSE_ENTRIES])(void); /* each calls the original of its number */
    _Atomic(void *) originals[LG_INTERPOSE_ENTRIES];  /* [0]: the function. Kept after the end */
    size_t slots;      /* GOT entries that the last begin or end changed */
    size_t left_alone; /* GOT entries with one original too many, not changed */
} lg_interposition;

/* Rewrites all places, again those that are new since the last call. LG_NOT_FOUND where the function
 * or its symbol is not found, or the system is another. Not to be called by two threads at once. */
lg_status
lg_interpose_begin(lg_interposition *interposition);

/* Puts back what is still ours. Somebody may have kept a replacement: it has to go on working. */
void
lg_interpose_end(lg_interposition *interposition);

/* The entries of one function in one object only: an object that is never unloaded. */
typedef struct {
    uintptr_t *slots[LG_INTERPOSE_ENTRIES];
    uintptr_t values[LG_INTERPOSE_ENTRIES]; /* what stood there */
    size_t count;
} lg_object_slots;

/* Has the object that holds the address `inside` call `replacement` for `name`. *ret_original (set
 * before the first entry) is what its entries led to. LG_NOT_FOUND, LG_FULL. `slots`: zeroed. */
lg_status
lg_interpose_object(lg_object_slots *slots, const void *inside, const char *name,
                    void (*replacement)(void), _Atomic(void *) *ret_original);

/* Puts back what is still `replacement`. */
void
lg_interpose_object_end(lg_object_slots *slots, void (*replacement)(void));

#endif
