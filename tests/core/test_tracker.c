#include <stdatomic.h>

#include "leakguard/tracker.h"
#include "support.h"

static lg_stack
one_frame(lg_frame *frame, uintptr_t number)
{
    *frame = (lg_frame){number, 0};
    lg_stack stack = {.frames = frame, .count = 1, .inner = 1, .hash = number * 7919};
    return stack;
}

START_TEST(a_stack_is_used_as_long_as_its_record_lives)
{
    counting counts = {0};
    lg_tracker *tracker = new_tracker(&counts, 1 << 20);
    lg_frame frame;
    lg_stack stack = one_frame(&frame, 5);
    int objects[2];
    uint64_t serial;
    for (int i = 0; i < 2; i++) {
        lg_birth birth = {.object = &objects[i], .kind = LG_TASK, .stack = 999};
        ck_assert_int_eq(lg_tracker_birth(tracker, &stack, NULL, &birth, &serial), LG_OK);
    }
    lg_record record;
    ck_assert_int_eq(lg_registry_find(tracker->registry, &objects[0], &record), LG_OK);
    lg_stack found;
    ck_assert_int_eq(lg_depot_get(tracker->depot, record.stack, &found), LG_OK);
    ck_assert_uint_eq(found.frames[0].code, 5);
    lg_removed removed;
    ck_assert_int_eq(lg_tracker_death(tracker, &objects[0], &removed), LG_OK);
    ck_assert_uint_eq(lg_depot_get_stats(tracker->depot).used, 1);
    ck_assert_int_eq(lg_tracker_cancel(tracker, &objects[1], &removed), LG_OK);
    ck_assert_uint_eq(lg_depot_get_stats(tracker->depot).used, 0);
    ck_assert_int_eq(lg_tracker_death(tracker, &objects[1], &removed), LG_NOT_FOUND);
    ck_assert_ptr_null(lg_tracker_free(tracker, NULL, NULL));
    ck_assert_int_eq(counts.blocks, 0);
}
END_TEST

START_TEST(a_second_record_for_an_object_takes_no_use_of_its_stack)
{
    counting counts = {0};
    lg_tracker *tracker = new_tracker(&counts, 1 << 20);
    lg_frame frame;
    int object;
    uint64_t serial;
    lg_birth birth = {.object = &object, .kind = LG_TASK};
    lg_stack first = one_frame(&frame, 5);
    ck_assert_int_eq(lg_tracker_birth(tracker, &first, NULL, &birth, &serial), LG_OK);
    lg_stack second = one_frame(&frame, 6);
    ck_assert_int_eq(lg_tracker_birth(tracker, &second, NULL, &birth, &serial), LG_EXISTS);
    ck_assert_uint_eq(lg_depot_get_stats(tracker->depot).used, 1);
    lg_tracker_free(tracker, NULL, NULL);
}
END_TEST

START_TEST(a_stack_whose_id_is_known_is_not_looked_up)
{
    counting counts = {0};
    lg_tracker *tracker = new_tracker(&counts, 1 << 20);
    static char objects[3];
    lg_frame frame;
    uint64_t serial;
    lg_stack_id id = LG_STACK_EMPTY;
    lg_stack stack = one_frame(&frame, 5);
    lg_birth birth = {.object = &objects[0], .kind = LG_TASK};
    ck_assert_int_eq(lg_tracker_birth(tracker, &stack, &id, &birth, &serial), LG_OK);
    ck_assert_uint_ne(id, LG_STACK_EMPTY);
    lg_stack_id known = id;
    birth.object = &objects[1];
    lg_stack other = one_frame(&frame, 6); /* what the id says counts */
    ck_assert_int_eq(lg_tracker_birth(tracker, &other, &known, &birth, &serial), LG_OK);
    ck_assert_uint_eq(known, id);
    lg_record record;
    ck_assert_int_eq(lg_registry_find(tracker->registry, &objects[1], &record), LG_OK);
    ck_assert_uint_eq(record.stack, id);
    ck_assert_uint_eq(lg_depot_get_stats(tracker->depot).stacks, 1);
    /* Each record has its use; a birth that fails leaves none. */
    ck_assert_int_eq(lg_tracker_birth(tracker, &other, &known, &birth, &serial), LG_EXISTS);
    lg_removed removed;
    ck_assert_int_eq(lg_tracker_death(tracker, &objects[0], &removed), LG_OK);
    ck_assert_uint_eq(lg_depot_get_stats(tracker->depot).used, 1);
    ck_assert_int_eq(lg_tracker_death(tracker, &objects[1], &removed), LG_OK);
    ck_assert_uint_eq(lg_depot_get_stats(tracker->depot).used, 0);
    lg_tracker_free(tracker, NULL, NULL);
}
END_TEST

