/* Records live in a slab and are named by 32-bit slots, so that a record costs 48 bytes and its
 * place in the index 4. The index scatters blocks of addresses and keeps neighbours together: tasks
 * are allocated side by side, and where each is scattered it costs a cache miss for each insertion
 * and removal. Where all are kept together (address >> 7), small objects packed tightly (timers)
 * make one long run, and each removal walks it. Beside the slot stands how far it is from its home:
 * a search looks at no record that has another home, and a removal at none.
 */
#include "leakguard/registry.h"

#include <string.h>

#include "leakguard/slab.h"
#include "leakguard/watermark.h"

#define NOBODY LG_NO_SLOT
#define MOST_CHILDREN ((1u << 24) - 1) /* beyond, the number sticks: the ghost stays for ever */

enum { FIRST_INDEX = 4096 }; /* 16 KiB: up to a thousand records hardly collide */
/* A place of the index: slot + 1, and above it the distance from its home; 0 is empty. */
enum { SLOT_BITS = 26, FARTHEST = 63 };
#define SLOT_MASK ((UINT32_C(1) << SLOT_BITS) - 1)
enum { GHOST = 1u << 1, DOOMED = 1u << 2, ENDED = 1u << 3 }; /* beside LG_FOUND */

typedef struct {
    union {
        const void *object; /* of a live record */
        lg_note *note;      /* of a ghost; may be NULL */
    };
    uint64_t serial;
    int64_t born;
    lg_stack_id stack;
    uint32_t scope;
    uint32_t creator; /* slot or NOBODY */
    uint32_t newer;   /* slot of the next live record by birth */
    uint32_t older;
    unsigned children : 24;
    unsigned kind : 4;
    unsigned flags : 4;
} entry;

/* What each insertion and removal asks for stands first. */
struct lg_registry {
    lg_lock *lock; /* its own or the tracker's; guards all that follows */
    uint32_t *index;
    uint32_t index_size;   /* a power of two */
    uint32_t last_creator; /* slot of a live record, or NOBODY: creators come in runs */
    uint32_t live;
    uint32_t oldest;
    uint32_t newest;
    uint64_t last_serial;
    lg__marks *marks; /* of open watermarks; NULL where none is */
    lg_slab entries;
    lg_kind_count kinds[LG_KIND_LIMIT];
    size_t ghosts;
    size_t bytes; /* beside the slab's */
    lg_allocator allocator;
    lg_lock own_lock;
};

static void
lock(lg_registry *registry)
{
    lg_lock_take(registry->lock);
}

static void
unlock(lg_registry *registry)
{
    lg_lock_give(registry->lock);
}

static void *
take(lg_registry *registry, size_t size)
{
    void *block = registry->allocator.allocate(registry->allocator.context, size);
    if (block != NULL) {
        registry->bytes += size;
    }
    return block;
}

static void
give(lg_registry *registry, void *block, size_t size)
{
    if (block != NULL) {
        registry->bytes -= size;
        registry->allocator.release(registry->allocator.context, block, size);
    }
}

static entry *
at(const lg_registry *registry, uint32_t slot)
{
    return lg_slab_at(&registry->entries, slot, sizeof(entry));
}

lg_status
lg_registry_new(const lg_allocator *allocator, uint64_t first_serial, lg_registry **ret_registry)
{
    lg_registry *registry = allocator->allocate(allocator->context, sizeof(*registry));
    if (registry == NULL) {
        return LG_NO_MEMORY;
    }
    *registry = (lg_registry){
        .allocator = *allocator,
        .bytes = sizeof(*registry),
        .index_size = FIRST_INDEX,
        .oldest = NOBODY,
        .newest = NOBODY,
        .last_creator = NOBODY,
        .last_serial = first_serial - 1,
    };
    bool has_slab = lg_slab_init(&registry->entries, allocator, sizeof(entry));
    registry->index = take(registry, FIRST_INDEX * sizeof(*registry->index));
    if (!has_slab || registry->index == NULL) {
        if (has_slab) {
            lg_slab_done(&registry->entries);
        }
        give(registry, registry->index, FIRST_INDEX * sizeof(*registry->index));
        allocator->release(allocator->context, registry, sizeof(*registry));
        return LG_NO_MEMORY;
    }
    memset(registry->index, 0, FIRST_INDEX * sizeof(*registry->index));
    lg_lock_reset(&registry->own_lock);
    registry->lock = &registry->own_lock;
    *ret_registry = registry;
    return LG_OK;
}

