/* Hook: a callable that stands in the place of a Python function or method and calls it, with a
 * callback before or after. Written in C so that no frame of ours shows in a traceback, and
 * answering every attribute as the original would (inspect.signature, __name__, __doc__).
 *
 * The callbacks get the same arguments. An Exception of theirs never reaches the caller (it is
 * counted); what is not an Exception is a KeyboardInterrupt that arrived just then and goes on.
 */
#include "glue.h"

#include "compat.h"

typedef struct {
    PyObject_HEAD
    PyObject *original; /* owned, as all here */
    PyObject *before;   /* or NULL */
    PyObject *after;    /* or NULL */
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

static PyObject *
Hook_call(PyObject *self, PyObject *args, PyObject *kwargs)
{
    Hook *hook = (Hook *)self;
    if (run_callback(hook->before, args, kwargs) < 0) {
        return NULL;
    }
    PyObject *result = PyObject_Call(hook->original, args, kwargs);
    if (result != NULL && run_callback(hook->after, args, kwargs) < 0) {
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
    return PyObject_GetAttr(hook->original, name);
}

static PyObject *
Hook_repr(PyObject *self)
{
    return PyObject_Repr(((Hook *)self)->original);
}

static PyObject *
Hook_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"original", "before", "after", NULL};
    PyObject *original, *before = Py_None, *after = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|OO:Hook", names, &original, &before,
                                     &after)) {
        return NULL;
    }
    Hook *hook = (Hook *)type->tp_alloc(type, 0);
    if (hook != NULL) {
        hook->original = Py_NewRef(original);
        hook->before = before != Py_None ? Py_NewRef(before) : NULL;
        hook->after = after != Py_None ? Py_NewRef(after) : NULL;
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
    return 0;
}

static int
Hook_clear(PyObject *self)
{
    Hook *hook = (Hook *)self;
    Py_CLEAR(hook->original);
    Py_CLEAR(hook->before);
    Py_CLEAR(hook->after);
    return 0;
}

static void
Hook_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    (void)Hook_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyType_Slot Hook_slots[] = {
    {Py_tp_new, Hook_new},
    {Py_tp_call, Hook_call},
    {Py_tp_descr_get, Hook_descr_get},
    {Py_tp_getattro, Hook_getattro},
    {Py_tp_repr, Hook_repr},
    {Py_tp_traverse, Hook_traverse},
    {Py_tp_clear, Hook_clear},
    {Py_tp_dealloc, Hook_dealloc},
    {0, NULL},
};

PyType_Spec Hook_spec = {
    .name = "leakguard._core.Hook",
    .basicsize = sizeof(Hook),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = Hook_slots,
};
