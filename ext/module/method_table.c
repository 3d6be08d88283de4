#include "glue.h"

static PyMethodDef *
entry(const method_hook *hook)
{
    return ((PyCFunctionObject *)hook->function)->m_ml;
}

bool
method_is_replaced(const method_hook *hook, PyCFunction replacement)
{
    return hook->function != NULL && entry(hook)->ml_meth == replacement;
}

int
method_replace(method_hook *hook, PyObject *owner, const char *name, int flags,
               PyCFunction replacement)
{
    if (method_is_replaced(hook, replacement)) {
        return 0;
    }
    PyObject *function = PyObject_GetAttrString(owner, name);
    if (function == NULL) {
        return -1;
    }
    if (!PyCFunction_CheckExact(function) || PyCFunction_GET_FLAGS(function) != flags) {
        PyErr_Format(PyExc_RuntimeError, "leakguard: %s is not the C function that is known", name);
        Py_DECREF(function);
        return -1;
    }
    Py_XSETREF(hook->function, function);
    if (entry(hook)->ml_meth != replacement) {
        hook->original = entry(hook)->ml_meth;
        entry(hook)->ml_meth = replacement;
    }
    return 0;
}

void
method_put_back(method_hook *hook, PyCFunction replacement)
{
    if (method_is_replaced(hook, replacement)) {
        entry(hook)->ml_meth = hook->original;
    }
}
