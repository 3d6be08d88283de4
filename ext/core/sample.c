#define _GNU_SOURCE
#include "leakguard/sample.h"

#if defined(__GLIBC__)

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "leakguard/process.h"

enum { PLACES = 100 };
enum { ASKED = 1, ANSWERING, ANSWERED, STATES };

/* A place is given to one question, named by a ticket: an answer to an older one finds another. */
typedef struct {
    _Atomic(int64_t) state;  /* ticket * STATES + its state; 0: free */
    lg_sample_answer answer; /* or NULL */
    void *context;
    uint32_t count;
    uintptr_t frames[LG_NATIVE_DEPTH];
} place;

struct lg_sampler {
    pthread_mutex_t lock; /* one caller at a time; held over fork */
    int signal;
    int ticket;
    lg_sample_answer answer; /* of the present call */
    void *context;
    sem_t answers;
    place places[PLACES];
};

/* Whether this runs on an alternate stack that is too small to unwind from. */
static bool
is_cramped(void)
{
    enum { LEAST = 32768 };
    stack_t alternate;
    return sigaltstack(NULL, &alternate) == 0 && (alternate.ss_flags & SS_ONSTACK) != 0
           && alternate.ss_size < LEAST;
}

static void
handle(int number, siginfo_t *info, void *context)
{
    (void)number;
    int saved = errno;
    lg_sampler *sampler = lg_process_sampler();
    int index = info->si_value.sival_int % PLACES;
    place *mine = &sampler->places[index < 0 ? 0 : index];
    int64_t ticket = (int64_t)info->si_value.sival_int * STATES;
    int64_t state = ticket + ASKED;
    if (info->si_code == SI_QUEUE && info->si_pid == getpid()
        && atomic_compare_exchange_strong(&mine->state, &state, ticket + ANSWERING)) {
        mine->count = is_cramped() ? 0 : lg_unwind_signal(context, mine->frames, LG_NATIVE_DEPTH);
        if (mine->answer != NULL) {
            mine->answer(mine->context, mine->frames, mine->count);
        }
        atomic_store(&mine->state, ticket + ANSWERED);
        sem_post(&sampler->answers);
    }
    errno = saved;
}

static bool
is_ours(const struct sigaction *action)
{
    return (action->sa_flags & SA_SIGINFO) && action->sa_sigaction == handle;
}

/* Puts the handler where nobody uses the signal; false where there is no such signal. */
static bool
listen_to(lg_sampler *sampler)
{
    struct sigaction now;
    if (sampler->signal != 0 && sigaction(sampler->signal, NULL, &now) == 0 && is_ours(&now)) {
        return true;
    }
    struct sigaction ours = {
        .sa_sigaction = handle,
        .sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK,
    };
    sigfillset(&ours.sa_mask);
    /* Not the last one: valgrind's. */
    for (int number = SIGRTMAX - 1; number > SIGRTMIN; number--) {
        if (sigaction(number, NULL, &now) == 0 && !(now.sa_flags & SA_SIGINFO)
            && now.sa_handler == SIG_DFL && sigaction(number, &ours, NULL) == 0) {
            sampler->signal = number;
            return true;
        }
    }
    return false;
}

/* By default the signal would end the process: only where nobody can get it any more. */
static void
stop_listening(const lg_sampler *sampler)
{
    struct sigaction now, plain = {.sa_handler = SIG_DFL};
    sigemptyset(&plain.sa_mask);
    if (sigaction(sampler->signal, NULL, &now) == 0 && is_ours(&now)) {
        sigaction(sampler->signal, &plain, NULL);
    }
}

static bool
is_blocked_now(pid_t tid, int signal)
{
    char path[64], line[256];
    snprintf(path, sizeof(path), "/proc/self/task/%d/status", (int)tid);
    FILE *file = fopen(path, "re");
    bool blocked = false;
    while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
        if (strncmp(line, "SigBlk:", 7) == 0) {
            blocked = (strtoull(line + 7, NULL, 16) >> (signal - 1)) & 1;
            break;
        }
    }
    if (file != NULL) {
        fclose(file);
    }
    return blocked;
}

