/* The limits: how many live at once, and how long a loop stands still. */
#include "module.h"

/* (mask of kinds, scope or 0, roots of leakguard's files, of the standard library's) */
static PyObject *
core_watermark(PyObject *module, PyObject *args)
{
    unsigned int kinds;
    unsigned int scope;
    PyObject *own, *library;
    if (!require_installed()
        || !PyArg_ParseTuple(args, "IIO!O!:watermark", &kinds, &scope, &PyTuple_Type, &own,
                             &PyTuple_Type, &library)) {
        return NULL;
    }
    find_natives();
    return fanout_open(state_of(module), kinds, scope, own, library);
}

static PyObject *
core_hook_select(PyObject *module, PyObject *select)
{
    (void)module;
    if (!require_installed() || hook_select(select) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
core_hook_uvloop(PyObject *module, PyObject *loops)
{
    (void)module;
    if (!require_installed() || hook_uvloop(loops) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* (seconds, listener) */
static PyObject *
core_blocking_start(PyObject *module, PyObject *args)
{
    (void)module;
    double bound;
    PyObject *listener;
    if (!require_installed() || !PyArg_ParseTuple(args, "dO:blocking_start", &bound, &listener)
        || blocking_start(bound, listener) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
core_blocking_stop(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    if (is_here()) {
        blocking_stop();
    }
    Py_RETURN_NONE;
}

static PyObject *
core_blocking_enter(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    return require_installed() ? PyLong_FromLongLong(blocking_enter()) : NULL;
}

static PyObject *
core_blocking_exempt(PyObject *module, PyObject *exempt)
{
    (void)module;
    if (is_here()) {
        blocking_exempt(exempt == Py_True);
    }
    Py_RETURN_NONE;
}

/* (kernel id of the watcher or 0, names of what is hooked) */
static PyObject *
core_blocking_state(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    PyObject *hooks = is_here() ? blocking_hooks() : PyList_New(0);
    return hooks != NULL ? Py_BuildValue("iN", (int)lg_blocking_watcher(), hooks) : NULL;
}

PyMethodDef limit_functions[] = {
    {"watermark", core_watermark, METH_VARARGS,
     "watermark(kinds, scope, own roots, library roots) -> Watermark"},
    {"hook_select", core_hook_select, METH_O, "hook_select(select)"},
    {"hook_uvloop", core_hook_uvloop, METH_O, "hook_uvloop(uvloop.loop)"},
    {"blocking_start", core_blocking_start, METH_VARARGS, "blocking_start(seconds, listener)"},
    {"blocking_stop", core_blocking_stop, METH_NOARGS, NULL},
    {"blocking_enter", core_blocking_enter, METH_NOARGS,
     "what this thread's loop did until now counts by itself; the moment, in nanoseconds"},
    {"blocking_exempt", core_blocking_exempt, METH_O,
     "blocking_exempt(True): what runs in this thread from here on is leakguard's own"},
    {"blocking_state", core_blocking_state, METH_NOARGS,
     "(kernel id of the watcher or 0, names of what is hooked)"},
    {NULL, NULL, 0, NULL},
};
