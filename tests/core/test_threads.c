#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <threads.h>
#include <unistd.h>

#include "leakguard/process.h"
#include "leakguard/sample.h"
#include "leakguard/threads.h"
#include "support.h"

static sem_t gate, ready;
static char a_creator;

/* What `describe` is to say, and was asked. */
static struct {
    lg_thread_caller says;
    atomic_int asked;
    lg_thread *claimed;
} binding;

static void
describe(void *context, lg_thread *thread, lg_thread_caller *ret_caller)
{
    ck_assert_ptr_eq(context, &binding);
    *ret_caller = binding.says;
    atomic_fetch_add(&binding.asked, 1);
    if (binding.says.claimed) {
        lg_thread_hold(thread);
        binding.claimed = thread;
    }
}

/* What was there at the start: ThreadSanitizer has a thread of its own. */
static uint64_t found_records;
static size_t others;

static const lg_depot_config depot_config = {.max_bytes = 1 << 20};

static lg_tracker *
begin(void)
{
    lg_depot_config config = depot_config;
    config.allocator = lg_allocator_system();
    lg_tracker *tracker = NULL;
    ck_assert_int_eq(lg_tracker_new(&config, 1, &tracker), LG_OK);
    ck_assert_int_eq(lg_process_set_tracker(tracker), LG_OK);
    lg_threads_config threads = {.depot = &config, .describe = describe, .context = &binding};
    ck_assert_int_eq(lg_threads_start(&threads, tracker), LG_OK);
    ck_assert_int_eq(lg_threads_know(getpid()), LG_OK);
    lg_threads_scan(LG_FOUND);
    found_records = lg_registry_get_stats(tracker->registry).kinds[LG_NATIVE_THREAD].created;
    others = lg_threads_count();
    return tracker;
}

static void *
brief(void *unused)
{
    return unused;
}

static void
set_up(void)
{
    /* ThreadSanitizer starts a thread of its own with the first. */
    pthread_t first;
    pthread_create(&first, NULL, brief, NULL);
    pthread_join(first, NULL);
    sem_init(&gate, 0, 0);
    sem_init(&ready, 0, 0);
}

static void
end(lg_tracker *tracker)
{
    lg_threads_stop();
    ck_assert(!lg_threads_is_on());
    ck_assert_int_eq(lg_process_set_tracker(NULL), LG_OK);
    lg_tracker_free(tracker, NULL, NULL);
}

static lg_kind_count
counted(lg_tracker *tracker)
{
    lg_kind_count count = lg_registry_get_stats(tracker->registry).kinds[LG_NATIVE_THREAD];
    count.created -= found_records;
    return count;
}

/* A thread's own end comes a moment after its join. */
static void
await_live(lg_tracker *tracker, uint64_t live)
{
    lg_kind_count count;
    do {
        lg_threads_scan(0);
        count = counted(tracker);
    } while (count.created - count.ended != live);
}

static bool
take(void *context, const lg_record *record)
{
    lg_thread *thread = (lg_thread *)record->object;
    lg_thread_hold(thread);
    *(lg_thread **)context = thread;
    return false;
}

static lg_thread_info
newest(lg_tracker *tracker)
{
    lg_thread *thread = NULL;
    lg_registry_visit_since(tracker->registry, 0, LG_KIND_BIT(LG_NATIVE_THREAD), take, &thread);
    ck_assert_ptr_nonnull(thread);
    lg_thread_info info;
    do {
        info = lg_thread_get_info(thread);
    } while (info.tid == 0);
    lg_thread_release(thread);
    return info;
}

static void *
worker(void *argument)
{
    sem_post(&ready);
    while (sem_wait(&gate) != 0) {
        /* a signal */
    }
    return argument;
}

static void *
leaver(void *argument)
{
    worker(argument);
    pthread_exit(argument);
}

