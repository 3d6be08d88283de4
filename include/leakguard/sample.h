/* Where other threads are now, in C: each is asked by a real-time signal, and answers with its own
 * native stack from the handler. Who asks one thread may have it answer in its own way as well.
 *
 * The signal is one that nobody uses; SA_RESTART is set, but poll, epoll_wait and usleep return
 * EINTR all the same: only for checks that somebody asked for. A thread that blocks the signal, or
 * has a small stack, is not asked; one that does not answer in time sits in the kernel.
 */
#ifndef LEAKGUARD_SAMPLE_H
#define LEAKGUARD_SAMPLE_H

#include <stddef.h>
#include <sys/types.h>

#include "leakguard/base.h"
#include "leakguard/unwind.h"

typedef enum {
    LG_SAMPLE_DONE,
    LG_SAMPLE_GONE,    /* there is no such thread */
    LG_SAMPLE_BLOCKED, /* it blocks the signal: not asked */
    LG_SAMPLE_SILENT,  /* no answer in time */
} lg_sample_result;

typedef struct {
    pid_t tid; /* in; the calling thread's own too */
    lg_sample_result result;
    uint32_t count;
    uintptr_t frames[LG_NATIVE_DEPTH]; /* innermost first; [0] is no return address */
} lg_sample;

/* A sampler is made at the first call, once for the process: a late answer finds it. */
typedef struct lg_sampler lg_sampler;

/* Fills all samples, waiting at most `timeout` nanoseconds for each hundred. LG_NOT_FOUND where this
 * build has no libunwind or no signal is free, LG_NO_MEMORY. Any thread; callers take turns. */
lg_status
lg_sample_threads(lg_sample *samples, size_t count, int64_t timeout);

/* Runs in the signal handler of the asked thread: no lock, no allocation. `frames` are those of
 * lg_sample, none without libunwind. */
typedef void (*lg_sample_answer)(void *context, const uintptr_t *frames, uint32_t count);

/* Has another thread run `answer`, waiting at most `timeout` nanoseconds for it to begin; once this
 * returns it does not run any more. Needs no libunwind. */
lg_status
lg_sample_ask(pid_t tid, lg_sample_answer answer, void *context, int64_t timeout,
              lg_sample_result *ret_result);

/* For process.c, around fork; NULL is allowed. */
void
lg_sampler_before_fork(lg_sampler *sampler);
void
lg_sampler_after_fork_in_parent(lg_sampler *sampler);
void
lg_sampler_after_fork_in_child(lg_sampler *sampler);

#endif
