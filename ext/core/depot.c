#include "leakguard/depot.h"

#include <string.h>

enum { FIRST_TABLE = 64, FIRST_IDS = 64, LEAST_BYTES = 4096, MOST_UNUSED = 512 };

typedef struct stored {
    union {
        uint64_t hash;
        struct stored *next; /* once it is evicted */
    };
    uint32_t id;
    uint32_t uses;
    uint32_t count;
    uint32_t inner;
    bool truncated;
    lg_frame frames[];
} stored;

struct lg_depot {
    lg_lock *lock;       /* its own or the tracker's; guards all that follows */
    stored **by_id;      /* [0] is never used; NULL where an id is free */
    uint32_t *next_free; /* of a free id: the next free one, 0 at the end */
    uint32_t ids;        /* how many of by_id were ever used, [0] included */
    uint32_t ids_room;   /* allocated */
    uint32_t free_head;  /* 0: none */
    size_t used;
    size_t count;
    stored **table; /* open addressing by hash, at most half full; NULL is empty */
    size_t table_size;
    size_t bytes;
    lg_depot_config config;
    lg_lock own_lock;
};

static void *
take(lg_depot *depot, size_t size)
{
    void *block = depot->config.allocator.allocate(depot->config.allocator.context, size);
    if (block != NULL) {
        depot->bytes += size;
    }
    return block;
}

static void
give(lg_depot *depot, void *block, size_t size)
{
    if (block != NULL) {
        depot->bytes -= size;
        depot->config.allocator.release(depot->config.allocator.context, block, size);
    }
}

static size_t
stored_size(uint32_t count)
{
    return sizeof(stored) + (size_t)count * sizeof(lg_frame);
}

lg_status
lg_depot_new(const lg_depot_config *config, lg_depot **ret_depot)
{
    lg_depot *depot = config->allocator.allocate(config->allocator.context, sizeof(*depot));
    if (depot == NULL) {
        return LG_NO_MEMORY;
    }
    memset(depot, 0, sizeof(*depot));
    depot->config = *config;
    if (depot->config.max_bytes < LEAST_BYTES) {
        depot->config.max_bytes = LEAST_BYTES;
    }
    depot->bytes = sizeof(*depot);
    depot->ids = 1;
    depot->table = take(depot, FIRST_TABLE * sizeof(*depot->table));
    depot->by_id = take(depot, FIRST_IDS * sizeof(*depot->by_id));
    depot->next_free = take(depot, FIRST_IDS * sizeof(*depot->next_free));
    if (depot->table == NULL || depot->by_id == NULL || depot->next_free == NULL) {
        give(depot, depot->table, FIRST_TABLE * sizeof(*depot->table));
        give(depot, depot->by_id, FIRST_IDS * sizeof(*depot->by_id));
        give(depot, depot->next_free, FIRST_IDS * sizeof(*depot->next_free));
        config->allocator.release(config->allocator.context, depot, sizeof(*depot));
        return LG_NO_MEMORY;
    }
    lg_lock_reset(&depot->own_lock);
    depot->lock = &depot->own_lock;
    depot->table_size = FIRST_TABLE;
    depot->ids_room = FIRST_IDS;
    memset(depot->table, 0, FIRST_TABLE * sizeof(*depot->table));
    *ret_depot = depot;
    return LG_OK;
}

void
lg__depot_share_lock(lg_depot *depot, lg_lock *lock)
{
    depot->lock = lock;
}

static void
release_frames(const stored *stack, lg_frame_release release, void *context)
{
    for (uint32_t i = 0; release != NULL && i < stack->count; i++) {
        release(context, stack->frames[i]);
    }
}

void
lg_depot_free(lg_depot *depot, lg_frame_release release, void *context)
{
    if (depot == NULL) {
        return;
    }
    for (size_t i = 0; i < depot->table_size; i++) {
        if (depot->table[i] != NULL) {
            release_frames(depot->table[i], release, context);
            give(depot, depot->table[i], stored_size(depot->table[i]->count));
        }
    }
    give(depot, depot->table, depot->table_size * sizeof(*depot->table));
    give(depot, depot->by_id, depot->ids_room * sizeof(*depot->by_id));
    give(depot, depot->next_free, depot->ids_room * sizeof(*depot->next_free));
    lg_allocator allocator = depot->config.allocator;
    allocator.release(allocator.context, depot, sizeof(*depot));
}

