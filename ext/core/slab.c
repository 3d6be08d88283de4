#include "leakguard/slab.h"

#include <string.h>

#include "leakguard/base.h"

enum { FIRST_ROOM = 8 };

static void *
take_memory(lg_slab *slab, size_t size)
{
    void *block = slab->allocator.allocate(slab->allocator.context, size);
    if (block != NULL) {
        slab->bytes += size;
    }
    return block;
}

static void
give_memory(lg_slab *slab, void *block, size_t size)
{
    if (block != NULL) {
        slab->bytes -= size;
        slab->allocator.release(slab->allocator.context, block, size);
    }
}

static size_t
chunk_bytes(const lg_slab *slab)
{
    return LG_SLAB_CHUNK_ITEMS * slab->item_size;
}

bool
lg_slab_init(lg_slab *slab, const lg_allocator *allocator, size_t item_size)
{
    *slab = (lg_slab){
        .allocator = *allocator,
        .item_size = item_size,
        .room = FIRST_ROOM,
        .open_head = LG_NO_SLOT,
        .bare_head = LG_NO_SLOT,
        .spare = LG_NO_SLOT,
    };
    slab->chunks = take_memory(slab, FIRST_ROOM * sizeof(lg_slab_chunk));
    return slab->chunks != NULL;
}

void
lg_slab_done(lg_slab *slab)
{
    for (uint32_t number = 0; number < slab->count; number++) {
        give_memory(slab, slab->chunks[number].items, chunk_bytes(slab));
    }
    give_memory(slab, slab->chunks, slab->room * sizeof(lg_slab_chunk));
}

static uint32_t
next_free(const lg_slab *slab, uint32_t slot)
{
    uint32_t next;
    memcpy(&next, lg_slab_at(slab, slot, slab->item_size), sizeof(next));
    return next;
}

static void
set_next_free(lg_slab *slab, uint32_t slot, uint32_t next)
{
    memcpy(lg_slab_at(slab, slot, slab->item_size), &next, sizeof(next));
}

static LG_COLD void
open_push(lg_slab *slab, uint32_t number)
{
    lg_slab_chunk *pushed = &slab->chunks[number];
    pushed->next = slab->open_head;
    pushed->previous = LG_NO_SLOT;
    if (slab->open_head != LG_NO_SLOT) {
        slab->chunks[slab->open_head].previous = number;
    }
    slab->open_head = number;
}

static LG_COLD void
open_remove(lg_slab *slab, uint32_t number)
{
    const lg_slab_chunk *removed = &slab->chunks[number];
    if (removed->previous != LG_NO_SLOT) {
        slab->chunks[removed->previous].next = removed->next;
    }
    else {
        slab->open_head = removed->next;
    }
    if (removed->next != LG_NO_SLOT) {
        slab->chunks[removed->next].previous = removed->previous;
    }
}

static bool
grow_room(lg_slab *slab)
{
    uint32_t room = slab->room * 2;
    lg_slab_chunk *chunks = take_memory(slab, room * sizeof(lg_slab_chunk));
    if (chunks == NULL) {
        return false;
    }
    memcpy(chunks, slab->chunks, slab->count * sizeof(lg_slab_chunk));
    give_memory(slab, slab->chunks, slab->room * sizeof(lg_slab_chunk));
    slab->chunks = chunks;
    slab->room = room;
    return true;
}

/* Makes a chunk of free items the first open one. */
static LG_COLD bool
add_chunk(lg_slab *slab)
{
    uint32_t number = slab->bare_head;
    if (number == LG_NO_SLOT) {
        if (slab->count == slab->room && !grow_room(slab)) {
            return false;
        }
        number = slab->count;
    }
    unsigned char *items = take_memory(slab, chunk_bytes(slab));
    if (items == NULL) {
        return false;
    }
    /* Also for whoever asks lg_slab_has and looks at an item that was never taken. */
    memset(items, 0, chunk_bytes(slab));
    if (number == slab->bare_head) {
        slab->bare_head = slab->chunks[number].next;
    }
    else {
        slab->count++;
    }
    uint32_t first = number << LG_SLAB_CHUNK_BITS;
    slab->chunks[number] = (lg_slab_chunk){.items = items, .free_head = first};
    for (uint32_t i = 0; i < LG_SLAB_CHUNK_ITEMS; i++) {
        set_next_free(slab, first + i, i + 1 < LG_SLAB_CHUNK_ITEMS ? first + i + 1 : LG_NO_SLOT);
    }
    open_push(slab, number);
    return true;
}

uint32_t
lg_slab_take(lg_slab *slab)
{
    if (slab->open_head == LG_NO_SLOT && !add_chunk(slab)) {
        return LG_NO_SLOT;
    }
    uint32_t number = slab->open_head;
    lg_slab_chunk *open = &slab->chunks[number];
    uint32_t slot = open->free_head;
    open->free_head = next_free(slab, slot);
    open->used++;
    if (number == slab->spare) {
        slab->spare = LG_NO_SLOT;
    }
    if (open->free_head == LG_NO_SLOT) {
        open_remove(slab, number);
    }
    return slot;
}

/* One wholly free chunk is kept, so that a number of items that swings around a chunk's border does
 * not allocate each time. */
static LG_COLD void
chunk_emptied(lg_slab *slab, uint32_t number)
{
    if (slab->spare == LG_NO_SLOT) {
        slab->spare = number;
        return;
    }
    lg_slab_chunk *empty = &slab->chunks[number];
    open_remove(slab, number);
    give_memory(slab, empty->items, chunk_bytes(slab));
    *empty = (lg_slab_chunk){.next = slab->bare_head};
    slab->bare_head = number;
}

void
lg_slab_give(lg_slab *slab, uint32_t slot)
{
    uint32_t number = slot >> LG_SLAB_CHUNK_BITS;
    lg_slab_chunk *owner = &slab->chunks[number];
    set_next_free(slab, slot, owner->free_head);
    if (owner->free_head == LG_NO_SLOT) {
        open_push(slab, number);
    }
    owner->free_head = slot;
    owner->used--;
    if (owner->used == 0) {
        chunk_emptied(slab, number);
    }
}

bool
lg_slab_has(const lg_slab *slab, uint32_t slot)
{
    uint32_t number = slot >> LG_SLAB_CHUNK_BITS;
    return number < slab->count && slab->chunks[number].items != NULL;
}