/* The innermost function of a native stack that has a name and is no sanitizer's. */
static const char *
creator_of(const lg_thread_info *info)
{
    lg_frame frames[LG_NATIVE_DEPTH];
    uint32_t count = 0;
    ck_assert_int_eq(lg_threads_stack(info->native, frames, LG_NATIVE_DEPTH, &count), LG_OK);
    for (uint32_t i = 0; i < count; i++) {
        Dl_info found;
        if (dladdr((void *)(frames[i].code - 1), &found) != 0 && found.dli_sname != NULL
            && strstr(found.dli_sname, "pthread_create") == NULL) {
            return found.dli_sname;
        }
    }
    return "";
}

START_TEST(test_a_thread_is_known_until_it_ends)
{
    static const struct {
        void *(*run)(void *);
        bool cancel;
    } ways[] = {
        {worker, false},
        {leaver, false},
#ifndef __SANITIZE_THREAD__ /* it loses sight of locks in a thread that is cancelled */
        {worker, true},
#endif
    };
    lg_tracker *tracker = begin();
    binding.says.creator = NULL;
    for (size_t i = 0; i < sizeof(ways) / sizeof(*ways); i++) {
        pthread_t thread;
        void *result;
        ck_assert_int_eq(pthread_create(&thread, NULL, ways[i].run, &gate), 0);
        sem_wait(&ready);
        ck_assert_uint_eq(counted(tracker).created - counted(tracker).ended, 1);
        lg_thread_info info = newest(tracker);
        ck_assert_uint_eq(info.start, (uintptr_t)ways[i].run);
        ck_assert(pthread_equal(info.handle, thread));
        ck_assert_int_ne(info.tid, getpid());
        ck_assert(!info.found);
        if (ways[i].cancel) {
            pthread_cancel(thread);
        }
        else {
            sem_post(&gate);
        }
        pthread_join(thread, &result);
        ck_assert_ptr_eq(result, ways[i].cancel ? PTHREAD_CANCELED : (void *)&gate);
        await_live(tracker, 0);
    }
    ck_assert_int_eq(binding.asked, sizeof(ways) / sizeof(*ways));
    end(tracker);
}
END_TEST

START_TEST(test_detached_threads_and_failures)
{
    lg_tracker *tracker = begin();
    pthread_t thread;
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, 1 << 19);
    ck_assert_int_eq(pthread_create(&thread, &attributes, worker, NULL), 0);
    sem_wait(&ready);
    ck_assert_uint_eq(newest(tracker).stack_size, 1 << 19);
    sem_post(&gate);
    await_live(tracker, 0);
    pthread_attr_destroy(&attributes);

    cpu_set_t nowhere;
    CPU_ZERO(&nowhere);
    pthread_attr_init(&attributes);
    pthread_attr_setaffinity_np(&attributes, sizeof(nowhere), &nowhere);
    ck_assert_int_ne(pthread_create(&thread, &attributes, worker, NULL), 0);
    ck_assert_uint_eq(counted(tracker).created, 1); /* taken back: as if never asked for */
    ck_assert_uint_eq(lg_threads_count(), others);
    pthread_attr_destroy(&attributes);
    end(tracker);
}
END_TEST

