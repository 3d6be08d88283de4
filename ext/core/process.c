#include "leakguard/process.h"

#include <pthread.h>
#include <stdatomic.h>

/* The one piece of mutable state of the core: set by lg_process_set_tracker, used at fork. */
static struct {
    _Atomic(lg_tracker *) tracker;
    _Atomic(lg_threads *) threads; /* set once, as is the next */
    _Atomic(lg_sampler *) sampler;
    _Atomic(lg_blocking *) blocking;
    atomic_bool forked;
    bool registered;
    uint64_t last_serial; /* of the parent, at the fork */
} process;

/* What the forking thread has locked: another thread may set one of them before the fork is over, or
 * fork too. */
static _Thread_local struct {
    lg_tracker *tracker;
    lg_threads *threads;
    lg_sampler *sampler;
    lg_blocking *blocking;
} held;

static void
before_fork(void)
{
    held.blocking = atomic_load(&process.blocking);
    lg_blocking_before_fork(held.blocking);
    held.sampler = atomic_load(&process.sampler);
    lg_sampler_before_fork(held.sampler);
    held.threads = atomic_load(&process.threads);
    lg_threads_before_fork(held.threads);
    held.tracker = atomic_load(&process.tracker);
    if (held.tracker != NULL) {
        lg_tracker_lock(held.tracker);
    }
}

static void
after_fork_in_parent(void)
{
    if (held.tracker != NULL) {
        lg_tracker_unlock(held.tracker);
    }
    lg_threads_after_fork_in_parent(held.threads);
    lg_sampler_after_fork_in_parent(held.sampler);
    lg_blocking_after_fork_in_parent(held.blocking);
}

static void
after_fork_in_child(void)
{
    if (held.tracker != NULL) {
        lg_tracker_reset_lock(held.tracker);
        process.last_serial = lg_registry_last_serial(held.tracker->registry);
        atomic_store(&process.forked, true);
    }
    lg_threads_after_fork_in_child(held.threads);
    lg_sampler_after_fork_in_child(held.sampler);
    lg_blocking_after_fork_in_child(held.blocking);
}

lg_status
lg_process_set_tracker(lg_tracker *tracker)
{
    if (!process.registered) {
        if (pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child) != 0) {
            return LG_NO_MEMORY;
        }
        process.registered = true;
    }
    atomic_store(&process.tracker, tracker);
    atomic_store(&process.forked, false);
    return LG_OK;
}

lg_threads *
lg_process_threads(void)
{
    return atomic_load(&process.threads);
}

void
lg_process_set_threads(lg_threads *threads)
{
    atomic_store(&process.threads, threads);
}

lg_sampler *
lg_process_sampler(void)
{
    return atomic_load(&process.sampler);
}

lg_sampler *
lg_process_set_sampler(lg_sampler *sampler)
{
    lg_sampler *first = NULL;
    return atomic_compare_exchange_strong(&process.sampler, &first, sampler) ? sampler : first;
}

lg_blocking *
lg_process_blocking(void)
{
    return atomic_load(&process.blocking);
}

lg_blocking *
lg_process_set_blocking(lg_blocking *blocking)
{
    lg_blocking *first = NULL;
    return atomic_compare_exchange_strong(&process.blocking, &first, blocking) ? blocking : first;
}

bool
lg_process_forked(void)
{
    return atomic_load_explicit(&process.forked, memory_order_relaxed);
}

lg_note *
lg_process_after_fork(const void *thread)
{
    lg_tracker *tracker = atomic_load(&process.tracker);
    if (tracker == NULL || !atomic_exchange(&process.forked, false)) {
        return NULL;
    }
    lg_note *notes = lg_tracker_keep_thread(tracker, thread, process.last_serial);
    lg_threads_after_records(atomic_load(&process.threads));
    return notes;
}
