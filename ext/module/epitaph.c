#include "epitaph.h"

#include <stdlib.h>
#include <string.h>

#include "compat.h"

epitaph *
epitaph_new(PyObject *name, PyObject *function, const char *ended)
{
    epitaph *note = calloc(1, sizeof(*note));
    if (note != NULL) {
        note->name = Py_XNewRef(name);
        note->function = Py_XNewRef(function);
        note->ended = ended;
    }
    return note;
}

void
epitaph_free_all(lg_note *notes)
{
    while (notes != NULL) {
        epitaph *note = (epitaph *)notes;
        notes = notes->next;
        Py_XDECREF(note->name);
        Py_XDECREF(note->function);
        free(note);
    }
}

/* What a partial or bound method wraps, borrowed; NULL for anything else. Only these are opened: a
 * mock answers any attribute, for ever. */
static PyObject *
wrapped_function(PyObject *callable)
{
    if (PyFunction_Check(callable)) {
        return NULL;
    }
    if (PyMethod_Check(callable)) {
        return PyMethod_GET_FUNCTION(callable);
    }
    if (strcmp(Py_TYPE(callable)->tp_name, "functools.partial") != 0) {
        return NULL;
    }
    PyObject *function = PyObject_GenericGetAttr(callable, glue->func);
    if (function == NULL) {
        PyErr_Clear();
        return NULL;
    }
    Py_DECREF(function); /* the partial holds it */
    return function;
}

PyObject *
function_name(PyObject *callable)
{
    PyObject *inner;
    while ((inner = wrapped_function(callable)) != NULL) {
        callable = inner;
    }
    if (PyFunction_Check(callable)) {
        return Py_NewRef(((PyFunctionObject *)callable)->func_qualname);
    }
    /* The generic look-up: no __getattr__ of the program's runs. */
    PyObject *name = PyObject_GenericGetAttr(callable, glue->qualname);
    if (name != NULL && !PyUnicode_Check(name)) {
        Py_CLEAR(name);
    }
    PyErr_Clear();
    if (name == NULL) {
        name = PyType_GetName(Py_TYPE(callable));
        if (name == NULL) {
            PyErr_Clear();
        }
    }
    return name;
}

/* Calls a method of `type`, not of the task's own class, which could override it. */
static PyObject *
call_method(PyTypeObject *type, PyObject *task, const char *name)
{
    PyObject *method = PyObject_GetAttrString((PyObject *)type, name);
    PyObject *result = NULL;
    if (method != NULL) {
        result = PyObject_CallOneArg(method, task);
        Py_DECREF(method);
    }
    if (result == NULL) {
        PyErr_Clear();
    }
    return result;
}

/* A getter of the hooked type, not of the task's own class, which could keep a task that is being
 * freed. A pure-Python task has only attributes. */
static PyObject *
read_attribute(PyTypeObject *type, PyObject *task, const char *name)
{
    PyObject *value = NULL;
    if (type != glue->tasks.type) {
        value = PyObject_GetAttrString(task, name);
    }
    else {
        PyObject *getter = PyObject_GetAttrString((PyObject *)type, name);
        descrgetfunc get = getter != NULL ? Py_TYPE(getter)->tp_descr_get : NULL;
        value = get != NULL ? get(getter, task, (PyObject *)type) : NULL;
        Py_XDECREF(getter);
    }
    if (value == NULL) {
        PyErr_Clear();
    }
    return value;
}

PyObject *
task_attribute(PyObject *task, const char *name)
{
    return read_attribute(task_base_type(task), task, name);
}

static PyObject *
name_of(PyTypeObject *type, PyObject *task)
{
    PyObject *name = call_method(type, task, "get_name");
    if (name != NULL && !PyUnicode_Check(name)) {
        Py_CLEAR(name);
    }
    return name;
}

PyObject *
task_name(PyObject *task)
{
    return name_of(task_base_type(task), task);
}

static bool
call_predicate(PyTypeObject *type, PyObject *task, const char *name)
{
    PyObject *result = call_method(type, task, name);
    bool is_true = result == Py_True;
    Py_XDECREF(result);
    return is_true;
}

/* `_exception` is read, not exception(): that call would mark the exception as retrieved and
 * silence "Task exception was never retrieved". */
