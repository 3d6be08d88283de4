/* What of the program is watched: the hooks that Python turns on, which of them are on, and whether
 * they see all. */
#include "module.h"

#include "leakguard/threads.h"

/* (task type, pure-Python task type or None, current tasks, the module _asyncio) */
static PyObject *
core_hook_tasks(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *type, *pure, *current, *asyncio_core;
    if (!require_installed()
        || !PyArg_ParseTuple(args, "O!OO!O:hook_tasks", &PyType_Type, &type, &pure, &PyDict_Type,
                             &current, &asyncio_core)) {
        return NULL;
    }
    PyObject *get_running_loop = PyObject_GetAttrString(asyncio_core, "_get_running_loop");
    if (get_running_loop == NULL) {
        return NULL;
    }
    if (!PyCFunction_CheckExact(get_running_loop)
        || PyCFunction_GET_FLAGS(get_running_loop) != METH_NOARGS) {
        Py_CLEAR(get_running_loop);
    }
    Py_XSETREF(glue->get_running_loop, get_running_loop);
    Py_XSETREF(glue->current_tasks, Py_NewRef(current));
    Py_XSETREF(glue->pure_task, PyType_Check(pure) ? Py_NewRef(pure) : NULL);
    if (hook_loops(asyncio_core) < 0 || hook_tasks((PyTypeObject *)type) < 0) {
        return NULL;
    }
    task_ends_hook();
    Py_RETURN_NONE;
}

static PyObject *
core_hook_asyncgens(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    if (!require_installed() || hook_asyncgens() < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
core_hook_threads(PyObject *module, PyObject *thread_type)
{
    (void)module;
    if (!require_installed()) {
        return NULL;
    }
    PyObject *run =
        PyType_Check(thread_type) ? _PyType_Lookup((PyTypeObject *)thread_type, glue->run) : NULL;
    if (run == NULL) {
        PyErr_SetString(PyExc_TypeError, "hook_threads wants threading.Thread");
        return NULL;
    }
    Py_INCREF(run);
    Py_XSETREF(glue->thread_type, Py_NewRef(thread_type));
    Py_XSETREF(glue->thread_run, run);
    if (hook_threads() < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* (kernel ids of the threads that Python knows) */
static PyObject *
core_hook_natives(PyObject *module, PyObject *known)
{
    (void)module;
    if (!require_installed()) {
        return NULL;
    }
    if (!PyTuple_Check(known)) {
        PyErr_SetString(PyExc_TypeError, "hook_natives wants a tuple of kernel ids");
        return NULL;
    }
    if (hook_natives(known) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
core_hooks(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    bool on = is_here();
    PyObject *threads = on ? hook_threads_names() : PyList_New(0);
    if (threads == NULL) {
        return NULL;
    }
    size_t changed, left_alone;
    lg_threads_slots(&changed, &left_alone);
    PyObject *natives = on && lg_threads_is_on()
                            ? Py_BuildValue("nn", (Py_ssize_t)changed, (Py_ssize_t)left_alone)
                            : Py_NewRef(Py_None);
    return Py_BuildValue("{sOsOsOsNsN}", "tasks", on && hook_tasks_is_on() ? Py_True : Py_False,
                         "task_ends", on && task_ends_is_on() ? Py_True : Py_False, "loops",
                         on && hook_loops_is_on() ? Py_True : Py_False, "threads", threads,
                         "natives", natives);
}

static PyObject *
core_set_pools(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *marks, *owner;
    if (!require_installed()
        || !PyArg_ParseTuple(args, "O!O:set_pools", &PyDict_Type, &marks, &owner)) {
        return NULL;
    }
    Py_XSETREF(glue->pool_marks, Py_NewRef(marks));
    Py_XSETREF(glue->pool_owner, Py_NewRef(owner));
    Py_RETURN_NONE;
}

static PyObject *
core_set_destroyed(PyObject *module, PyObject *callable)
{
    (void)module;
    if (!require_installed()) {
        return NULL;
    }
    Py_XSETREF(glue->destroyed, Py_NewRef(callable));
    Py_RETURN_NONE;
}

/* (callable, bits of kinds) */
static PyObject *
core_set_unclosed(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *callable;
    unsigned int kinds;
    if (!require_installed() || !PyArg_ParseTuple(args, "OI:set_unclosed", &callable, &kinds)) {
        return NULL;
    }
    Py_XSETREF(glue->unclosed, Py_NewRef(callable));
    glue->unclosed_kinds = kinds;
    Py_RETURN_NONE;
}

static PyObject *
core_want_destroyed(PyObject *module, PyObject *wanted)
{
    (void)module;
    if (is_here()) {
        glue->wants_destroyed = wanted == Py_True;
    }
    Py_RETURN_NONE;
}

static PyObject *
core_witness_start(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    if (!require_installed() || witness_start() < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
core_witness_stop(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    if (is_here()) {
        witness_stop();
    }
    Py_RETURN_NONE;
}

static PyObject *
core_witness_counts(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    return require_installed() ? witness_counts() : NULL;
}

PyMethodDef hook_functions[] = {
    {"hook_tasks", core_hook_tasks, METH_VARARGS,
     "hook_tasks(Task, _PyTask or None, current_tasks, _asyncio)"},
    {"hook_asyncgens", core_hook_asyncgens, METH_NOARGS, NULL},
    {"hook_threads", core_hook_threads, METH_O, "hook_threads(threading.Thread)"},
    {"hook_natives", core_hook_natives, METH_O, "hook_natives(kernel ids that Python knows)"},
    {"hooks", core_hooks, METH_NOARGS, "which hooks are on"},
    {"set_pools", core_set_pools, METH_VARARGS, "set_pools(marks, owner)"},
    {"set_destroyed", core_set_destroyed, METH_O,
     "set_destroyed(callable): told of tasks that are freed while pending"},
    {"set_unclosed", core_set_unclosed, METH_VARARGS,
     "set_unclosed(callable, kinds): given what the collector frees, whole"},
    {"want_destroyed", core_want_destroyed, METH_O, "want_destroyed(whether anybody may ask)"},
    {"witness_start", core_witness_start, METH_NOARGS, NULL},
    {"witness_stop", core_witness_stop, METH_NOARGS, NULL},
    {"witness_counts", core_witness_counts, METH_NOARGS, "kind -> (witnessed, seen) or None"},
    {NULL, NULL, 0, NULL},
};
