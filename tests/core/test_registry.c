#define _DEFAULT_SOURCE /* MAP_ANONYMOUS, rand_r */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "leakguard/registry.h"
#include "support.h"

/* Check's assertions write to a pipe each time, and are not for threads: loops and threads use
 * their own comparisons. */
static lg_registry *
new_registry(counting *counts)
{
    lg_allocator allocator = counts != NULL ? counting_allocator(counts) : lg_allocator_system();
    lg_registry *registry = NULL;
    ck_assert_int_eq(lg_registry_new(&allocator, 1, &registry), LG_OK);
    return registry;
}

static uint64_t
insert(lg_registry *registry, lg_kind kind, size_t number, const void *creator)
{
    lg_birth birth = {.object = address(number), .creator = creator, .born = 5, .kind = kind};
    uint64_t serial = 0;
    if (lg_registry_insert(registry, &birth, &serial) != LG_OK) {
        ck_abort_msg("object %zu was not inserted", number);
    }
    return serial;
}

static lg_removed
take_out(lg_registry *registry, size_t number)
{
    lg_removed removed;
    if (lg_registry_remove(registry, address(number), &removed) != LG_OK) {
        ck_abort_msg("object %zu was not removed", number);
    }
    return removed;
}

typedef struct {
    uint64_t serials[64];
    size_t count;
    size_t stop_at; /* 0: never */
} seen;

static bool
note_serial(void *context, const lg_record *record)
{
    seen *all = context;
    if (all->count < 64) {
        all->serials[all->count] = record->serial;
    }
    all->count++;
    return all->count != all->stop_at;
}

START_TEST(serials_rise_by_birth_and_are_never_reused)
{
    lg_registry *registry = new_registry(NULL);
    ck_assert_uint_eq(insert(registry, LG_TASK, 1, NULL), 1);
    ck_assert_uint_eq(insert(registry, LG_TASK, 2, NULL), 2);
    take_out(registry, 2);
    take_out(registry, 1);
    ck_assert_uint_eq(lg_registry_newest_live(registry), 0);
    ck_assert_uint_eq(insert(registry, LG_TASK, 1, NULL), 3);
    ck_assert_uint_eq(lg_registry_last_serial(registry), 3);
    ck_assert_uint_eq(lg_registry_newest_live(registry), 3);
    lg_registry_free(registry);
}
END_TEST

START_TEST(serials_begin_where_they_are_told_to)
{
    lg_allocator allocator = lg_allocator_system();
    lg_registry *registry;
    ck_assert_int_eq(lg_registry_new(&allocator, 1000, &registry), LG_OK);
    ck_assert_uint_eq(lg_registry_last_serial(registry), 999);
    ck_assert_uint_eq(insert(registry, LG_TASK, 1, NULL), 1000);
    lg_registry_free(registry);
}
END_TEST

START_TEST(a_record_says_what_its_birth_said)
{
    lg_registry *registry = new_registry(NULL);
    lg_birth birth = {
        .object = address(1),
        .born = 123456789,
        .stack = 77,
        .scope = 5,
        .kind = LG_TEMPDIR,
        .flags = LG_FOUND,
    };
    uint64_t serial;
    ck_assert_int_eq(lg_registry_insert(registry, &birth, &serial), LG_OK);
    lg_record record;
    ck_assert_int_eq(lg_registry_find(registry, address(1), &record), LG_OK);
    ck_assert_ptr_eq(record.object, address(1));
    ck_assert_uint_eq(record.serial, serial);
    ck_assert_uint_eq(record.creator, 0);
    ck_assert_int_eq(record.born, 123456789);
    ck_assert_uint_eq(record.stack, 77);
    ck_assert_uint_eq(record.scope, 5);
    ck_assert_int_eq(record.kind, LG_TEMPDIR);
    ck_assert_uint_eq(record.flags, LG_FOUND);
    ck_assert_uint_eq(record.children, 0);
    lg_registry_free(registry);
}
END_TEST

START_TEST(one_object_has_one_record)
{
    lg_registry *registry = new_registry(NULL);
    insert(registry, LG_TASK, 1, NULL);
    lg_birth again = {.object = address(1), .kind = LG_TASK};
    uint64_t serial = 99;
    ck_assert_int_eq(lg_registry_insert(registry, &again, &serial), LG_EXISTS);
    ck_assert_uint_eq(serial, 99);
    ck_assert_uint_eq(lg_registry_last_serial(registry), 1);
    ck_assert_uint_eq(lg_registry_get_stats(registry).kinds[LG_TASK].created, 1);
    lg_registry_free(registry);
}
END_TEST

