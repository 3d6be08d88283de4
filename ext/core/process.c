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

static void
before_fork(void)
{
    lg_blocking_before_fork(atomic_load(&process.blocking));
    lg_sampler_before_fork(atomic_load(&process.sampler));
    lg_threads_before_fork(atomic_load(&process.threads));
    lg_tracker *tracker = atomic_load(&process.tracker);
    if (tracker != NULL) {
        lg_tracker_lock(tracker);
    }
}

static void
after_fork_in_parent(void)
{
    lg_tracker *tracker = atomic_load(&process.tracker);
    if (tracker != NULL) {
        lg_tracker_unlock(tracker);
    }
    lg_threads_after_fork_in_parent(atomic_load(&process.threads));
    lg_sampler_after_fork_in_parent(atomic_load(&process.sampler));
    lg_blocking_after_fork_in_parent(atomic_load(&process.blocking));
}

static void
after_fork_in_child(void)
{
    lg_tracker *tracker = atomic_load(&process.tracker);
    if (tracker != NULL) {
        lg_tracker_reset_lock(tracker);
        process.last_serial = lg_registry_last_serial(tracker->registry);
        atomic_store(&process.forked, true);
    }
    lg_threads_after_fork_in_child(atomic_load(&process.threads));
    lg_sampler_after_fork_in_child(atomic_load(&process.sampler));
    lg_blocking_after_fork_in_child(atomic_load(&process.blocking));
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
