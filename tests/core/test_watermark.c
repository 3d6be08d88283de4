#define _DEFAULT_SOURCE /* pthread_barrier_t */
#include <pthread.h>
#include <unistd.h>

#include "leakguard/process.h"
#include "leakguard/watermark.h"
#include "support.h"

static lg_tracker *tracker; /* of the test that runs */

static void
set_up(void)
{
    /* More than enough: no test runs into the bound. */
    tracker = new_tracker(NULL, 1 << 24);
}

static void
tear_down(void)
{
    lg_tracker_free(tracker, NULL, NULL);
}

/* The tests' stacks: a site is the code of the innermost frame; 0 has none. */
static uint64_t
site_of(const lg_stack *stack)
{
    return stack->frames[0].code;
}

static lg_stack
stack_at(lg_frame frames[2], uintptr_t code, uintptr_t caller)
{
    frames[0] = (lg_frame){code, 8};
    frames[1] = (lg_frame){caller, 16};
    lg_stack stack = {.frames = frames, .count = 2, .inner = 2, .hash = LG_STACK_HASH_SEED};
    for (int i = 0; i < 2; i++) {
        stack.hash = lg_stack_hash_step(stack.hash, frames[i]);
    }
    stack.hash = lg_stack_hash_end(&stack);
    return stack;
}

static lg_status
try_birth(lg_birth birth, uintptr_t code, uintptr_t caller)
{
    lg_frame frames[2];
    lg_stack stack = stack_at(frames, code, caller);
    uint64_t serial;
    return lg_tracker_birth(tracker, &stack, NULL, &birth, &serial);
}

/* A task, number `number`, created at the site `code`. */
static void
bear(size_t number, uintptr_t code)
{
    lg_birth birth = {.object = address(number), .kind = LG_TASK};
    if (try_birth(birth, code, 1) != LG_OK) {
        ck_abort_msg("%zu was not born", number);
    }
}

static void
end(size_t number)
{
    lg_removed removed;
    if (lg_tracker_death(tracker, address(number), &removed) != LG_OK) {
        ck_abort_msg("%zu did not live", number);
    }
}

static lg_watermark *
open_for(unsigned kinds, uint32_t scope)
{
    lg_watermark *mark = NULL;
    ck_assert_int_eq(lg_watermark_open(tracker, kinds, scope, site_of, &mark), LG_OK);
    return mark;
}

static lg_watermark *
open_mark(void)
{
    return open_for(LG_ALL_KINDS, 0);
}

static uint32_t
peak_of(lg_watermark *mark, lg_kind kind)
{
    lg_peak peak;
    lg_site_peak site;
    lg_watermark_read(tracker, mark, kind, &peak, &site, 1);
    return peak.peak;
}

static uintptr_t
code_of(lg_site_peak site)
{
    lg_stack stack;
    ck_assert_int_eq(lg_depot_get(tracker->depot, site.stack, &stack), LG_OK);
    return stack.count == 0 ? 0 : stack.frames[0].code;
}

START_TEST(the_peak_is_the_most_alive_at_once)
{
    lg_watermark *mark = open_mark();
    ck_assert_uint_eq(peak_of(mark, LG_TASK), 0);
    for (size_t i = 0; i < 5; i++) {
        bear(i, 100);
    }
    ck_assert_uint_eq(peak_of(mark, LG_TASK), 5);
    end(2);
    end(0);
    bear(5, 100);
    ck_assert_uint_eq(peak_of(mark, LG_TASK), 5);
    bear(6, 100);
    bear(7, 100);
    ck_assert_uint_eq(peak_of(mark, LG_TASK), 6);
    ck_assert_uint_eq(peak_of(mark, LG_THREAD), 0);
    lg_watermark_close(tracker, mark);
}
END_TEST

START_TEST(one_after_the_other_is_one)
{
    lg_watermark *mark = open_mark();
    for (size_t i = 0; i < 1000; i++) {
        bear(i % 3, 100);
        end(i % 3);
    }
    ck_assert_uint_eq(peak_of(mark, LG_TASK), 1);
}
END_TEST

START_TEST(what_was_born_before_or_found_is_not_counted)
{
    bear(1, 100);
    bear(2, 100);
    lg_watermark *mark = open_mark();
    bear(3, 100);
    lg_birth found = {.object = address(4), .kind = LG_TASK, .flags = LG_FOUND};
    ck_assert_int_eq(try_birth(found, 100, 1), LG_OK);
    end(1);
    end(2);
    end(4);
    end(3);
    ck_assert_uint_eq(peak_of(mark, LG_TASK), 1);
}
END_TEST

