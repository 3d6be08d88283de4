#include "glue.h"

#include <string.h>

#include "compat.h"

PyWrapperDescrObject *
slot_wrapper(PyTypeObject *type, const char *name)
{
    PyObject *dict = LG_TYPE_DICT(type);
    PyObject *wrapper = dict != NULL ? PyDict_GetItemString(dict, name) : NULL;
    Py_XINCREF(wrapper);
    Py_XDECREF(dict);
    if (wrapper == NULL || !Py_IS_TYPE(wrapper, &PyWrapperDescr_Type)) {
        Py_XDECREF(wrapper);
        PyErr_Format(PyExc_RuntimeError, "leakguard: %s.%s is no slot wrapper", type->tp_name,
                     name);
        return NULL;
    }
    return (PyWrapperDescrObject *)wrapper;
}

bool
method_is_replaced(const method_hook *hook, PyCFunction replacement)
{
    return hook->entry != NULL && hook->entry->ml_meth == replacement;
}

static PyMethodDef *
find_entry(PyObject *owner, const char *name)
{
    PyMethodDef *entry;
    if (PyType_Check(owner)) {
        entry = ((PyTypeObject *)owner)->tp_methods;
    }
    else {
        const PyModuleDef *definition = PyModule_GetDef(owner);
        entry = definition != NULL ? definition->m_methods : NULL;
    }
    while (entry != NULL && entry->ml_name != NULL) {
        if (strcmp(entry->ml_name, name) == 0) {
            return entry;
        }
        entry++;
    }
    PyErr_Clear();
    return NULL;
}

int
method_replace(method_hook *hook, PyObject *owner, const char *name, int flags,
               PyCFunction replacement, bool optional)
{
    if (method_is_replaced(hook, replacement)) {
        return 0;
    }
    PyMethodDef *entry = find_entry(owner, name);
    if (entry == NULL && optional) {
        return 0;
    }
    if (entry == NULL || entry->ml_flags != flags) {
        PyErr_Format(PyExc_RuntimeError, "leakguard: %s is not the C function that is known", name);
        return -1;
    }
    hook->entry = entry;
    /* What somebody else put over ours, and left there, still ends in ours. */
    if (entry->ml_meth != replacement && !hook->chained) {
        hook->original = entry->ml_meth;
        entry->ml_meth = replacement;
    }
    hook->on = true;
    return 0;
}

void
method_put_back(method_hook *hook, PyCFunction replacement)
{
    if (!hook->on) {
        return;
    }
    hook->on = false;
    hook->chained = !method_is_replaced(hook, replacement);
    if (!hook->chained) {
        hook->entry->ml_meth = hook->original;
    }
}