static const char *
how_task_ended(PyTypeObject *type, PyObject *task)
{
    if (call_predicate(type, task, "cancelled")) {
        return "cancelled";
    }
    if (!call_predicate(type, task, "done")) {
        return NULL;
    }
    PyObject *exception = read_attribute(type, task, "_exception");
    if (exception == NULL) {
        return NULL;
    }
    const char *ended = exception == Py_None ? "returned" : "raised";
    Py_DECREF(exception);
    return ended;
}

static epitaph *
describe_task(PyTypeObject *type, PyObject *task, PyObject *known_coroutine)
{
    PyObject *name = name_of(type, task);
    PyObject *coroutine = Py_XNewRef(known_coroutine);
    if (coroutine == NULL) {
        /* Not get_coro(): 3.12.0 to 3.12.3 read a NULL there once an eager task has ended. */
        coroutine = read_attribute(type, task, "_coro");
    }
    PyObject *function = NULL;
    if (coroutine != NULL && coroutine != Py_None) {
        function = function_name(coroutine);
    }
    Py_XDECREF(coroutine);
    epitaph *note = epitaph_new(name, function, how_task_ended(type, task));
    Py_XDECREF(name);
    Py_XDECREF(function);
    return note;
}

static const char *const endings[] = {"returned", "cancelled", "raised"};

epitaph *
epitaph_prepared(const void *address)
{
    PyObject *taken = epitaph_look(address);
    if (taken == NULL) {
        return NULL;
    }
    PyObject *name, *function, *ended;
    Py_INCREF(taken);
    const char *known = NULL;
    if (PyArg_ParseTuple(taken, "OOO", &name, &function, &ended)) {
        for (size_t i = 0; ended != Py_None && i < Py_ARRAY_LENGTH(endings); i++) {
            if (PyUnicode_CompareWithASCIIString(ended, endings[i]) == 0) {
                known = endings[i];
            }
        }
    }
    epitaph *note =
        epitaph_new(name != Py_None ? name : NULL, function != Py_None ? function : NULL, known);
    Py_DECREF(taken);
    PyObject *key = PyLong_FromVoidPtr((void *)address);
    if (key == NULL || PyDict_DelItem(glue->state->prepared, key) < 0) {
        PyErr_Clear();
    }
    Py_XDECREF(key);
    return note;
}

PyObject *
epitaph_look(const void *address)
{
    if (!epitaphs_are_prepared()) {
        return NULL;
    }
    PyObject *key = PyLong_FromVoidPtr((void *)address);
    PyObject *found = key != NULL ? PyDict_GetItemWithError(glue->state->prepared, key) : NULL;
    Py_XDECREF(key);
    if (found == NULL) {
        PyErr_Clear();
    }
    return found;
}

void
epitaph_prepare(PyObject *task, PyObject *coroutine)
{
    lg_record record;
    if (glue->state == NULL || lg_registry_find(glue->tracker->registry, task, &record) != LG_OK
        || record.children == 0) {
        return;
    }
    saved_error saved = error_save();
    epitaph *note = describe_task(task_base_type(task), task, coroutine);
    PyObject *key = PyLong_FromVoidPtr(task);
    PyObject *value = NULL;
    if (note != NULL && key != NULL) {
        value = Py_BuildValue("OOz", note->name != NULL ? note->name : Py_None,
                              note->function != NULL ? note->function : Py_None, note->ended);
    }
    if (value == NULL || PyDict_SetItem(glue->state->prepared, key, value) < 0) {
        PyErr_Clear();
    }
    Py_XDECREF(value);
    Py_XDECREF(key);
    if (note != NULL) {
        epitaph_free_all(&note->link);
    }
    error_restore(saved);
}

epitaph *
epitaph_of_task(void *subject)
{
    PyObject *task = subject;
    saved_error saved = error_save();
    epitaph *prepared = epitaph_prepared(task);
    /* In tp_dealloc the count is zero; calling methods would free the task a second time. */
    Py_SET_REFCNT(task, Py_REFCNT(task) + 1);
    epitaph *note = describe_task(task_base_type(task), task, NULL);
    Py_SET_REFCNT(task, Py_REFCNT(task) - 1);
    if (prepared != NULL) {
        if (note != NULL && note->function == NULL) {
            note->function = Py_XNewRef(prepared->function);
        }
        if (note != NULL && note->name == NULL) {
            note->name = Py_XNewRef(prepared->name);
        }
        if (note != NULL && note->ended == NULL) {
            note->ended = prepared->ended;
        }
        epitaph_free_all(&prepared->link);
    }
    error_restore(saved);
    return note;
}
