#define _GNU_SOURCE /* sched_getcpu */
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
    atomic_int rounds;  /* of the hog */
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

/* Gives it for a moment only. */
static void *
hog(void *argument)
{
    shared *all = argument;
    while (!atomic_load(&all->waited)) {
        lg_lock_take(&all->lock);
        atomic_store(&all->begun, true);
        for (int i = 0; i < 100000; i++) {
            __asm__ volatile("");
        }
        lg_lock_give(&all->lock);
        atomic_fetch_add(&all->rounds, 1);
    }
    return NULL;
}

/* Where one thread runs at a time: on one processor, and under valgrind. */
START_TEST(who_takes_it_again_and_again_lets_others_have_it)
{
    shared all = {.counter = 0};
    cpu_set_t before, one;
    CPU_ZERO(&one);
    ck_assert_int_eq(sched_getaffinity(0, sizeof(before), &before), 0);
    CPU_SET(sched_getcpu(), &one);
    ck_assert_int_eq(sched_setaffinity(0, sizeof(one), &one), 0);
    pthread_t thread;
    ck_assert_int_eq(pthread_create(&thread, NULL, hog, &all), 0);
    while (!atomic_load(&all.begun)) {
        sched_yield();
    }
    for (int i = 0; i < 20; i++) {
        lg_lock_take(&all.lock);
        all.counter++;
        lg_lock_give(&all.lock);
    }
    atomic_store(&all.waited, true);
    pthread_join(thread, NULL);
    ck_assert_int_eq(all.counter, 20);
    ck_assert_int_lt(atomic_load(&all.rounds),
                     2000); /* some 100; 3,000 to 25,000 without a yield */
    ck_assert_int_eq(atomic_load(&all.lock.waiting), 0);
    ck_assert_int_eq(sched_setaffinity(0, sizeof(before), &before), 0);
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
    tcase_add_test(all, who_takes_it_again_and_again_lets_others_have_it);
    tcase_add_test(all, a_reset_lock_is_free);
    return run_suite(suite);
}