START_TEST(what_has_ended_counts_no_more_though_its_record_stays)
{
    lg_watermark *mark = open_mark();
    for (size_t i = 0; i < 100; i++) {
        bear(i, 100);
        ck_assert_int_eq(lg_registry_end(tracker->registry, address(i)), LG_OK);
    }
    ck_assert_int_eq(lg_registry_end(tracker->registry, address(7)), LG_EXISTS);
    ck_assert_int_eq(lg_registry_end(tracker->registry, address(777)), LG_NOT_FOUND);
    for (size_t i = 0; i < 100; i++) {
        end(i);
    }
    bear(1, 100);
    bear(2, 100);
    ck_assert_uint_eq(peak_of(mark, LG_TASK), 2);
}
END_TEST

START_TEST(a_birth_that_is_taken_back_leaves_no_trace)
{
    lg_watermark *mark = open_mark();
    bear(1, 100);
    bear(2, 200);
    lg_removed removed;
    ck_assert_int_eq(lg_tracker_cancel(tracker, address(2), &removed), LG_OK);
    end(1);
    lg_peak peak;
    lg_site_peak sites[2];
    ck_assert_uint_eq(lg_watermark_read(tracker, mark, LG_TASK, &peak, sites, 2), 1);
    ck_assert_uint_eq(peak.peak, 1);
    ck_assert_uint_eq(code_of(sites[0]), 100);
}
END_TEST

START_TEST(watermarks_that_overlap_count_apart)
{
    lg_watermark *outer = open_mark();
    bear(1, 100);
    lg_watermark *inner = open_mark();
    bear(2, 100);
    end(1);
    bear(3, 100);
    lg_watermark *last = open_mark();
    lg_watermark_close(tracker, outer);
    bear(4, 100);
    ck_assert_uint_eq(peak_of(inner, LG_TASK), 3);
    ck_assert_uint_eq(peak_of(last, LG_TASK), 1);
    lg_watermark_close(tracker, inner);
    end(4);
    bear(5, 100);
    ck_assert_uint_eq(peak_of(last, LG_TASK), 1);
    lg_watermark_close(tracker, last);
    /* What lives on from before belongs to none that is opened later. */
    last = open_mark();
    end(5);
    end(3);
    end(2);
    ck_assert_uint_eq(peak_of(last, LG_TASK), 0);
}
END_TEST

START_TEST(kinds_and_scopes_that_were_not_asked_for_are_not_counted)
{
    lg_watermark *mark = open_for(LG_KIND_BIT(LG_TASK), 5);
    lg_watermark_add_scope(tracker, 7, 5);
    lg_watermark_add_scope(tracker, 8, 6);
    lg_watermark_add_scope(tracker, 9, 7);
    for (uint32_t scope = 0; scope < 10; scope++) {
        lg_birth birth = {.object = address(scope), .kind = LG_TASK, .scope = scope};
        ck_assert_int_eq(try_birth(birth, 100, 1), LG_OK);
        birth.object = address(100 + scope);
        birth.kind = LG_THREAD;
        ck_assert_int_eq(try_birth(birth, 100, 1), LG_OK);
    }
    ck_assert_uint_eq(peak_of(mark, LG_TASK), 3);
    ck_assert_uint_eq(peak_of(mark, LG_THREAD), 0);
}
END_TEST

START_TEST(sites_have_their_share_of_the_peak_and_their_own)
{
    lg_watermark *mark = open_mark();
    for (size_t i = 0; i < 6; i++) {
        bear(i, 100);
    }
    for (size_t i = 0; i < 5; i++) {
        end(i);
    }
    for (size_t i = 10; i < 18; i++) {
        bear(i, 200);
    }
    for (size_t i = 10; i < 18; i++) {
        end(i);
    }
    for (size_t i = 20; i < 24; i++) {
        bear(i, 100);
    }
    lg_peak peak;
    lg_site_peak sites[2];
    ck_assert_uint_eq(lg_watermark_read(tracker, mark, LG_TASK, &peak, sites, 2), 2);
    ck_assert_uint_eq(peak.peak, 9);
    ck_assert_uint_eq(peak.unplaced, 0);
    ck_assert_uint_eq(code_of(sites[0]), 200);
    ck_assert_uint_eq(sites[0].share, 8);
    ck_assert_uint_eq(sites[0].peak, 8);
    ck_assert_uint_eq(code_of(sites[1]), 100);
    ck_assert_uint_eq(sites[1].share, 1);
    ck_assert_uint_eq(sites[1].peak, 6);
    ck_assert_uint_eq(lg_watermark_read(tracker, mark, LG_TASK, &peak, sites, 1), 1);
    ck_assert_uint_eq(code_of(sites[0]), 200);
}
END_TEST

