/* Births that no hook in C sees: objects that Python announces, and those that were there before. */
#include "module.h"

#include "objects.h"

static PyObject *
announce_birth(PyObject *kind, PyObject *args, PyObject *kwargs)
{
    (void)kwargs;
    if (is_here() && glue->tracker != NULL && PyTuple_GET_SIZE(args) > 0
        && born_register(glue->state, (lg_kind)PyLong_AsLong(kind), PyTuple_GET_ITEM(args, 0),
                         false)
               < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

#define WITH_KEYWORDS(function) ((PyCFunction)(void (*)(void))(function))

static PyMethodDef announcer_definition = {"announce_birth", WITH_KEYWORDS(announce_birth),
                                           METH_VARARGS | METH_KEYWORDS, NULL};

/* A callback for Hook that gets the arguments of a method: records the first of them, the object,
 * as born. */
static PyObject *
core_announcer(PyObject *module, PyObject *kind)
{
    (void)module;
    long number = PyLong_AsLong(kind);
    if (number == -1 && PyErr_Occurred()) {
        return NULL;
    }
    if (number < 0 || number >= LG_KIND_COUNT) {
        return PyErr_Format(PyExc_ValueError, "no kind has the number %ld", number);
    }
    return PyCFunction_New(&announcer_definition, kind);
}

static PyObject *
core_birth_failed(PyObject *module, PyObject *args, PyObject *kwargs)
{
    (void)module;
    (void)kwargs;
    if (is_here() && glue->tracker != NULL && PyTuple_GET_SIZE(args) > 0) {
        glue_cancel(PyTuple_GET_ITEM(args, 0));
    }
    Py_RETURN_NONE;
}

static PyObject *
core_pure_task_ending(PyObject *module, PyObject *args, PyObject *kwargs)
{
    (void)module;
    (void)kwargs;
    if (is_here() && glue->tracker != NULL && PyTuple_GET_SIZE(args) > 0) {
        epitaph_prepare(PyTuple_GET_ITEM(args, 0), NULL);
    }
    Py_RETURN_NONE;
}

/* A list of the live objects of these types. */
static PyObject *
core_instances(PyObject *module, PyObject *types)
{
    (void)module;
    if (!PyTuple_Check(types)) {
        return PyErr_Format(PyExc_TypeError, "types must be a tuple, not %.100s",
                            Py_TYPE(types)->tp_name);
    }
    return live_instances(types);
}

static int
adopt(PyObject *module, lg_kind kind, PyObject *object)
{
    if (kind == LG_TASK && glue->tasks.type != NULL
        && PyObject_TypeCheck(object, glue->tasks.type)) {
        lg_record record;
        if (lg_registry_find(glue->tracker->registry, object, &record) != LG_OK) {
            glue_adopt(kind, object);
        }
        return 0;
    }
    return born_register(state_of(module), kind, object, true);
}

/* (kind, types, accept or None): the live objects of these types that `accept` agrees to, as
 * found. */
static PyObject *
core_adopt(PyObject *module, PyObject *args)
{
    int kind;
    PyObject *types, *accept = Py_None;
    if (!require_installed()
        || !PyArg_ParseTuple(args, "iO!|O:adopt", &kind, &PyTuple_Type, &types, &accept)) {
        return NULL;
    }
    PyObject *objects = live_instances(types);
    if (objects == NULL) {
        return NULL;
    }
    int result = 0;
    for (Py_ssize_t i = 0; result == 0 && i < PyList_GET_SIZE(objects); i++) {
        PyObject *object = PyList_GET_ITEM(objects, i);
        PyObject *verdict = accept != Py_None ? PyObject_CallOneArg(accept, object) : NULL;
        if ((accept == Py_None || verdict == Py_True) && glue->tracker != NULL) {
            result = adopt(module, (lg_kind)kind, object);
        }
        else if (verdict == NULL) {
            result = -1;
        }
        Py_XDECREF(verdict);
    }
    Py_DECREF(objects);
    if (result < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
core_adopt_thread(PyObject *module, PyObject *args)
{
    PyObject *thread;
    unsigned long ident;
    if (!require_installed() || !PyArg_ParseTuple(args, "Ok:adopt_thread", &thread, &ident)) {
        return NULL;
    }
    return thread_adopt(state_of(module), thread, ident);
}

static PyObject *
core_adopted(PyObject *module, PyObject *unused)
{
    (void)unused;
    return PyDict_Copy(state_of(module)->adopted);
}

static PyObject *
core_end_adopted(PyObject *module, PyObject *ident)
{
    PyObject *run = PyDict_GetItemWithError(state_of(module)->adopted, ident);
    if (run == NULL) {
        if (PyErr_Occurred()) {
            return NULL;
        }
        Py_RETURN_NONE;
    }
    glue_death(run, NULL, NULL);
    if (PyDict_DelItem(state_of(module)->adopted, ident) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyMethodDef birth_functions[] = {
    {"announcer", core_announcer, METH_O, "announcer(kind) -> callback that records a birth"},
    {"birth_failed", WITH_KEYWORDS(core_birth_failed), METH_VARARGS | METH_KEYWORDS, NULL},
    {"pure_task_ending", WITH_KEYWORDS(core_pure_task_ending), METH_VARARGS | METH_KEYWORDS, NULL},
    {"instances", core_instances, METH_O, "instances(types): all live ones"},
    {"adopt", core_adopt, METH_VARARGS, "adopt(kind, types, accept=None): live ones"},
    {"adopt_thread", core_adopt_thread, METH_VARARGS, "adopt_thread(thread, ident)"},
    {"adopted", core_adopted, METH_NOARGS, "ident -> ThreadRun"},
    {"end_adopted", core_end_adopted, METH_O, "end_adopted(ident)"},
    {NULL, NULL, 0, NULL},
};
