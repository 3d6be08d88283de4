/* Walks the interpreter's frames without making frame objects. */
#ifndef LG_FRAMES_H
#define LG_FRAMES_H

#include <Python.h>

#include "leakguard/depot.h"

/* Where a thread's event loop began to run: the frame that said so and the one before it. Kept as
 * addresses only, for comparison, never followed. */
typedef struct {
    const void *at;
    const void *before;
} frames_mark;

/* The innermost Python frame of the current thread, and its caller; NULLs where there is none. */
frames_mark
frames_here(PyThreadState *tstate);

/* Fills `frames` (room for `capacity`) with the innermost frames of the current thread, and
 * *ret_stack with them, hash included. `loop` says where the running loop began. The words of a
 * frame are the code object and the byte offset of the last instruction. */
void
frames_walk(PyThreadState *tstate, frames_mark loop, lg_frame *frames, uint32_t capacity,
            lg_stack *ret_stack);

/* The task that runs in this thread where the thread state knows it (3.14+), else NULL;
 * *ret_loop the running loop or NULL. Both borrowed. `ret_known` is 0 where this version's thread
 * state does not say. */
PyObject *
frames_running_task(PyThreadState *tstate, PyObject **ret_loop, int *ret_known);

/* Calls `visit` for each reference of a generator's frame that is not counted in its object: from
 * 3.14 on tp_traverse shows these too, and only the collector can tell them. */
void
frames_visit_borrowed(PyObject *object, visitproc visit, void *context);

#endif