START_TEST(stacks_of_one_site_are_counted_together)
{
    lg_watermark *mark = open_mark();
    for (size_t i = 0; i < 50; i++) {
        lg_birth birth = {.object = address(i), .kind = LG_TASK};
        ck_assert_int_eq(try_birth(birth, 100, 1000 + i), LG_OK);
    }
    lg_peak peak;
    lg_site_peak sites[3];
    ck_assert_uint_eq(lg_watermark_read(tracker, mark, LG_TASK, &peak, sites, 3), 1);
    ck_assert_uint_eq(sites[0].share, 50);
}
END_TEST

START_TEST(a_site_keeps_its_stack_through_an_eviction_and_ids_that_come_again)
{
    lg_watermark *mark = open_mark();
    bear(1, 100);
    bear(2, 100);
    for (size_t i = 0; i < 50; i++) {
        lg_birth birth = {.object = address(9), .kind = LG_TASK};
        ck_assert_int_eq(try_birth(birth, 100, 1000 + i), LG_OK);
        end(9);
    }
    end(1);
    end(2);
    lg_watermark_before_evict(tracker);
    ck_assert_uint_eq(lg_depot_evict(tracker->depot, NULL, NULL), 50);
    for (size_t i = 0; i < 40; i++) {
        bear(i, 200 + i);
    }
    bear(50, 239);
    lg_peak peak;
    lg_site_peak sites[50];
    ck_assert_uint_eq(lg_watermark_read(tracker, mark, LG_TASK, &peak, sites, 50), 40);
    ck_assert_uint_eq(code_of(sites[0]), 239);
    ck_assert_uint_eq(sites[0].share, 2);
    lg_watermark_close(tracker, mark);
    for (size_t i = 0; i < 40; i++) {
        end(i);
    }
    end(50);
    ck_assert_uint_eq(lg_depot_get_stats(tracker->depot).used, 0);
}
END_TEST

START_TEST(sites_beyond_the_bound_are_counted_as_unplaced)
{
    lg_watermark *mark = open_mark();
    size_t count = LG_MOST_SITES + 10;
    for (size_t i = 0; i < count; i++) {
        bear(i, 1000 + i);
    }
    lg_peak peak;
    lg_site_peak site;
    lg_watermark_read(tracker, mark, LG_TASK, &peak, &site, 1);
    ck_assert_uint_eq(peak.peak, count);
    ck_assert_uint_eq(peak.unplaced, 10);
    for (size_t i = 0; i < count; i++) {
        end(i);
    }
    bear(1, 100);
    ck_assert_uint_eq(peak_of(mark, LG_TASK), count);
}
END_TEST

START_TEST(without_memory_the_peak_is_exact_all_the_same)
{
    bool opened = false;
    for (long fail = 1; fail < 60; fail++) {
        counting counts = {0};
        tracker = new_tracker(&counts, 1 << 20);
        counts.fail_at = counts.calls + fail;
        lg_watermark *mark = NULL;
        if (lg_watermark_open(tracker, LG_ALL_KINDS, 3, site_of, &mark) == LG_OK) {
            opened = true;
            uint32_t born = 0;
            for (size_t i = 0; i < 200; i++) {
                lg_birth birth = {.object = address(i), .kind = LG_TASK, .scope = 3};
                born += try_birth(birth, 100 + i, 1) == LG_OK;
            }
            lg_removed removed;
            for (size_t i = 0; i < 200; i++) {
                (void)lg_tracker_death(tracker, address(i), &removed);
            }
            lg_peak peak;
            lg_site_peak sites[8];
            size_t count = lg_watermark_read(tracker, mark, LG_TASK, &peak, sites, 8);
            ck_assert_uint_eq(peak.peak, born);
            for (size_t i = 0; i < count; i++) {
                bool placed = code_of(sites[i]) != 0;
                ck_assert_uint_eq(sites[i].share, placed ? 1 : peak.unplaced);
                ck_assert_uint_eq(sites[i].peak, sites[i].share);
            }
        }
        lg_tracker_free(tracker, NULL, NULL);
        ck_assert_int_eq(counts.blocks, 0);
    }
    ck_assert(opened);
}
END_TEST

START_TEST(freeing_the_tracker_frees_what_is_open_and_closing_frees_all)
{
    counting counts = {0};
    tracker = new_tracker(&counts, 1 << 20);
    long blocks = counts.blocks;
    lg_watermark *first = open_mark();
    lg_watermark *second = open_for(LG_ALL_KINDS, 4);
    bear(1, 100);
    end(1);
    lg_depot_evict(tracker->depot, NULL, NULL);
    lg_watermark_close(tracker, first);
    lg_watermark_close(tracker, second);
    lg_depot_evict(tracker->depot, NULL, NULL);
    ck_assert_uint_eq(lg_depot_get_stats(tracker->depot).stacks, 0);
    ck_assert_int_eq(counts.blocks, blocks + 1); /* the registry's first chunk of records */
    open_mark();
    bear(1, 100);
    lg_tracker_free(tracker, NULL, NULL);
    ck_assert_int_eq(counts.blocks, 0);
}
END_TEST