void
lg__registry_share_lock(lg_registry *registry, lg_lock *lock)
{
    registry->lock = lock;
}

/* Gives an entry back, so that no later look takes it for a ghost. */
static void
free_entry(lg_registry *registry, uint32_t slot)
{
    entry *freed = at(registry, slot);
    freed->serial = 0;
    freed->flags = 0;
    lg_slab_give(&registry->entries, slot);
}

/* Index. */

/* A block of 512 bytes has 8 places side by side, one for each 64 bytes. */
static uint32_t
home(uint32_t size, const void *object)
{
    uint64_t address = (uintptr_t)object;
    uint64_t scattered = (address >> 9) * UINT64_C(0x9E3779B97F4A7C15) >> 32;
    return (uint32_t)(scattered * (size / 8) >> 32) * 8 + (uint32_t)(address >> 6 & 7);
}

static uint32_t
slot_at(const lg_registry *registry, uint32_t place)
{
    return (registry->index[place] & SLOT_MASK) - 1;
}

/* How the index says it: FARTHEST for that distance and all above. */
static uint32_t
told(uint32_t distance)
{
    return distance < FARTHEST ? distance : FARTHEST;
}

/* Where the search for an object ends: at its place, or at the empty one where it would stand. */
typedef struct {
    uint32_t place;
    uint32_t distance; /* from its home */
} found_place;

static inline bool
ends_at(const lg_registry *registry, found_place found, const void *object)
{
    uint32_t word = registry->index[found.place];
    return word == 0
           || (word >> SLOT_BITS == told(found.distance)
               && at(registry, (word & SLOT_MASK) - 1)->object == object);
}

static inline found_place
search(const lg_registry *registry, const void *object)
{
    found_place found = {home(registry->index_size, object), 0};
    while (!ends_at(registry, found, object)) {
        found.place = (found.place + 1) & (registry->index_size - 1);
        found.distance++;
    }
    return found;
}

static uint32_t
find_slot(const lg_registry *registry, const void *object)
{
    uint32_t word = registry->index[search(registry, object).place];
    return (word & SLOT_MASK) - 1; /* of an empty place: NOBODY */
}

static void
index_put(uint32_t *index, uint32_t size, const void *object, uint32_t slot)
{
    uint32_t i = home(size, object);
    uint32_t distance = 0;
    while (index[i] != 0) {
        i = (i + 1) & (size - 1);
        distance++;
    }
    index[i] = told(distance) << SLOT_BITS | (slot + 1);
}

/* False where memory ran out; then the old index serves on. */
static LG_COLD bool
resize_index(lg_registry *registry, uint32_t size)
{
    uint32_t *index = take(registry, size * sizeof(*index));
    if (index == NULL) {
        return false;
    }
    memset(index, 0, size * sizeof(*index));
    for (uint32_t i = 0; i < registry->index_size; i++) {
        if (registry->index[i] != 0) {
            uint32_t slot = slot_at(registry, i);
            index_put(index, size, at(registry, slot)->object, slot);
        }
    }
    give(registry, registry->index, registry->index_size * sizeof(*index));
    registry->index = index;
    registry->index_size = size;
    return true;
}

static uint32_t
distance_at(const lg_registry *registry, uint32_t place)
{
    uint32_t distance = registry->index[place] >> SLOT_BITS;
    if (distance == FARTHEST) {
        const void *object = at(registry, slot_at(registry, place))->object;
        distance = (place - home(registry->index_size, object)) & (registry->index_size - 1);
    }
    return distance;
}

