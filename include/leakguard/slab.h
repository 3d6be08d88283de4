/* A slab: items of one size, named by 32-bit slots.
 *
 * Items live in chunks that never move, so a slot is 4 bytes where a pointer is 8, and an item keeps
 * its address as long as it is taken. A chunk that is wholly free is given back, but for one. Not
 * thread-safe: its owner's lock guards it.
 */
#ifndef LEAKGUARD_SLAB_H
#define LEAKGUARD_SLAB_H

#include <stdbool.h>
#include <stdint.h>

#include "leakguard/alloc.h"

#define LG_NO_SLOT UINT32_MAX
#define LG_SLAB_CHUNK_BITS 10
#define LG_SLAB_CHUNK_ITEMS (1u << LG_SLAB_CHUNK_BITS)

typedef struct {
    unsigned char *items; /* owned; NULL where the chunk has no memory */
    uint32_t used;
    uint32_t free_head; /* slot or LG_NO_SLOT */
    uint32_t next;      /* chunks with free items; of one without memory: the next such */
    uint32_t previous;
} lg_slab_chunk;

/* Not opaque, so that its owner can hold it by value and lg_slab_at costs nothing; its members are
 * the slab's own. */
typedef struct {
    lg_slab_chunk *chunks;
    uint32_t open_head; /* chunks with free items */
    uint32_t spare;     /* a chunk that is wholly free and kept, or LG_NO_SLOT */
    uint32_t bare_head; /* chunks without memory, to be used again */
    uint32_t room;      /* of `chunks` */
    uint32_t count;     /* how many chunks were ever used */
    size_t item_size;   /* at least 4: a free item holds the next free slot */
    size_t bytes;       /* allocated, all told */
    lg_allocator allocator;
} lg_slab;

/* False where memory ran out; then nothing is to be undone. */
bool
lg_slab_init(lg_slab *slab, const lg_allocator *allocator, size_t item_size);

/* Gives back all memory, whatever is taken. */
void
lg_slab_done(lg_slab *slab);

/* A free slot, its item's content undefined; LG_NO_SLOT where memory ran out (nothing has changed).
 * Once warm it allocates nothing. */
uint32_t
lg_slab_take(lg_slab *slab);

/* Gives a slot back; never fails. All but the first 4 bytes of the item stay as they are while its
 * chunk keeps its memory. */
void
lg_slab_give(lg_slab *slab, uint32_t slot);

/* Whether `slot` lies in a chunk that has memory: only then may it be looked at. */
bool
lg_slab_has(const lg_slab *slab, uint32_t slot);

/* The item in a slot. `item_size` is the slab's, given again so that it is a constant. */
static inline void *
lg_slab_at(const lg_slab *slab, uint32_t slot, size_t item_size)
{
    return slab->chunks[slot >> LG_SLAB_CHUNK_BITS].items
           + (size_t)(slot & (LG_SLAB_CHUNK_ITEMS - 1)) * item_size;
}

#endif
