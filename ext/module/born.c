/* Births of objects that are announced from outside a slot (executors, pure-Python tasks), and
 * their end, told by a weak reference. */
#include "glue.h"

#include "epitaph.h"

static epitaph *
prepared_note(void *address)
{
    return epitaph_prepared(address);
}

/* The callback of a watch: `key` is the address of what was freed, as an int. */
static PyObject *
freed(PyObject *key, PyObject *reference)
{
    void *address = PyLong_AsVoidPtr(key);
    if (glue->state != NULL) {
        glue_death(address, prepared_note, address);
        if (PySet_Discard(glue->state->watches, reference) < 0) {
            PyErr_Clear();
        }
    }
    Py_RETURN_NONE;
}

static PyMethodDef freed_definition = {"freed", freed, METH_O, NULL};

/* Has the record of `object` ended when it is freed. -1 with an exception. */
static int
watch(module_state *state, PyObject *object)
{
    PyObject *key = PyLong_FromVoidPtr(object);
    PyObject *callback = key != NULL ? PyCFunction_New(&freed_definition, key) : NULL;
    PyObject *reference = callback != NULL ? PyWeakref_NewRef(object, callback) : NULL;
    int result = reference != NULL ? PySet_Add(state->watches, reference) : -1;
    Py_XDECREF(reference);
    Py_XDECREF(callback);
    Py_XDECREF(key);
    return result;
}

int
born_register(module_state *state, lg_kind kind, PyObject *object, bool found)
{
    PyThreadState *tstate = PyThreadState_Get();
    if (!glue_tracks(tstate)) {
        return 0;
    }
    bool known = false;
    uint64_t serial =
        found ? glue_adopt(kind, object) : glue_birth(tstate, kind, object, NULL, &known);
    if (serial == 0) {
        return 0;
    }
    if (watch(state, object) < 0) {
        /* Without a watch the record would outlive the object. */
        glue_cancel(object);
        return -1;
    }
    return 0;
}