START_TEST(what_is_not_there_is_not_found)
{
    lg_registry *registry = new_registry(NULL);
    lg_removed removed;
    lg_record record;
    const lg_note *note;
    ck_assert_int_eq(lg_registry_remove(registry, address(1), &removed), LG_NOT_FOUND);
    ck_assert_int_eq(lg_registry_cancel(registry, address(1), &removed), LG_NOT_FOUND);
    ck_assert_int_eq(lg_registry_find(registry, address(1), &record), LG_NOT_FOUND);
    insert(registry, LG_TASK, 1, NULL);
    ck_assert_int_eq(lg_registry_find_creator(registry, address(1), &record, &note), LG_NOT_FOUND);
    take_out(registry, 1);
    ck_assert_int_eq(lg_registry_remove(registry, address(1), &removed), LG_NOT_FOUND);
    lg_registry_free(registry);
}
END_TEST

START_TEST(counters_are_exact_by_kind)
{
    lg_registry *registry = new_registry(NULL);
    for (size_t i = 0; i < 10; i++) {
        insert(registry, i % 2 == 0 ? LG_TASK : LG_THREAD, i, NULL);
    }
    take_out(registry, 0);
    take_out(registry, 1);
    take_out(registry, 3);
    lg_removed removed;
    ck_assert_int_eq(lg_registry_cancel(registry, address(2), &removed), LG_OK);
    lg_registry_stats stats = lg_registry_get_stats(registry);
    ck_assert_uint_eq(stats.kinds[LG_TASK].created, 4);
    ck_assert_uint_eq(stats.kinds[LG_TASK].ended, 1);
    ck_assert_uint_eq(stats.kinds[LG_THREAD].created, 5);
    ck_assert_uint_eq(stats.kinds[LG_THREAD].ended, 2);
    ck_assert_uint_eq(stats.kinds[LG_TIMER].created, 0);
    lg_registry_free(registry);
}
END_TEST

START_TEST(born_since_gives_the_newest_first_and_only_what_lives)
{
    lg_registry *registry = new_registry(NULL);
    for (size_t i = 1; i <= 8; i++) {
        insert(registry, i == 6 ? LG_THREAD : LG_TASK, i, NULL);
    }
    take_out(registry, 7);
    seen all = {0};
    lg_registry_visit_since(registry, 4, LG_ALL_KINDS, note_serial, &all);
    uint64_t expected[] = {8, 6, 5};
    ck_assert_uint_eq(all.count, 3);
    ck_assert_mem_eq(all.serials, expected, sizeof(expected));
    seen tasks = {0};
    lg_registry_visit_since(registry, 4, LG_KIND_BIT(LG_TASK), note_serial, &tasks);
    ck_assert_uint_eq(tasks.count, 2);
    seen stopped = {.stop_at = 1};
    lg_registry_visit_since(registry, 0, LG_ALL_KINDS, note_serial, &stopped);
    ck_assert_uint_eq(stopped.count, 1);
    lg_registry_free(registry);
}
END_TEST

/* Blocks of whole pages, so that they can be made unreadable. */
static struct {
    void *block;
    size_t size;
} pages[128];
static size_t pages_count;

static void *
allocate_pages(void *context, size_t size)
{
    (void)context;
    void *block = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(block, MAP_FAILED);
    ck_assert_uint_lt(pages_count, 128);
    pages[pages_count].block = block;
    pages[pages_count++].size = size;
    return block;
}

static void
release_pages(void *context, void *block, size_t size)
{
    (void)context;
    (void)block;
    (void)size; /* kept until the process ends */
}

