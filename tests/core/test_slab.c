#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "leakguard/slab.h"
#include "support.h"

typedef struct {
    uint32_t link;
    uint32_t number;
    uint64_t more[3];
} item;

static lg_slab
new_slab(counting *counts)
{
    lg_slab slab;
    lg_allocator allocator = counting_allocator(counts);
    ck_assert(lg_slab_init(&slab, &allocator, sizeof(item)));
    return slab;
}

static item *
at(const lg_slab *slab, uint32_t slot)
{
    return lg_slab_at(slab, slot, sizeof(item));
}

START_TEST(items_keep_their_content_and_address)
{
    counting counts = {0};
    lg_slab slab = new_slab(&counts);
    static uint32_t slots[5000];
    static item *items[5000];
    for (uint32_t i = 0; i < 5000; i++) {
        slots[i] = lg_slab_take(&slab);
        items[i] = at(&slab, slots[i]);
        items[i]->number = i;
    }
    for (uint32_t i = 0; i < 5000; i++) {
        if (at(&slab, slots[i]) != items[i] || items[i]->number != i) {
            ck_abort_msg("item %u has changed", i);
        }
    }
    lg_slab_done(&slab);
    ck_assert_int_eq(counts.blocks, 0);
}
END_TEST

START_TEST(a_slot_that_was_given_back_is_taken_again)
{
    counting counts = {0};
    lg_slab slab = new_slab(&counts);
    uint32_t first = lg_slab_take(&slab);
    uint32_t second = lg_slab_take(&slab);
    ck_assert_uint_ne(first, second);
    at(&slab, first)->number = 77;
    lg_slab_give(&slab, first);
    ck_assert(lg_slab_has(&slab, first));
    ck_assert_uint_eq(at(&slab, first)->number, 77);
    ck_assert_uint_eq(lg_slab_take(&slab), first);
    ck_assert(!lg_slab_has(&slab, LG_NO_SLOT - 1));
    lg_slab_done(&slab);
}
END_TEST

START_TEST(chunks_that_are_free_are_given_back_but_for_one)
{
    counting counts = {0};
    lg_slab slab = new_slab(&counts);
    size_t empty = counts.bytes;
    static uint32_t slots[10 * LG_SLAB_CHUNK_ITEMS];
    size_t count = 10 * LG_SLAB_CHUNK_ITEMS;
    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < count; i++) {
            slots[i] = lg_slab_take(&slab);
        }
        ck_assert_uint_ge(counts.bytes, count * sizeof(item));
        /* The odd ones first: no chunk becomes free before the even ones go. */
        for (size_t i = 1; i < count; i += 2) {
            lg_slab_give(&slab, slots[i]);
        }
        ck_assert_uint_ge(counts.bytes, count * sizeof(item));
        for (size_t i = 0; i < count; i += 2) {
            lg_slab_give(&slab, slots[i]);
        }
        ck_assert_uint_le(counts.bytes, empty + LG_SLAB_CHUNK_ITEMS * sizeof(item) + 512);
        ck_assert_uint_eq(slab.bytes, counts.bytes);
    }
    long calls = counts.calls;
    for (int i = 0; i < 1000; i++) {
        lg_slab_give(&slab, lg_slab_take(&slab));
    }
    ck_assert_int_eq(counts.calls, calls);
    lg_slab_done(&slab);
    ck_assert_int_eq(counts.blocks, 0);
}
END_TEST

START_TEST(a_failed_allocation_changes_nothing)
{
    for (long fail_at = 1;; fail_at++) {
        counting counts = {.fail_at = fail_at};
        lg_allocator allocator = counting_allocator(&counts);
        lg_slab slab;
        if (!lg_slab_init(&slab, &allocator, sizeof(item))) {
            ck_assert_int_eq(counts.blocks, 0);
            continue;
        }
        long failures = 0;
        for (uint32_t i = 0; i < 20 * LG_SLAB_CHUNK_ITEMS; i++) {
            uint32_t slot = lg_slab_take(&slab);
            if (slot == LG_NO_SLOT) {
                failures++;
                ck_assert_uint_eq(slab.bytes, counts.bytes);
                slot = lg_slab_take(&slab);
            }
            if (slot != i) {
                ck_abort_msg("slot %u, should be %u", slot, i);
            }
        }
        lg_slab_done(&slab);
        ck_assert_int_eq(counts.blocks, 0);
        if (failures == 0) {
            ck_assert_int_gt(fail_at, 20);
            break;
        }
    }
}
END_TEST

static bool
is_mapped(const void *address)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    unsigned char resident;
    int result = mincore((void *)((uintptr_t)address & ~(page - 1)), 1, &resident);
    ck_assert(result == 0 || errno == ENOMEM);
    return result == 0;
}

/* From malloc they would stay where something else lies above them: the small block here. */
START_TEST(free_chunks_go_back_to_the_system_whatever_was_allocated_since)
{
    enum { COUNT = 4 * LG_SLAB_CHUNK_ITEMS };
    static uint32_t slots[COUNT];
    const void *chunks[4];
    lg_slab slab;
    lg_allocator allocator = lg_allocator_system();
    ck_assert(lg_slab_init(&slab, &allocator, sizeof(item)));
    for (uint32_t i = 0; i < COUNT; i++) {
        slots[i] = lg_slab_take(&slab);
        ck_assert_uint_ne(slots[i], LG_NO_SLOT);
    }
    for (uint32_t i = 0; i < 4; i++) {
        chunks[i] = at(&slab, i * LG_SLAB_CHUNK_ITEMS);
        ck_assert(is_mapped(chunks[i]));
    }
    void *later = allocator.allocate(allocator.context, 100);
    ck_assert_ptr_nonnull(later);
    for (uint32_t i = 0; i < COUNT; i++) {
        lg_slab_give(&slab, slots[i]);
    }
    ck_assert(is_mapped(chunks[0])); /* the one that is kept */
    for (uint32_t i = 1; i < 4; i++) {
        ck_assert(!is_mapped(chunks[i]));
    }
    lg_slab_done(&slab);
    ck_assert(!is_mapped(chunks[0]));
    allocator.release(allocator.context, later, 100);
    allocator.release(allocator.context, NULL, 1 << 20);
}
END_TEST

int
main(void)
{
    Suite *suite = suite_create("slab");
    TCase *all = tcase_create("all");
    tcase_set_timeout(all, 0); /* Meson limits the time */
    suite_add_tcase(suite, all);
    tcase_add_test(all, items_keep_their_content_and_address);
    tcase_add_test(all, a_slot_that_was_given_back_is_taken_again);
    tcase_add_test(all, chunks_that_are_free_are_given_back_but_for_one);
    tcase_add_test(all, a_failed_allocation_changes_nothing);
    tcase_add_test(all, free_chunks_go_back_to_the_system_whatever_was_allocated_since);
    return run_suite(suite);
}