/* Empties a place, and moves back what had to give way to it: no tombstones. */
static void
index_remove(lg_registry *registry, uint32_t hole)
{
    uint32_t mask = registry->index_size - 1;
    uint32_t gap = 1;
    for (uint32_t i = (hole + 1) & mask; registry->index[i] != 0; i = (i + 1) & mask, gap++) {
        /* It may move only if its home is not between the hole and its place. */
        uint32_t distance = distance_at(registry, i);
        if (distance >= gap) {
            registry->index[hole] =
                told(distance - gap) << SLOT_BITS | (registry->index[i] & SLOT_MASK);
            hole = i;
            gap = 0;
        }
    }
    registry->index[hole] = 0;
    if (registry->index_size > FIRST_INDEX && registry->live < registry->index_size / 8) {
        (void)resize_index(registry, registry->index_size / 2);
    }
}

/* Records. */

static lg_record
copy_of(const lg_registry *registry, const entry *source)
{
    bool ghost = (source->flags & GHOST) != 0;
    return (lg_record){
        .object = ghost ? NULL : source->object,
        .serial = source->serial,
        .creator = source->creator == NOBODY ? 0 : at(registry, source->creator)->serial,
        .born = source->born,
        .stack = source->stack,
        .scope = source->scope,
        .kind = (lg_kind)source->kind,
        .flags = source->flags & LG_FOUND,
        .children = source->children,
    };
}

static void
link_newest(lg_registry *registry, uint32_t slot)
{
    if (registry->newest != NOBODY) {
        at(registry, registry->newest)->newer = slot;
    }
    else {
        registry->oldest = slot;
    }
    registry->newest = slot;
}

static void
unlink_by_birth(lg_registry *registry, const entry *removed)
{
    if (removed->older != NOBODY) {
        at(registry, removed->older)->newer = removed->newer;
    }
    else {
        registry->oldest = removed->newer;
    }
    if (removed->newer != NOBODY) {
        at(registry, removed->newer)->older = removed->older;
    }
    else {
        registry->newest = removed->older;
    }
}

static void
add_child(lg_registry *registry, uint32_t slot)
{
    entry *creator = at(registry, slot);
    if (creator->children < MOST_CHILDREN) {
        creator->children = (creator->children + 1) & MOST_CHILDREN;
    }
}

/* A record names `slot` no more. Frees it if it was a ghost for that record alone, and so on up
 * the line; adds the notes of what goes to *notes. */
static void
drop_child(lg_registry *registry, uint32_t slot, lg_note **notes)
{
    while (slot != NOBODY) {
        entry *creator = at(registry, slot);
        if (creator->children < MOST_CHILDREN) {
            creator->children = (creator->children - 1) & MOST_CHILDREN;
        }
        if ((creator->flags & GHOST) == 0 || creator->children > 0) {
            return;
        }
        if (creator->note != NULL) {
            creator->note->next = *notes;
            *notes = creator->note;
        }
        uint32_t next = creator->creator;
        registry->ghosts--;
        free_entry(registry, slot);
        slot = next;
    }
}

/* For open watermarks; apart, so that where none is these cost a comparison. */

static LG_COLD void
count_birth(lg_registry *registry, uint32_t slot)
{
    lg_record record = copy_of(registry, at(registry, slot));
    lg__marks_born(registry->marks, &record);
}

static LG_COLD void
count_removal(lg_registry *registry, uint32_t place, bool cancelled)
{
    const entry *removed = at(registry, slot_at(registry, place));
    lg_record record = copy_of(registry, removed);
    lg__marks_gone(registry->marks, &record, (removed->flags & ENDED) == 0, cancelled);
}

static uint32_t
find_creator(lg_registry *registry, const void *creator)
{
    uint32_t slot = registry->last_creator;
    if (slot == NOBODY || at(registry, slot)->object != creator) {
        slot = find_slot(registry, creator);
        registry->last_creator = slot;
    }
    return slot;
}

