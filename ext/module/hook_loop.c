/* Where each thread's event loop begins to run, seen at the method-table entry of
 * _asyncio._set_running_loop: every loop calls it, uvloop too. The frames that are on the stack
 * then only say that a loop is running.
 *
 * asyncio calls it in run_forever on 3.11, and from 3.12 on in _run_forever_setup, a frame that is
 * gone when the loop runs; hence both the innermost frame and its caller are remembered. (What
 * stands at the address of a frame that is gone is a frame of the loop, called by the same
 * caller.) A loop written in C has the frame that called it as the innermost.
 *
 * run_forever itself says when it begins and when it ends, wherever it stands meanwhile: while it
 * runs its frame is the same, and so are the frames that it was called from. Of no other function
 * that calls _set_running_loop this is known.
 */
#include "glue.h"

/* The code of asyncio's own run_forever, borrowed; or NULL. Sets no exception. */
static PyObject *
run_forever(void)
{
    if (glue->run_forever != NULL) {
        return glue->run_forever;
    }
    PyObject *found = PySys_GetObject("modules"); /* borrowed */
    found = found != NULL ? PyMapping_GetItemString(found, "asyncio.base_events") : NULL;
    static const char *const names[] = {"BaseEventLoop", "run_forever", "__code__"};
    for (size_t i = 0; i < Py_ARRAY_LENGTH(names) && found != NULL; i++) {
        Py_SETREF(found, PyObject_GetAttrString(found, names[i]));
    }
    if (found != NULL && PyCode_Check(found)) {
        glue->run_forever = Py_NewRef(found);
    }
    Py_XDECREF(found);
    PyErr_Clear();
    return glue->run_forever;
}

static PyObject *
hook_set_running_loop(PyObject *module, PyObject *loop)
{
    PyThreadState *tstate = PyThreadState_Get();
    if (glue_tracks(tstate)) {
        thread_local_state *local = glue_local();
        if (local != NULL) {
            bool runs = loop != Py_None;
            local->loop = runs ? frames_here(tstate, run_forever(), ++glue->loop_runs)
                               : (frames_mark){NULL, NULL, 0};
            local->running = runs ? loop : NULL;
            local->loop_epoch = glue->epoch;
            if (runs) {
                blocking_loop_begin(local, tstate, loop);
            }
            else {
                blocking_loop_end(local);
            }
        }
    }
    return glue->set_running_loop.original(module, loop);
}

int
hook_loops(PyObject *asyncio_core)
{
    return method_replace(&glue->set_running_loop, asyncio_core, "_set_running_loop", METH_O,
                          hook_set_running_loop, false);
}

void
unhook_loops(void)
{
    method_put_back(&glue->set_running_loop, hook_set_running_loop);
}

bool
hook_loops_is_on(void)
{
    return method_is_replaced(&glue->set_running_loop, hook_set_running_loop);
}
