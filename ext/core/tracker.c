#include "leakguard/tracker.h"

#include "leakguard/watermark.h"

lg_status
lg_tracker_new(const lg_depot_config *config, uint64_t first_serial, lg_tracker **ret_tracker)
{
    const lg_allocator *allocator = &config->allocator;
    lg_depot *depot = NULL;
    lg_registry *registry = NULL;
    lg_tracker *tracker = allocator->allocate(allocator->context, sizeof(*tracker));
    if (tracker == NULL || lg_depot_new(config, &depot) != LG_OK
        || lg_registry_new(allocator, first_serial, &registry) != LG_OK) {
        lg_depot_free(depot, NULL, NULL);
        allocator->release(allocator->context, tracker, sizeof(*tracker));
        return LG_NO_MEMORY;
    }
    tracker->allocator = *allocator;
    lg_lock_reset(&tracker->lock);
    tracker->depot = depot;
    tracker->registry = registry;
    lg__depot_share_lock(depot, &tracker->lock);
    lg__registry_share_lock(registry, &tracker->lock);
    atomic_init(&tracker->dropped, 0);
    atomic_init(&tracker->watched, false);
    *ret_tracker = tracker;
    return LG_OK;
}

lg_note *
lg_tracker_free(lg_tracker *tracker, lg_frame_release release, void *context)
{
    if (tracker == NULL) {
        return NULL;
    }
    lg_note *notes = lg_registry_free(tracker->registry);
    lg_depot_free(tracker->depot, release, context);
    lg_allocator allocator = tracker->allocator;
    allocator.release(allocator.context, tracker, sizeof(*tracker));
    return notes;
}

lg_status
lg_tracker_birth(lg_tracker *tracker, const lg_stack *stack, lg_stack_id *stack_id,
                 const lg_birth *birth, uint64_t *ret_serial)
{
    lg_depot *depot = tracker->depot;
    lg_stack_id id = stack_id != NULL ? *stack_id : LG_STACK_EMPTY;
    lg_status status = LG_OK;
    lg_lock_take(&tracker->lock);
    if (LG_RARELY(!lg__depot_hold(depot, id))) {
        status = lg__depot_intern(depot, stack, &id);
    }
    if (status == LG_OK) {
        if (LG_RARELY(atomic_load_explicit(&tracker->watched, memory_order_relaxed))) {
            lg__watermark_meet(tracker, id, stack);
        }
        status = lg__registry_insert(tracker->registry, birth, id, ret_serial);
        if (status != LG_OK) {
            lg__depot_drop(depot, id);
        }
    }
    lg_lock_give(&tracker->lock);
    if (status == LG_OK && stack_id != NULL) {
        *stack_id = id;
    }
    return status;
}

static lg_status
end(lg_tracker *tracker, const void *object, bool cancelled, lg_removed *ret_removed)
{
    lg_lock_take(&tracker->lock);
    lg_status status = lg__registry_remove(tracker->registry, object, cancelled, ret_removed);
    if (status == LG_OK) {
        lg__depot_drop(tracker->depot, ret_removed->stack);
    }
    lg_lock_give(&tracker->lock);
    return status;
}

lg_status
lg_tracker_death(lg_tracker *tracker, const void *object, lg_removed *ret_removed)
{
    return end(tracker, object, false, ret_removed);
}

lg_status
lg_tracker_cancel(lg_tracker *tracker, const void *object, lg_removed *ret_removed)
{
    return end(tracker, object, true, ret_removed);
}

void
lg_tracker_lock(lg_tracker *tracker)
{
    lg_lock_take(&tracker->lock);
}

void
lg_tracker_unlock(lg_tracker *tracker)
{
    lg_lock_give(&tracker->lock);
}

void
lg_tracker_reset_lock(lg_tracker *tracker)
{
    lg_lock_reset(&tracker->lock);
}

static bool
drop_stack(void *context, const lg_record *record)
{
    lg_tracker *tracker = context;
    lg__depot_drop(tracker->depot, record->stack);
    return true;
}

lg_note *
lg_tracker_keep_thread(lg_tracker *tracker, const void *thread, uint64_t upto)
{
    return lg_registry_keep_thread(tracker->registry, thread, upto, drop_stack, tracker);
}
