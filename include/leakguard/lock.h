/* A lock for short sections that hardly ever meet.
 *
 * A pthread mutex takes two atomic operations a pass, and each makes the processor wait for all that
 * went before: at a birth, for the walk over the frames. Here unlocking is a plain store; who finds
 * the lock taken asks again, first at once and then after a sleep, so that a holder of any priority
 * gets on. While somebody waits, who gives the lock lets others run before it can take it again: a
 * thread that does little else would starve them where only one runs at a time.
 */
#ifndef LEAKGUARD_LOCK_H
#define LEAKGUARD_LOCK_H

#include <stdatomic.h>
#include <stdbool.h>

#include "leakguard/base.h"

/* Zeroed is unlocked. Not recursive; belongs to no thread, so that a forked child may zero it. */
typedef struct {
    atomic_bool taken;
    atomic_uint waiting; /* how many threads */
} lg_lock;

/* Waits until the lock is free, and takes it. */
void
lg__lock_wait(lg_lock *lock);

/* Lets other threads run. */
void
lg__lock_yield(void);

static inline void
lg_lock_take(lg_lock *lock)
{
    if (LG_RARELY(atomic_exchange_explicit(&lock->taken, true, memory_order_acquire))) {
        lg__lock_wait(lock);
    }
}

static inline void
lg_lock_give(lg_lock *lock)
{
    atomic_store_explicit(&lock->taken, false, memory_order_release);
    if (LG_RARELY(atomic_load_explicit(&lock->waiting, memory_order_relaxed) != 0)) {
        lg__lock_yield();
    }
}

static inline void
lg_lock_reset(lg_lock *lock)
{
    atomic_init(&lock->taken, false);
    atomic_init(&lock->waiting, 0);
}

#endif
