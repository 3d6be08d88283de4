#define _GNU_SOURCE
#include "leakguard/blocking.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "leakguard/process.h"

enum { STOPS = 8 };

#define NEVER INT64_MAX
#define SECOND INT64_C(1000000000)
#define SHORTEST_TICK (SECOND / 2000)
/* A thread that gives no answer sits in the kernel, or is stopped by a debugger. */
#define PATIENCE (SECOND / 10)
/* A look that is this much later than the bound says that the process stood still. */
#define LATENESS (SECOND / 10)

/* A time in which the process stood still. */
typedef struct {
    int64_t begin, end;
} stop;

struct lg_loop {
    _Atomic(int64_t) since; /* busy since; 0 while it waits */
    _Atomic(int64_t) asked; /* the `since` of the block whose stack was asked for */
    atomic_bool exempt;
    atomic_int holders; /* its thread, the watcher */
    uint64_t generation;
    pid_t tid;
    void *context;
    lg_loop *next, **link; /* in the list; under the lock */
    /* Of its own thread alone, whose signal handler writes them. */
    int64_t sampled; /* the `since` of the block that they are of */
    uint32_t count;
    uintptr_t frames[LG_NATIVE_DEPTH];
    int64_t exempt_since;
    int exempt_depth;
};

struct lg_blocking {
    pthread_mutex_t lock;                       /* of all that is not atomic; held over fork */
    pthread_cond_t wake;                        /* for the watcher */
    pthread_cond_t begun;                       /* the watcher has */
    _Atomic(const lg_blocking_config *) config; /* borrowed */
    _Atomic(uint64_t) generation;
    _Atomic(int64_t) bound;
    atomic_bool on;
    atomic_bool attention; /* the watcher sleeps for good, or is not there: wake it */
    _Atomic(pid_t) tid;    /* the watcher's */
    _Atomic(int64_t) due;  /* when the watcher is to look again */
    pthread_t watcher;
    bool watched;  /* there is a watcher */
    bool stopping; /* it is to end */
    bool joining;  /* somebody waits for its end: none is made before */
    pid_t forking; /* the thread that forks now */
    lg_loop *loops;
    stop stops[STOPS]; /* the last ones */
    size_t next_stop;
};

int64_t
lg_blocking_now(void)
{
    struct timespec time = {0, 0};
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * SECOND + (int64_t)time.tv_nsec;
}

static int64_t
lateness(lg_blocking *blocking)
{
    return atomic_load(&blocking->bound) + LATENESS;
}

/* The watcher was to look at `due` and looks now. Under the lock. */
static void
note_stop(lg_blocking *blocking, int64_t due, int64_t time)
{
    if (due != NEVER && time - due > lateness(blocking)) {
        blocking->stops[blocking->next_stop++ % STOPS] = (stop){due, time};
    }
}

static int64_t
common(int64_t begin, int64_t end, stop one)
{
    int64_t first = begin > one.begin ? begin : one.begin;
    int64_t last = end < one.end ? end : one.end;
    return last > first ? last - first : 0;
}

/* How long the process stood still between two moments. */
static int64_t
stopped_between(lg_blocking *blocking, int64_t begin, int64_t end)
{
    int64_t sum = 0;
    pthread_mutex_lock(&blocking->lock);
    for (size_t i = 0; i < STOPS; i++) {
        sum += common(begin, end, blocking->stops[i]);
    }
    /* The watcher has not come to note the last one. */
    int64_t due = atomic_load(&blocking->due);
    if (due != NEVER && end - due > lateness(blocking)) {
        sum += common(begin, end, (stop){due, end});
    }
    pthread_mutex_unlock(&blocking->lock);
    return sum;
}

/* In the loop's thread, in a signal handler: nothing else of this thread runs meanwhile. */
static void
look(void *context, const uintptr_t *frames, uint32_t count)
{
    lg_loop *loop = context;
    lg_blocking *blocking = lg_process_blocking();
    int64_t since = atomic_load(&loop->since);
    if (since == 0 || since != atomic_load(&loop->asked) || atomic_load(&loop->exempt)) {
        return; /* too late: that block is over */
    }
    memcpy(loop->frames, frames, count * sizeof(*frames));
    loop->count = count;
    atomic_load(&blocking->config)->look(loop->context);
    loop->sampled = since;
}

static void
release(lg_loop *loop)
{
    if (atomic_fetch_sub_explicit(&loop->holders, 1, memory_order_acq_rel) == 1) {
        free(loop);
    }
}