lg_status
lg__registry_insert(lg_registry *registry, const lg_birth *birth, lg_stack_id stack,
                    uint64_t *ret_serial)
{
    found_place found = search(registry, birth->object);
    if (registry->index[found.place] != 0) {
        return LG_EXISTS;
    }
    if ((uint64_t)(registry->live + 1) * 5 > (uint64_t)registry->index_size * 3) {
        if (!resize_index(registry, registry->index_size * 2)) {
            return LG_NO_MEMORY;
        }
        found = search(registry, birth->object);
    }
    uint32_t slot = lg_slab_take(&registry->entries);
    if (LG_RARELY(slot >= SLOT_MASK)) {
        if (slot != NOBODY) {
            lg_slab_give(&registry->entries, slot);
        }
        return LG_NO_MEMORY;
    }
    uint32_t creator = birth->creator == NULL ? NOBODY : find_creator(registry, birth->creator);
    entry *added = at(registry, slot);
    *added = (entry){
        .object = birth->object,
        .serial = ++registry->last_serial,
        .born = birth->born,
        .stack = stack,
        .scope = birth->scope,
        .creator = creator,
        .newer = NOBODY,
        .older = registry->newest,
        .kind = (unsigned)birth->kind & 15u,
        .flags = birth->flags & LG_FOUND,
    };
    if (creator != NOBODY) {
        add_child(registry, creator);
        if (birth->scope < at(registry, creator)->scope) {
            added->scope = at(registry, creator)->scope;
        }
    }
    link_newest(registry, slot);
    registry->index[found.place] = told(found.distance) << SLOT_BITS | (slot + 1);
    registry->live++;
    registry->kinds[birth->kind].created++;
    if (registry->marks != NULL) {
        count_birth(registry, slot);
    }
    *ret_serial = registry->last_serial;
    return LG_OK;
}

lg_status
lg_registry_insert(lg_registry *registry, const lg_birth *birth, uint64_t *ret_serial)
{
    lock(registry);
    lg_status status = lg__registry_insert(registry, birth, birth->stack, ret_serial);
    unlock(registry);
    return status;
}

static bool
is_thread(const entry *record)
{
    return record->kind == LG_THREAD || record->kind == LG_NATIVE_THREAD;
}

/* Makes a record that others name as their creator a ghost. */
static __attribute__((noinline)) void
make_ghost(lg_registry *registry, uint32_t slot, lg_note **notes)
{
    entry *ended = at(registry, slot);
    ended->flags = (ended->flags | GHOST) & 15u;
    ended->note = NULL;
    registry->ghosts++;
    /* Link past creators that are ghosts themselves, or a chain of them would grow for ever; but
     * not past the thread that this belongs to. */
    uint32_t creator = ended->creator;
    uint32_t further = creator;
    while (further != NOBODY && (at(registry, further)->flags & GHOST) != 0
           && (!is_thread(at(registry, further)) || is_thread(ended))) {
        further = at(registry, further)->creator;
    }
    if (further != creator) {
        ended->creator = further;
        if (further != NOBODY) {
            add_child(registry, further);
        }
        drop_child(registry, creator, notes);
    }
}

/* Ends the record at a place of the index. */
static void
end_record(lg_registry *registry, uint32_t place, bool cancelled, lg_removed *ret_removed)
{
    if (registry->marks != NULL) {
        count_removal(registry, place, cancelled);
    }
    uint32_t slot = slot_at(registry, place);
    entry *ended = at(registry, slot);
    *ret_removed = (lg_removed){.serial = ended->serial, .stack = ended->stack, .slot = slot};
    if (LG_RARELY(cancelled)) {
        registry->kinds[ended->kind].created--;
    }
    else {
        registry->kinds[ended->kind].ended++;
    }
    registry->live--;
    index_remove(registry, place);
    unlink_by_birth(registry, ended);
    if (registry->last_creator == slot) {
        registry->last_creator = NOBODY;
    }
    if (ended->children > 0) {
        ret_removed->is_creator = true;
        make_ghost(registry, slot, &ret_removed->notes);
        return;
    }
    uint32_t creator = ended->creator;
    free_entry(registry, slot);
    drop_child(registry, creator, &ret_removed->notes);
}