/* Whether the thread cannot get the signal, as the kernel tells it. For a moment longer it cannot
 * after it has answered: it is still in the handler. */
static bool
is_blocked(pid_t tid, int signal)
{
    enum { TRIES = 10 };
    struct timespec pause = {.tv_nsec = 200000};
    int tries = 0;
    while (is_blocked_now(tid, signal)) {
        if (++tries == TRIES) {
            return true;
        }
        nanosleep(&pause, NULL);
    }
    return false;
}

/* True where an answer will come. */
static bool
ask(lg_sampler *sampler, int index, lg_sample *sample)
{
    place *its = &sampler->places[index];
    if (is_blocked(sample->tid, sampler->signal)) {
        sample->result = LG_SAMPLE_BLOCKED;
        return false;
    }
    /* Tickets of one place differ by PLACES, and stay positive. */
    int ticket = sampler->ticket * PLACES + index;
    its->answer = sampler->answer;
    its->context = sampler->context;
    atomic_store(&its->state, (int64_t)ticket * STATES + ASKED);
    siginfo_t info = {.si_code = SI_QUEUE, .si_pid = getpid(), .si_uid = getuid()};
    info.si_signo = sampler->signal;
    info.si_value.sival_int = ticket;
    if (syscall(SYS_rt_tgsigqueueinfo, getpid(), sample->tid, sampler->signal, &info) == 0) {
        return true;
    }
    atomic_store(&its->state, 0);
    sample->result = errno == ESRCH ? LG_SAMPLE_GONE : LG_SAMPLE_SILENT;
    return false;
}

/* Takes an answer out of its place; one that is being written is worth the wait. */
static bool
take(place *its, lg_sample *sample)
{
    int64_t state = atomic_load(&its->state);
    if (state % STATES == ASKED && atomic_compare_exchange_strong(&its->state, &state, 0)) {
        sample->result = LG_SAMPLE_SILENT;
        return false;
    }
    while (atomic_load(&its->state) % STATES == ANSWERING) {
        struct timespec pause = {.tv_nsec = 50000};
        nanosleep(&pause, NULL);
    }
    sample->result = its->count != 0 || its->answer != NULL ? LG_SAMPLE_DONE : LG_SAMPLE_SILENT;
    sample->count = its->count;
    memcpy(sample->frames, its->frames, its->count * sizeof(*its->frames));
    atomic_store(&its->state, 0);
    return true;
}

/* Whether all that were asked have answered. */
static bool
sample_some(lg_sampler *sampler, lg_sample *samples, int count, const struct timespec *deadline)
{
    bool asked[PLACES];
    bool complete = true;
    int waiting = 0;
    pid_t self = (pid_t)syscall(SYS_gettid);
    sampler->ticket = (sampler->ticket + 1) % 1000000;
    while (sem_trywait(&sampler->answers) == 0) {
        /* of answers that came late */
    }
    for (int i = 0; i < count; i++) {
        asked[i] = samples[i].tid != self && ask(sampler, i, &samples[i]);
        waiting += asked[i];
        if (samples[i].tid == self) {
            samples[i].count = lg_unwind_here(NULL, samples[i].frames, LG_NATIVE_DEPTH);
            samples[i].result = LG_SAMPLE_DONE;
        }
    }
    while (waiting > 0) {
        if (sem_clockwait(&sampler->answers, CLOCK_MONOTONIC, deadline) == 0) {
            waiting--;
        }
        else if (errno != EINTR) {
            break;
        }
    }
    for (int i = 0; i < count; i++) {
        if (asked[i]) {
            complete &= take(&sampler->places[i], &samples[i]);
        }
    }
    return complete;
}

