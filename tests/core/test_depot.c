#define _DEFAULT_SOURCE /* rand_r */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "leakguard/depot.h"
#include "support.h"

enum { BIG = 1 << 24 };

static long retained;
static long released;

static void
retain(lg_frame frame)
{
    (void)frame;
    retained++;
}

static void
release(void *context, lg_frame frame)
{
    (void)context;
    (void)frame;
    released++;
}

static lg_depot *
new_depot(counting *counts, size_t max_bytes)
{
    retained = released = 0;
    lg_depot_config config = {
        .allocator = counts != NULL ? counting_allocator(counts) : lg_allocator_system(),
        .max_bytes = max_bytes,
        .retain = retain,
    };
    lg_depot *depot = NULL;
    ck_assert_int_eq(lg_depot_new(&config, &depot), LG_OK);
    return depot;
}

/* The stack with this number: `depth` frames of their own. */
static lg_stack
make_stack(lg_frame *frames, uint32_t depth, uint64_t number)
{
    uint64_t hash = LG_STACK_HASH_SEED;
    for (uint32_t i = 0; i < depth; i++) {
        frames[i] = (lg_frame){(uintptr_t)(number * 1000 + i + 1), i};
        hash = lg_stack_hash_step(hash, frames[i]);
    }
    lg_stack stack = {.frames = frames, .count = depth, .inner = depth, .hash = hash};
    stack.hash = lg_stack_hash_end(&stack);
    return stack;
}

static lg_stack_id
intern(lg_depot *depot, uint32_t depth, uint64_t number)
{
    lg_frame frames[64];
    lg_stack stack = make_stack(frames, depth, number);
    lg_stack_id id = 0;
    ck_assert_int_eq(lg_depot_intern(depot, &stack, &id), LG_OK);
    return id;
}

START_TEST(an_equal_stack_gets_the_same_id)
{
    lg_depot *depot = new_depot(NULL, BIG);
    lg_stack_id first = intern(depot, 20, 7);
    ck_assert_uint_ne(first, LG_STACK_EMPTY);
    ck_assert_uint_eq(intern(depot, 20, 7), first);
    ck_assert_uint_eq(lg_depot_get_stats(depot).stacks, 1);
    ck_assert_int_eq(retained, 20);
    lg_depot_free(depot, release, NULL);
    ck_assert_int_eq(released, 20);
}
END_TEST

START_TEST(stacks_that_differ_in_anything_get_ids_of_their_own)
{
    lg_depot *depot = new_depot(NULL, BIG);
    lg_frame frames[3];
    lg_stack base = make_stack(frames, 3, 1);
    lg_stack variants[4] = {base, base, base, base};
    variants[1].inner = 2;
    variants[2].truncated = true;
    variants[3].count = 2;
    lg_stack_id ids[4];
    for (int i = 0; i < 4; i++) {
        /* All with one hash: what tells them apart is the comparison. */
        ck_assert_int_eq(lg_depot_intern(depot, &variants[i], &ids[i]), LG_OK);
        for (int j = 0; j < i; j++) {
            ck_assert_uint_ne(ids[i], ids[j]);
        }
    }
    frames[1].place = 99;
    lg_stack_id other;
    ck_assert_int_eq(lg_depot_intern(depot, &base, &other), LG_OK);
    ck_assert_uint_ne(other, ids[0]);
    lg_depot_free(depot, NULL, NULL);
}
END_TEST

START_TEST(what_is_looked_up_is_what_was_stored)
{
    lg_depot *depot = new_depot(NULL, BIG);
    lg_frame frames[5];
    lg_stack stack = make_stack(frames, 5, 3);
    stack.inner = 2;
    stack.truncated = true;
    lg_stack_id id;
    ck_assert_int_eq(lg_depot_intern(depot, &stack, &id), LG_OK);
    lg_stack found;
    ck_assert_int_eq(lg_depot_get(depot, id, &found), LG_OK);
    ck_assert_uint_eq(found.count, 5);
    ck_assert_uint_eq(found.inner, 2);
    ck_assert(found.truncated);
    ck_assert_ptr_ne(found.frames, frames);
    ck_assert_mem_eq(found.frames, frames, sizeof(frames));
    lg_depot_free(depot, NULL, NULL);
}
END_TEST

