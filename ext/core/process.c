#include "leakguard/process.h"

#include <pthread.h>
#include <stdatomic.h>

/* The one piece of mutable state of the core: set by lg_process_set_tracker, used at fork. */
static struct {
    _Atomic(lg_tracker *) tracker;
    atomic_bool forked;
    bool registered;
    uint64_t last_serial; /* of the parent, at the fork */
} process;

static void
before_fork(void)
{
    lg_tracker *tracker = atomic_load(&process.tracker);
    if (tracker != NULL) {
        lg_registry_lock(tracker->registry);
        lg_depot_lock(tracker->depot);
    }
}

static void
after_fork_in_parent(void)
{
    lg_tracker *tracker = atomic_load(&process.tracker);
    if (tracker != NULL) {
        lg_depot_unlock(tracker->depot);
        lg_registry_unlock(tracker->registry);
    }
}

static void
after_fork_in_child(void)
{
    lg_tracker *tracker = atomic_load(&process.tracker);
    if (tracker != NULL) {
        lg_depot_reset_lock(tracker->depot);
        lg_registry_reset_lock(tracker->registry);
        process.last_serial = lg_registry_last_serial(tracker->registry);
        atomic_store(&process.forked, true);
    }
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
    return lg_tracker_keep_thread(tracker, thread, process.last_serial);
}
