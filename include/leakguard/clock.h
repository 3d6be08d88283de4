/* Birth times. */
#ifndef LEAKGUARD_CLOCK_H
#define LEAKGUARD_CLOCK_H

#include <stdint.h>

/* Nanoseconds of the monotonic clock, in steps of a few milliseconds where the system has a
 * cheaper clock of that kind (Linux: CLOCK_MONOTONIC_COARSE, which shares its origin with
 * Python's time.monotonic()). Any thread. */
int64_t
lg_clock_now(void);

#endif