START_TEST(looking_at_what_was_born_since_touches_nothing_older)
{
    enum { CHUNK = 1024, CHUNKS = 40, CHUNK_BYTES = CHUNK * 48 };
    lg_allocator allocator = {allocate_pages, release_pages, NULL};
    lg_registry *registry;
    ck_assert_int_eq(lg_registry_new(&allocator, 1, &registry), LG_OK);
    for (size_t i = 0; i < CHUNKS * CHUNK + 10; i++) {
        insert(registry, LG_TASK, i, NULL);
    }
    /* The newest ten are in the last chunk: every chunk before it becomes unreadable. */
    size_t chunks = 0;
    for (size_t i = 0; i < pages_count; i++) {
        if (pages[i].size == CHUNK_BYTES && ++chunks <= CHUNKS) {
            ck_assert_int_eq(mprotect(pages[i].block, pages[i].size, PROT_NONE), 0);
        }
    }
    ck_assert_uint_eq(chunks, CHUNKS + 1);
    seen all = {0};
    lg_registry_visit_since(registry, CHUNKS * CHUNK + 5, LG_ALL_KINDS, note_serial, &all);
    ck_assert_uint_eq(all.count, 5);
    ck_assert_uint_eq(all.serials[0], CHUNKS * CHUNK + 10);
    /* The registry is given up as it is: freeing it would read the chunks. */
}
END_TEST

START_TEST(a_creator_is_known_by_serial_and_hands_on_a_newer_scope)
{
    lg_registry *registry = new_registry(NULL);
    lg_birth parent = {.object = address(1), .scope = 9, .kind = LG_THREAD};
    uint64_t serial;
    ck_assert_int_eq(lg_registry_insert(registry, &parent, &serial), LG_OK);
    insert(registry, LG_TASK, 2, address(1));
    lg_birth own = {.object = address(3), .creator = address(2), .scope = 12, .kind = LG_TASK};
    lg_birth late = {.object = address(5), .creator = address(2), .scope = 4, .kind = LG_TASK};
    uint64_t ignored;
    ck_assert_int_eq(lg_registry_insert(registry, &own, &ignored), LG_OK);
    ck_assert_int_eq(lg_registry_insert(registry, &late, &ignored), LG_OK);
    lg_record record;
    ck_assert_int_eq(lg_registry_find(registry, address(2), &record), LG_OK);
    ck_assert_uint_eq(record.creator, serial);
    ck_assert_uint_eq(record.scope, 9);
    ck_assert_uint_eq(record.children, 2);
    ck_assert_int_eq(lg_registry_find(registry, address(3), &record), LG_OK);
    ck_assert_uint_eq(record.scope, 12);
    ck_assert_int_eq(lg_registry_find(registry, address(5), &record), LG_OK);
    ck_assert_uint_eq(record.scope, 9);
    /* An unknown creator is none. */
    insert(registry, LG_TASK, 4, address(99));
    ck_assert_int_eq(lg_registry_find(registry, address(4), &record), LG_OK);
    ck_assert_uint_eq(record.creator, 0);
    seen line = {0};
    lg_registry_visit_line(registry, address(3), note_serial, &line);
    uint64_t expected[] = {3, 2, 1};
    ck_assert_uint_eq(line.count, 3);
    ck_assert_mem_eq(line.serials, expected, sizeof(expected));
    lg_registry_free(registry);
}
END_TEST

START_TEST(a_creator_that_ended_stays_known_with_its_note)
{
    lg_registry *registry = new_registry(NULL);
    insert(registry, LG_TASK, 1, NULL);
    insert(registry, LG_TASK, 2, address(1));
    lg_removed removed = take_out(registry, 1);
    ck_assert(removed.is_creator);
    ck_assert_ptr_null(removed.notes);
    lg_note note;
    lg_note second;
    ck_assert_int_eq(lg_registry_annotate(registry, &removed, &note), LG_OK);
    ck_assert_int_eq(lg_registry_annotate(registry, &removed, &second), LG_EXISTS);
    lg_record creator;
    const lg_note *found = NULL;
    ck_assert_int_eq(lg_registry_find_creator(registry, address(2), &creator, &found), LG_OK);
    ck_assert_ptr_eq(found, &note);
    ck_assert_ptr_null(creator.object);
    ck_assert_uint_eq(creator.serial, 1);
    /* Ended is ended: not by address, not in the order. */
    lg_record record;
    ck_assert_int_eq(lg_registry_find(registry, address(1), &record), LG_NOT_FOUND);
    seen all = {0};
    lg_registry_visit_since(registry, 0, LG_ALL_KINDS, note_serial, &all);
    ck_assert_uint_eq(all.count, 1);
    ck_assert_uint_eq(lg_registry_get_stats(registry).ghosts, 1);
    lg_removed child = take_out(registry, 2);
    ck_assert(!child.is_creator);
    ck_assert_ptr_eq(child.notes, &note);
    ck_assert_ptr_null(note.next);
    ck_assert_uint_eq(lg_registry_get_stats(registry).ghosts, 0);
    ck_assert_int_eq(lg_registry_annotate(registry, &removed, &note), LG_NOT_FOUND);
    lg_registry_free(registry);
}
END_TEST

