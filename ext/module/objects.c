/* Objects found through the collector. */
#include "objects.h"

#include <stdbool.h>

PyObject *
tracked_objects(void)
{
    PyObject *collector = PyImport_ImportModule("gc");
    PyObject *all = collector != NULL ? PyObject_CallMethod(collector, "get_objects", NULL) : NULL;
    Py_XDECREF(collector);
    if (all != NULL && !PyList_CheckExact(all)) {
        PyErr_Format(PyExc_TypeError,
                     "gc.get_objects() was replaced: it returned %.100s, leakguard needs a list",
                     Py_TYPE(all)->tp_name);
        Py_CLEAR(all);
    }
    return all;
}

PyObject *
live_instances(PyObject *types)
{
    PyObject *found = PyList_New(0);
    PyObject *all = found != NULL ? tracked_objects() : NULL;
    bool failed = all == NULL;
    for (Py_ssize_t i = 0; !failed && i < PyList_GET_SIZE(all); i++) {
        PyObject *object = PyList_GET_ITEM(all, i);
        for (Py_ssize_t j = 0; !failed && j < PyTuple_GET_SIZE(types); j++) {
            /* By type, not isinstance(): a proxy's __class__ would run the program's code. */
            if (PyType_IsSubtype(Py_TYPE(object), (PyTypeObject *)PyTuple_GET_ITEM(types, j))) {
                failed = PyList_Append(found, object) < 0;
                break;
            }
        }
    }
    Py_XDECREF(all);
    if (failed) {
        Py_CLEAR(found);
    }
    return found;
}
