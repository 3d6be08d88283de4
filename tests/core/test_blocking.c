#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "leakguard/process.h"
#include "support.h"

#define MS INT64_C(1000000)

/* What one loop was told. */
typedef struct {
    int told;
    int looks; /* counted in the signal handler */
    int64_t begin, duration;
    bool sampled;
    uint32_t frames;
} account;

static void
look(void *context)
{
    account *mine = context;
    mine->looks++; /* in the thread that reads it */
}

static void
tell(void *context, const lg_block *block)
{
    account *mine = context;
    mine->told++;
    mine->begin = block->begin;
    mine->duration = block->duration;
    mine->sampled = block->sampled;
    mine->frames = block->count;
}

static const lg_blocking_config config = {look, tell};

static void
start(int64_t bound)
{
    ck_assert_int_eq(lg_process_set_tracker(NULL), LG_OK); /* registers the fork handlers */
    ck_assert_int_eq(lg_blocking_start(bound, &config), LG_OK);
}

static void
pass(int64_t time)
{
    int64_t end = lg_blocking_now() + time;
    struct timespec until = {(time_t)(end / 1000000000), (long)(end % 1000000000)};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR) {
    }
}

/* Blocks for at least this time, and until the watcher has had its look: a slow machine, or valgrind,
 * may take long to come to it. */
static void
block(const account *mine, int64_t time)
{
    int before = mine->looks;
    pass(time);
    for (int64_t end = lg_blocking_now() + 30000 * MS;
         mine->looks == before && lg_blocking_now() < end;) {
        pass(MS);
    }
}

/* Not by counting threads: a sanitizer has some of its own. */
static bool
is_alive(pid_t tid)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/self/task/%d", (int)tid);
    return access(path, F_OK) == 0;
}

/* The watcher, once it has begun to run. */
static pid_t
watcher(void)
{
    while (lg_blocking_watcher() == 0) {
        pass(MS);
    }
    return lg_blocking_watcher();
}

START_TEST(a_block_is_told_once_with_its_exact_duration)
{
    account mine = {0};
    start(20 * MS);
    int64_t before = lg_blocking_now();
    lg_loop *loop = lg_loop_begin(&mine);
    int64_t first = lg_blocking_now();
    block(&mine, 80 * MS);
    int64_t last = lg_blocking_now();
    lg_loop_idle(loop);
    int64_t after = lg_blocking_now();
    ck_assert_int_eq(mine.told, 1);
    ck_assert_int_ge(mine.duration, last - first);
    ck_assert_int_le(mine.duration, after - before);
    ck_assert_int_ge(mine.begin, before);
    ck_assert(mine.sampled);
    ck_assert_int_eq(mine.looks, 1);
    if (lg_unwind_version() != NULL) {
        ck_assert_uint_gt(mine.frames, 0);
    }
    lg_loop_end(loop);
    ck_assert_int_eq(mine.told, 1);
    lg_blocking_stop();
}
END_TEST

START_TEST(what_stays_within_the_bound_and_what_waits_is_not_told)
{
    account mine = {0};
    start(10000 * MS);
    lg_loop *loop = lg_loop_begin(&mine);
    pass(5 * MS);
    lg_loop_end(loop);
    ck_assert_int_eq(lg_blocking_start(20 * MS, &config), LG_OK);
    loop = lg_loop_begin(&mine);
    lg_loop_idle(loop);
    pass(60 * MS);
    lg_loop_end(loop);
    ck_assert_int_eq(mine.told, 0);
    ck_assert_int_eq(mine.looks, 0);
    lg_blocking_stop();
}
END_TEST

START_TEST(each_iteration_and_the_end_count_by_themselves)
{
    account mine = {0};
    start(10 * MS);
    lg_loop *loop = lg_loop_begin(&mine);
    for (int i = 1; i <= 3; i++) {
        block(&mine, 30 * MS);
        lg_loop_idle(loop);
        ck_assert_int_eq(mine.told, i);
        ck_assert_int_eq(mine.looks, i);
        pass(30 * MS);
        lg_loop_busy(loop);
    }
    block(&mine, 30 * MS);
    lg_loop_end(loop);
    ck_assert_int_eq(mine.told, 4);
    lg_blocking_stop();
}
END_TEST

