/* A lock for short sections that hardly ever meet.
 *
 * A pthread mutex takes two atomic operations a pass, and each makes the processor wait for all that
 * went before: at a birth, for the walk over the frames. Here unlocking is a plain store; who finds
 * the lock taken asks again, first at once and then after a sleep, so that a holder of any priority
 * gets on.
 */
#ifndef LEAKGUARD_LOCK_H
#define LEAKGUARD_LOCK_H

#include <stdatomic.h>
#include <stdbool.h>

/* Zeroed is unlocked. Not recursive; belongs to no thread, so that a forked child may zero it. */
typedef struct {
    atomic_bool taken;
} lg_lock;

/* Waits until the lock is free, and takes it. */
void
lg__lock_wait(lg_lock *lock);

static inline void
lg_lock_take(lg_lock *lock)
{
    if (__builtin_expect(atomic_exchange_explicit(&lock->taken, true, memory_order_acquire), 0)) {
        lg__lock_wait(lock);
    }
}

static inline void
lg_lock_give(lg_lock *lock)
{
    atomic_store_explicit(&lock->taken, false, memory_order_release);
}

static inline void
lg_lock_reset(lg_lock *lock)
{
    atomic_init(&lock->taken, false);
}

#endif