/* Has a loop's thread take down its stack. Gives the lock away meanwhile. */
static void
ask(lg_blocking *blocking, lg_loop *loop, int64_t since)
{
    atomic_fetch_add(&loop->holders, 1);
    atomic_store(&loop->asked, since);
    pid_t tid = loop->tid;
    atomic_store(&blocking->due, lg_blocking_now() + PATIENCE);
    pthread_mutex_unlock(&blocking->lock);
    lg_sample_result ignored;
    lg_sample_ask(tid, look, loop, PATIENCE, &ignored);
    pthread_mutex_lock(&blocking->lock);
    note_stop(blocking, atomic_load(&blocking->due), lg_blocking_now());
    release(loop);
}

typedef struct {
    bool busy;     /* some loop is */
    lg_loop *late; /* past the bound, and not asked yet; or NULL */
    int64_t since; /* its */
    int64_t next;  /* when the next one will be, NEVER for none */
} survey;

static survey
look_around(lg_blocking *blocking)
{
    survey found = {.next = NEVER};
    uint64_t generation = atomic_load(&blocking->generation);
    int64_t bound = atomic_load(&blocking->bound);
    int64_t time = lg_blocking_now();
    for (lg_loop *loop = blocking->loops; loop != NULL; loop = loop->next) {
        int64_t since = atomic_load(&loop->since);
        if (since == 0 || loop->generation != generation) {
            continue;
        }
        found.busy = true;
        if (since == atomic_load(&loop->asked) || atomic_load(&loop->exempt)) {
            continue;
        }
        if (time - since > bound) {
            found.late = loop;
            found.since = since;
        }
        else if (since + bound < found.next) {
            found.next = since + bound;
        }
    }
    return found;
}

static void
wait_until(lg_blocking *blocking, int64_t due)
{
    atomic_store(&blocking->due, due);
    if (due == NEVER) {
        pthread_cond_wait(&blocking->wake, &blocking->lock);
    }
    else {
        struct timespec time = {(time_t)(due / SECOND), (long)(due % SECOND)};
        pthread_cond_timedwait(&blocking->wake, &blocking->lock, &time);
    }
    note_stop(blocking, atomic_load(&blocking->due), lg_blocking_now());
}

/* All loops wait: until one of them says that it is back. */
static void
sleep_deeply(lg_blocking *blocking)
{
    atomic_store(&blocking->attention, true);
    /* One that was back before that did not see it. */
    if (!look_around(blocking).busy) {
        while (atomic_load(&blocking->attention) && !blocking->stopping) {
            wait_until(blocking, NEVER);
        }
    }
    atomic_store(&blocking->attention, false);
}

static void
wait_for_next(lg_blocking *blocking, int64_t next)
{
    int64_t tick = atomic_load(&blocking->bound) / 4;
    int64_t due = lg_blocking_now() + (tick > SHORTEST_TICK ? tick : SHORTEST_TICK);
    wait_until(blocking, next < due ? next : due);
}

static void *
watch(void *argument)
{
    lg_blocking *blocking = argument;
    pthread_mutex_lock(&blocking->lock);
    atomic_store(&blocking->tid, (pid_t)syscall(SYS_gettid));
    pthread_cond_broadcast(&blocking->begun);
    while (!blocking->stopping) {
        survey found = look_around(blocking);
        if (found.late != NULL) {
            ask(blocking, found.late, found.since);
        }
        else if (found.busy) {
            wait_for_next(blocking, found.next);
        }
        else {
            sleep_deeply(blocking);
        }
    }
    atomic_store(&blocking->due, NEVER);
    atomic_store(&blocking->tid, 0);
    pthread_mutex_unlock(&blocking->lock);
    return NULL;
}

/* Under the lock, which is given away until the watcher has a kernel id: whoever looks for threads
 * knows it then. It blocks all signals: the program's handlers are not for it. Where there is no
 * thread to be had, blocks are measured without their stack. */
static void
make_watcher(lg_blocking *blocking)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    blocking->stopping = false;
    atomic_store(&blocking->due, NEVER);
    blocking->watched = lg_threads_create_own(&blocking->watcher, watch, blocking) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    while (blocking->watched && atomic_load(&blocking->tid) == 0) {
        pthread_cond_wait(&blocking->begun, &blocking->lock);
    }
}

