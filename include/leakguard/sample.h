/* Where other threads are now, in C: each is asked by a real-time signal, and answers with its own
 * native stack from the handler.
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
 * build has no libunwind or no signal is free, LG_NO_MEMORY. One caller at a time. */
lg_status
lg_sample_threads(lg_sample *samples, size_t count, int64_t timeout);

#endif
