/* Since when, and for which block: what a checkpoint remembers and asks again, a guard's scope. */
#include "module.h"

#include "leakguard/process.h"
#include "leakguard/watermark.h"

static PyObject *
core_set_scope_variable(PyObject *module, PyObject *variable)
{
    (void)module;
    if (!require_installed()) {
        return NULL;
    }
    if (!PyContextVar_CheckExact(variable)) {
        PyErr_SetString(PyExc_TypeError, "set_scope_variable wants a contextvars.ContextVar");
        return NULL;
    }
    Py_XSETREF(glue->scope_var, Py_NewRef(variable));
    Py_RETURN_NONE;
}

static PyObject *
core_scope_begins(PyObject *module, PyObject *args)
{
    (void)module;
    unsigned int number, parent;
    if (!require_installed() || !PyArg_ParseTuple(args, "II:scope_begins", &number, &parent)) {
        return NULL;
    }
    lg_watermark_add_scope(glue->tracker, number, parent);
    Py_RETURN_NONE;
}

static PyObject *
core_count_scopes(PyObject *module, PyObject *change)
{
    (void)module;
    long delta = PyLong_AsLong(change);
    if (delta == -1 && PyErr_Occurred()) {
        return NULL;
    }
    if (!require_installed()) {
        return NULL;
    }
    glue->scopes_active = (uint32_t)((long)glue->scopes_active + delta);
    Py_RETURN_NONE;
}

static PyObject *
core_enter_scope(PyObject *module, PyObject *number)
{
    (void)module;
    unsigned long scope = PyLong_AsUnsignedLong(number);
    if ((scope == (unsigned long)-1 && PyErr_Occurred()) || !require_installed()) {
        return NULL;
    }
    thread_local_state *local = glue_local();
    if (local == NULL) {
        return PyErr_NoMemory();
    }
    uint32_t before = local->scope;
    local->scope = (uint32_t)scope;
    return PyLong_FromUnsignedLong(before);
}

/* (epoch, serial of the newest birth, dropped): what a checkpoint remembers. */
static PyObject *
core_mark(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    if (!require_installed()) {
        return NULL;
    }
    find_natives();
    return Py_BuildValue("KKK", (unsigned long long)glue->epoch,
                         (unsigned long long)lg_registry_last_serial(glue->tracker->registry),
                         (unsigned long long)glue->tracker->dropped);
}

static PyObject *
core_newest_live(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    if (!require_installed()) {
        return NULL;
    }
    find_natives();
    return PyLong_FromUnsignedLongLong(lg_registry_newest_live(glue->tracker->registry));
}

/* Whether the mark (epoch, serial, dropped) is of this installation, in this process, and no record
 * was dropped since. -1 with an exception set. A clean check asks at once, without a tuple. */
static int
mark_holds(PyObject *const *args, Py_ssize_t count, uint64_t *ret_serial)
{
    unsigned long long mark[3];
    if (count != 3) {
        PyErr_Format(PyExc_TypeError, "a mark is 3 numbers, not %zd", count);
        return -1;
    }
    for (int i = 0; i < 3; i++) {
        mark[i] = PyLong_AsUnsignedLongLong(args[i]);
        if (mark[i] == (unsigned long long)-1 && PyErr_Occurred()) {
            return -1;
        }
    }
    *ret_serial = mark[1];
    if (!is_here() || glue->tracker == NULL || glue->epoch != mark[0] || lg_process_forked()) {
        return 0;
    }
    find_natives();
    return glue->tracker->dropped == mark[2];
}

static PyObject *
core_is_quiet(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    uint64_t serial;
    int holds = mark_holds(args, count, &serial);
    if (holds < 0) {
        return NULL;
    }
    return PyBool_FromLong(holds && lg_registry_newest_live(glue->tracker->registry) <= serial);
}

/* The same, and that nothing was born at all. */
static PyObject *
core_is_untouched(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    uint64_t serial;
    int holds = mark_holds(args, count, &serial);
    if (holds < 0) {
        return NULL;
    }
    return PyBool_FromLong(holds && lg_registry_last_serial(glue->tracker->registry) == serial);
}

PyMethodDef scope_functions[] = {
    {"set_scope_variable", core_set_scope_variable, METH_O, NULL},
    {"scope_begins", core_scope_begins, METH_VARARGS, "scope_begins(number, parent)"},
    {"count_scopes", core_count_scopes, METH_O, "count_scopes(change)"},
    {"enter_scope", core_enter_scope, METH_O, "enter_scope(number) -> this thread's, before"},
    {"mark", core_mark, METH_NOARGS, "(epoch, serial, dropped)"},
    {"newest_live", core_newest_live, METH_NOARGS, NULL},
    {"is_quiet", (PyCFunction)(void (*)(void))core_is_quiet, METH_FASTCALL,
     "is_quiet(epoch, serial, dropped): whether nothing lives that was born since this mark"},
    {"is_untouched", (PyCFunction)(void (*)(void))core_is_untouched, METH_FASTCALL,
     "is_untouched(epoch, serial, dropped): whether nothing was born since this mark"},
    {NULL, NULL, 0, NULL},
};
