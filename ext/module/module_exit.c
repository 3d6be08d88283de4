/* How the process ends: its exit status, and what it does on SIGTERM. */
#include "module.h"

static PyObject *
core_exit_status_arm(PyObject *module, PyObject *code)
{
    (void)module;
    long number = PyLong_AsLong(code);
    if ((number == -1 && PyErr_Occurred()) || !require_installed()
        || exit_status_arm((int)number) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
core_exit_status_set(PyObject *module, PyObject *leaked)
{
    (void)module;
    if (!require_installed()) {
        return NULL;
    }
    exit_status_set(leaked == Py_True);
    Py_RETURN_NONE;
}

static PyObject *
core_free_signal(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    return PyLong_FromLong(terminate_free_signal());
}

static PyObject *
core_terminate_arm(PyObject *module, PyObject *args)
{
    (void)module;
    int ask;
    double grace;
    if (!PyArg_ParseTuple(args, "id:terminate_arm", &ask, &grace) || !require_installed()
        || terminate_arm(ask, grace) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
core_terminate_die(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    terminate_die();
    Py_RETURN_NONE;
}

PyMethodDef exit_functions[] = {
    {"exit_status_arm", core_exit_status_arm, METH_O, "exit_status_arm(code)"},
    {"exit_status_set", core_exit_status_set, METH_O, "exit_status_set(leaked)"},
    {"free_signal", core_free_signal, METH_NOARGS, "a real-time signal that nobody uses, or 0"},
    {"terminate_arm", core_terminate_arm, METH_VARARGS, "terminate_arm(signal, grace)"},
    {"terminate_die", core_terminate_die, METH_NOARGS, "die of SIGTERM"},
    {NULL, NULL, 0, NULL},
};
