#include "leakguard/watermark.h"

#include <stdatomic.h>
#include <string.h>

enum { SITE_TABLE = 8192, FIRST_ROOM = 64 };

/* Beside a stack's site. */
#define KNOWN 0x80000000u    /* the rest has been found out */
#define UNPLACED 0x40000000u /* its site did not fit */
#define SITE_MASK 0x3fffffffu

typedef struct {
    uint64_t key;
    lg_stack_id stack; /* LG_STACK_EMPTY where it could not be held */
} site;

/* What is known of a stored stack. */
typedef struct {
    uint32_t site; /* index, 0 is none; and flags */
    uint32_t live; /* records with it, of those born since the oldest watermark */
} known_stack;

typedef struct {
    uint32_t live;
    uint32_t peak; /* as it was at the last fall; now it is `live` where that is more */
    uint32_t share;
    uint32_t epoch; /* of the kind's peak that `share` belongs to; older: `live` is the share */
} site_count;

typedef struct {
    uint32_t live;
    uint32_t peak;
    uint32_t epoch; /* counts the peaks */
    uint32_t room;
    site_count *sites; /* by site; owned */
} kind_count;

struct lg_watermark {
    lg_watermark *next;
    uint64_t since;
    unsigned kinds;
    uint32_t *scopes; /* rising; owned; NULL where all count */
    uint32_t scope_count;
    uint32_t scope_room;
    bool lost_sites; /* for want of memory: no site is counted any more */
    uint64_t unplaced;
    kind_count counts[LG_KIND_LIMIT];
};

struct lg__marks {
    lg_allocator allocator;
    lg_site_of site_of;
    lg_watermark *first;
    uint64_t since;      /* of the oldest watermark that was open since these began */
    known_stack *stacks; /* by stack id */
    uint32_t stack_room;
    site *sites; /* [0] is none */
    uint32_t site_count;
    uint32_t site_room;
    bool lost;                  /* for want of memory: nothing is known of a stack */
    uint16_t table[SITE_TABLE]; /* key -> site, open addressing; 0 is empty */
};

/* A larger array with the old one's content and zeroes after it; false leaves it as it is. */
static bool
grow(lg__marks *marks, void **array, uint32_t *room, size_t item, uint32_t wanted)
{
    uint32_t more = *room == 0 ? FIRST_ROOM : *room;
    while (more <= wanted) {
        more *= 2;
    }
    lg_allocator *allocator = &marks->allocator;
    unsigned char *block = allocator->allocate(allocator->context, more * item);
    if (block == NULL) {
        return false;
    }
    memset(block + *room * item, 0, (more - *room) * item);
    if (*array != NULL) {
        memcpy(block, *array, *room * item);
        allocator->release(allocator->context, *array, *room * item);
    }
    *array = block;
    *room = more;
    return true;
}

static void
give(lg__marks *marks, void *array, size_t size)
{
    if (array != NULL) {
        marks->allocator.release(marks->allocator.context, array, size);
    }
}

/* The site with this key, made where it is new; UNPLACED where there is no place for it. */
static uint32_t
site_with_key(lg_tracker *tracker, lg__marks *marks, uint64_t key, lg_stack_id stack)
{
    uint32_t place = (uint32_t)(key * UINT64_C(0x9E3779B97F4A7C15) >> 51);
    for (; marks->table[place] != 0; place = (place + 1) & (SITE_TABLE - 1)) {
        if (marks->sites[marks->table[place]].key == key) {
            return marks->table[place];
        }
    }
    if (marks->site_count > LG_MOST_SITES
        || (marks->site_count >= marks->site_room
            && !grow(marks, (void **)&marks->sites, &marks->site_room, sizeof(site),
                     marks->site_count))) {
        return UNPLACED;
    }
    uint32_t number = marks->site_count++;
    bool held = lg__depot_hold(tracker->depot, stack);
    marks->sites[number] = (site){key, held ? stack : LG_STACK_EMPTY};
    marks->table[place] = (uint16_t)number;
    return number;
}