static bool
is_equal(const stored *stack, const lg_stack *wanted)
{
    return stack->hash == wanted->hash && stack->count == wanted->count
           && stack->inner == wanted->inner && stack->truncated == wanted->truncated
           && memcmp(stack->frames, wanted->frames, wanted->count * sizeof(lg_frame)) == 0;
}

/* Where the stack stands, or the empty place where it would. */
static stored **
find_place(stored **table, size_t size, const lg_stack *wanted)
{
    size_t i = (size_t)wanted->hash & (size - 1);
    while (table[i] != NULL && !is_equal(table[i], wanted)) {
        i = (i + 1) & (size - 1);
    }
    return &table[i];
}

/* Puts in a stack that is known not to be there. */
static void
put(stored **table, size_t size, stored *stack)
{
    size_t i = (size_t)stack->hash & (size - 1);
    while (table[i] != NULL) {
        i = (i + 1) & (size - 1);
    }
    table[i] = stack;
}

static bool
has_room(const lg_depot *depot, size_t more)
{
    return depot->bytes + more <= depot->config.max_bytes;
}

static LG_COLD lg_status
grow_table(lg_depot *depot)
{
    size_t size = depot->table_size * 2;
    if (!has_room(depot, size * sizeof(*depot->table))) {
        return LG_FULL;
    }
    stored **table = take(depot, size * sizeof(*table));
    if (table == NULL) {
        return LG_NO_MEMORY;
    }
    memset(table, 0, size * sizeof(*table));
    for (size_t i = 0; i < depot->table_size; i++) {
        if (depot->table[i] != NULL) {
            put(table, size, depot->table[i]);
        }
    }
    give(depot, depot->table, depot->table_size * sizeof(*depot->table));
    depot->table = table;
    depot->table_size = size;
    return LG_OK;
}

static LG_COLD lg_status
grow_ids(lg_depot *depot)
{
    uint32_t room = depot->ids_room * 2;
    if (!has_room(depot, room * (sizeof(stored *) + sizeof(uint32_t)))) {
        return LG_FULL;
    }
    stored **by_id = take(depot, room * sizeof(*by_id));
    uint32_t *next_free = take(depot, room * sizeof(*next_free));
    if (by_id == NULL || next_free == NULL) {
        give(depot, by_id, room * sizeof(*by_id));
        give(depot, next_free, room * sizeof(*next_free));
        return LG_NO_MEMORY;
    }
    memcpy(by_id, depot->by_id, depot->ids * sizeof(*by_id));
    memcpy(next_free, depot->next_free, depot->ids * sizeof(*next_free));
    give(depot, depot->by_id, depot->ids_room * sizeof(*by_id));
    give(depot, depot->next_free, depot->ids_room * sizeof(*next_free));
    depot->by_id = by_id;
    depot->next_free = next_free;
    depot->ids_room = room;
    return LG_OK;
}

static lg_status
make_room(lg_depot *depot)
{
    if (depot->free_head == 0 && depot->ids == depot->ids_room) {
        lg_status status = grow_ids(depot);
        if (status != LG_OK) {
            return status;
        }
    }
    return (depot->count + 1) * 2 > depot->table_size ? grow_table(depot) : LG_OK;
}

static uint32_t
take_id(lg_depot *depot)
{
    uint32_t id = depot->free_head;
    if (id == 0) {
        return depot->ids++;
    }
    depot->free_head = depot->next_free[id];
    return id;
}

/* Stores a stack that is not known yet, with one use. */
static LG_COLD lg_status
store(lg_depot *depot, const lg_stack *wanted, uint32_t *ret_id)
{
    size_t size = stored_size(wanted->count);
    size_t unused = depot->count - depot->used;
    if (unused > MOST_UNUSED && unused > depot->used) {
        return LG_FULL;
    }
    lg_status status = make_room(depot);
    if (status != LG_OK) {
        return status;
    }
    if (!has_room(depot, size)) {
        return LG_FULL;
    }
    stored *stack = take(depot, size);
    if (stack == NULL) {
        return LG_NO_MEMORY;
    }
    *stack = (stored){
        .hash = wanted->hash,
        .id = take_id(depot),
        .uses = 1,
        .count = wanted->count,
        .inner = wanted->inner,
        .truncated = wanted->truncated,
    };
    memcpy(stack->frames, wanted->frames, wanted->count * sizeof(lg_frame));
    for (uint32_t i = 0; depot->config.retain != NULL && i < stack->count; i++) {
        depot->config.retain(stack->frames[i]);
    }
    put(depot->table, depot->table_size, stack);
    depot->by_id[stack->id] = stack;
    depot->count++;
    depot->used++;
    *ret_id = stack->id;
    return LG_OK;
}

