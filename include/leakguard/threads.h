/* The threads of the operating system: every one of this process, whoever started it.
 *
 * pthread_create is taken over (interpose.h). A new thread gets an lg_thread with its start routine
 * and the native stack that created it, learns its kernel id in a trampoline, and ends when the
 * C library destroys its thread-specific data: after return, pthread_exit and cancellation alike.
 * What starts inside libc passes no GOT entry; lg_threads_scan finds it in /proc/self/task.
 *
 * The binding is asked in the creating thread (lg_threads_config.describe) whether it keeps a record
 * of its own of the thread, as it does of Python's; of any other the registry gets one, with the
 * kind LG_NATIVE_THREAD and the lg_thread as key.
 *
 * One lock guards all of it, taken before those of registry and depot. It is held over fork; the
 * child keeps the forking thread only.
 */
#ifndef LEAKGUARD_THREADS_H
#define LEAKGUARD_THREADS_H

#include <pthread.h>
#include <stdbool.h>
#include <sys/types.h>

#include "leakguard/tracker.h"
#include "leakguard/unwind.h"

typedef struct lg_threads lg_threads; /* one for the process, never freed: process.h has it */
typedef struct lg_thread lg_thread;   /* counted: hold and release */

#define LG_CALLER_FRAMES 64

/* What the binding says of the creation of a thread. */
typedef struct {
    bool claimed;        /* the binding keeps a record of its own: none is made here */
    const void *creator; /* key of the creator's record, or NULL: that of the creating lg_thread */
    uint32_t scope;
    uint32_t count;                    /* of frames */
    lg_frame frames[LG_CALLER_FRAMES]; /* of the calling code, innermost first; they stay valid
                                          until lg_threads_stop */
} lg_thread_caller;

typedef struct {
    const lg_depot_config *depot; /* for the stacks; without `retain` */
    /* Fills *ret_caller (zeroed before) in the creating thread, before the thread exists. No lock
     * is held; the thread may hold any of its own, and whatever lock the binding has or has not.
     * If it claims the thread it may hold on to it. */
    void (*describe)(void *context, lg_thread *thread, lg_thread_caller *ret_caller);
    void *context;
} lg_threads_config;

/* What is known of one thread. */
typedef struct {
    pid_t tid;          /* 0 while it starts */
    pthread_t handle;   /* 0 while it starts, and where it is not known: a thread that was found */
    uintptr_t start;    /* start routine, 0 where it is not known */
    bool found;         /* by a scan, or there before */
    lg_stack_id native; /* ids for lg_threads_stack */
    lg_stack_id caller;
    size_t stack_size; /* asked for by its creator, 0 for the default */
} lg_thread_info;

/* Begins: LG_NOT_FOUND where pthread_create cannot be taken over, LG_NO_MEMORY. Idempotent; a second
 * call takes over what is new. `tracker` (borrowed) gets the records until lg_threads_stop. */
lg_status
lg_threads_start(const lg_threads_config *config, lg_tracker *tracker);

/* Puts pthread_create back and forgets all threads and stacks. To be called before the tracker
 * goes; threads may run on, start and end meanwhile. */
void
lg_threads_stop(void);

bool
lg_threads_is_on(void);

/* GOT entries changed, and left alone (see interpose.h), by the last start. */
void
lg_threads_slots(size_t *ret_changed, size_t *ret_left_alone);

/* Makes a thread known that the binding has a record of: no record is made when it is found. */
lg_status
lg_threads_know(pid_t tid);

/* Creates a thread of leakguard's own: no record is made of it. As pthread_create. */
int
lg_threads_create_own(pthread_t *handle, void *(*start)(void *), void *argument);

/* Looks for threads that nobody has announced: each gets a record, without stacks, with `flags`.
 * Ends those found earlier that have gone. Does nothing but a stat(2) where the kernel's count is
 * ours. May sleep for a few milliseconds while a thread is starting. */
void
lg_threads_scan(unsigned flags);

/* How many threads are known to live. */
size_t
lg_threads_count(void);

/* One more or one less holder. `hold` also under the registry's lock, of the key of a record. */
void
lg_thread_hold(lg_thread *thread);
void
lg_thread_release(lg_thread *thread);

lg_thread_info
lg_thread_get_info(const lg_thread *thread);

/* Copies a stack (code: address, or the binding's word), innermost first. LG_NOT_FOUND. */
lg_status
lg_threads_stack(lg_stack_id id, lg_frame *frames, uint32_t capacity, uint32_t *ret_count);

/* Notes of ghosts that went with native threads' records, for the binding to free. */
lg_note *
lg_threads_take_notes(void);

/* For process.c, around fork. */
void
lg_threads_before_fork(lg_threads *threads);
void
lg_threads_after_fork_in_parent(lg_threads *threads);
void
lg_threads_after_fork_in_child(lg_threads *threads);
/* Frees what the child does not keep, once no record names it. */
void
lg_threads_after_records(lg_threads *threads);

#endif
