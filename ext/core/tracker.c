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
    tracker->depot = depot;
    tracker->registry = registry;
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
lg_tracker_birth(lg_tracker *tracker, const lg_stack *stack, const lg_birth *birth,
                 uint64_t *ret_serial)
{
    lg_birth complete = *birth;
    lg_status status = lg_depot_intern(tracker->depot, stack, &complete.stack);
    if (status != LG_OK) {
        return status;
    }
    if (atomic_load_explicit(&tracker->watched, memory_order_relaxed)) {
        lg_watermark_meet(tracker, complete.stack, stack);
    }
    status = lg_registry_insert(tracker->registry, &complete, ret_serial);
    if (status != LG_OK) {
        lg_depot_drop(tracker->depot, complete.stack);
    }
    return status;
}

lg_status
lg_tracker_death(lg_tracker *tracker, const void *object, lg_removed *ret_removed)
{
    lg_status status = lg_registry_remove(tracker->registry, object, ret_removed);
    if (status == LG_OK) {
        lg_depot_drop(tracker->depot, ret_removed->record.stack);
    }
    return status;
}

lg_status
lg_tracker_cancel(lg_tracker *tracker, const void *object, lg_removed *ret_removed)
{
    lg_status status = lg_registry_cancel(tracker->registry, object, ret_removed);
    if (status == LG_OK) {
        lg_depot_drop(tracker->depot, ret_removed->record.stack);
    }
    return status;
}

static bool
drop_stack(void *context, const lg_record *record)
{
    lg_tracker *tracker = context;
    lg_depot_drop(tracker->depot, record->stack);
    return true;
}

lg_note *
lg_tracker_keep_thread(lg_tracker *tracker, const void *thread, uint64_t upto)
{
    return lg_registry_keep_thread(tracker->registry, thread, upto, drop_stack, tracker);
}