START_TEST(the_empty_stack_is_id_0_and_costs_nothing)
{
    counting counts = {0};
    lg_depot *depot = new_depot(&counts, BIG);
    long calls = counts.calls;
    lg_stack empty = {0};
    lg_stack_id id = 5;
    ck_assert_int_eq(lg_depot_intern(depot, &empty, &id), LG_OK);
    ck_assert_uint_eq(id, LG_STACK_EMPTY);
    lg_depot_drop(depot, LG_STACK_EMPTY);
    lg_stack found = {.count = 9};
    ck_assert_int_eq(lg_depot_get(depot, LG_STACK_EMPTY, &found), LG_OK);
    ck_assert_uint_eq(found.count, 0);
    ck_assert_int_eq(counts.calls, calls);
    ck_assert_uint_eq(lg_depot_get_stats(depot).stacks, 0);
    lg_depot_free(depot, NULL, NULL);
}
END_TEST

START_TEST(an_id_that_is_not_stored_is_not_found)
{
    lg_depot *depot = new_depot(NULL, BIG);
    lg_stack found;
    ck_assert_int_eq(lg_depot_get(depot, 1, &found), LG_NOT_FOUND);
    ck_assert_int_eq(lg_depot_get(depot, UINT32_MAX, &found), LG_NOT_FOUND);
    lg_depot_drop(depot, 12345);
    lg_depot_free(depot, NULL, NULL);
}
END_TEST

START_TEST(a_known_stack_costs_no_allocation)
{
    counting counts = {0};
    lg_depot *depot = new_depot(&counts, BIG);
    intern(depot, 20, 1);
    long calls = counts.calls;
    for (int i = 0; i < 1000; i++) {
        intern(depot, 20, 1);
    }
    ck_assert_int_eq(counts.calls, calls);
    lg_depot_free(depot, NULL, NULL);
}
END_TEST

START_TEST(ten_thousand_stacks_are_all_found_again)
{
    lg_depot *depot = new_depot(NULL, BIG);
    static lg_stack_id ids[10000];
    for (uint64_t i = 0; i < 10000; i++) {
        ids[i] = intern(depot, 1 + (uint32_t)(i % 9), i);
    }
    for (uint64_t i = 0; i < 10000; i++) {
        ck_assert_uint_eq(intern(depot, 1 + (uint32_t)(i % 9), i), ids[i]);
    }
    ck_assert_uint_eq(lg_depot_get_stats(depot).stacks, 10000);
    lg_depot_free(depot, NULL, NULL);
}
END_TEST

START_TEST(eviction_takes_the_unused_and_leaves_the_used)
{
    counting counts = {0};
    lg_depot *depot = new_depot(&counts, BIG);
    lg_stack_id used = intern(depot, 4, 1);
    lg_stack_id twice = intern(depot, 4, 2);
    intern(depot, 4, 2);
    lg_stack_id unused = intern(depot, 4, 3);
    lg_depot_drop(depot, twice);
    lg_depot_drop(depot, unused);
    ck_assert_uint_eq(lg_depot_get_stats(depot).used, 2);
    ck_assert_uint_eq(lg_depot_evict(depot, release, NULL), 1);
    ck_assert_int_eq(released, 4);
    lg_stack found;
    ck_assert_int_eq(lg_depot_get(depot, unused, &found), LG_NOT_FOUND);
    ck_assert_int_eq(lg_depot_get(depot, used, &found), LG_OK);
    ck_assert_uint_eq(intern(depot, 4, 1), used);
    ck_assert_uint_eq(intern(depot, 4, 2), twice);
    /* The free id serves the next new stack. */
    ck_assert_uint_eq(intern(depot, 4, 9), unused);
    ck_assert_uint_eq(lg_depot_get_stats(depot).bytes, counts.bytes);
    lg_depot_free(depot, NULL, NULL);
    ck_assert_int_eq(counts.blocks, 0);
}
END_TEST

