/* What the records tell, and what is known of the objects that they stand for. */
#include "module.h"

#include "leakguard/clock.h"
#include "leakguard/process.h"
#include "waiting_place.h"

static PyObject *
core_live(PyObject *module, PyObject *args)
{
    unsigned long long since;
    unsigned int kinds;
    int done = 0;
    if (!require_installed() || !PyArg_ParseTuple(args, "KI|p:live", &since, &kinds, &done)) {
        return NULL;
    }
    if (kinds & LG_KIND_BIT(LG_NATIVE_THREAD)) {
        find_natives();
    }
    return records_live(state_of(module), since, kinds, done != 0);
}

static PyObject *
core_waiting_forever(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *own, *cancellers;
    double timeout;
    if (!require_installed()
        || !PyArg_ParseTuple(args, "O!O!d:waiting_forever", &PyTuple_Type, &own, &PyTuple_Type,
                             &cancellers, &timeout)) {
        return NULL;
    }
    return waiting_forever(own, cancellers, timeout);
}

static PyObject *
core_find(PyObject *module, PyObject *object)
{
    return require_installed() ? records_find(state_of(module), object) : NULL;
}

static PyObject *
core_count(PyObject *module, PyObject *kinds)
{
    (void)module;
    unsigned long mask = PyLong_AsUnsignedLong(kinds);
    if (mask == (unsigned long)-1 && PyErr_Occurred()) {
        return NULL;
    }
    return require_installed() ? records_count((unsigned)mask) : NULL;
}

static PyObject *
core_creator(PyObject *module, PyObject *object)
{
    (void)module;
    return require_installed() ? records_creator(object) : NULL;
}

static PyObject *
core_line(PyObject *module, PyObject *object)
{
    (void)module;
    return require_installed() ? records_line(object) : NULL;
}

static PyObject *
core_stack(PyObject *module, PyObject *id)
{
    (void)module;
    unsigned long number = PyLong_AsUnsignedLong(id);
    if (number == (unsigned long)-1 && PyErr_Occurred()) {
        return NULL;
    }
    return require_installed() ? records_stack((uint32_t)number) : NULL;
}

static PyObject *
core_stats(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    if (!is_here()) {
        PyErr_SetString(PyExc_RuntimeError, "leakguard tracks the main interpreter only");
        return NULL;
    }
    if (lg_process_forked()) {
        glue_after_fork();
    }
    find_natives();
    return records_stats();
}

static PyObject *
core_failures(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    return PyLong_FromUnsignedLongLong(is_here() ? glue->failures : 0);
}

static PyObject *
core_now(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    return PyLong_FromLongLong(lg_clock_now());
}

static PyObject *
core_own_kinds(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    return is_here() ? PyList_AsTuple(glue->own_kinds) : PyTuple_New(0);
}

static PyObject *
core_resource_info(PyObject *module, PyObject *object)
{
    (void)module;
    return require_installed() ? capi_resource_info(object) : NULL;
}

static PyObject *
core_thread_info(PyObject *module, PyObject *run)
{
    return thread_info(state_of(module), run);
}

/* Of a NativeThread, or of a ThreadRun whose native thread was seen; else None. */
static PyObject *
core_native_info(PyObject *module, PyObject *object)
{
    if (!require_installed()) {
        return NULL;
    }
    lg_thread *thread = native_of(object);
    if (thread == NULL) {
        thread = thread_native(state_of(module), object);
    }
    if (thread == NULL) {
        Py_RETURN_NONE;
    }
    return native_info(thread);
}

static PyObject *
core_native_symbol(PyObject *module, PyObject *address)
{
    (void)module;
    return native_symbol(address);
}

static PyObject *
core_native_samples(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *tids;
    double timeout;
    if (!require_installed()
        || !PyArg_ParseTuple(args, "O!d:native_samples", &PyTuple_Type, &tids, &timeout)) {
        return NULL;
    }
    return native_samples(tids, timeout);
}

static PyObject *
core_function_name(PyObject *module, PyObject *callable)
{
    (void)module;
    if (glue == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "leakguard tracks the main interpreter only");
        return NULL;
    }
    PyObject *name = function_name(callable);
    return name != NULL ? name : PyErr_NoMemory();
}

static PyObject *
core_waiting_place(PyObject *module, PyObject *coroutine)
{
    (void)module;
    return waiting_place(coroutine);
}

PyMethodDef record_functions[] = {
    {"live", core_live, METH_VARARGS,
     "live(since, kinds, done=False) -> list of Record, oldest first"},
    {"waiting_forever", core_waiting_forever, METH_VARARGS,
     "waiting_forever(own types, types that cancel, seconds) -> (serials of tasks that wait for "
     "ever, of waiting ones that nobody holds), or why it gave up"},
    {"find", core_find, METH_O, "find(object) -> its Record, or None"},
    {"count", core_count, METH_O,
     "count(kinds) -> (kind, stack) -> how many live, by creation stack"},
    {"creator", core_creator, METH_O,
     "creator(object) -> (kind, serial, object, name, function, ended) or None"},
    {"line", core_line, METH_O, "line(object or None) -> serials of it and its creators"},
    {"stack", core_stack, METH_O, "stack(id) -> (frames, inner, truncated)"},
    {"stats", core_stats, METH_NOARGS, NULL},
    {"failures", core_failures, METH_NOARGS, NULL},
    {"now", core_now, METH_NOARGS, "nanoseconds, as in Record.born"},
    {"own_kinds", core_own_kinds, METH_NOARGS, "kinds that other extensions added, in order"},
    {"resource_info", core_resource_info, METH_O, "resource_info(object) -> (name, state or None)"},
    {"thread_info", core_thread_info, METH_O,
     "thread_info(run) -> (function, thread, label, ident, state)"},
    {"native_info", core_native_info, METH_O,
     "native_info(object) -> (tid, ident, start, native frames, frames, stack size) or None"},
    {"native_symbol", core_native_symbol, METH_O,
     "native_symbol(address) -> (function, offset, module, offset in the module)"},
    {"native_samples", core_native_samples, METH_VARARGS,
     "native_samples(kernel ids, seconds) -> id -> native frames or a word"},
    {"function_name", core_function_name, METH_O, "what a callable or coroutine is called"},
    {"waiting_place", core_waiting_place, METH_O,
     "waiting_place(coroutine) -> bytes, equal where two wait at the same place, or None"},
    {NULL, NULL, 0, NULL},
};