typedef struct {
    size_t from;
    pthread_barrier_t *barrier;
} worker;

enum { WORKERS = 4, EACH = 200, ROUNDS = 20 };

static void *
work(void *argument)
{
    const worker *self = argument;
    for (int round = 0; round < ROUNDS; round++) {
        for (size_t i = 0; i < EACH; i++) {
            bear(self->from + i, 100 + self->from);
        }
        pthread_barrier_wait(self->barrier);
        for (size_t i = 0; i < EACH; i++) {
            if (i % 2 == 0) {
                (void)lg_registry_end(tracker->registry, address(self->from + i));
            }
            end(self->from + i);
        }
        pthread_barrier_wait(self->barrier);
    }
    return NULL;
}

START_TEST(threads_together_have_the_exact_peak)
{
    lg_watermark *mark = open_mark();
    pthread_barrier_t barrier;
    pthread_barrier_init(&barrier, NULL, WORKERS);
    pthread_t threads[WORKERS];
    worker workers[WORKERS];
    for (size_t i = 0; i < WORKERS; i++) {
        workers[i] = (worker){i * 10000, &barrier};
        pthread_create(&threads[i], NULL, work, &workers[i]);
    }
    for (int i = 0; i < 50; i++) {
        lg_watermark *other = open_mark();
        peak_of(other, LG_TASK);
        lg_watermark_close(tracker, other);
    }
    for (size_t i = 0; i < WORKERS; i++) {
        pthread_join(threads[i], NULL);
    }
    lg_peak peak;
    lg_site_peak sites[WORKERS + 1];
    ck_assert_uint_eq(lg_watermark_read(tracker, mark, LG_TASK, &peak, sites, WORKERS + 1),
                      WORKERS);
    ck_assert_uint_eq(peak.peak, WORKERS * EACH);
    for (size_t i = 0; i < WORKERS; i++) {
        ck_assert_uint_eq(sites[i].share, EACH);
        ck_assert_uint_eq(sites[i].peak, EACH);
    }
    pthread_barrier_destroy(&barrier);
}
END_TEST

START_TEST(a_forked_child_goes_on_counting_what_it_kept)
{
    ck_assert_int_eq(lg_process_set_tracker(tracker), LG_OK);
    lg_watermark *mark = open_mark();
    lg_birth thread = {.object = address(90), .kind = LG_THREAD};
    ck_assert_int_eq(try_birth(thread, 100, 1), LG_OK);
    lg_birth other = {.object = address(91), .kind = LG_TASK, .creator = address(90)};
    ck_assert_int_eq(try_birth(other, 100, 1), LG_OK);
    bear(1, 100);
    pid_t child = fork();
    if (child == 0) {
        lg_process_after_fork(NULL);
        bear(2, 100);
        bear(3, 100);
        /* 91 went with its thread. */
        _exit(peak_of(mark, LG_TASK) == 3 ? 0 : 1);
    }
    ck_assert_int_eq(status_of(child), 0);
    ck_assert_uint_eq(peak_of(mark, LG_TASK), 2);
    lg_process_set_tracker(NULL);
}
END_TEST

int
main(void)
{
    Suite *suite = suite_create("watermark");
    TCase *tests = tcase_create("watermark");
    tcase_set_timeout(tests, 120);
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_test(tests, the_peak_is_the_most_alive_at_once);
    tcase_add_test(tests, one_after_the_other_is_one);
    tcase_add_test(tests, what_was_born_before_or_found_is_not_counted);
    tcase_add_test(tests, what_has_ended_counts_no_more_though_its_record_stays);
    tcase_add_test(tests, a_birth_that_is_taken_back_leaves_no_trace);
    tcase_add_test(tests, watermarks_that_overlap_count_apart);
    tcase_add_test(tests, kinds_and_scopes_that_were_not_asked_for_are_not_counted);
    tcase_add_test(tests, sites_have_their_share_of_the_peak_and_their_own);
    tcase_add_test(tests, stacks_of_one_site_are_counted_together);
    tcase_add_test(tests, a_site_keeps_its_stack_through_an_eviction_and_ids_that_come_again);
    tcase_add_test(tests, sites_beyond_the_bound_are_counted_as_unplaced);
    tcase_add_test(tests, threads_together_have_the_exact_peak);
    tcase_add_test(tests, a_forked_child_goes_on_counting_what_it_kept);
    suite_add_tcase(suite, tests);
    TCase *memory = tcase_create("memory"); /* each with trackers of its own */
    tcase_set_timeout(memory, 120);
    tcase_add_test(memory, without_memory_the_peak_is_exact_all_the_same);
    tcase_add_test(memory, freeing_the_tracker_frees_what_is_open_and_closing_frees_all);
    suite_add_tcase(suite, memory);
    return run_suite(suite);
}