START_TEST(the_bound_holds_until_something_is_evicted)
{
    counting counts = {0};
    lg_depot *depot = new_depot(&counts, 20000);
    lg_frame frames[20];
    lg_stack_id id;
    lg_status status = LG_OK;
    uint64_t stored = 0;
    while (status == LG_OK) {
        lg_stack stack = make_stack(frames, 20, stored);
        status = lg_depot_intern(depot, &stack, &id);
        stored += status == LG_OK;
        ck_assert_uint_le(counts.bytes, 20000);
    }
    ck_assert_int_eq(status, LG_FULL);
    ck_assert_uint_gt(stored, 10);
    /* What is known is still found; what is in use stays. */
    ck_assert_uint_ne(intern(depot, 20, 0), LG_STACK_EMPTY);
    ck_assert_uint_eq(lg_depot_evict(depot, release, NULL), 0);
    for (lg_stack_id drop = 1; drop <= stored; drop++) {
        lg_depot_drop(depot, drop);
    }
    ck_assert_uint_eq(lg_depot_evict(depot, release, NULL), stored - 1);
    intern(depot, 20, 123456);
    lg_depot_free(depot, NULL, NULL);
}
END_TEST

START_TEST(many_stacks_without_a_use_ask_for_eviction)
{
    lg_depot *depot = new_depot(NULL, BIG);
    lg_frame frames[2];
    lg_stack_id id;
    lg_status status = LG_OK;
    uint64_t stored = 0;
    for (; status == LG_OK && stored < 5000; stored++) {
        lg_stack stack = make_stack(frames, 2, stored);
        status = lg_depot_intern(depot, &stack, &id);
        if (status == LG_OK) {
            lg_depot_drop(depot, id);
        }
    }
    ck_assert_int_eq(status, LG_FULL);
    ck_assert_uint_lt(stored, 1000);
    ck_assert_uint_eq(lg_depot_evict(depot, release, NULL), stored - 1);
    ck_assert_int_eq(released, 2 * (long)(stored - 1));
    ck_assert_uint_ne(intern(depot, 2, 9999), LG_STACK_EMPTY);
    lg_depot_free(depot, NULL, NULL);
}
END_TEST

START_TEST(no_bound_is_exceeded_even_while_tables_grow)
{
    for (size_t bound = 4096; bound < 40000; bound += 333) {
        counting counts = {0};
        lg_depot *depot = new_depot(&counts, bound);
        lg_status status = LG_OK;
        for (uint64_t i = 0; status == LG_OK; i++) {
            lg_frame frames[2];
            lg_stack stack = make_stack(frames, 1 + (uint32_t)(i % 2), i);
            lg_stack_id id;
            status = lg_depot_intern(depot, &stack, &id);
        }
        ck_assert_int_eq(status, LG_FULL);
        ck_assert_uint_le(counts.peak, bound);
        lg_depot_free(depot, NULL, NULL);
        ck_assert_int_eq(counts.blocks, 0);
    }
}
END_TEST

