/* What the core's tests share. */
#ifndef LG_TEST_SUPPORT_H
#define LG_TEST_SUPPORT_H

#include <check.h>
#include <sys/types.h>

#include "leakguard/tracker.h"

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

/* `counts` may be NULL: the system's allocator, then. max_bytes: of its depot. */
lg_tracker *
new_tracker(counting *counts, size_t max_bytes);

/* Addresses that lie side by side, as an allocator hands them out; nothing is there. */
const void *
address(size_t number);

/* Waits for a child that exits by itself, and gives its status. */
int
status_of(pid_t child);

/* Runs a suite, prints Check's line, returns what main is to return. */
int
run_suite(Suite *suite);

#endif
