/* Event loops that do not come back to their selector in time.
 *
 * Each loop thread tells when its loop goes to wait and when it is back (lg_loop_idle, lg_loop_busy:
 * a clock and a few stores each). Busy for longer than the bound is a block: the loop's own thread
 * measures it and tells it when it is over. One watcher thread has the loop's thread take down its
 * stack meanwhile, by lg_sample_ask, once a block, when the bound has passed.
 *
 * The watcher is there from the first loop after the start to the stop. While a loop is busy it looks at least four times
 * per bound; when it finds all of them waiting it sleeps until one wakes it. A look that comes far too
 * late says that the process stood still (SIGSTOP): that time is nobody's. The clock is
 * CLOCK_MONOTONIC, which stands still while the machine is suspended.
 *
 * Before a fork the watcher is joined; in the parent it is made anew by the next loop that is back
 * from its selector, and not at once: CPython counted the process's threads after its own fork
 * handlers (until 2025: github.com/python/cpython, issue 137109) and would warn of ours. In the child
 * nothing is watched until the next start.
 */
#ifndef LEAKGUARD_BLOCKING_H
#define LEAKGUARD_BLOCKING_H

#include <stdbool.h>
#include <sys/types.h>

#include "leakguard/base.h"
#include "leakguard/unwind.h"

typedef struct lg_blocking lg_blocking; /* one for the process, never freed: process.h has it */
typedef struct lg_loop lg_loop;         /* one run of a loop in one thread, which owns it */

/* One block, over. Nanoseconds of CLOCK_MONOTONIC. */
typedef struct {
    int64_t begin;
    int64_t duration;
    bool sampled;   /* whether the stack was taken meanwhile */
    uint32_t count; /* of native frames, innermost first */
    const uintptr_t *frames;
} lg_block;

typedef struct {
    /* In the loop's thread, in a signal handler, during a block: takes down what is to be known. */
    void (*look)(void *context);
    /* In the loop's thread, when a block is over. No lock is held. */
    void (*tell)(void *context, const lg_block *block);
} lg_blocking_config;

/* Begins, or changes the bound (nanoseconds); `config` is borrowed for good. LG_NO_MEMORY. One caller at a time, as for stop. */
lg_status
lg_blocking_start(int64_t bound, const lg_blocking_config *config);

/* Ends: joins the watcher. Loops that were begun are told no more, and are still to be ended. */
void
lg_blocking_stop(void);

bool
lg_blocking_is_on(void);

/* The present moment, as lg_block has it. */
int64_t
lg_blocking_now(void);

/* Counts starts: a loop begun under another one is not watched. Any thread. */
uint64_t
lg_blocking_generation(void);

/* The watcher's kernel id, 0 while there is none. */
pid_t
lg_blocking_watcher(void);

/* A loop begins to run in the calling thread, busy from now; NULL where memory ran out or nothing is
 * watched. `context` is the config's. */
lg_loop *
lg_loop_begin(void *context);

/* It has ended: what it did since it was back from its selector counts, unless the watching ended.
 * NULL is allowed. By its own thread, as all below. */
void
lg_loop_end(lg_loop *loop);

/* It goes to its selector, it is back. */
void
lg_loop_idle(lg_loop *loop);
void
lg_loop_busy(lg_loop *loop);

/* What was done until now counts by itself. */
void
lg_loop_cut(lg_loop *loop);

/* Whether what is done from here on is leakguard's own. Calls nest. */
void
lg_loop_exempt(lg_loop *loop, bool exempt);

/* False where the loop is not watched any more. */
bool
lg_loop_is_current(const lg_loop *loop);

/* For process.c, around fork; NULL is allowed. */
void
lg_blocking_before_fork(lg_blocking *blocking);
void
lg_blocking_after_fork_in_parent(lg_blocking *blocking);
void
lg_blocking_after_fork_in_child(lg_blocking *blocking);

#endif