START_TEST(a_cut_parts_one_block_and_what_is_exempt_counts_for_none)
{
    account mine = {0};
    start(20 * MS);
    lg_loop *loop = lg_loop_begin(&mine);
    block(&mine, 40 * MS);
    lg_loop_cut(loop);
    ck_assert_int_eq(mine.told, 1);
    lg_loop_exempt(loop, true);
    lg_loop_exempt(loop, true);
    pass(40 * MS);
    lg_loop_exempt(loop, false);
    pass(40 * MS);
    lg_loop_exempt(loop, false);
    int64_t begun = lg_blocking_now();
    pass(30 * MS);
    lg_loop_idle(loop);
    int64_t ended = lg_blocking_now();
    ck_assert_int_eq(mine.told, 2);
    ck_assert_int_lt(mine.duration, ended - begun + 10 * MS);
    lg_loop_end(loop);
    lg_blocking_stop();
}
END_TEST

typedef struct {
    account account;
    int64_t time;
} runner;

static void *
run_loop(void *argument)
{
    runner *mine = argument;
    lg_loop *loop = lg_loop_begin(&mine->account);
    for (int i = 0; i < 5; i++) {
        if (mine->time != 0) {
            block(&mine->account, mine->time);
        }
        lg_loop_idle(loop);
        pass(MS);
        lg_loop_busy(loop);
    }
    lg_loop_end(loop);
    return NULL;
}