START_TEST(linking_past_a_ghost_counts_with_the_next_creator)
{
    lg_registry *registry = new_registry(NULL);
    insert(registry, LG_TASK, 1, NULL);
    insert(registry, LG_TASK, 2, address(1));
    insert(registry, LG_TASK, 3, address(2));
    insert(registry, LG_TASK, 4, address(3));
    take_out(registry, 2);
    take_out(registry, 3); /* links past 2, which goes: 1 is its creator now */
    lg_record record;
    const lg_note *note;
    ck_assert_int_eq(lg_registry_find(registry, address(1), &record), LG_OK);
    ck_assert_uint_eq(record.children, 1);
    ck_assert_int_eq(lg_registry_find_creator(registry, address(4), &record, &note), LG_OK);
    ck_assert_uint_eq(record.serial, 3);
    ck_assert_uint_eq(record.creator, 1);
    ck_assert_uint_eq(lg_registry_get_stats(registry).ghosts, 1);
    ck_assert(take_out(registry, 1).is_creator);
    take_out(registry, 4);
    ck_assert_uint_eq(lg_registry_get_stats(registry).ghosts, 0);
    lg_registry_free(registry);
}
END_TEST

START_TEST(a_creator_that_lives_has_no_note)
{
    lg_registry *registry = new_registry(NULL);
    insert(registry, LG_TASK, 1, NULL);
    insert(registry, LG_TASK, 2, address(1));
    lg_record creator;
    lg_note other;
    const lg_note *note = &other;
    ck_assert_int_eq(lg_registry_find_creator(registry, address(2), &creator, &note), LG_OK);
    ck_assert_ptr_eq(creator.object, address(1));
    ck_assert_ptr_null(note);
    lg_registry_free(registry);
}
END_TEST

START_TEST(a_note_comes_too_late_for_a_ghost_that_has_gone)
{
    lg_registry *registry = new_registry(NULL);
    lg_note note;
    insert(registry, LG_TASK, 1, NULL);
    insert(registry, LG_TASK, 2, address(1));
    lg_removed late = take_out(registry, 1);
    take_out(registry, 2);
    /* Another ghost in the same slot is not the one that was meant. */
    lg_removed again = {.slot = late.slot + 1};
    for (size_t i = 10; again.slot != late.slot && i < 20; i += 2) {
        insert(registry, LG_TASK, i, NULL);
        insert(registry, LG_TASK, i + 1, address(i));
        again = take_out(registry, i);
    }
    ck_assert_uint_eq(again.slot, late.slot);
    ck_assert_int_eq(lg_registry_annotate(registry, &late, &note), LG_NOT_FOUND);
    /* Nor is there one where the memory of its slot has gone back. */
    for (size_t i = 100; i < 4100; i++) {
        insert(registry, LG_TASK, i, NULL);
    }
    insert(registry, LG_TASK, 5000, NULL);
    insert(registry, LG_TASK, 5001, address(5000));
    late = take_out(registry, 5000);
    for (size_t i = 100; i < 4100; i++) {
        take_out(registry, i);
    }
    take_out(registry, 5001);
    ck_assert_int_eq(lg_registry_annotate(registry, &late, &note), LG_NOT_FOUND);
    lg_registry_free(registry);
}
END_TEST

START_TEST(the_address_of_a_ghost_may_serve_another_object)
{
    lg_registry *registry = new_registry(NULL);
    insert(registry, LG_TASK, 1, NULL);
    insert(registry, LG_TASK, 2, address(1));
    take_out(registry, 1);
    uint64_t again = insert(registry, LG_TASK, 1, NULL);
    lg_record record;
    ck_assert_int_eq(lg_registry_find(registry, address(1), &record), LG_OK);
    ck_assert_uint_eq(record.serial, again);
    const lg_note *note;
    ck_assert_int_eq(lg_registry_find_creator(registry, address(2), &record, &note), LG_OK);
    ck_assert_uint_eq(record.serial, 1);
    lg_registry_free(registry);
}
END_TEST