/* The process's sampler, made at the first call; NULL where memory ran out. Any thread. */
static lg_sampler *
get_sampler(void)
{
    lg_sampler *sampler = lg_process_sampler();
    if (sampler != NULL) {
        return sampler;
    }
    sampler = calloc(1, sizeof(*sampler));
    if (sampler == NULL) {
        return NULL;
    }
    sem_init(&sampler->answers, 0, 0);
    pthread_mutex_init(&sampler->lock, NULL);
    lg_sampler *first = lg_process_set_sampler(sampler);
    if (first != sampler) {
        pthread_mutex_destroy(&sampler->lock);
        sem_destroy(&sampler->answers);
        free(sampler);
    }
    return first;
}

static struct timespec
deadline_in(int64_t timeout)
{
    struct timespec deadline;
    clock_gettime(CLOCK_MONOTONIC, &deadline);
    int64_t nanoseconds = deadline.tv_nsec + timeout;
    deadline.tv_sec += (time_t)(nanoseconds / 1000000000);
    deadline.tv_nsec = (long)(nanoseconds % 1000000000);
    return deadline;
}

static lg_status
sample_all(lg_sampler *sampler, lg_sample *samples, size_t count, int64_t timeout)
{
    if (!listen_to(sampler)) {
        return LG_NOT_FOUND;
    }
    uintptr_t warm[2];
    lg_unwind_here(NULL, warm, 2);
    bool complete = true;
    for (size_t done = 0; done < count; done += PLACES) {
        size_t rest = count - done;
        struct timespec deadline = deadline_in(timeout);
        complete &=
            sample_some(sampler, samples + done, rest < PLACES ? (int)rest : PLACES, &deadline);
    }
    if (complete) {
        stop_listening(sampler);
    }
    return LG_OK;
}

static lg_status
sample_with(lg_sample_answer answer, void *context, lg_sample *samples, size_t count,
            int64_t timeout)
{
    lg_sampler *sampler = get_sampler();
    if (sampler == NULL) {
        return LG_NO_MEMORY;
    }
    pthread_mutex_lock(&sampler->lock);
    sampler->answer = answer;
    sampler->context = context;
    lg_status status = sample_all(sampler, samples, count, timeout);
    pthread_mutex_unlock(&sampler->lock);
    return status;
}

lg_status
lg_sample_threads(lg_sample *samples, size_t count, int64_t timeout)
{
    if (lg_unwind_version() == NULL) {
        return LG_NOT_FOUND;
    }
    return sample_with(NULL, NULL, samples, count, timeout);
}

lg_status
lg_sample_ask(pid_t tid, lg_sample_answer answer, void *context, int64_t timeout,
              lg_sample_result *ret_result)
{
    lg_sample sample = {.tid = tid};
    lg_status status = sample_with(answer, context, &sample, 1, timeout);
    if (status == LG_OK) {
        *ret_result = sample.result;
    }
    return status;
}

void
lg_sampler_before_fork(lg_sampler *sampler)
{
    if (sampler != NULL) {
        pthread_mutex_lock(&sampler->lock);
    }
}

void
lg_sampler_after_fork_in_parent(lg_sampler *sampler)
{
    if (sampler != NULL) {
        pthread_mutex_unlock(&sampler->lock);
    }
}

void
lg_sampler_after_fork_in_child(lg_sampler *sampler)
{
    if (sampler != NULL) {
        pthread_mutex_init(&sampler->lock, NULL);
    }
}

#else

lg_status
lg_sample_threads(lg_sample *samples, size_t count, int64_t timeout)
{
    (void)samples;
    (void)count;
    (void)timeout;
    return LG_NOT_FOUND;
}

lg_status
lg_sample_ask(pid_t tid, lg_sample_answer answer, void *context, int64_t timeout,
              lg_sample_result *ret_result)
{
    (void)tid;
    (void)answer;
    (void)context;
    (void)timeout;
    (void)ret_result;
    return LG_NOT_FOUND;
}

void
lg_sampler_before_fork(lg_sampler *sampler)
{
    (void)sampler;
}

void
lg_sampler_after_fork_in_parent(lg_sampler *sampler)
{
    (void)sampler;
}

void
lg_sampler_after_fork_in_child(lg_sampler *sampler)
{
    (void)sampler;
}

#endif
