/* Fan-out: the most that was alive at once, counted by the core's watermarks; which line of the
 * program a stack's site is; and the object by which Python holds a watermark. */
#include "glue.h"

#include <stdlib.h>

#include "leakguard/watermark.h"

enum { MOST_SITES_SHOWN = 16 };

/* Where files lie that are not the program's. Set once, never freed: a hook may be running. */
typedef struct {
    Py_ssize_t length;
    bool skips_installed; /* what lies in site-packages below it is the program's all the same */
    Py_UCS4 *characters;
} foreign_root;

struct foreign_roots {
    Py_ssize_t count;
    foreign_root roots[];
};

static bool
starts_with(PyObject *text, Py_ssize_t from, const Py_UCS4 *prefix, Py_ssize_t length)
{
    if (PyUnicode_GET_LENGTH(text) - from < length) {
        return false;
    }
    for (Py_ssize_t i = 0; i < length; i++) {
        if (PyUnicode_READ_CHAR(text, from + i) != prefix[i]) {
            return false;
        }
    }
    return true;
}

static bool
starts_with_ascii(PyObject *text, Py_ssize_t from, const char *prefix)
{
    Py_ssize_t length = PyUnicode_GET_LENGTH(text);
    for (; *prefix != '\0'; prefix++, from++) {
        if (from >= length || PyUnicode_READ_CHAR(text, from) != (Py_UCS4)*prefix) {
            return false;
        }
    }
    return true;
}

/* Whether a part of the path after `from` is a folder of installed packages. */
static bool
is_installed(PyObject *path, Py_ssize_t from)
{
    for (Py_ssize_t i = from; i < PyUnicode_GET_LENGTH(path); i++) {
        if (i > from && PyUnicode_READ_CHAR(path, i - 1) != '/') {
            continue;
        }
        if (starts_with_ascii(path, i, "site-packages/")
            || starts_with_ascii(path, i, "dist-packages/")) {
            return true;
        }
    }
    return false;
}

/* As _paths.is_foreign, but for links, which it follows; and the interpreter's own frames below
 * `__init__` (see records.c). */
static bool
is_foreign(PyObject *path)
{
    if (starts_with_ascii(path, 0, "<")) {
        return starts_with_ascii(path, 0, "<frozen ");
    }
    const struct foreign_roots *known = glue->foreign;
    for (Py_ssize_t i = 0; known != NULL && i < known->count; i++) {
        const foreign_root *root = &known->roots[i];
        if (starts_with(path, 0, root->characters, root->length)
            && !(root->skips_installed && is_installed(path, root->length))) {
            return true;
        }
    }
    return PyUnicode_CompareWithASCIIString(path, "__init__") == 0;
}

/* File and line of the innermost frame that is the program's, inside the running loop, as one
 * number; 0 where there is none. Runs no Python code and allocates nothing. */
static uint64_t
site_of(const lg_stack *stack)
{
    for (uint32_t i = 0; i < stack->inner; i++) {
        PyCodeObject *code = (PyCodeObject *)stack->frames[i].code;
        PyObject *path = code->co_filename;
        if (is_foreign(path)) {
            continue;
        }
        uint64_t hash = LG_STACK_HASH_SEED ^ (uint64_t)frames_line(stack->frames[i]);
        for (Py_ssize_t j = 0; j < PyUnicode_GET_LENGTH(path); j++) {
            hash = (hash ^ PyUnicode_READ_CHAR(path, j)) * UINT64_C(0xFF51AFD7ED558CCD);
            hash ^= hash >> 32;
        }
        return hash != 0 ? hash : 1;
    }
    return 0;
}

/* 0, or -1 with an exception. */
static int
add_roots(struct foreign_roots *known, PyObject *paths, bool skips_installed)
{
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(paths); i++) {
        PyObject *path = PyTuple_GET_ITEM(paths, i);
        foreign_root *root = &known->roots[known->count];
        root->length = PyUnicode_GetLength(path);
        root->skips_installed = skips_installed;
        root->characters = root->length < 0 ? NULL : PyUnicode_AsUCS4Copy(path);
        if (root->characters == NULL) {
            return -1;
        }
        known->count++;
    }
    return 0;
}

