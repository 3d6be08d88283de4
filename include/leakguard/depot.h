/* The stack depot: equal stacks are stored once and named by a 4-byte id.
 *
 * Id 0 is the empty stack. A stored stack never changes and never moves. Each id handed out by
 * lg_depot_intern is one use; a stack without uses stays (the next equal stack finds it) until
 * lg_depot_evict takes it out. Every function may be called from any thread; one lock serialises
 * them (of its own, or a tracker's), and it is a leaf lock: nothing is called while it is held but
 * `retain` and the allocator.
 */
#ifndef LEAKGUARD_DEPOT_H
#define LEAKGUARD_DEPOT_H

#include <stdbool.h>

#include "leakguard/alloc.h"
#include "leakguard/base.h"
#include "leakguard/lock.h"

typedef struct lg_depot lg_depot;
typedef uint32_t lg_stack_id;

#define LG_STACK_EMPTY ((lg_stack_id)0)

/* A stack, innermost frame first. Two stacks are equal where all but `hash` is. */
typedef struct {
    const lg_frame *frames; /* borrowed for the call */
    uint32_t count;
    uint32_t inner; /* how many frames, from the innermost, lie inside the running event loop;
                     * `count` where no loop was running */
    bool truncated; /* there were more frames than were kept */
    uint64_t hash;  /* lg_stack_hash of the rest; computed by whoever fills the stack in */
} lg_stack;

#define LG_STACK_HASH_SEED UINT64_C(0x9E3779B97F4A7C15)

/* One step of the hash, so that a walk over frames can hash as it goes. A step waits for the one
 * before it in the last multiplication only: it takes no longer than to load the next frame. */
static inline uint64_t
lg_stack_hash_step(uint64_t hash, lg_frame frame)
{
    uint64_t word = (uint64_t)frame.code ^ ((uint64_t)frame.place * UINT64_C(0xC4CEB9FE1A85EC53));
    return (hash ^ word) * UINT64_C(0xFF51AFD7ED558CCD);
}

/* Ends the hash of a walk; `stack->hash` holds the steps of all frames, innermost first. */
static inline uint64_t
lg_stack_hash_end(const lg_stack *stack)
{
    uint64_t hash = stack->hash ^ ((uint64_t)stack->inner << 1) ^ (uint64_t)stack->truncated;
    /* The low bits of a product do not know the high ones of its factors. */
    hash = (hash ^ (hash >> 32)) * UINT64_C(0x9E3779B97F4A7C15);
    return hash ^ (hash >> 29);
}

typedef struct {
    lg_allocator allocator;
    size_t max_bytes; /* bound on all that the depot allocates; 4096 at least */
    /* Called under the depot's lock for each frame of a stack that is stored for the first time,
     * so that what `code` points to stays. May be NULL. */
    void (*retain)(lg_frame frame);
} lg_depot_config;

/* Receives frames whose stack has left the depot; called without the lock. May be NULL. */
typedef void (*lg_frame_release)(void *context, lg_frame frame);

typedef struct {
    size_t stacks; /* stored now, the empty one not counted */
    size_t used;   /* of these, with at least one use */
    size_t bytes;  /* allocated by the depot, all told */
} lg_depot_stats;

lg_status
lg_depot_new(const lg_depot_config *config, lg_depot **ret_depot);

/* Frees the depot and all stacks, whatever their uses; NULL is allowed. Nobody may be using it. */
void
lg_depot_free(lg_depot *depot, lg_frame_release release, void *context);

/* Finds or stores a stack and takes one use of it. A stack of no frames is LG_STACK_EMPTY and
 * cannot fail. LG_FULL where the bound leaves no room, or where hundreds of stacks, and most of
 * them, have no use: they hold what their frames point to (evict, then try again). LG_NO_MEMORY. A
 * stack that is known already costs no allocation. */
lg_status
lg_depot_intern(lg_depot *depot, const lg_stack *stack, lg_stack_id *ret_id);

/* Gives up one use. LG_STACK_EMPTY is allowed and does nothing. */
void
lg_depot_drop(lg_depot *depot, lg_stack_id id);

/* Takes one more use of a stored stack. False where it is not stored. */
bool
lg_depot_hold(lg_depot *depot, lg_stack_id id);

/* Looks at a stored stack. *ret_stack borrows its frames: they stay valid while the caller holds
 * a use, or (for the binding) the lock that keeps everybody from evicting. LG_STACK_EMPTY gives a
 * stack of no frames; an id that is not stored LG_NOT_FOUND. */
lg_status
lg_depot_get(lg_depot *depot, lg_stack_id id, lg_stack *ret_stack);

/* Takes out all stacks without uses, and hands their frames to `release` after the lock is
 * given back. Returns how many went. */
size_t
lg_depot_evict(lg_depot *depot, lg_frame_release release, void *context);

lg_depot_stats
lg_depot_get_stats(lg_depot *depot);

/* For the tracker, whose lock this is from here on; the next three are called while it is held, and
 * do what lg_depot_intern, lg_depot_hold and lg_depot_drop do. */
void
lg__depot_share_lock(lg_depot *depot, lg_lock *lock);
lg_status
lg__depot_intern(lg_depot *depot, const lg_stack *stack, lg_stack_id *ret_id);
bool
lg__depot_hold(lg_depot *depot, lg_stack_id id);
void
lg__depot_drop(lg_depot *depot, lg_stack_id id);

/* fork: lock in the parent before, unlock in the parent after; in the child `reset_lock` makes
 * the lock anew (POSIX leaves unlocking there undefined). The content is consistent. */
void
lg_depot_lock(lg_depot *depot);
void
lg_depot_unlock(lg_depot *depot);
void
lg_depot_reset_lock(lg_depot *depot);

#endif