START_TEST(a_chain_of_resources_that_replace_each_other_holds_one_ghost)
{
    counting counts = {0};
    lg_registry *registry = new_registry(&counts);
    insert(registry, LG_TASK, 0, NULL);
    size_t bytes = lg_registry_get_stats(registry).bytes;
    for (size_t i = 1; i <= 1000000; i++) {
        insert(registry, LG_TASK, i, address(i - 1));
        lg_removed removed = take_out(registry, i - 1);
        if (!removed.is_creator || lg_registry_get_stats(registry).ghosts > 2) {
            ck_abort_msg("at %zu: %zu ghosts", i, lg_registry_get_stats(registry).ghosts);
        }
    }
    ck_assert_uint_eq(lg_registry_get_stats(registry).bytes, bytes);
    lg_registry_free(registry);
    ck_assert_int_eq(counts.blocks, 0);
}
END_TEST

START_TEST(freeing_the_registry_hands_back_every_note)
{
    lg_registry *registry = new_registry(NULL);
    lg_note notes[3];
    for (size_t i = 0; i < 3; i++) {
        insert(registry, LG_TASK, i * 2, NULL);
        insert(registry, LG_TASK, i * 2 + 1, address(i * 2));
        lg_removed removed = take_out(registry, i * 2);
        ck_assert_int_eq(lg_registry_annotate(registry, &removed, &notes[i]), LG_OK);
    }
    size_t count = 0;
    for (lg_note *note = lg_registry_free(registry); note != NULL; note = note->next) {
        ck_assert(note >= notes && note < notes + 3);
        count++;
    }
    ck_assert_uint_eq(count, 3);
    ck_assert_ptr_null(lg_registry_free(NULL));
}
END_TEST

START_TEST(memory_comes_back_and_a_warm_registry_allocates_nothing)
{
    counting counts = {0};
    lg_registry *registry = new_registry(&counts);
    size_t empty = counts.bytes;
    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < 10000; i++) {
            insert(registry, LG_TASK, i, NULL);
        }
        ck_assert_uint_ge(counts.bytes, empty + 10000 * 48);
        for (size_t i = 0; i < 10000; i++) {
            take_out(registry, i);
        }
        /* One chunk is kept. */
        ck_assert_uint_le(counts.bytes, empty + 1024 * 48 + 1024);
        ck_assert_uint_eq(lg_registry_get_stats(registry).bytes, counts.bytes);
    }
    /* Chunks that come and go are known by the same numbers: no directory grows. */
    size_t settled = counts.bytes;
    for (int round = 0; round < 40; round++) {
        for (size_t i = 0; i < 4000; i++) {
            insert(registry, LG_TASK, i, NULL);
        }
        for (size_t i = 0; i < 4000; i++) {
            take_out(registry, i);
        }
        ck_assert_uint_eq(counts.bytes, settled);
    }
    insert(registry, LG_TASK, 1, NULL);
    take_out(registry, 1);
    long calls = counts.calls;
    for (int i = 0; i < 1000; i++) {
        insert(registry, LG_TASK, 1, NULL);
        take_out(registry, 1);
    }
    ck_assert_int_eq(counts.calls, calls);
    lg_registry_free(registry);
    ck_assert_int_eq(counts.blocks, 0);
}
END_TEST

START_TEST(a_million_live_records_cost_at_most_64_bytes_each)
{
    lg_registry *registry = new_registry(NULL);
    for (size_t i = 0; i < 1000000; i++) {
        insert(registry, LG_TASK, i, NULL);
    }
    ck_assert_uint_le(lg_registry_get_stats(registry).bytes, 64 * 1000000);
    lg_registry_free(registry);
}
END_TEST

START_TEST(a_failed_allocation_changes_nothing)
{
    for (long fail_at = 1;; fail_at++) {
        counting counts = {.fail_at = fail_at};
        lg_allocator allocator = counting_allocator(&counts);
        lg_registry *registry = NULL;
        if (lg_registry_new(&allocator, 1, &registry) != LG_OK) {
            ck_assert_ptr_null(registry);
            ck_assert_int_eq(counts.blocks, 0);
            continue;
        }
        long failures = 0;
        for (size_t i = 0; i < 4000; i++) {
            lg_birth birth = {.object = address(i), .creator = address(i - 1), .kind = LG_TASK};
            uint64_t serial = 0;
            lg_status status = lg_registry_insert(registry, &birth, &serial);
            if (status != LG_OK) {
                failures++;
                ck_assert_int_eq(status, LG_NO_MEMORY);
                ck_assert_uint_eq(serial, 0);
                ck_assert_uint_eq(lg_registry_last_serial(registry), i);
                ck_assert_int_eq(lg_registry_insert(registry, &birth, &serial), LG_OK);
            }
            if (serial != i + 1) {
                ck_abort_msg("serial %llu after %zu", (unsigned long long)serial, i);
            }
        }
        /* Removal cannot fail, also where the smaller index could not be allocated. */
        counts.fail_at = counts.calls + 1;
        for (size_t i = 4000; i-- > 0;) {
            take_out(registry, i);
        }
        ck_assert_uint_eq(lg_registry_newest_live(registry), 0);
        ck_assert_uint_eq(lg_registry_get_stats(registry).bytes, counts.bytes);
        lg_registry_free(registry);
        ck_assert_int_eq(counts.blocks, 0);
        if (failures == 0) {
            ck_assert_int_gt(fail_at, 8);
            break;
        }
    }
}
END_TEST