lg_status
lg__registry_remove(lg_registry *registry, const void *object, bool cancelled,
                    lg_removed *ret_removed)
{
    uint32_t place = search(registry, object).place;
    if (registry->index[place] == 0) {
        return LG_NOT_FOUND;
    }
    end_record(registry, place, cancelled, ret_removed);
    return LG_OK;
}

lg_status
lg_registry_remove(lg_registry *registry, const void *object, lg_removed *ret_removed)
{
    lock(registry);
    lg_status status = lg__registry_remove(registry, object, false, ret_removed);
    unlock(registry);
    return status;
}

lg_status
lg_registry_cancel(lg_registry *registry, const void *object, lg_removed *ret_removed)
{
    lock(registry);
    lg_status status = lg__registry_remove(registry, object, true, ret_removed);
    unlock(registry);
    return status;
}

lg_status
lg_registry_end(lg_registry *registry, const void *object)
{
    lg_status status = LG_NOT_FOUND;
    lock(registry);
    uint32_t slot = find_slot(registry, object);
    if (slot != NOBODY) {
        entry *ended = at(registry, slot);
        status = (ended->flags & ENDED) != 0 ? LG_EXISTS : LG_OK;
        ended->flags = (ended->flags | ENDED) & 15u;
        if (status == LG_OK && registry->marks != NULL) {
            lg_record record = copy_of(registry, ended);
            lg__marks_ended(registry->marks, &record);
        }
    }
    unlock(registry);
    return status;
}

lg__marks *
lg__registry_marks(lg_registry *registry)
{
    return registry->marks;
}

lg__marks **
lg__registry_lock_marks(lg_registry *registry)
{
    lock(registry);
    return &registry->marks;
}

void
lg__registry_unlock_marks(lg_registry *registry)
{
    unlock(registry);
}

/* A ghost may have gone, and its slot may be another record's, since it was removed. */
static entry *
find_ghost(const lg_registry *registry, const lg_removed *removed)
{
    if (!lg_slab_has(&registry->entries, removed->slot)) {
        return NULL;
    }
    entry *ghost = at(registry, removed->slot);
    return ghost->serial == removed->serial && (ghost->flags & GHOST) != 0 ? ghost : NULL;
}

lg_status
lg_registry_annotate(lg_registry *registry, const lg_removed *removed, lg_note *note)
{
    lg_status status = LG_OK;
    lock(registry);
    entry *ghost = find_ghost(registry, removed);
    if (ghost == NULL) {
        status = LG_NOT_FOUND;
    }
    else if (ghost->note != NULL) {
        status = LG_EXISTS;
    }
    else {
        note->next = NULL;
        ghost->note = note;
    }
    unlock(registry);
    return status;
}

lg_note *
lg_registry_free(lg_registry *registry)
{
    if (registry == NULL) {
        return NULL;
    }
    lg_note *notes = NULL;
    uint32_t slots = registry->entries.count << LG_SLAB_CHUNK_BITS;
    for (uint32_t slot = 0; registry->ghosts > 0 && slot < slots; slot++) {
        if (!lg_slab_has(&registry->entries, slot)) {
            slot |= LG_SLAB_CHUNK_ITEMS - 1;
            continue;
        }
        const entry *found = at(registry, slot);
        if ((found->flags & GHOST) != 0 && found->note != NULL) {
            found->note->next = notes;
            notes = found->note;
        }
    }
    lg__marks_free(registry->marks);
    lg_slab_done(&registry->entries);
    give(registry, registry->index, registry->index_size * sizeof(*registry->index));
    lg_allocator allocator = registry->allocator;
    allocator.release(allocator.context, registry, sizeof(*registry));
    return notes;
}

lg_status
lg_registry_find(lg_registry *registry, const void *object, lg_record *ret_record)
{
    lock(registry);
    uint32_t slot = find_slot(registry, object);
    if (slot != NOBODY) {
        *ret_record = copy_of(registry, at(registry, slot));
    }
    unlock(registry);
    return slot != NOBODY ? LG_OK : LG_NOT_FOUND;
}