/* Under the lock, which is given away meanwhile. */
static void
end_watcher(lg_blocking *blocking)
{
    if (blocking->watched) {
        pthread_t watcher = blocking->watcher;
        blocking->watched = false;
        blocking->stopping = blocking->joining = true;
        atomic_store(&blocking->attention, false);
        pthread_cond_signal(&blocking->wake);
        pthread_mutex_unlock(&blocking->lock);
        pthread_join(watcher, NULL);
        pthread_mutex_lock(&blocking->lock);
        blocking->joining = false;
    }
}

static void
init_conditions(lg_blocking *blocking)
{
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&blocking->wake, &attributes);
    pthread_condattr_destroy(&attributes);
    pthread_cond_init(&blocking->begun, NULL);
}

static lg_blocking *
get_blocking(void)
{
    lg_blocking *blocking = lg_process_blocking();
    if (blocking != NULL) {
        return blocking;
    }
    blocking = calloc(1, sizeof(*blocking));
    if (blocking == NULL) {
        return NULL;
    }
    init_conditions(blocking);
    pthread_mutex_init(&blocking->lock, NULL);
    atomic_init(&blocking->due, NEVER);
    lg_blocking *first = lg_process_set_blocking(blocking);
    if (first != blocking) {
        free(blocking);
    }
    return first;
}

lg_status
lg_blocking_start(int64_t bound, const lg_blocking_config *config)
{
    lg_blocking *blocking = get_blocking();
    if (blocking == NULL) {
        return LG_NO_MEMORY;
    }
    pthread_mutex_lock(&blocking->lock);
    atomic_store(&blocking->bound, bound);
    if (atomic_load(&blocking->on)) {
        pthread_cond_signal(&blocking->wake);
    }
    else {
        atomic_store(&blocking->config, config);
        memset(blocking->stops, 0, sizeof(blocking->stops));
        atomic_fetch_add(&blocking->generation, 1);
        atomic_store(&blocking->on, true);
        /* No process gets a thread in which no loop ever runs. */
        atomic_store(&blocking->attention, true);
    }
    pthread_mutex_unlock(&blocking->lock);
    return LG_OK;
}

void
lg_blocking_stop(void)
{
    lg_blocking *blocking = lg_process_blocking();
    if (blocking == NULL) {
        return;
    }
    pthread_mutex_lock(&blocking->lock);
    atomic_store(&blocking->on, false);
    atomic_fetch_add(&blocking->generation, 1);
    atomic_store(&blocking->attention, false);
    end_watcher(blocking);
    pthread_mutex_unlock(&blocking->lock);
}

bool
lg_blocking_is_on(void)
{
    lg_blocking *blocking = lg_process_blocking();
    return blocking != NULL && atomic_load(&blocking->on);
}

uint64_t
lg_blocking_generation(void)
{
    lg_blocking *blocking = lg_process_blocking();
    return blocking != NULL ? atomic_load_explicit(&blocking->generation, memory_order_relaxed) : 0;
}

pid_t
lg_blocking_watcher(void)
{
    lg_blocking *blocking = lg_process_blocking();
    return blocking != NULL ? atomic_load(&blocking->tid) : 0;
}

/* A loop is back and the watcher sleeps, or was ended by a fork. */
static void
call_watcher(lg_blocking *blocking)
{
    pthread_mutex_lock(&blocking->lock);
    if (atomic_load(&blocking->on) && atomic_exchange(&blocking->attention, false)) {
        if (blocking->watched) {
            /* Should the process be stopped before the watcher runs, it is seen to be late. */
            atomic_store(&blocking->due, lg_blocking_now());
            pthread_cond_signal(&blocking->wake);
        }
        else if (blocking->joining) {
            atomic_store(&blocking->attention, true); /* the next loop that is back, then */
        }
        else {
            make_watcher(blocking);
        }
    }
    pthread_mutex_unlock(&blocking->lock);
}

bool
lg_loop_is_current(const lg_loop *loop)
{
    return loop->generation == lg_blocking_generation();
}

lg_loop *
lg_loop_begin(void *context)
{
    lg_blocking *blocking = lg_process_blocking();
    lg_loop *loop =
        blocking != NULL && atomic_load(&blocking->on) ? calloc(1, sizeof(*loop)) : NULL;
    if (loop == NULL) {
        return NULL;
    }
    loop->context = context;
    loop->tid = (pid_t)syscall(SYS_gettid);
    atomic_init(&loop->holders, 1);
    pthread_mutex_lock(&blocking->lock);
    loop->generation = atomic_load(&blocking->generation);
    loop->next = blocking->loops;
    loop->link = &blocking->loops;
    if (loop->next != NULL) {
        loop->next->link = &loop->next;
    }
    blocking->loops = loop;
    pthread_mutex_unlock(&blocking->lock);
    lg_loop_busy(loop);
    return loop;
}

