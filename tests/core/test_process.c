#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "leakguard/process.h"
#include "support.h"

static char thread_key, other_thread, own_task, other_task;

static lg_tracker *
tracker_in_use(void)
{
    lg_tracker *tracker = new_tracker(NULL, 1 << 20);
    ck_assert_int_eq(lg_process_set_tracker(tracker), LG_OK);
    return tracker;
}

static void
end_tracker(lg_tracker *tracker)
{
    ck_assert_int_eq(lg_process_set_tracker(NULL), LG_OK);
    lg_tracker_free(tracker, NULL, NULL);
}

static lg_status
try_birth(lg_tracker *tracker, lg_kind kind, const void *object, const void *creator)
{
    lg_frame frame = {(uintptr_t)object, 0};
    lg_stack stack = {.frames = &frame, .count = 1, .inner = 1, .hash = (uintptr_t)object};
    lg_birth born = {.object = object, .creator = creator, .kind = kind};
    uint64_t serial;
    return lg_tracker_birth(tracker, &stack, NULL, &born, &serial);
}

static void
birth(lg_tracker *tracker, lg_kind kind, const void *object, const void *creator)
{
    ck_assert_int_eq(try_birth(tracker, kind, object, creator), LG_OK);
}

/* In the child: 0 if all is as it should be, else the number of what is not. */
static int
check_child(lg_tracker *tracker)
{
    if (!lg_process_forked()) {
        return 1;
    }
    if (try_birth(tracker, LG_TASK, &check_child, NULL) != LG_OK) { /* after the fork: stays */
        return 7;
    }
    if (lg_process_after_fork(&thread_key) != NULL || lg_process_forked()) {
        return 2;
    }
    lg_record record;
    if (lg_registry_find(tracker->registry, &thread_key, &record) != LG_OK
        || lg_registry_find(tracker->registry, &own_task, &record) != LG_OK) {
        return 3;
    }
    if (lg_registry_find(tracker->registry, &other_thread, &record) != LG_NOT_FOUND
        || lg_registry_find(tracker->registry, &other_task, &record) != LG_NOT_FOUND) {
        return 4;
    }
    if (lg_registry_find(tracker->registry, &check_child, &record) != LG_OK) {
        return 5;
    }
    /* The uses of their stacks went with them. */
    return lg_depot_get_stats(tracker->depot).used == 3 ? 0 : 6;
}

START_TEST(a_child_keeps_the_forking_threads_records_and_the_parent_all)
{
    lg_tracker *tracker = tracker_in_use();
    birth(tracker, LG_THREAD, &thread_key, NULL);
    birth(tracker, LG_TASK, &own_task, &thread_key);
    birth(tracker, LG_THREAD, &other_thread, &thread_key);
    birth(tracker, LG_TASK, &other_task, &other_thread);
    ck_assert(!lg_process_forked());
    pid_t child = fork();
    if (child == 0) {
        _exit(check_child(tracker));
    }
    ck_assert_int_eq(status_of(child), 0);
    ck_assert(!lg_process_forked());
    lg_record record;
    ck_assert_int_eq(lg_registry_find(tracker->registry, &other_task, &record), LG_OK);
    end_tracker(tracker);
}
END_TEST

START_TEST(without_a_tracker_a_fork_does_nothing)
{
    end_tracker(tracker_in_use());
    pid_t child = fork();
    if (child == 0) {
        _exit(lg_process_forked() ? 1 : 0);
    }
    ck_assert_int_eq(status_of(child), 0);
}
END_TEST

static atomic_bool stop;
static atomic_long faults; /* Check's assertions are not for threads and forked children */

static void *
hammer(void *context)
{
    lg_tracker *tracker = context;
    static char objects[64];
    while (!atomic_load(&stop)) {
        for (int i = 0; i < 64; i++) {
            faults += try_birth(tracker, LG_TASK, &objects[i], NULL) != LG_OK;
        }
        for (int i = 0; i < 64; i++) {
            lg_removed removed;
            faults += lg_tracker_death(tracker, &objects[i], &removed) != LG_OK;
        }
    }
    return NULL;
}

START_TEST(the_locks_work_in_a_child_whatever_another_thread_was_doing)
{
    lg_tracker *tracker = tracker_in_use();
    atomic_store(&stop, false);
    pthread_t thread;
    ck_assert_int_eq(pthread_create(&thread, NULL, hammer, tracker), 0);
    for (int i = 0; i < 50; i++) {
        pid_t child = fork();
        if (child == 0) {
            char object;
            lg_removed removed;
            bool works = try_birth(tracker, LG_TASK, &object, NULL) == LG_OK
                         && lg_tracker_death(tracker, &object, &removed) == LG_OK;
            _exit(works ? 0 : 1);
        }
        ck_assert_int_eq(status_of(child), 0);
    }
    atomic_store(&stop, true);
    pthread_join(thread, NULL);
    ck_assert_int_eq(atomic_load(&faults), 0);
    end_tracker(tracker);
}
END_TEST

static lg_tracker *set_late;
static lg_status was_started;

/* Runs after the core's own, as another thread may: what is registered first is called last. */
static void
set_more_during_the_fork(void)
{
    static const lg_blocking_config config = {0};
    lg_process_set_tracker(set_late);
    was_started = lg_blocking_start(INT64_C(3600000000000), &config);
}

/* 0 if all works, else the number of what does not; hangs on a lock that was not given back. */
static int
check_locks(lg_tracker *first, lg_tracker *late)
{
    char objects[2];
    lg_removed removed;
    if (try_birth(first, LG_TASK, &objects[0], NULL) != LG_OK
        || lg_tracker_death(first, &objects[0], &removed) != LG_OK) {
        return 1;
    }
    if (try_birth(late, LG_TASK, &objects[1], NULL) != LG_OK
        || lg_tracker_death(late, &objects[1], &removed) != LG_OK) {
        return 2;
    }
    return 0;
}

START_TEST(a_fork_gives_back_what_it_took_whatever_was_set_meanwhile)
{
    ck_assert_int_eq(pthread_atfork(set_more_during_the_fork, NULL, NULL), 0);
    set_late = new_tracker(NULL, 1 << 20);
    lg_tracker *first = tracker_in_use();
    pid_t child = fork();
    if (child == 0) {
        _exit(check_locks(first, set_late));
    }
    ck_assert_int_eq(status_of(child), 0);
    ck_assert_int_eq(check_locks(first, set_late), 0);
    ck_assert_int_eq(was_started, LG_OK);
    lg_blocking_stop();
    end_tracker(set_late);
    lg_tracker_free(first, NULL, NULL);
}
END_TEST

int
main(void)
{
    Suite *suite = suite_create("process");
    TCase *all = tcase_create("all");
    tcase_set_timeout(all, 0); /* Meson limits the time */
    suite_add_tcase(suite, all);
    tcase_add_test(all, a_child_keeps_the_forking_threads_records_and_the_parent_all);
    tcase_add_test(all, without_a_tracker_a_fork_does_nothing);
    tcase_add_test(all, the_locks_work_in_a_child_whatever_another_thread_was_doing);
    tcase_add_test(all, a_fork_gives_back_what_it_took_whatever_was_set_meanwhile);
    return run_suite(suite);
}