/* Against a model: 4,000 addresses, some of them neighbours that share their home. */
enum { MODEL = 4000, STEPS = 80000 };

static void
agree(long is, long should_be, int step)
{
    if (is != should_be) {
        ck_abort_msg("step %d: %ld, should be %ld", step, is, should_be);
    }
}

/* Bytes from one object to the next: as tasks lie, as small objects packed tightly do, and so tightly
 * that hundreds want the same few places of the index. */
static const unsigned strides[] = {240, 48, 1};

START_TEST(the_index_agrees_with_a_naive_model)
{
    const unsigned stride = strides[_i];
    static uint64_t model[MODEL];
    memset(model, 0, sizeof(model));
    lg_registry *registry = new_registry(NULL);
    unsigned seed = 20240817;
    size_t live = 0;
    for (int step = 0; step < STEPS; step++) {
        /* Long phases of growth and of decline, so that the table grows and shrinks. */
        bool growing = (step / 8000) % 2 == 0;
        size_t number = (size_t)rand_r(&seed) % MODEL;
        const void *object = (const void *)(uintptr_t)(0x10000u + number * stride);
        bool adds = rand_r(&seed) % 10 < (growing ? 8 : 2);
        if (adds) {
            lg_birth birth = {.object = object, .kind = LG_TASK};
            uint64_t serial = 0;
            lg_status status = lg_registry_insert(registry, &birth, &serial);
            agree(status, model[number] != 0 ? LG_EXISTS : LG_OK, step);
            if (status == LG_OK) {
                model[number] = serial;
                live++;
            }
        }
        else {
            lg_removed removed;
            lg_status status = lg_registry_remove(registry, object, &removed);
            agree(status, model[number] != 0 ? LG_OK : LG_NOT_FOUND, step);
            if (status == LG_OK) {
                agree((long)removed.serial, (long)model[number], step);
                model[number] = 0;
                live--;
            }
        }
        size_t asked = (size_t)rand_r(&seed) % MODEL;
        lg_record record;
        const void *sought = (const void *)(uintptr_t)(0x10000u + asked * stride);
        lg_status status = lg_registry_find(registry, sought, &record);
        agree(status, model[asked] != 0 ? LG_OK : LG_NOT_FOUND, step);
        if (status == LG_OK) {
            agree((long)record.serial, (long)model[asked], step);
        }
    }
    seen all = {0};
    lg_registry_visit_since(registry, 0, LG_ALL_KINDS, note_serial, &all);
    ck_assert_uint_eq(all.count, live);
    lg_registry_free(registry);
}
END_TEST

static bool
count_removed(void *context, const lg_record *record)
{
    (void)record;
    ++*(size_t *)context;
    return true;
}

START_TEST(a_forked_child_keeps_the_forking_threads_records_only)
{
    lg_registry *registry = new_registry(NULL);
    insert(registry, LG_THREAD, 1, NULL);       /* the forking thread */
    insert(registry, LG_TASK, 2, address(1));   /* its task */
    insert(registry, LG_THREAD, 3, address(2)); /* a thread that its task started */
    insert(registry, LG_TASK, 4, address(3));   /* that one's task */
    insert(registry, LG_TASK, 5, address(4));   /* and what this created */
    insert(registry, LG_TASK, 6, address(2));   /* of the forking thread again */
    insert(registry, LG_EXECUTOR, 7, NULL);     /* of no thread */
    uint64_t upto = lg_registry_last_serial(registry);
    insert(registry, LG_TASK, 8, address(4)); /* born after the fork */
    size_t gone = 0;
    lg_note *notes = lg_registry_keep_thread(registry, address(1), upto, count_removed, &gone);
    ck_assert_ptr_null(notes);
    ck_assert_uint_eq(gone, 3);
    seen all = {0};
    lg_registry_visit_since(registry, 0, LG_ALL_KINDS, note_serial, &all);
    uint64_t expected[] = {8, 7, 6, 2, 1};
    ck_assert_uint_eq(all.count, 5);
    ck_assert_mem_eq(all.serials, expected, sizeof(expected));
    lg_registry_stats stats = lg_registry_get_stats(registry);
    ck_assert_uint_eq(stats.kinds[LG_THREAD].ended, 1);
    ck_assert_uint_eq(stats.kinds[LG_TASK].ended, 2);
    lg_registry_free(registry);
}
END_TEST

