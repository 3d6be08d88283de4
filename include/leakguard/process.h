/* The process context: which tracker serves this process, and what happens to it at fork.
 *
 * Hooks and pthread_atfork handlers get no context argument, hence one file-scope pointer here.
 * Before a fork the forking thread ends the loops' watcher, and takes the locks of blocking, sampler,
 * threads, registry and depot, in this order; the parent gives back what was taken, whatever was set
 * meanwhile; the child makes it anew and notes that it is a child. What the other threads left behind
 * is removed at the child's first lg_process_after_fork, which the binding calls when it is safe to.
 */
#ifndef LEAKGUARD_PROCESS_H
#define LEAKGUARD_PROCESS_H

#include <stdbool.h>

#include "leakguard/blocking.h"
#include "leakguard/sample.h"
#include "leakguard/threads.h"
#include "leakguard/tracker.h"

/* Makes `tracker` (borrowed, or NULL for none) the one that fork takes care of. The first call
 * registers the fork handlers, which cannot be taken back and do nothing without a tracker.
 * LG_NO_MEMORY where the system refuses them. Not to be called while another thread forks. */
lg_status
lg_process_set_tracker(lg_tracker *tracker);

/* The process's threads: NULL before threads.c has set them, once. */
lg_threads *
lg_process_threads(void);
void
lg_process_set_threads(lg_threads *threads);

/* Likewise the process's sampler, which its signal handler needs. `set` returns the one that was
 * first. */
lg_sampler *
lg_process_sampler(void);
lg_sampler *
lg_process_set_sampler(lg_sampler *sampler);

/* Likewise what watches the event loops. */
lg_blocking *
lg_process_blocking(void);
lg_blocking *
lg_process_set_blocking(lg_blocking *blocking);

/* True in a forked child until lg_process_after_fork has run. One load: for the hot path. */
bool
lg_process_forked(void);

/* In a forked child: keeps only what belongs to the thread with the key `thread`, of what was
 * born before the fork. Returns the notes of the ghosts that went. Once; else NULL. */
lg_note *
lg_process_after_fork(const void *thread);

#endif