void
lg_loop_end(lg_loop *loop)
{
    if (loop == NULL) {
        return;
    }
    lg_loop_idle(loop);
    lg_blocking *blocking = lg_process_blocking();
    pthread_mutex_lock(&blocking->lock);
    if (loop->link != NULL) {
        *loop->link = loop->next;
        if (loop->next != NULL) {
            loop->next->link = loop->link;
        }
    }
    pthread_mutex_unlock(&blocking->lock);
    release(loop);
}

void
lg_loop_busy(lg_loop *loop)
{
    lg_blocking *blocking = lg_process_blocking();
    /* In this order, as the watcher in its own: one of the two sees what the other does. */
    atomic_store(&loop->since, lg_blocking_now());
    if (atomic_load(&blocking->attention)) {
        call_watcher(blocking);
    }
}

/* A block may be over. */
static void
finish(lg_blocking *blocking, lg_loop *loop, int64_t since, int64_t end)
{
    int64_t duration = end - since - stopped_between(blocking, since, end);
    if (duration <= atomic_load(&blocking->bound) || !atomic_load(&blocking->on)
        || !lg_loop_is_current(loop)) {
        return;
    }
    bool sampled = loop->sampled == since;
    lg_block block = {
        .begin = since,
        .duration = duration,
        .sampled = sampled,
        .count = sampled ? loop->count : 0,
        .frames = loop->frames,
    };
    atomic_load(&blocking->config)->tell(loop->context, &block);
}

void
lg_loop_idle(lg_loop *loop)
{
    int64_t since = atomic_load_explicit(&loop->since, memory_order_relaxed);
    if (since == 0) {
        return;
    }
    lg_blocking *blocking = lg_process_blocking();
    int64_t end = lg_blocking_now();
    atomic_store_explicit(&loop->since, 0, memory_order_release);
    if (end - since > atomic_load_explicit(&blocking->bound, memory_order_relaxed)) {
        finish(blocking, loop, since, end);
    }
}

void
lg_loop_cut(lg_loop *loop)
{
    lg_loop_idle(loop);
    lg_loop_busy(loop);
}

void
lg_loop_exempt(lg_loop *loop, bool exempt)
{
    if (exempt && loop->exempt_depth++ == 0) {
        loop->exempt_since = lg_blocking_now();
        atomic_store(&loop->exempt, true);
    }
    else if (!exempt && loop->exempt_depth > 0 && --loop->exempt_depth == 0) {
        int64_t since = atomic_load(&loop->since);
        /* What was ours is left out of what runs now; a stack that was taken stays its. */
        if (since != 0) {
            int64_t begun = loop->exempt_since > since ? loop->exempt_since : since;
            int64_t later = since + (lg_blocking_now() - begun);
            loop->sampled = loop->sampled == since ? later : loop->sampled;
            if (atomic_load(&loop->asked) == since) {
                atomic_store(&loop->asked, later);
            }
            atomic_store(&loop->since, later);
        }
        atomic_store(&loop->exempt, false);
    }
}

void
lg_blocking_before_fork(lg_blocking *blocking)
{
    if (blocking != NULL) {
        pthread_mutex_lock(&blocking->lock);
        end_watcher(blocking);
        blocking->forking = (pid_t)syscall(SYS_gettid);
    }
}

void
lg_blocking_after_fork_in_parent(lg_blocking *blocking)
{
    if (blocking != NULL) {
        atomic_store(&blocking->attention, atomic_load(&blocking->on) && !blocking->watched);
        pthread_mutex_unlock(&blocking->lock);
    }
}

void
lg_blocking_after_fork_in_child(lg_blocking *blocking)
{
    if (blocking == NULL) {
        return;
    }
    init_conditions(blocking);
    lg_loop *next;
    for (lg_loop *loop = blocking->loops; loop != NULL; loop = next) {
        next = loop->next;
        loop->link = NULL;
        if (loop->tid != blocking->forking) { /* this thread's own is still to be ended */
            release(loop);
        }
    }
    blocking->loops = NULL;
    /* Another thread may have been ending the watcher. */
    blocking->joining = false;
    atomic_store(&blocking->tid, 0);
    atomic_store(&blocking->on, false);
    atomic_store(&blocking->attention, false);
    atomic_fetch_add(&blocking->generation, 1);
    pthread_mutex_unlock(&blocking->lock); /* this thread's, from before the fork */
}