START_TEST(loops_of_several_threads_have_each_their_own_account)
{
    runner runners[4] = {{.time = 40 * MS}, {.time = 0}, {.time = 30 * MS}, {.time = 0}};
    pthread_t threads[4];
    start(20 * MS);
    for (int i = 0; i < 4; i++) {
        ck_assert_int_eq(pthread_create(&threads[i], NULL, run_loop, &runners[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
    }
    ck_assert_int_eq(runners[0].account.told, 5);
    ck_assert_int_eq(runners[2].account.told, 5);
    lg_blocking_stop();
}
END_TEST

START_TEST(the_watcher_is_there_from_the_first_loop_to_the_stop)
{
    account mine = {0};
    start(20 * MS);
    ck_assert(lg_blocking_is_on());
    ck_assert_int_eq(lg_blocking_watcher(), 0);
    lg_loop *loop = lg_loop_begin(&mine);
    pid_t tid = watcher();
    ck_assert(is_alive(tid));
    ck_assert_int_eq(lg_blocking_start(10 * MS, &config), LG_OK);
    ck_assert_int_eq(watcher(), tid);
    lg_loop_end(loop);
    ck_assert(is_alive(tid));
    lg_blocking_stop();
    lg_blocking_stop();
    ck_assert(!is_alive(tid));
    ck_assert(!lg_blocking_is_on());
    ck_assert_int_eq(lg_blocking_watcher(), 0);
}
END_TEST

START_TEST(the_watcher_blocks_all_signals)
{
    account mine = {0};
    start(20 * MS);
    lg_loop *loop = lg_loop_begin(&mine);
    char path[64], line[256];
    snprintf(path, sizeof(path), "/proc/self/task/%d/status", (int)watcher());
    FILE *status = fopen(path, "r");
    unsigned long long blocked = 0;
    while (fgets(line, sizeof(line), status) != NULL) {
        sscanf(line, "SigBlk: %llx", &blocked);
    }
    fclose(status);
    ck_assert(blocked & (1ull << (SIGTERM - 1)));
    ck_assert(blocked & (1ull << (SIGPROF - 1)));
    lg_loop_end(loop);
    lg_blocking_stop();
}
END_TEST

START_TEST(a_loop_outlives_the_watching_and_is_told_nothing_more)
{
    account mine = {0};
    start(100000 * MS);
    lg_loop *loop = lg_loop_begin(&mine);
    lg_blocking_stop();
    ck_assert_ptr_null(lg_loop_begin(&mine));
    start(10 * MS);
    ck_assert(!lg_loop_is_current(loop));
    pass(30 * MS);
    lg_loop_idle(loop);
    lg_loop_busy(loop);
    lg_loop_end(loop);
    lg_loop_end(NULL);
    ck_assert_int_eq(mine.told + mine.looks, 0);
    lg_blocking_stop();
}
END_TEST

START_TEST(a_thread_that_takes_no_signal_is_measured_all_the_same)
{
    account mine = {0};
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    start(10 * MS);
    lg_loop *loop = lg_loop_begin(&mine);
    pass(60 * MS);
    lg_loop_end(loop);
    ck_assert_int_eq(mine.told, 1);
    ck_assert(!mine.sampled);
    lg_blocking_stop();
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}
END_TEST

START_TEST(a_fork_ends_the_watcher_before_and_a_busy_loop_makes_it_anew)
{
    account mine = {0};
    start(20 * MS);
    lg_loop *loop = lg_loop_begin(&mine);
    pid_t tid = watcher();
    pid_t child = fork();
    if (child == 0) {
        bool none = !is_alive(tid) && !lg_blocking_is_on() && !lg_loop_is_current(loop);
        lg_loop_end(loop);
        none = none && lg_blocking_start(20 * MS, &config) == LG_OK;
        loop = lg_loop_begin(&mine);
        none = none && is_alive(watcher());
        lg_blocking_stop();
        lg_loop_end(loop);
        _exit(none && mine.told == 0 ? 0 : 1);
    }
    ck_assert(!is_alive(tid));
    ck_assert_int_eq(lg_blocking_watcher(), 0);
    ck_assert_int_eq(status_of(child), 0);
    lg_loop_idle(loop);
    mine = (account){0};
    lg_loop_busy(loop);
    tid = watcher();
    block(&mine, 60 * MS);
    lg_loop_idle(loop);
    ck_assert_int_eq(mine.told, 1);
    ck_assert(mine.sampled);
    if (fork() == 0) {
        _exit(0);
    }
    ck_assert(!is_alive(tid));
    ck_assert_int_eq(lg_blocking_watcher(), 0);
    lg_loop_busy(loop);
    tid = watcher();
    wait(NULL);
    lg_loop_end(loop);
    lg_blocking_stop();
    ck_assert(!is_alive(tid));
}
END_TEST

#ifndef __SANITIZE_THREAD__ /* it allows no new thread in the child where others ran at the fork */
/* A look that lasts until the process forks. */
static atomic_bool is_looking, is_held;

static void
look_until_fork(void *context)
{
    (void)context;
    atomic_store(&is_looking, true);
    while (atomic_load(&is_held)) {
    }
}

static void
let_look_go(void)
{
    atomic_store(&is_held, false);
}

static void *
be_looked_at(void *argument)
{
    account mine = {0};
    (void)argument;
    lg_loop *loop = lg_loop_begin(&mine);
    while (!atomic_load(&is_looking)) {
        pass(200 * MS);
        lg_loop_cut(loop); /* a block is asked for its stack once, and may answer too late */
    }
    lg_loop_end(loop);
    return NULL;
}

static void *
stop_watching(void *argument)
{
    (void)argument;
    lg_blocking_stop();
    return NULL;
}

START_TEST(a_child_of_a_fork_in_the_midst_of_a_stop_gets_a_watcher)
{
    static const lg_blocking_config held = {look_until_fork, tell};
    pthread_t looped, stopper;
    atomic_store(&is_held, true);
    ck_assert_int_eq(lg_process_set_tracker(NULL), LG_OK);
    ck_assert_int_eq(pthread_atfork(let_look_go, NULL, NULL), 0); /* runs before the core's */
    ck_assert_int_eq(lg_blocking_start(20 * MS, &held), LG_OK);
    ck_assert_int_eq(pthread_create(&looped, NULL, be_looked_at, NULL), 0);
    while (!atomic_load(&is_looking)) {
        pass(MS);
    }
    ck_assert_int_eq(pthread_create(&stopper, NULL, stop_watching, NULL), 0);
    while (lg_blocking_is_on()) {
        pass(MS);
    }
    pid_t child = fork();
    if (child == 0) {
        account mine = {0};
        bool made = lg_blocking_start(20 * MS, &config) == LG_OK;
        lg_loop *loop = lg_loop_begin(&mine);
        made = made && is_alive(lg_blocking_watcher());
        lg_loop_end(loop);
        lg_blocking_stop();
        _exit(made ? 0 : 1);
    }
    ck_assert_int_eq(status_of(child), 0);
    pthread_join(stopper, NULL);
    pthread_join(looped, NULL);
}
END_TEST
#endif

START_TEST(a_process_that_was_stopped_has_not_blocked)
{
    account mine = {0};
    int ready[2];
    ck_assert_int_eq(pipe(ready), 0);
    pid_t helper = fork();
    if (helper == 0) {
        struct timespec pause = {.tv_nsec = 60 * MS}, stopped = {.tv_nsec = 900 * MS};
        char byte;
        if (read(ready[0], &byte, 1) != 1) {
            _exit(1);
        }
        nanosleep(&pause, NULL);
        kill(getppid(), SIGSTOP);
        nanosleep(&stopped, NULL);
        kill(getppid(), SIGCONT);
        _exit(0);
    }
    start(100 * MS);
    lg_loop *loop = lg_loop_begin(&mine);
    int64_t longest = 0;
    ck_assert_int_eq(write(ready[1], "", 1), 1);
    while (waitpid(helper, NULL, WNOHANG) == 0) {
        int64_t begun = lg_blocking_now();
        pass(2 * MS);
        lg_loop_idle(loop);
        int64_t time = lg_blocking_now() - begun;
        longest = time > longest ? time : longest;
        lg_loop_busy(loop);
    }
    lg_loop_end(loop);
    ck_assert_int_gt(longest, 500 * MS); /* it was stopped */
    ck_assert(mine.told == 0 || mine.duration < 500 * MS);
    close(ready[0]);
    close(ready[1]);
    lg_blocking_stop();
}
END_TEST

static atomic_bool over;

static void *
start_and_stop(void *unused)
{
    (void)unused;
    for (int i = 0; i < 200; i++) {
        lg_blocking_start(MS, &config);
        pass(MS);
        lg_blocking_stop();
    }
    atomic_store(&over, true);
    return NULL;
}

static void *
run_until_over(void *unused)
{
    (void)unused;
    account mine = {0};
    while (!atomic_load(&over)) {
        lg_loop *loop = lg_loop_begin(&mine);
        for (int i = 0; i < 10 && loop != NULL; i++) {
            pass(i % 3 * MS);
            lg_loop_idle(loop);
            lg_loop_busy(loop);
        }
        lg_loop_end(loop);
    }
    return NULL;
}

START_TEST(loops_run_while_the_watching_starts_and_stops)
{
    pthread_t threads[4];
    ck_assert_int_eq(lg_process_set_tracker(NULL), LG_OK);
    for (int i = 0; i < 4; i++) {
        ck_assert_int_eq(
            pthread_create(&threads[i], NULL, i == 0 ? start_and_stop : run_until_over, NULL), 0);
    }
    while (!atomic_load(&over)) {
        pid_t child = fork();
        if (child == 0) {
            _exit(0);
        }
        waitpid(child, NULL, 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
    }
    ck_assert_int_eq(lg_blocking_watcher(), 0);
}
END_TEST

int
main(void)
{
    Suite *suite = suite_create("blocking");
    TCase *all = tcase_create("all");
    tcase_set_timeout(all, 0); /* Meson limits the time */
    suite_add_tcase(suite, all);
    tcase_add_test(all, a_block_is_told_once_with_its_exact_duration);
    tcase_add_test(all, what_stays_within_the_bound_and_what_waits_is_not_told);
    tcase_add_test(all, each_iteration_and_the_end_count_by_themselves);
    tcase_add_test(all, a_cut_parts_one_block_and_what_is_exempt_counts_for_none);
    tcase_add_test(all, loops_of_several_threads_have_each_their_own_account);
    tcase_add_test(all, the_watcher_is_there_from_the_first_loop_to_the_stop);
    tcase_add_test(all, the_watcher_blocks_all_signals);
    tcase_add_test(all, a_loop_outlives_the_watching_and_is_told_nothing_more);
    tcase_add_test(all, a_thread_that_takes_no_signal_is_measured_all_the_same);
    tcase_add_test(all, a_fork_ends_the_watcher_before_and_a_busy_loop_makes_it_anew);
#ifndef __SANITIZE_THREAD__
    tcase_add_test(all, a_child_of_a_fork_in_the_midst_of_a_stop_gets_a_watcher);
#endif
    tcase_add_test(all, a_process_that_was_stopped_has_not_blocked);
    tcase_add_test(all, loops_run_while_the_watching_starts_and_stops);
    return run_suite(suite);
}