lg_status
lg_registry_find_creator(lg_registry *registry, const void *object, lg_record *ret_creator,
                         const lg_note **ret_note)
{
    lock(registry);
    uint32_t slot = find_slot(registry, object);
    uint32_t creator = slot == NOBODY ? NOBODY : at(registry, slot)->creator;
    if (creator != NOBODY) {
        const entry *found = at(registry, creator);
        *ret_creator = copy_of(registry, found);
        *ret_note = (found->flags & GHOST) != 0 ? found->note : NULL;
    }
    unlock(registry);
    return creator != NOBODY ? LG_OK : LG_NOT_FOUND;
}

void
lg_registry_visit_line(lg_registry *registry, const void *object, lg_visit visit, void *context)
{
    lock(registry);
    for (uint32_t slot = find_slot(registry, object); slot != NOBODY;
         slot = at(registry, slot)->creator) {
        lg_record record = copy_of(registry, at(registry, slot));
        if (!visit(context, &record)) {
            break;
        }
    }
    unlock(registry);
}

void
lg_registry_visit_since(lg_registry *registry, uint64_t since, unsigned kinds, lg_visit visit,
                        void *context)
{
    lock(registry);
    for (uint32_t slot = registry->newest; slot != NOBODY; slot = at(registry, slot)->older) {
        const entry *found = at(registry, slot);
        if (found->serial <= since) {
            break;
        }
        if ((kinds & LG_KIND_BIT(found->kind)) != 0) {
            lg_record record = copy_of(registry, found);
            if (!visit(context, &record)) {
                break;
            }
        }
    }
    unlock(registry);
}

uint64_t
lg_registry_last_serial(lg_registry *registry)
{
    lock(registry);
    uint64_t serial = registry->last_serial;
    unlock(registry);
    return serial;
}

uint64_t
lg_registry_newest_live(lg_registry *registry)
{
    lock(registry);
    uint64_t serial = registry->newest == NOBODY ? 0 : at(registry, registry->newest)->serial;
    unlock(registry);
    return serial;
}

lg_registry_stats
lg_registry_get_stats(lg_registry *registry)
{
    lg_registry_stats stats;
    lock(registry);
    memcpy(stats.kinds, registry->kinds, sizeof(stats.kinds));
    stats.ghosts = registry->ghosts;
    stats.bytes = registry->bytes + registry->entries.bytes;
    unlock(registry);
    return stats;
}

/* The thread that a record belongs to, or NOBODY where its line shows none. */
static uint32_t
thread_of(const lg_registry *registry, uint32_t slot)
{
    while (slot != NOBODY && !is_thread(at(registry, slot))) {
        slot = at(registry, slot)->creator;
    }
    return slot;
}

lg_note *
lg_registry_keep_thread(lg_registry *registry, const void *thread, uint64_t upto, lg_visit removed,
                        void *context)
{
    lg_note *notes = NULL;
    lock(registry);
    uint32_t kept = thread == NULL ? NOBODY : find_slot(registry, thread);
    /* All are judged before any goes: removal shortens the lines of creators. */
    for (uint32_t slot = registry->oldest; slot != NOBODY; slot = at(registry, slot)->newer) {
        entry *judged = at(registry, slot);
        uint32_t owner = thread_of(registry, slot);
        if (judged->serial <= upto && owner != NOBODY && owner != kept) {
            judged->flags = (judged->flags | DOOMED) & 15u;
        }
    }
    uint32_t next;
    for (uint32_t slot = registry->oldest; slot != NOBODY; slot = next) {
        const entry *doomed = at(registry, slot);
        next = doomed->newer;
        if ((doomed->flags & DOOMED) == 0) {
            continue;
        }
        lg_removed gone;
        lg_record record = copy_of(registry, doomed);
        end_record(registry, search(registry, doomed->object).place, false, &gone);
        removed(context, &record);
        while (gone.notes != NULL) {
            lg_note *note = gone.notes;
            gone.notes = note->next;
            note->next = notes;
            notes = note;
        }
    }
    unlock(registry);
    return notes;
}