static int
set_roots(PyObject *own, PyObject *library)
{
    if (glue->foreign != NULL) {
        return 0;
    }
    size_t count = (size_t)(PyTuple_GET_SIZE(own) + PyTuple_GET_SIZE(library));
    struct foreign_roots *known = calloc(1, sizeof(*known) + count * sizeof(foreign_root));
    if (known == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    if (add_roots(known, own, false) < 0 || add_roots(known, library, true) < 0) {
        for (Py_ssize_t i = 0; i < known->count; i++) {
            PyMem_Free(known->roots[i].characters);
        }
        free(known);
        return -1;
    }
    glue->foreign = known;
    return 0;
}

typedef struct {
    PyObject_HEAD
    lg_watermark *mark; /* NULL once closed; the tracker's, of the installation `epoch` */
    uint64_t epoch;
    bool counts_tasks;
} Watermark;

/* The watermark, NULL where it is closed or went with its installation. */
static lg_watermark *
mark_of(const Watermark *self)
{
    return glue->tracker != NULL && self->epoch == glue->epoch ? self->mark : NULL;
}

static void
close_mark(Watermark *self)
{
    lg_watermark *mark = mark_of(self);
    if (mark != NULL) {
        lg_watermark_close(glue->tracker, mark);
        if (self->counts_tasks) {
            task_ends_release();
        }
    }
    self->mark = NULL;
}

static PyObject *
Watermark_close(PyObject *self, PyObject *unused)
{
    (void)unused;
    close_mark((Watermark *)self);
    Py_RETURN_NONE;
}

static void
Watermark_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    close_mark((Watermark *)self);
    type->tp_free(self);
    Py_DECREF(type);
}

/* (peak, births without a site, ((stack, share, peak), ...)), the largest share first */
static PyObject *
Watermark_read(PyObject *self, PyObject *kind)
{
    long number = PyLong_AsLong(kind);
    if (number == -1 && PyErr_Occurred()) {
        return NULL;
    }
    lg_watermark *mark = mark_of((Watermark *)self);
    if (mark == NULL || number < 0 || number >= LG_KIND_LIMIT) {
        PyErr_SetString(PyExc_ValueError, "this watermark is closed, or there is no such kind");
        return NULL;
    }
    lg_peak peak;
    lg_site_peak sites[MOST_SITES_SHOWN];
    size_t count =
        lg_watermark_read(glue->tracker, mark, (lg_kind)number, &peak, sites, MOST_SITES_SHOWN);
    PyObject *found = PyTuple_New((Py_ssize_t)count);
    for (size_t i = 0; found != NULL && i < count; i++) {
        PyObject *site = Py_BuildValue("III", (unsigned)sites[i].stack, (unsigned)sites[i].share,
                                       (unsigned)sites[i].peak);
        if (site == NULL) {
            Py_CLEAR(found);
            break;
        }
        PyTuple_SET_ITEM(found, (Py_ssize_t)i, site);
    }
    return found == NULL ? NULL
                         : Py_BuildValue("IKN", (unsigned)peak.peak,
                                         (unsigned long long)peak.unplaced, found);
}

static PyMethodDef methods[] = {
    {"read", Watermark_read, METH_O,
     "read(kind) -> (peak, births without a site, ((stack, share, peak), ...))"},
    {"close", Watermark_close, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_dealloc, Watermark_dealloc},
    {Py_tp_methods, methods},
    {0, NULL},
};

PyType_Spec Watermark_spec = {
    .name = "leakguard._core.Watermark",
    .basicsize = sizeof(Watermark),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = slots,
};

PyObject *
fanout_open(module_state *state, unsigned kinds, uint32_t scope, PyObject *own, PyObject *library)
{
    if (set_roots(own, library) < 0) {
        return NULL;
    }
    Watermark *self = (Watermark *)state->Watermark->tp_alloc(state->Watermark, 0);
    if (self == NULL) {
        return NULL;
    }
    if (lg_watermark_open(glue->tracker, kinds, scope, site_of, &self->mark) != LG_OK) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    self->epoch = glue->epoch;
    self->counts_tasks = (kinds & LG_KIND_BIT(LG_TASK)) != 0;
    if (self->counts_tasks) {
        task_ends_want();
    }
    return (PyObject *)self;
}
