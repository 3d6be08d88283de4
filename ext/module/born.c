/* Births of objects that are announced from outside a slot (executors, pure-Python tasks), and
 * their end, told by a weak reference. */
#include "glue.h"

#include "compat.h"
#include "epitaph.h"

/* What the callback of a watch knows of the object that was freed: (address, class name). */
static epitaph *
describe_freed(void *subject)
{
    PyObject *known = subject;
    void *address = PyLong_AsVoidPtr(PyTuple_GET_ITEM(known, 0));
    epitaph *note = epitaph_prepared(address);
    if (note == NULL) {
        PyObject *name = PyTuple_GET_ITEM(known, 1);
        note = epitaph_new(name, name, "returned");
    }
    return note;
}

/* Of a pure-Python task. Weak references are cleared before an object is emptied and freed
 * (subtype_dealloc, and the collector's handle_weakrefs): it is still whole. */
static PyObject *
take_destroyed(void *address)
{
    lg_record record;
    bool is_task = glue->tracker != NULL && glue->wants_destroyed
                   && lg_registry_find(glue->tracker->registry, address, &record) == LG_OK
                   && record.kind == LG_TASK;
    return is_task ? destroyed_take(address) : NULL;
}

/* What the collector frees unclosed: it clears weak references before it runs finalizers, with the
 * object whole and counted (gc.c: handle_weakrefs). One whose last reference went has run its
 * `__del__` by now, and is told from there. */
static void
tell_collected(PyObject *object)
{
    lg_record record;
    if (glue->tracker == NULL || !glue->wants_destroyed || glue->unclosed == NULL
        || Py_REFCNT(object) <= 0 || LG_IS_FINALIZING()
        || lg_registry_find(glue->tracker->registry, object, &record) != LG_OK
        || (glue->unclosed_kinds & LG_KIND_BIT(record.kind)) == 0) {
        return;
    }
    PyObject *tell = Py_NewRef(glue->unclosed);
    PyObject *result = PyObject_CallOneArg(tell, object);
    if (result == NULL) {
        PyErr_Clear();
        glue->failures++;
    }
    Py_XDECREF(result);
    Py_DECREF(tell);
}

static PyObject *
freed(PyObject *known, PyObject *reference)
{
    PyObject *key = PyTuple_GET_ITEM(known, 0);
    if (glue->state != NULL) {
        tell_collected(PyLong_AsVoidPtr(key));
        PyObject *destroyed = take_destroyed(PyLong_AsVoidPtr(key));
        glue_death(PyLong_AsVoidPtr(key), describe_freed, known);
        destroyed_tell(destroyed);
        /* Unless its address has been taken by another that is watched since. */
        if (PyDict_GetItemWithError(glue->state->watches, key) == reference
            && PyDict_DelItem(glue->state->watches, key) < 0) {
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
    PyObject *name = PyType_GetQualName(Py_TYPE(object));
    PyObject *known = key != NULL && name != NULL ? PyTuple_Pack(2, key, name) : NULL;
    PyObject *callback = known != NULL ? PyCFunction_New(&freed_definition, known) : NULL;
    PyObject *reference = callback != NULL ? PyWeakref_NewRef(object, callback) : NULL;
    int result = reference != NULL ? PyDict_SetItem(state->watches, key, reference) : -1;
    Py_XDECREF(reference);
    Py_XDECREF(callback);
    Py_XDECREF(known);
    Py_XDECREF(name);
    Py_XDECREF(key);
    return result;
}

int
born_register(module_state *state, lg_kind kind, PyObject *object, bool found)
{
    PyThreadState *tstate = PyThreadState_Get();
    /* Nothing would tell the end of what no weak reference can watch: a class with __slots__. */
    if (!glue_tracks(tstate) || !PyType_SUPPORTS_WEAKREFS(Py_TYPE(object))) {
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