START_TEST(what_belonged_to_an_ended_thread_goes_whichever_ended_first)
{
    for (size_t first = 2; first <= 3; first++) {
        lg_registry *registry = new_registry(NULL);
        insert(registry, LG_THREAD, 1, NULL);
        insert(registry, LG_THREAD, 2, address(1));
        insert(registry, LG_TASK, 3, address(2));
        insert(registry, LG_TASK, 4, address(3));
        take_out(registry, first);
        take_out(registry, 5 - first);
        size_t gone = 0;
        lg_registry_keep_thread(registry, address(1), 4, count_removed, &gone);
        ck_assert_uint_eq(gone, 1);
        ck_assert_uint_eq(lg_registry_newest_live(registry), 1);
        ck_assert_uint_eq(lg_registry_get_stats(registry).ghosts, 0);
        lg_registry_free(registry);
    }
}
END_TEST

START_TEST(threads_and_tasks_that_replace_each_other_hold_few_ghosts)
{
    lg_registry *registry = new_registry(NULL);
    insert(registry, LG_THREAD, 0, NULL);
    for (size_t i = 1; i <= 10000; i++) {
        insert(registry, i % 3 == 0 ? LG_THREAD : LG_TASK, i, address(i - 1));
        take_out(registry, i - 1);
        size_t ghosts = lg_registry_get_stats(registry).ghosts;
        if (ghosts > 3) {
            ck_abort_msg("at %zu: %zu ghosts", i, ghosts);
        }
    }
    lg_registry_free(registry);
}
END_TEST

START_TEST(a_forked_child_gets_the_notes_of_the_ghosts_that_went)
{
    lg_registry *registry = new_registry(NULL);
    insert(registry, LG_THREAD, 1, NULL);
    insert(registry, LG_THREAD, 2, NULL);
    lg_note notes[2];
    for (size_t i = 0; i < 2; i++) {
        insert(registry, LG_TASK, 10 + i, address(2));
        insert(registry, LG_TASK, 20 + i, address(10 + i));
        lg_removed removed = take_out(registry, 10 + i);
        ck_assert_int_eq(lg_registry_annotate(registry, &removed, &notes[i]), LG_OK);
    }
    take_out(registry, 1); /* the oldest: the order begins with another now */
    size_t gone = 0;
    lg_note *handed = lg_registry_keep_thread(registry, NULL, 6, count_removed, &gone);
    ck_assert_uint_eq(gone, 3);
    size_t count = 0;
    for (; handed != NULL; handed = handed->next) {
        ck_assert(handed >= notes && handed < notes + 2);
        count++;
    }
    ck_assert_uint_eq(count, 2);
    lg_registry_stats stats = lg_registry_get_stats(registry);
    ck_assert_uint_eq(stats.kinds[LG_TASK].ended, 4);
    ck_assert_uint_eq(stats.kinds[LG_THREAD].ended, 2);
    ck_assert_uint_eq(stats.ghosts, 0);
    lg_registry_free(registry);
}
END_TEST

START_TEST(a_child_of_an_unknown_thread_keeps_only_what_no_thread_owns)
{
    lg_registry *registry = new_registry(NULL);
    insert(registry, LG_THREAD, 1, NULL);
    insert(registry, LG_TASK, 2, address(1));
    insert(registry, LG_TASK, 3, NULL);
    size_t gone = 0;
    lg_registry_keep_thread(registry, NULL, 3, count_removed, &gone);
    ck_assert_uint_eq(gone, 2);
    ck_assert_uint_eq(lg_registry_newest_live(registry), 3);
    lg_registry_free(registry);
}
END_TEST

enum { THREADS = 8, OBJECTS = 500, ROUNDS = 20 };

typedef struct {
    lg_registry *registry;
    size_t first;
} worker;