START_TEST(test_what_the_binding_says)
{
    lg_tracker *tracker = begin();
    pthread_t thread;
    uint64_t serial;
    lg_birth task = {.object = &a_creator, .kind = LG_TASK, .scope = 3};
    lg_stack none = {0};
    ck_assert_int_eq(lg_tracker_birth(tracker, &none, NULL, &task, &serial), LG_OK);
    binding.says = (lg_thread_caller){.creator = &a_creator, .scope = 2, .count = 2};
    binding.says.frames[0] = (lg_frame){11, 12};
    binding.says.frames[1] = (lg_frame){21, 22};
    ck_assert_int_eq(pthread_create(&thread, NULL, worker, NULL), 0);
    lg_thread_info info = newest(tracker);
    lg_frame frames[2];
    uint32_t count;
    ck_assert_int_eq(lg_threads_stack(info.caller, frames, 2, &count), LG_OK);
    ck_assert_uint_eq(count, 2);
    ck_assert_uint_eq(frames[1].code, 21);
    sem_post(&gate);
    pthread_join(thread, NULL);
    await_live(tracker, 0);

    binding.says = (lg_thread_caller){.claimed = true};
    ck_assert_int_eq(pthread_create(&thread, NULL, worker, NULL), 0);
    ck_assert_uint_eq(counted(tracker).created, 1);
    ck_assert_uint_eq(lg_threads_count(), others + 1);
    while (lg_thread_get_info(binding.claimed).tid == 0) {
        /* it is starting */
    }
    ck_assert(pthread_equal(lg_thread_get_info(binding.claimed).handle, thread));
    sem_post(&gate);
    pthread_join(thread, NULL);
    lg_thread_release(binding.claimed);
    binding.says = (lg_thread_caller){0};
    end(tracker);
}
END_TEST

static void *
parent(void *argument)
{
    pthread_t *child = argument;
    pthread_create(child, NULL, worker, NULL);
    return worker(NULL);
}

START_TEST(test_a_native_thread_is_the_creator_of_those_it_starts)
{
    lg_tracker *tracker = begin();
    pthread_t thread, child;
    pthread_create(&thread, NULL, parent, &child);
    sem_wait(&ready);
    sem_wait(&ready);
    lg_thread *made = NULL;
    lg_registry_visit_since(tracker->registry, 0, LG_KIND_BIT(LG_NATIVE_THREAD), take, &made);
    lg_record creator;
    const lg_note *note;
    ck_assert_int_eq(lg_registry_find_creator(tracker->registry, made, &creator, &note), LG_OK);
    ck_assert_uint_eq(creator.serial, found_records + 1);
    lg_thread_release(made);
    sem_post(&gate);
    sem_post(&gate);
    pthread_join(thread, NULL);
    pthread_join(child, NULL);
    await_live(tracker, 0);
    end(tracker);
}
END_TEST

START_TEST(test_a_library_loaded_later_and_its_constructor)
{
    lg_tracker *tracker = begin();
    setenv("LIBRARY_STARTS", "1", 1);
    void *library = dlopen(TEST_LIBRARY, RTLD_NOW | RTLD_LOCAL);
    ck_assert_msg(library != NULL, "%s", dlerror());
    lg_thread_info info = newest(tracker);
    uintptr_t routine = (uintptr_t)dlsym(library, "library_worker");
    ck_assert_uint_eq(info.start, routine);
    if (lg_unwind_version() != NULL) {
        ck_assert_str_eq(creator_of(&info), "library_start");
    }
    sem_t *library_gate = dlsym(library, "library_gate");
    sem_post(library_gate);
    pthread_join(*(pthread_t *)dlsym(library, "library_thread"), NULL);
    await_live(tracker, 0);

    int (*start)(void) = (int (*)(void))(uintptr_t)dlsym(library, "library_start");
    ck_assert_int_eq(start(), 0);
    ck_assert_uint_eq(counted(tracker).created, 2);
    lg_threads_stop(); /* the library's entry is put back, too */
    sem_post(library_gate);
    pthread_join(*(pthread_t *)dlsym(library, "library_thread"), NULL);
    int asked = binding.asked;
    ck_assert_int_eq(start(), 0);
    ck_assert_int_eq(binding.asked, asked);
    sem_post(library_gate);
    pthread_join(*(pthread_t *)dlsym(library, "library_thread"), NULL);
    dlclose(library);
    end(tracker);
}
END_TEST

/* The protections of libc's and of this program's addresses. (Where a page was written to, the
 * kernel goes on listing it apart.) */
