/* The tracker: a depot and a registry that work as one. What the hooks talk to. */
#ifndef LEAKGUARD_TRACKER_H
#define LEAKGUARD_TRACKER_H

#include <stdatomic.h>
#include <stdbool.h>

#include "leakguard/depot.h"
#include "leakguard/lock.h"
#include "leakguard/registry.h"

typedef struct {
    lg_allocator allocator;
    lg_lock lock;             /* one for both, or a birth would take two */
    lg_depot *depot;          /* owned */
    lg_registry *registry;    /* owned */
    _Atomic uint64_t dropped; /* births that left no record, or a record without its stack */
    atomic_bool watched;      /* watermarks are open */
} lg_tracker;

lg_status
lg_tracker_new(const lg_depot_config *config, uint64_t first_serial, lg_tracker **ret_tracker);

/* Frees the tracker, its depot and registry; returns the notes of all ghosts. NULL is allowed. */
lg_note *
lg_tracker_free(lg_tracker *tracker, lg_frame_release release, void *context);

/* Records a birth with its stack: `birth->stack` is ignored, the stack's use goes with the record.
 * *stack_id is what the depot calls that stack, where the caller knows it (it was said by an earlier
 * birth with the same stack, and nothing was evicted since), else LG_STACK_EMPTY, and is set; NULL
 * where nobody knows or wants it. LG_EXISTS; LG_FULL (evict and try again, or give an empty stack); LG_NO_MEMORY. A failure
 * leaves no trace: whether it counts as dropped is the caller's to say. */
lg_status
lg_tracker_birth(lg_tracker *tracker, const lg_stack *stack, lg_stack_id *stack_id,
                 const lg_birth *birth, uint64_t *ret_serial);

/* Ends a record and gives up its stack's use. LG_NOT_FOUND. */
lg_status
lg_tracker_death(lg_tracker *tracker, const void *object, lg_removed *ret_removed);

/* Takes a birth back (the creation failed). LG_NOT_FOUND. */
lg_status
lg_tracker_cancel(lg_tracker *tracker, const void *object, lg_removed *ret_removed);

/* fork: as for the depot. */
void
lg_tracker_lock(lg_tracker *tracker);
void
lg_tracker_unlock(lg_tracker *tracker);
void
lg_tracker_reset_lock(lg_tracker *tracker);

/* In a forked child: lg_registry_keep_thread, with the uses of the stacks given up. */
lg_note *
lg_tracker_keep_thread(lg_tracker *tracker, const void *thread, uint64_t upto);

#endif
