/* Many leaks wait at few places, and to describe one takes a hundred times as long as to name it. */
#include "waiting_place.h"

#include <string.h>

#include "frames.h"

enum { DEEPEST = 64 };

/* What a coroutine awaits, NULL without an exception where that is not known. (The attribute
 * cr_await, without a look-up by name: Objects/genobject.c.) */
static PyObject *
awaited_by(PyObject *coroutine)
{
    for (PyGetSetDef *def = PyCoro_Type.tp_getset; def != NULL && def->name != NULL; def++) {
        if (strcmp(def->name, "cr_await") == 0) {
            return def->get(coroutine, def->closure);
        }
    }
    return NULL;
}

/* Whether nothing is awaited, or a future of asyncio's: there the chain ends. (The type is private
 * to Modules/_asynciomodule.c.) */
static int
is_end(PyObject *awaited)
{
    return awaited == Py_None || strcmp(Py_TYPE(awaited)->tp_name, "_asyncio.FutureIter") == 0;
}

PyObject *
waiting_place(PyObject *coroutine)
{
    lg_frame frames[DEEPEST];
    size_t count = 0;
    PyObject *at = Py_NewRef(coroutine);
    while (at != NULL && count < DEEPEST && frames_suspended(at, &frames[count])) {
        count++;
        Py_SETREF(at, awaited_by(at));
        if (at != NULL && is_end(at)) {
            Py_DECREF(at);
            return PyBytes_FromStringAndSize((const char *)frames,
                                             (Py_ssize_t)(count * sizeof(*frames)));
        }
    }
    if (at == NULL && PyErr_Occurred()) {
        return NULL;
    }
    Py_XDECREF(at);
    Py_RETURN_NONE;
}
