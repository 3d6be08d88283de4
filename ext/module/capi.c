/* The capsule through which other extensions register resources of their own kinds. */
#include "leakguard/leakguard.h"

#include <string.h>

#include "compat.h"
#include "epitaph.h"
#include "glue.h"

typedef struct {
    PyObject_HEAD
    PyObject *name; /* owned str */
    const char *(*state)(void *context);
    void *context; /* the extension's */
} Resource;

static const char *const built_in[LG_KIND_COUNT] = {
    "task",     "thread",    "native_thread", "timer",   "asyncgen", "loop",
    "executor", "transport", "server",        "process", "tempdir",
};

static bool
is_a_name(const char *name)
{
    for (const char *at = name; *at != '\0'; at++) {
        bool letter = (*at >= 'a' && *at <= 'z') || *at == '_';
        if (!letter && !(at > name && *at >= '0' && *at <= '9')) {
            return false;
        }
    }
    return *name != '\0';
}

static int
add_kind(const char *name)
{
    if (!is_a_name(name)) {
        PyErr_Format(PyExc_ValueError,
                     "a kind's name must be an identifier in lower case, not '%s'", name);
        return -1;
    }
    for (int kind = 0; kind < LG_KIND_COUNT; kind++) {
        if (strcmp(name, built_in[kind]) == 0) {
            PyErr_Format(PyExc_ValueError, "'%s' is a kind of leakguard's own", name);
            return -1;
        }
    }
    if (glue->own_kinds == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "leakguard: the interpreter ends");
        return -1;
    }
    Py_ssize_t count = PyList_GET_SIZE(glue->own_kinds);
    for (Py_ssize_t i = 0; i < count; i++) {
        if (PyUnicode_CompareWithASCIIString(PyList_GET_ITEM(glue->own_kinds, i), name) == 0) {
            return (int)(LG_KIND_COUNT + i);
        }
    }
    if (LG_KIND_COUNT + count == LG_KIND_LIMIT) {
        PyErr_Format(PyExc_ValueError, "there are %d kinds of other extensions already",
                     LG_KIND_LIMIT - LG_KIND_COUNT);
        return -1;
    }
    PyObject *added = PyUnicode_FromString(name);
    int result = added != NULL ? PyList_Append(glue->own_kinds, added) : -1;
    Py_XDECREF(added);
    return result == 0 ? (int)(LG_KIND_COUNT + count) : -1;
}

static leakguard_resource *
born(int kind, const char *name, const char *(*state)(void *context), void *context)
{
    if (glue->state == NULL || kind < LG_KIND_COUNT
        || kind >= LG_KIND_COUNT + (int)PyList_GET_SIZE(glue->own_kinds)) {
        PyErr_Format(PyExc_ValueError, "%d is no kind that add_kind has given", kind);
        return NULL;
    }
    PyObject *text = PyUnicode_DecodeUTF8(name, (Py_ssize_t)strlen(name), "replace");
    Resource *resource = text != NULL ? PyObject_New(Resource, glue->state->Resource) : NULL;
    if (resource == NULL) {
        Py_XDECREF(text);
        return NULL;
    }
    resource->name = text;
    resource->state = state;
    resource->context = context;
    PyThreadState *tstate = PyThreadState_Get();
    if (glue_tracks(tstate)) {
        bool known;
        glue_birth(tstate, (lg_kind)kind, resource, NULL, &known);
    }
    return (leakguard_resource *)resource;
}

static void
ended(leakguard_resource *handle)
{
    Resource *resource = (Resource *)handle;
    if (resource != NULL) {
        glue_death(resource, NULL, NULL);
        resource->state = NULL; /* a report may hold it for a moment longer */
        Py_DECREF(resource);
    }
}

static const leakguard_api api = {LEAKGUARD_API_VERSION, add_kind, born, ended};

PyObject *
capi_capsule(void)
{
    return PyCapsule_New((void *)&api, LEAKGUARD_CAPSULE, NULL);
}

PyObject *
capi_resource_info(PyObject *object)
{
    if (glue->state == NULL || !Py_IS_TYPE(object, glue->state->Resource)) {
        PyErr_SetString(PyExc_TypeError, "not a resource of another extension");
        return NULL;
    }
    Resource *resource = (Resource *)object;
    const char *state = resource->state != NULL ? resource->state(resource->context) : NULL;
    PyObject *text = Py_None;
    if (state != NULL) {
        text = PyUnicode_DecodeUTF8(state, (Py_ssize_t)strlen(state), "replace");
    }
    else {
        Py_INCREF(text);
    }
    return text != NULL ? Py_BuildValue("ON", resource->name, text) : NULL;
}

static void
Resource_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    Py_CLEAR(((Resource *)self)->name);
    PyObject_Free(self);
    Py_DECREF(type);
}

static PyType_Slot Resource_slots[] = {
    {Py_tp_dealloc, Resource_dealloc},
    {0, NULL},
};

PyType_Spec Resource_spec = {
    .name = "leakguard._core.Resource",
    .basicsize = sizeof(Resource),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = Resource_slots,
};