START_TEST(a_full_depot_refuses_the_birth_until_it_is_evicted)
{
    counting counts = {0};
    lg_tracker *tracker = new_tracker(&counts, 0); /* the least: one page */
    static char objects[1000];
    lg_status status = LG_OK;
    uint64_t serial = 0;
    size_t born = 0;
    while (status == LG_OK) {
        lg_frame frame;
        lg_stack stack = one_frame(&frame, born + 1);
        lg_birth birth = {.object = &objects[born], .kind = LG_TASK};
        status = lg_tracker_birth(tracker, &stack, NULL, &birth, &serial);
        born += status == LG_OK;
        ck_assert_uint_lt(born, 1000);
    }
    ck_assert_int_eq(status, LG_FULL);
    ck_assert_uint_eq(lg_registry_last_serial(tracker->registry), born);
    lg_removed removed;
    ck_assert_int_eq(lg_tracker_death(tracker, &objects[0], &removed), LG_OK);
    ck_assert_uint_eq(lg_depot_evict(tracker->depot, NULL, NULL), 1);
    lg_frame frame;
    lg_stack stack = one_frame(&frame, 5000);
    lg_birth birth = {.object = &objects[999], .kind = LG_TASK};
    ck_assert_int_eq(lg_tracker_birth(tracker, &stack, NULL, &birth, &serial), LG_OK);
    lg_stack empty = {0};
    lg_birth other = {.object = &objects[998], .kind = LG_TASK};
    ck_assert_int_eq(lg_tracker_birth(tracker, &empty, NULL, &other, &serial), LG_OK);
    ck_assert_uint_eq(atomic_load(&tracker->dropped), 0);
    lg_tracker_free(tracker, NULL, NULL);
    ck_assert_int_eq(counts.blocks, 0);
}
END_TEST

START_TEST(a_failed_allocation_leaves_no_trace)
{
    for (long fail_at = 1;; fail_at++) {
        counting counts = {.fail_at = fail_at};
        lg_depot_config config = {.allocator = counting_allocator(&counts), .max_bytes = 1 << 20};
        lg_tracker *tracker = NULL;
        if (lg_tracker_new(&config, 1, &tracker) != LG_OK) {
            ck_assert_ptr_null(tracker);
            ck_assert_int_eq(counts.blocks, 0);
            continue;
        }
        int object;
        lg_frame frame;
        lg_stack stack = one_frame(&frame, 3);
        lg_birth birth = {.object = &object, .kind = LG_TASK};
        uint64_t serial;
        lg_status status = lg_tracker_birth(tracker, &stack, NULL, &birth, &serial);
        if (status != LG_OK) {
            ck_assert_int_eq(status, LG_NO_MEMORY);
            ck_assert_uint_eq(lg_depot_get_stats(tracker->depot).used, 0);
            ck_assert_uint_eq(lg_registry_last_serial(tracker->registry), 0);
        }
        lg_tracker_free(tracker, NULL, NULL);
        ck_assert_int_eq(counts.blocks, 0);
        if (status == LG_OK) {
            ck_assert_int_gt(fail_at, 4);
            break;
        }
    }
}
END_TEST

int
main(void)
{
    Suite *suite = suite_create("tracker");
    TCase *all = tcase_create("all");
    tcase_set_timeout(all, 0); /* Meson limits the time */
    suite_add_tcase(suite, all);
    tcase_add_test(all, a_stack_is_used_as_long_as_its_record_lives);
    tcase_add_test(all, a_second_record_for_an_object_takes_no_use_of_its_stack);
    tcase_add_test(all, a_stack_whose_id_is_known_is_not_looked_up);
    tcase_add_test(all, a_full_depot_refuses_the_birth_until_it_is_evicted);
    tcase_add_test(all, a_failed_allocation_leaves_no_trace);
    return run_suite(suite);
}
