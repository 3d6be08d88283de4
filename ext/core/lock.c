#include "leakguard/lock.h"

#include <sched.h>
#include <time.h>

void
lg__lock_wait(lg_lock *lock)
{
    enum { YIELDS = 16, PAUSE = 50 * 1000 }; /* nanoseconds */
    for (int tries = 0;; tries++) {
        if (!atomic_load_explicit(&lock->taken, memory_order_relaxed)
            && !atomic_exchange_explicit(&lock->taken, true, memory_order_acquire)) {
            return;
        }
        if (tries < YIELDS) {
            sched_yield();
        }
        else {
            nanosleep(&(struct timespec){.tv_nsec = PAUSE}, NULL);
        }
    }
}