static void
mappings(char *text, size_t room)
{
    FILE *maps = fopen("/proc/self/maps", "re");
    char line[512], flags[5], last[5] = "";
    unsigned long begins, ends, end = 0;
    size_t used = 0;
    while (fgets(line, sizeof(line), maps) != NULL) {
        if ((strstr(line, "libc.so") != NULL || strstr(line, "test_threads") != NULL)
            && sscanf(line, "%lx-%lx %4s", &begins, &ends, flags) == 3 && used + 40 < room) {
            if (begins != end || strcmp(flags, last) != 0) {
                used += (size_t)snprintf(text + used, room - used, "%lx %s\n", begins, flags);
            }
            end = ends;
            strcpy(last, flags);
        }
    }
    ck_assert_uint_gt(used, 0);
    fclose(maps);
}

START_TEST(test_everything_is_put_back)
{
    static char before[65536], after[65536];
    void *original = dlsym(RTLD_DEFAULT, "pthread_create");
    mappings(before, sizeof(before));
    for (int i = 0; i < 3; i++) {
        lg_tracker *tracker = begin();
        ck_assert_ptr_ne(dlsym(RTLD_DEFAULT, "pthread_create"), original);
        end(tracker);
        ck_assert_ptr_eq(dlsym(RTLD_DEFAULT, "pthread_create"), original);
    }
    mappings(after, sizeof(after));
    ck_assert_str_eq(before, after);
    int asked = binding.asked;
    pthread_t thread;
    pthread_create(&thread, NULL, worker, NULL);
    sem_post(&gate);
    pthread_join(thread, NULL);
    ck_assert_int_eq(binding.asked, asked);
}
END_TEST

START_TEST(test_a_thread_that_outlives_the_tracking)
{
    lg_tracker *tracker = begin();
    pthread_t thread;
    pthread_create(&thread, NULL, worker, NULL);
    end(tracker);
    tracker = begin(); /* it is found now, and is no leak */
    ck_assert_uint_ge(found_records, 1);
    ck_assert(newest(tracker).found);
    sem_post(&gate);
    pthread_join(thread, NULL);
    end(tracker);
}
END_TEST

START_TEST(test_many_threads_and_scans_at_once)
{
    enum { ROUNDS = 20, BATCH = 20 };
    lg_tracker *tracker = begin();
    for (int i = 0; i < ROUNDS; i++) {
        pthread_t threads[BATCH];
        for (int j = 0; j < BATCH; j++) {
            ck_assert_int_eq(pthread_create(&threads[j], NULL, brief, NULL), 0);
        }
        lg_threads_scan(0);
        for (int j = 0; j < BATCH; j++) {
            pthread_join(threads[j], NULL);
        }
    }
    await_live(tracker, 0);
    /* None was taken for a thread that nobody had announced. */
    ck_assert_uint_eq(counted(tracker).created, ROUNDS * BATCH);
    ck_assert_uint_eq(tracker->dropped, 0);
    ck_assert_uint_eq(lg_threads_count(), others);
    end(tracker);
}
END_TEST

#ifndef __SANITIZE_THREAD__ /* it must see each thread start, and allows none after fork */

static int
inside_libc(void *argument)
{
    worker(argument);
    return 0;
}

START_TEST(test_threads_that_libc_starts_itself_are_found)
{
    lg_tracker *tracker = begin();
    thrd_t thread;
    ck_assert_int_eq(thrd_create(&thread, inside_libc, NULL), thrd_success);
    sem_wait(&ready);
    ck_assert_uint_eq(counted(tracker).created, 0);
    lg_threads_scan(0);
    ck_assert_uint_eq(counted(tracker).created, 1);
    lg_thread_info info = newest(tracker);
    ck_assert(info.found);
    ck_assert_uint_eq(info.start, 0);
    sem_post(&gate);
    thrd_join(thread, NULL);
    await_live(tracker, 0);
    end(tracker);
}
END_TEST

