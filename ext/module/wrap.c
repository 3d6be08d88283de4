/* Hook: a callable that stands in the place of a Python function or method and calls it, with a
 * callback before, after, or where it has failed. Written in C so that no frame of ours shows in a
 * traceback, and answering every attribute as the original would (inspect.signature, __name__,
 * __doc__).
 *
 * These callbacks get the same arguments; `made` gets what the original returned, and nothing else.
 * An Exception of theirs never reaches the caller (it is counted); what is not an Exception is a
 * KeyboardInterrupt that arrived just then and goes on.
 */
#include "glue.h"

#include <stddef.h>
#include <structmember.h>

#include "compat.h"

typedef struct {
    PyObject_HEAD
    PyObject *original; /* owned, as all here */
    PyObject *before;   /* or NULL */
    PyObject *after;    /* or NULL */
    PyObject *failed;   /* or NULL */
    PyObject *made;     /* or NULL */
    PyObject *weak_references;
} Hook;

/* 0, or -1 with an exception that is not ours to swallow. */
static int
run_callback(PyObject *callback, PyObject *args, PyObject *kwargs)
{
    if (callback == NULL) {
        return 0;
    }
    PyObject *result = PyObject_Call(callback, args, kwargs);
    if (result != NULL) {
        Py_DECREF(result);
        return 0;
    }
    if (!PyErr_ExceptionMatches(PyExc_Exception)) {
        return -1;
    }
    PyErr_Clear();
    glue->failures++;
    return 0;
}

static int
run_made(PyObject *callback, PyObject *result)
{
    PyObject *args = PyTuple_Pack(1, result);
    if (args == NULL) {
        PyErr_Clear();
        glue->failures++;
        return 0;
    }
    int status = run_callback(callback, args, NULL);
    Py_DECREF(args);
    return status;
}

static PyObject *
Hook_call(PyObject *self, PyObject *args, PyObject *kwargs)
{
    Hook *hook = (Hook *)self;
    if (run_callback(hook->before, args, kwargs) < 0) {
        return NULL;
    }
    PyObject *result = PyObject_Call(hook->original, args, kwargs);
    if (result == NULL && hook->failed != NULL) {
        saved_error saved = error_save();
        if (run_callback(hook->failed, args, kwargs) < 0) {
            PyErr_Clear(); /* the original's exception goes first */
        }
        error_restore(saved);
    }
    if (result != NULL && run_callback(hook->after, args, kwargs) < 0) {
        Py_CLEAR(result);
    }
    if (result != NULL && hook->made != NULL && run_made(hook->made, result) < 0) {
        Py_CLEAR(result);
    }
    return result;
}

static PyObject *
Hook_descr_get(PyObject *self, PyObject *object, PyObject *type)
{
    (void)type;
    if (object == NULL || object == Py_None) {
        return Py_NewRef(self);
    }
    return PyMethod_New(self, object);
}

static PyObject *
Hook_getattro(PyObject *self, PyObject *name)
{
    Hook *hook = (Hook *)self;
    if (PyUnicode_CompareWithASCIIString(name, "__wrapped__") == 0) {
        return Py_NewRef(hook->original);
    }
    if (PyUnicode_CompareWithASCIIString(name, "__reduce_ex__") == 0) {
        return PyObject_GenericGetAttr(self, name);
    }
    return PyObject_GetAttr(hook->original, name);
}

static int
Hook_setattro(PyObject *self, PyObject *name, PyObject *value)
{
    return PyObject_SetAttr(((Hook *)self)->original, name, value);
}

/* pickle and copy name it by its place, as they do a function. */
static PyObject *
Hook_reduce_ex(PyObject *self, PyObject *protocol)
{
    (void)protocol;
    return PyObject_GetAttrString(((Hook *)self)->original, "__qualname__");
}

static PyObject *
Hook_repr(PyObject *self)
{
    return PyObject_Repr(((Hook *)self)->original);
}

static PyObject *
Hook_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"original", "before", "after", "failed", "made", NULL};
    PyObject *original, *before = Py_None, *after = Py_None, *failed = Py_None, *made = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|OOOO:Hook", names, &original, &before, &after,
                                     &failed, &made)) {
        return NULL;
    }
    Hook *hook = (Hook *)type->tp_alloc(type, 0);
    if (hook != NULL) {
        hook->original = Py_NewRef(original);
        hook->before = before != Py_None ? Py_NewRef(before) : NULL;
        hook->after = after != Py_None ? Py_NewRef(after) : NULL;
        hook->failed = failed != Py_None ? Py_NewRef(failed) : NULL;
        hook->made = made != Py_None ? Py_NewRef(made) : NULL;
    }
    return (PyObject *)hook;
}

static int
Hook_traverse(PyObject *self, visitproc visit, void *arg)
{
    Hook *hook = (Hook *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(hook->original);
    Py_VISIT(hook->before);
    Py_VISIT(hook->after);
    Py_VISIT(hook->failed);
    Py_VISIT(hook->made);
    return 0;
}

static int
Hook_clear(PyObject *self)
{
    Hook *hook = (Hook *)self;
    Py_CLEAR(hook->original);
    Py_CLEAR(hook->before);
    Py_CLEAR(hook->after);
    Py_CLEAR(hook->failed);
    Py_CLEAR(hook->made);
    return 0;
}

static void
Hook_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (((Hook *)self)->weak_references != NULL) {
        PyObject_ClearWeakRefs(self);
    }
    (void)Hook_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMemberDef Hook_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(Hook, weak_references), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyMethodDef Hook_methods[] = {
    {"__reduce_ex__", Hook_reduce_ex, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot Hook_slots[] = {
    {Py_tp_members, Hook_members},   {Py_tp_methods, Hook_methods},
    {Py_tp_setattro, Hook_setattro}, {Py_tp_new, Hook_new},
    {Py_tp_call, Hook_call},         {Py_tp_descr_get, Hook_descr_get},
    {Py_tp_getattro, Hook_getattro}, {Py_tp_repr, Hook_repr},
    {Py_tp_traverse, Hook_traverse}, {Py_tp_clear, Hook_clear},
    {Py_tp_dealloc, Hook_dealloc},   {0, NULL},
};

PyType_Spec Hook_spec = {
    .name = "leakguard._core.Hook",
    .basicsize = sizeof(Hook),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = Hook_slots,
};