lg_status
lg__depot_intern(lg_depot *depot, const lg_stack *stack, lg_stack_id *ret_id)
{
    if (stack->count == 0) {
        *ret_id = LG_STACK_EMPTY;
        return LG_OK;
    }
    stored *known = *find_place(depot->table, depot->table_size, stack);
    if (known == NULL) {
        return store(depot, stack, ret_id);
    }
    depot->used += known->uses == 0;
    known->uses++;
    *ret_id = known->id;
    return LG_OK;
}

lg_status
lg_depot_intern(lg_depot *depot, const lg_stack *stack, lg_stack_id *ret_id)
{
    lg_lock_take(depot->lock);
    lg_status status = lg__depot_intern(depot, stack, ret_id);
    lg_lock_give(depot->lock);
    return status;
}

static stored *
stored_with_id(const lg_depot *depot, lg_stack_id id)
{
    return id != LG_STACK_EMPTY && id < depot->ids ? depot->by_id[id] : NULL;
}

void
lg__depot_drop(lg_depot *depot, lg_stack_id id)
{
    stored *stack = stored_with_id(depot, id);
    if (stack != NULL && stack->uses > 0) {
        stack->uses--;
        depot->used -= stack->uses == 0;
    }
}

void
lg_depot_drop(lg_depot *depot, lg_stack_id id)
{
    lg_lock_take(depot->lock);
    lg__depot_drop(depot, id);
    lg_lock_give(depot->lock);
}

bool
lg__depot_hold(lg_depot *depot, lg_stack_id id)
{
    stored *stack = stored_with_id(depot, id);
    if (stack == NULL) {
        return false;
    }
    depot->used += stack->uses == 0;
    stack->uses++;
    return true;
}

bool
lg_depot_hold(lg_depot *depot, lg_stack_id id)
{
    lg_lock_take(depot->lock);
    bool held = lg__depot_hold(depot, id);
    lg_lock_give(depot->lock);
    return held;
}

lg_status
lg_depot_get(lg_depot *depot, lg_stack_id id, lg_stack *ret_stack)
{
    if (id == LG_STACK_EMPTY) {
        *ret_stack = (lg_stack){0};
        return LG_OK;
    }
    lg_lock_take(depot->lock);
    const stored *stack = stored_with_id(depot, id);
    if (stack != NULL) {
        *ret_stack = (lg_stack){
            .frames = stack->frames,
            .count = stack->count,
            .inner = stack->inner,
            .truncated = stack->truncated,
            .hash = stack->hash,
        };
    }
    lg_lock_give(depot->lock);
    return stack != NULL ? LG_OK : LG_NOT_FOUND;
}

/* Takes the unused stacks out; returns them as a chain. */
static stored *
unlink_unused(lg_depot *depot)
{
    stored *chain = NULL;
    memset(depot->table, 0, depot->table_size * sizeof(*depot->table));
    for (uint32_t id = 1; id < depot->ids; id++) {
        stored *stack = depot->by_id[id];
        if (stack == NULL) {
            continue;
        }
        if (stack->uses > 0) {
            put(depot->table, depot->table_size, stack);
            continue;
        }
        depot->by_id[id] = NULL;
        depot->next_free[id] = depot->free_head;
        depot->free_head = id;
        depot->count--;
        depot->bytes -= stored_size(stack->count);
        stack->next = chain;
        chain = stack;
    }
    return chain;
}

size_t
lg_depot_evict(lg_depot *depot, lg_frame_release release, void *context)
{
    lg_lock_take(depot->lock);
    stored *chain = unlink_unused(depot);
    lg_lock_give(depot->lock);

    lg_allocator allocator = depot->config.allocator;
    size_t evicted = 0;
    while (chain != NULL) {
        stored *stack = chain;
        chain = stack->next;
        release_frames(stack, release, context);
        allocator.release(allocator.context, stack, stored_size(stack->count));
        evicted++;
    }
    return evicted;
}

lg_depot_stats
lg_depot_get_stats(lg_depot *depot)
{
    lg_lock_take(depot->lock);
    lg_depot_stats stats = {depot->count, depot->used, depot->bytes};
    lg_lock_give(depot->lock);
    return stats;
}

void
lg_depot_lock(lg_depot *depot)
{
    lg_lock_take(depot->lock);
}

void
lg_depot_unlock(lg_depot *depot)
{
    lg_lock_give(depot->lock);
}

void
lg_depot_reset_lock(lg_depot *depot)
{
    lg_lock_reset(depot->lock);
}
