/* Walks the interpreter's frames without making frame objects. */
#ifndef LG_FRAMES_H
#define LG_FRAMES_H

#include <Python.h>
#include <stdbool.h>

#include "leakguard/depot.h"

/* Where a thread's event loop began to run: the frame that said so and the one before it. Kept as
 * addresses only, for comparison, never followed. */
typedef struct {
    const void *at;
    const void *before;
    uint64_t run; /* not 0: `at` is the loop's own frame, which stays until it says that it ends */
} frames_mark;

/* The innermost Python frame of the current thread, and its caller; NULLs where there is none. Where
 * one of them runs the code `run_forever` (NULL: none does), that one alone, and the number `run`. */
frames_mark
frames_here(PyThreadState *tstate, PyObject *run_forever, uint64_t run);

/* Fills `frames` (room for `capacity`) with the innermost frames of the current thread, and
 * *ret_stack with them, hash included. `loop` says where the running loop began. The words of a
 * frame are the code object and the address of the last instruction. */
void
frames_walk(PyThreadState *tstate, frames_mark loop, lg_frame *frames, uint32_t capacity,
            lg_stack *ret_stack);

/* The line that a frame of frames_walk stands at; its code object must be alive. */
int
frames_line(lg_frame frame);

/* A number in which the innermost frames of the current thread differ, as a rule, from other places
 * of the program. */
uint64_t
frames_key(PyThreadState *tstate);

/* Whether frames_walk, with room for `stack->count` frames where that one is truncated and for as many
 * at least where not, would give this stack, which is stored in a depot. */
bool
frames_match(PyThreadState *tstate, frames_mark loop, const lg_stack *stack);

enum { FRAMES_INSIDE = 62 };

/* The frames inside a loop's run, innermost first, the interpreter's own among them and the loop's at
 * the end. Two births in one run that stand at the same instructions there have the same stack: the
 * frames outside do not change while it runs. */
typedef struct {
    uint64_t run; /* as in frames_mark; 0: outside a loop, or too deep */
    uint32_t count;
    struct {
        const void *frame; /* where it lay the last time: a guess */
        uintptr_t place;   /* its instruction */
    } at[FRAMES_INSIDE];
} frames_inside;

/* Takes down how the current thread stands inside `loop`. */
void
frames_look(PyThreadState *tstate, const frames_mark *loop, frames_inside *ret_inside);

/* Whether the current thread stands inside `loop` like that; corrects the guesses. */
bool
frames_stand(PyThreadState *tstate, const frames_mark *loop, frames_inside *inside);

/* The task that runs in this thread where the thread state knows it (3.14+), else NULL;
 * *ret_loop the running loop or NULL. Both borrowed. `ret_known` is 0 where this version's thread
 * state does not say. */
PyObject *
frames_running_task(PyThreadState *tstate, PyObject **ret_loop, int *ret_known);

/* Whether this is a suspended coroutine; then *ret_frame are the words of its frame, as above. The
 * code object is borrowed. Asking for `cr_frame` would leave a frame object behind in each. */
bool
frames_suspended(PyObject *object, lg_frame *ret_frame);

/* Calls `visit` for each reference of a generator's frame that is not counted in its object: from
 * 3.14 on tp_traverse shows these too, and only the collector can tell them. */
void
frames_visit_borrowed(PyObject *object, visitproc visit, void *context);

enum { FRAMES_TAKEN = 64, FRAMES_BYTES = 16384 };

/* A Python stack as plain data, taken where no object may be touched. Innermost first. */
typedef struct {
    uint32_t count;
    bool truncated;
    const void *coroutine; /* the outermost one that the loop runs: an address only; or NULL */
    uint32_t coroutine_at; /* its frame; FRAMES_TAKEN where that is not among them */
    const void *task;      /* likewise the running task, where the thread state knows it (3.14+) */
    struct frames_taken {
        int line;
        struct frames_text {
            uint32_t at, length; /* characters of `kind` bytes in `bytes` */
            int kind;
        } file, function;
    } frames[FRAMES_TAKEN];
    uint32_t used;
    unsigned char bytes[FRAMES_BYTES];
} frames_dump;

/* Takes down the stack of the calling thread, whose thread state is `tstate`, down to where its loop
 * began. For a signal handler, at any moment: what is read may be half made, so each read asks the
 * kernel first, and each object must look like what it should be. No lock, no allocation, no
 * reference. (Python/traceback.c's dump_frame and faulthandler read the same, without asking.) */
void
frames_take_down(PyThreadState *tstate, frames_mark loop, frames_dump *dump);

#endif