/* What is known of a stack; NULL where there is no memory for it. */
static known_stack *
known_of(lg__marks *marks, lg_stack_id id)
{
    if (marks->lost
        || (id >= marks->stack_room
            && !grow(marks, (void **)&marks->stacks, &marks->stack_room, sizeof(known_stack),
                     id))) {
        marks->lost = true;
        return NULL;
    }
    return &marks->stacks[id];
}

void
lg__watermark_meet(lg_tracker *tracker, lg_stack_id id, const lg_stack *stack)
{
    lg__marks *marks = lg__registry_marks(tracker->registry);
    known_stack *known = marks != NULL && id != LG_STACK_EMPTY ? known_of(marks, id) : NULL;
    if (known != NULL && (known->site & KNOWN) == 0) {
        uint64_t key = marks->site_of(stack);
        known->site = KNOWN | (key != 0 ? site_with_key(tracker, marks, key, id) : 0);
    }
}

/* Takes down a birth with this stack; returns its site, with flags. */
static uint32_t
site_of_birth(lg__marks *marks, lg_stack_id id)
{
    if (id == LG_STACK_EMPTY) {
        return 0;
    }
    known_stack *known = known_of(marks, id);
    if (known == NULL) {
        return UNPLACED;
    }
    /* Not met: the watermark was opened in the midst of this birth. Its end has to find the same. */
    known->site |= (known->site & KNOWN) == 0 ? KNOWN | UNPLACED : 0;
    known->live++;
    return known->site;
}

static uint32_t
site_of_record(const lg__marks *marks, lg_stack_id id)
{
    return id < marks->stack_room ? marks->stacks[id].site & SITE_MASK : 0;
}

static bool
has_scope(const lg_watermark *mark, uint32_t scope)
{
    if (mark->scopes == NULL) {
        return true;
    }
    uint32_t low = 0;
    uint32_t high = mark->scope_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (mark->scopes[middle] == scope) {
            return true;
        }
        if (mark->scopes[middle] < scope) {
            low = middle + 1;
        }
        else {
            high = middle;
        }
    }
    return false;
}

static bool
counts(const lg_watermark *mark, const lg_record *record)
{
    return record->serial > mark->since && (mark->kinds & LG_KIND_BIT(record->kind)) != 0
           && has_scope(mark, record->scope);
}

/* The counts of a site, its share of the last peak taken down, since they are about to change. NULL
 * where sites are not counted any more. */
static site_count *
site_counts(lg__marks *marks, lg_watermark *mark, kind_count *kind, uint32_t number)
{
    if (mark->lost_sites
        || (number >= kind->room
            && !grow(marks, (void **)&kind->sites, &kind->room, sizeof(site_count), number))) {
        mark->lost_sites = true;
        return NULL;
    }
    site_count *found = &kind->sites[number];
    if (found->epoch != kind->epoch) {
        found->share = found->live;
        found->epoch = kind->epoch;
    }
    return found;
}

void
lg__marks_born(lg__marks *marks, const lg_record *record)
{
    if ((record->flags & LG_FOUND) != 0) {
        return;
    }
    uint32_t placed = site_of_birth(marks, record->stack);
    for (lg_watermark *mark = marks->first; mark != NULL; mark = mark->next) {
        mark->lost_sites |= marks->lost; /* an end would not find the site of its birth */
        if (!counts(mark, record)) {
            continue;
        }
        kind_count *kind = &mark->counts[record->kind];
        kind->live++;
        site_count *found = site_counts(marks, mark, kind, placed & SITE_MASK);
        if (found != NULL) {
            found->live++;
        }
        mark->unplaced += (placed & UNPLACED) != 0 || found == NULL;
    }
}

static void
fall(lg__marks *marks, const lg_record *record, bool cancelled)
{
    uint32_t number = site_of_record(marks, record->stack);
    for (lg_watermark *mark = marks->first; mark != NULL; mark = mark->next) {
        if (!counts(mark, record)) {
            continue;
        }
        kind_count *kind = &mark->counts[record->kind];
        if (!cancelled && kind->live > kind->peak) {
            kind->peak = kind->live;
            kind->epoch++;
        }
        kind->live--;
        site_count *found = site_counts(marks, mark, kind, number);
        if (found != NULL) {
            if (!cancelled && found->live > found->peak) {
                found->peak = found->live;
            }
            found->live--;
        }
    }
}

