/* What the core's tests share. */
#ifndef LG_TEST_SUPPORT_H
#define LG_TEST_SUPPORT_H

#include <check.h>

#include "leakguard/alloc.h"

/* An allocator that counts, and can fail at the n-th call. */
typedef struct {
    long calls;   /* allocations asked for */
    long fail_at; /* the number of the call that fails; 0: none */
    long blocks;  /* given out and not taken back */
    size_t bytes; /* likewise */
    size_t peak;  /* the most that `bytes` ever was */
} counting;

lg_allocator
counting_allocator(counting *counts);

/* Runs a suite, prints Check's line, returns what main is to return. */
int
run_suite(Suite *suite);

#endif
