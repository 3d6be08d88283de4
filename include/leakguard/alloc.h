/* Where the core's memory comes from. Tests inject one that fails at the n-th call. */
#ifndef LEAKGUARD_ALLOC_H
#define LEAKGUARD_ALLOC_H

#include <stddef.h>

typedef struct {
    /* Returns a block of `size` bytes, aligned for any type, or NULL. Called from any thread. */
    void *(*allocate)(void *context, size_t size);
    /* Takes a block back; `block` may be NULL. `size` is what was asked for. */
    void (*release)(void *context, void *block, size_t size);
    void *context; /* borrowed; outlives every structure that was given this allocator */
} lg_allocator;

/* The C library's malloc and free; blocks of 32 KiB and more have pages of their own, which go back
 * to the system when they are released. */
lg_allocator
lg_allocator_system(void);

#endif