void
lg__marks_ended(lg__marks *marks, const lg_record *record)
{
    if ((record->flags & LG_FOUND) == 0) {
        fall(marks, record, false);
    }
}

void
lg__marks_gone(lg__marks *marks, const lg_record *record, bool counted, bool cancelled)
{
    if ((record->flags & LG_FOUND) != 0 || record->serial <= marks->since) {
        return;
    }
    if (counted) {
        fall(marks, record, cancelled);
    }
    if (record->stack < marks->stack_room && marks->stacks[record->stack].live > 0) {
        marks->stacks[record->stack].live--;
    }
}

static void
free_mark(lg__marks *marks, lg_watermark *mark)
{
    for (int kind = 0; kind < LG_KIND_LIMIT; kind++) {
        give(marks, mark->counts[kind].sites, mark->counts[kind].room * sizeof(site_count));
    }
    give(marks, mark->scopes, mark->scope_room * sizeof(uint32_t));
    give(marks, mark, sizeof(*mark));
}

void
lg__marks_free(lg__marks *marks)
{
    if (marks == NULL) {
        return;
    }
    while (marks->first != NULL) {
        lg_watermark *mark = marks->first;
        marks->first = mark->next;
        free_mark(marks, mark);
    }
    give(marks, marks->stacks, marks->stack_room * sizeof(known_stack));
    give(marks, marks->sites, marks->site_room * sizeof(site));
    lg_allocator allocator = marks->allocator;
    allocator.release(allocator.context, marks, sizeof(*marks));
}

static lg__marks *
new_marks(const lg_allocator *allocator, uint64_t since, lg_site_of site_of)
{
    lg__marks *marks = allocator->allocate(allocator->context, sizeof(*marks));
    if (marks != NULL) {
        memset(marks, 0, sizeof(*marks));
        marks->allocator = *allocator;
        marks->site_of = site_of;
        marks->since = since;
        marks->site_count = 1;
    }
    return marks;
}

static lg_watermark *
new_mark(lg__marks *marks, uint64_t since, unsigned kinds, uint32_t scope)
{
    lg_watermark *mark = marks->allocator.allocate(marks->allocator.context, sizeof(*mark));
    if (mark == NULL) {
        return NULL;
    }
    memset(mark, 0, sizeof(*mark));
    mark->since = since;
    mark->kinds = kinds;
    if (scope != 0) {
        if (!grow(marks, (void **)&mark->scopes, &mark->scope_room, sizeof(uint32_t), 0)) {
            give(marks, mark, sizeof(*mark));
            return NULL;
        }
        mark->scopes[mark->scope_count++] = scope;
    }
    return mark;
}

lg_status
lg_watermark_open(lg_tracker *tracker, unsigned kinds, uint32_t scope, lg_site_of site_of,
                  lg_watermark **ret_watermark)
{
    lg_status status = LG_NO_MEMORY;
    uint64_t since = lg_registry_last_serial(tracker->registry);
    lg__marks **marks = lg__registry_lock_marks(tracker->registry);
    bool first = *marks == NULL;
    if (first) {
        *marks = new_marks(&tracker->allocator, since, site_of);
    }
    lg_watermark *mark = *marks != NULL ? new_mark(*marks, since, kinds, scope) : NULL;
    if (mark != NULL) {
        mark->next = (*marks)->first;
        (*marks)->first = mark;
        *ret_watermark = mark;
        atomic_store(&tracker->watched, true);
        status = LG_OK;
    }
    else if (first) {
        lg__marks_free(*marks);
        *marks = NULL;
    }
    lg__registry_unlock_marks(tracker->registry);
    return status;
}

