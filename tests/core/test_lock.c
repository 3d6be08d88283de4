#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "leakguard/lock.h"
#include "support.h"

enum { THREADS = 4, ROUNDS = 20000 };

typedef struct {
    lg_lock lock;
    long counter; /* guarded by the lock, and by nothing else */
    atomic_bool begun;
    atomic_bool waited; /* the waiter has the lock */
} shared;

static void *
count(void *argument)
{
    shared *all = argument;
    for (int i = 0; i < ROUNDS; i++) {
        lg_lock_take(&all->lock);
        long seen = all->counter;
        if (i % 1000 == 0) {
            sched_yield(); /* so that others find it taken */
        }
        all->counter = seen + 1;
        lg_lock_give(&all->lock);
    }
    return NULL;
}

START_TEST(one_thread_at_a_time_has_it)
{
    shared all = {.counter = 0};
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) {
        ck_assert_int_eq(pthread_create(&threads[i], NULL, count, &all), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    ck_assert_int_eq(all.counter, (long)THREADS * ROUNDS);
}
END_TEST

static void *
wait_for_it(void *argument)
{
    shared *all = argument;
    atomic_store(&all->begun, true);
    lg_lock_take(&all->lock);
    atomic_store(&all->waited, true);
    lg_lock_give(&all->lock);
    return NULL;
}

START_TEST(who_finds_it_taken_waits_until_it_is_given)
{
    shared all = {.counter = 0};
    lg_lock_take(&all.lock);
    pthread_t waiter;
    ck_assert_int_eq(pthread_create(&waiter, NULL, wait_for_it, &all), 0);
    while (!atomic_load(&all.begun)) {
        sched_yield();
    }
    for (int i = 0; i < 1000; i++) {
        sched_yield();
        ck_assert(!atomic_load(&all.waited));
    }
    lg_lock_give(&all.lock);
    pthread_join(waiter, NULL);
    ck_assert(atomic_load(&all.waited));
}
END_TEST

START_TEST(a_reset_lock_is_free)
{
    lg_lock lock;
    lg_lock_reset(&lock);
    lg_lock_take(&lock);
    lg_lock_reset(&lock);
    lg_lock_take(&lock);
    lg_lock_give(&lock);
}
END_TEST

int
main(void)
{
    Suite *suite = suite_create("lock");
    TCase *all = tcase_create("all");
    tcase_set_timeout(all, 0); /* Meson limits the time */
    suite_add_tcase(suite, all);
    tcase_add_test(all, one_thread_at_a_time_has_it);
    tcase_add_test(all, who_finds_it_taken_waits_until_it_is_given);
    tcase_add_test(all, a_reset_lock_is_free);
    return run_suite(suite);
}