static atomic_long faults;

static void *
hammer(void *context)
{
    const worker *own = context;
    uint64_t last = 0;
    for (int round = 0; round < ROUNDS; round++) {
        for (size_t i = 0; i < OBJECTS; i++) {
            const void *creator = i > 0 ? address(own->first + i - 1) : NULL;
            lg_birth birth = {
                .object = address(own->first + i), .creator = creator, .kind = LG_TASK};
            uint64_t serial;
            faults += lg_registry_insert(own->registry, &birth, &serial) != LG_OK;
        }
        seen all = {.stop_at = 50};
        lg_registry_visit_since(own->registry, 0, LG_ALL_KINDS, note_serial, &all);
        for (size_t i = 0; i < OBJECTS; i++) {
            const void *object = address(own->first + i);
            lg_removed removed = {0};
            faults += lg_registry_remove(own->registry, object, &removed) != LG_OK;
            faults += removed.serial <= last;
            last = removed.serial;
        }
    }
    return NULL;
}

START_TEST(many_threads_insert_visit_and_remove_at_once)
{
    lg_registry *registry = new_registry(NULL);
    pthread_t threads[THREADS];
    worker workers[THREADS];
    for (size_t i = 0; i < THREADS; i++) {
        workers[i] = (worker){registry, i * 1000000};
        ck_assert_int_eq(pthread_create(&threads[i], NULL, hammer, &workers[i]), 0);
    }
    for (size_t i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    ck_assert_int_eq(atomic_load(&faults), 0);
    lg_registry_stats stats = lg_registry_get_stats(registry);
    ck_assert_uint_eq(stats.kinds[LG_TASK].created, THREADS * OBJECTS * ROUNDS);
    ck_assert_uint_eq(stats.kinds[LG_TASK].ended, THREADS * OBJECTS * ROUNDS);
    ck_assert_uint_eq(stats.ghosts, 0);
    lg_registry_free(registry);
}
END_TEST

int
main(void)
{
    Suite *suite = suite_create("registry");
    TCase *all = tcase_create("all");
    tcase_set_timeout(all, 0); /* Meson limits the time */
    suite_add_tcase(suite, all);
    tcase_add_test(all, serials_rise_by_birth_and_are_never_reused);
    tcase_add_test(all, serials_begin_where_they_are_told_to);
    tcase_add_test(all, a_record_says_what_its_birth_said);
    tcase_add_test(all, one_object_has_one_record);
    tcase_add_test(all, what_is_not_there_is_not_found);
    tcase_add_test(all, counters_are_exact_by_kind);
    tcase_add_test(all, born_since_gives_the_newest_first_and_only_what_lives);
    tcase_add_test(all, looking_at_what_was_born_since_touches_nothing_older);
    tcase_add_test(all, a_creator_is_known_by_serial_and_hands_on_a_newer_scope);
    tcase_add_test(all, a_creator_that_ended_stays_known_with_its_note);
    tcase_add_test(all, linking_past_a_ghost_counts_with_the_next_creator);
    tcase_add_test(all, a_creator_that_lives_has_no_note);
    tcase_add_test(all, a_note_comes_too_late_for_a_ghost_that_has_gone);
    tcase_add_test(all, the_address_of_a_ghost_may_serve_another_object);
    tcase_add_test(all, a_chain_of_resources_that_replace_each_other_holds_one_ghost);
    tcase_add_test(all, freeing_the_registry_hands_back_every_note);
    tcase_add_test(all, memory_comes_back_and_a_warm_registry_allocates_nothing);
    tcase_add_test(all, a_million_live_records_cost_at_most_64_bytes_each);
    tcase_add_test(all, a_failed_allocation_changes_nothing);
    tcase_add_loop_test(all, the_index_agrees_with_a_naive_model, 0, 3);
    tcase_add_test(all, a_forked_child_keeps_the_forking_threads_records_only);
    tcase_add_test(all, what_belonged_to_an_ended_thread_goes_whichever_ended_first);
    tcase_add_test(all, threads_and_tasks_that_replace_each_other_hold_few_ghosts);
    tcase_add_test(all, a_forked_child_gets_the_notes_of_the_ghosts_that_went);
    tcase_add_test(all, a_child_of_an_unknown_thread_keeps_only_what_no_thread_owns);
    tcase_add_test(all, many_threads_insert_visit_and_remove_at_once);
    return run_suite(suite);
}