START_TEST(a_failed_allocation_changes_nothing)
{
    for (long fail_at = 1;; fail_at++) {
        counting counts = {.fail_at = fail_at};
        lg_depot_config config = {.allocator = counting_allocator(&counts), .max_bytes = BIG};
        lg_depot *depot = NULL;
        lg_status status = lg_depot_new(&config, &depot);
        if (status != LG_OK) {
            ck_assert_int_eq(status, LG_NO_MEMORY);
            ck_assert_ptr_null(depot);
            ck_assert_int_eq(counts.blocks, 0);
            continue;
        }
        long failures = 0;
        for (uint64_t i = 0; i < 200; i++) {
            lg_frame frames[3];
            lg_stack stack = make_stack(frames, 3, i);
            lg_stack_id id = 77777;
            if (lg_depot_intern(depot, &stack, &id) != LG_OK) {
                failures++;
                ck_assert_uint_eq(id, 77777);
                ck_assert_uint_eq(lg_depot_get_stats(depot).stacks, i);
                ck_assert_int_eq(lg_depot_intern(depot, &stack, &id), LG_OK);
            }
            ck_assert_uint_eq(lg_depot_get_stats(depot).bytes, counts.bytes);
        }
        ck_assert_uint_eq(lg_depot_get_stats(depot).stacks, 200);
        lg_depot_free(depot, NULL, NULL);
        ck_assert_int_eq(counts.blocks, 0);
        if (failures == 0) {
            ck_assert_int_gt(fail_at, 200);
            break;
        }
    }
}
END_TEST

enum { THREADS = 8, ROUNDS = 4000 };

/* Check's assertions are not for threads. */
static atomic_long faults;

static void *
hammer(void *context)
{
    lg_depot *depot = context;
    unsigned seed = (unsigned)(uintptr_t)pthread_self();
    for (int i = 0; i < ROUNDS; i++) {
        lg_frame frames[8];
        uint64_t number = (uint64_t)(rand_r(&seed) % 300);
        lg_stack stack = make_stack(frames, 8, number);
        lg_stack_id id;
        if (lg_depot_intern(depot, &stack, &id) == LG_FULL) {
            lg_depot_evict(depot, NULL, NULL);
            continue;
        }
        lg_stack found = {0};
        faults += lg_depot_get(depot, id, &found) != LG_OK;
        faults += found.count != 8 || memcmp(found.frames, frames, sizeof(frames)) != 0;
        lg_depot_drop(depot, id);
    }
    return NULL;
}

START_TEST(many_threads_store_drop_and_evict_at_once)
{
    lg_depot_config config = {.allocator = lg_allocator_system(), .max_bytes = 20000};
    lg_depot *depot;
    ck_assert_int_eq(lg_depot_new(&config, &depot), LG_OK);
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) {
        ck_assert_int_eq(pthread_create(&threads[i], NULL, hammer, depot), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    ck_assert_int_eq(atomic_load(&faults), 0);
    ck_assert_uint_eq(lg_depot_get_stats(depot).used, 0);
    lg_depot_evict(depot, NULL, NULL);
    ck_assert_uint_eq(lg_depot_get_stats(depot).stacks, 0);
    lg_depot_free(depot, NULL, NULL);
}
END_TEST

int
main(void)
{
    Suite *suite = suite_create("depot");
    TCase *basics = tcase_create("all");
    tcase_set_timeout(basics, 0); /* Meson limits the time */
    suite_add_tcase(suite, basics);
    tcase_add_test(basics, an_equal_stack_gets_the_same_id);
    tcase_add_test(basics, stacks_that_differ_in_anything_get_ids_of_their_own);
    tcase_add_test(basics, what_is_looked_up_is_what_was_stored);
    tcase_add_test(basics, the_empty_stack_is_id_0_and_costs_nothing);
    tcase_add_test(basics, an_id_that_is_not_stored_is_not_found);
    tcase_add_test(basics, a_known_stack_costs_no_allocation);
    tcase_add_test(basics, ten_thousand_stacks_are_all_found_again);
    tcase_add_test(basics, eviction_takes_the_unused_and_leaves_the_used);
    tcase_add_test(basics, the_bound_holds_until_something_is_evicted);
    tcase_add_test(basics, many_stacks_without_a_use_ask_for_eviction);
    tcase_add_test(basics, no_bound_is_exceeded_even_while_tables_grow);
    tcase_add_test(basics, a_failed_allocation_changes_nothing);
    tcase_add_test(basics, many_threads_store_drop_and_evict_at_once);
    return run_suite(suite);
}
