/* Where each thread's event loop begins to run, seen at the method-table entry of
 * _asyncio._set_running_loop: every loop calls it, uvloop too. The frames that are on the stack
 * then only say that a loop is running.
 *
 * asyncio calls it in run_forever on 3.11, and from 3.12 on in _run_forever_setup, a frame that is
 * gone when the loop runs; hence both the innermost frame and its caller are remembered. (What
 * stands at the address of a frame that is gone is a frame of the loop, called by the same
 * caller.) A loop written in C has the frame that called it as the innermost.
 */
#include "glue.h"

static PyObject *
hook_set_running_loop(PyObject *module, PyObject *loop)
{
    PyThreadState *tstate = PyThreadState_Get();
    if (glue_tracks(tstate)) {
        thread_local_state *local = glue_local();
        if (local != NULL) {
            bool runs = loop != Py_None;
            local->loop = runs ? frames_here(tstate) : (frames_mark){NULL, NULL};
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