static void
drop_sites(lg_tracker *tracker, lg__marks *marks)
{
    for (uint32_t number = 1; number < marks->site_count; number++) {
        lg__depot_drop(tracker->depot, marks->sites[number].stack);
    }
    atomic_store(&tracker->watched, false);
}

void
lg_watermark_close(lg_tracker *tracker, lg_watermark *watermark)
{
    lg__marks **marks = lg__registry_lock_marks(tracker->registry);
    lg_watermark **link = *marks != NULL ? &(*marks)->first : NULL;
    while (link != NULL && *link != NULL && *link != watermark) {
        link = &(*link)->next;
    }
    if (link != NULL && *link != NULL) {
        *link = watermark->next;
        free_mark(*marks, watermark);
        if ((*marks)->first == NULL) {
            drop_sites(tracker, *marks);
            lg__marks_free(*marks);
            *marks = NULL;
        }
    }
    lg__registry_unlock_marks(tracker->registry);
}

void
lg_watermark_add_scope(lg_tracker *tracker, uint32_t number, uint32_t parent)
{
    lg__marks **marks = lg__registry_lock_marks(tracker->registry);
    lg_watermark *mark = *marks != NULL ? (*marks)->first : NULL;
    for (; mark != NULL; mark = mark->next) {
        if (mark->scopes == NULL || !has_scope(mark, parent)
            || mark->scopes[mark->scope_count - 1] >= number) {
            continue;
        }
        if (mark->scope_count < mark->scope_room
            || grow(*marks, (void **)&mark->scopes, &mark->scope_room, sizeof(uint32_t),
                    mark->scope_count)) {
            mark->scopes[mark->scope_count++] = number;
        }
    }
    lg__registry_unlock_marks(tracker->registry);
}

/* The site's share and peak, up to now. */
static lg_site_peak
read_site(const lg__marks *marks, const kind_count *kind, uint32_t number)
{
    const site_count *found = &kind->sites[number];
    bool is_now = kind->live > kind->peak || found->epoch != kind->epoch;
    return (lg_site_peak){
        .stack = number == 0 ? LG_STACK_EMPTY : marks->sites[number].stack,
        .share = is_now ? found->live : found->share,
        .peak = found->live > found->peak ? found->live : found->peak,
    };
}

static size_t
add_site(lg_site_peak *sites, size_t count, size_t room, lg_site_peak added)
{
    size_t place = count < room ? count++ : room;
    while (place > 0 && sites[place - 1].share < added.share) {
        if (place < room) {
            sites[place] = sites[place - 1];
        }
        place--;
    }
    if (place < room) {
        sites[place] = added;
    }
    return count;
}

size_t
lg_watermark_read(lg_tracker *tracker, lg_watermark *watermark, lg_kind kind, lg_peak *ret_peak,
                  lg_site_peak *ret_sites, size_t room)
{
    size_t count = 0;
    lg__marks **marks = lg__registry_lock_marks(tracker->registry);
    const kind_count *found = &watermark->counts[kind];
    *ret_peak = (lg_peak){
        .peak = found->live > found->peak ? found->live : found->peak,
        .unplaced = watermark->unplaced,
    };
    uint32_t known = found->room < (*marks)->site_count ? found->room : (*marks)->site_count;
    for (uint32_t number = 0; !watermark->lost_sites && number < known; number++) {
        lg_site_peak one = read_site(*marks, found, number);
        if (one.share > 0) {
            count = add_site(ret_sites, count, room, one);
        }
    }
    lg__registry_unlock_marks(tracker->registry);
    return count;
}

void
lg_watermark_before_evict(lg_tracker *tracker)
{
    if (!atomic_load_explicit(&tracker->watched, memory_order_relaxed)) {
        return;
    }
    lg__marks **found = lg__registry_lock_marks(tracker->registry);
    lg__marks *marks = *found;
    for (uint32_t id = 0; marks != NULL && id < marks->stack_room; id++) {
        if (marks->stacks[id].live == 0) {
            marks->stacks[id].site = 0;
        }
    }
    lg__registry_unlock_marks(tracker->registry);
}
