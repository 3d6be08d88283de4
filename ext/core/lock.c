#include "leakguard/lock.h"

#include <sched.h>
#include <time.h>

void
lg__lock_wait(lg_lock *lock)
{
    enum { YIELDS = 16, PAUSE = 50 * 1000 }; /* nanoseconds */
    atomic_fetch_add_explicit(&lock->waiting, 1, memory_order_relaxed);
    for (int tries = 0; atomic_load_explicit(&lock->taken, memory_order_relaxed)
                        || atomic_exchange_explicit(&lock->taken, true, memory_order_acquire);
         tries++) {
        if (tries < YIELDS) {
            sched_yield();
        }
        else {
            nanosleep(&(struct timespec){.tv_nsec = PAUSE}, NULL);
        }
    }
    atomic_fetch_sub_explicit(&lock->waiting, 1, memory_order_relaxed);
}

void
lg__lock_yield(void)
{
    sched_yield();
}