START_TEST(test_fork)
{
    lg_tracker *tracker = begin();
    pthread_t thread;
    pthread_create(&thread, NULL, worker, NULL);
    sem_wait(&ready);
    pid_t child = fork();
    if (child == 0) {
        lg_process_after_fork(NULL);
        lg_kind_count count = counted(tracker);
        bool empty = count.created + found_records == count.ended && lg_threads_count() == 1;
        pthread_create(&thread, NULL, worker, NULL);
        sem_wait(&ready);
        lg_threads_scan(0);
        bool seen = counted(tracker).created == 2 && lg_threads_count() == 2;
        sem_post(&gate);
        pthread_join(thread, NULL);
        _exit(!empty + 2 * !seen);
    }
    ck_assert_int_eq(status_of(child), 0);
    ck_assert_uint_eq(counted(tracker).created - counted(tracker).ended, 1);
    sem_post(&gate);
    pthread_join(thread, NULL);
    await_live(tracker, 0);
    end(tracker);
}
END_TEST

#endif

static void *
deaf(void *unused)
{
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, NULL);
    return worker(unused);
}

START_TEST(test_samples)
{
    pthread_t threads[2];
    lg_tracker *tracker = begin();
    lg_sample samples[4] = {{.tid = 0}, {.tid = 0}, {.tid = getpid()}, {.tid = 999999999}};
    for (int i = 0; i < 2; i++) {
        pthread_create(&threads[i], NULL, i == 0 ? worker : deaf, NULL);
        samples[i].tid = newest(tracker).tid;
        sem_wait(&ready);
    }
    lg_status status = lg_sample_threads(samples, 4, 2000000000);
    if (lg_unwind_version() == NULL) {
        ck_assert_int_eq(status, LG_NOT_FOUND);
    }
    else {
        ck_assert_int_eq(status, LG_OK);
        ck_assert_int_eq(samples[0].result, LG_SAMPLE_DONE);
        ck_assert_int_eq(samples[1].result, LG_SAMPLE_BLOCKED);
        ck_assert_int_eq(samples[2].result, LG_SAMPLE_DONE);
        ck_assert_int_eq(samples[3].result, LG_SAMPLE_GONE);
        ck_assert_uint_gt(samples[2].count, 0);
        bool found = false;
        for (uint32_t i = 0; i < samples[0].count; i++) {
            uintptr_t begin_of_worker = (uintptr_t)worker;
            found |= samples[0].frames[i] > begin_of_worker
                     && samples[0].frames[i] < begin_of_worker + 200;
        }
        ck_assert(found);
        struct sigaction now;
        sigaction(SIGRTMAX - 1, NULL, &now); /* all have answered: it is free again */
        ck_assert(now.sa_handler == SIG_DFL);
    }
    sem_post(&gate);
    sem_post(&gate);
    pthread_join(threads[0], NULL);
    pthread_join(threads[1], NULL);
    end(tracker);
}
END_TEST

int
main(void)
{
    Suite *suite = suite_create("threads");
    TCase *cases = tcase_create("threads");
    tcase_set_timeout(cases, 120);
    tcase_add_checked_fixture(cases, set_up, NULL);
    tcase_add_test(cases, test_a_thread_is_known_until_it_ends);
    tcase_add_test(cases, test_detached_threads_and_failures);
    tcase_add_test(cases, test_what_the_binding_says);
    tcase_add_test(cases, test_a_native_thread_is_the_creator_of_those_it_starts);
    tcase_add_test(cases, test_a_library_loaded_later_and_its_constructor);
    tcase_add_test(cases, test_everything_is_put_back);
    tcase_add_test(cases, test_a_thread_that_outlives_the_tracking);
    tcase_add_test(cases, test_many_threads_and_scans_at_once);
#ifndef __SANITIZE_THREAD__
    tcase_add_test(cases, test_threads_that_libc_starts_itself_are_found);
    tcase_add_test(cases, test_fork);
#endif
    tcase_add_test(cases, test_samples);
    suite_add_tcase(suite, cases);
    return run_suite(suite);
}
