#define _GNU_SOURCE /* CLOCK_MONOTONIC_COARSE */
#include "leakguard/clock.h"

#include <time.h>

#ifdef CLOCK_MONOTONIC_COARSE
#define CLOCK CLOCK_MONOTONIC_COARSE
#else
#define CLOCK CLOCK_MONOTONIC
#endif

int64_t
lg_clock_now(void)
{
    struct timespec now = {0, 0};
    clock_gettime(CLOCK, &now);
    return (int64_t)now.tv_sec * 1000000000 + (int64_t)now.tv_nsec;
}
