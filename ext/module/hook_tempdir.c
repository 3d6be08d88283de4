/* Births of temporary directories, announced by the audit event tempfile.mkdtemp (path), and their
 * ends, seen by looking.
 *
 * The event and not the function: names bound by `from tempfile import mkdtemp` must be seen, and
 * it is a Python function. (Lib/tempfile.py, 3.11 to 3.15: raised once for each name that is tried,
 * before the mkdir; a name that exists is tried no further. TemporaryDirectory calls mkdtemp. Up to
 * 3.11 the path may be relative.) An audit hook cannot be taken out again: it is added when the kind
 * is first asked for, and passes through when it is not tracked.
 *
 * The key of a record is a TempDir, held by module_state.tempdirs under its path. Which directory it
 * is, device and inode, is noted at the first look at which it is there.
 */
#include "glue.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "compat.h"

typedef struct {
    PyObject_HEAD
    PyObject *path;      /* owned: str, absolute */
    PyObject *raw;       /* owned: the same as bytes */
    unsigned long maker; /* ident of the thread in whose call it was announced */
    dev_t device;
    ino_t inode;
    bool was_seen;   /* device and inode are known */
    bool has_object; /* made by a TemporaryDirectory */
} TempDir;

typedef enum { DIR_STANDS, DIR_NOT_YET, DIR_IS_GONE } dir_state;

/* DIR_NOT_YET: it has never been there; its mkdir may still be to come. */
static dir_state
look(TempDir *dir)
{
    struct stat found;
    if (lstat(PyBytes_AS_STRING(dir->raw), &found) < 0) {
        if (errno != ENOENT && errno != ENOTDIR) {
            return DIR_STANDS; /* it cannot be looked at: a folder above may not be entered */
        }
        return dir->was_seen ? DIR_IS_GONE : DIR_NOT_YET;
    }
    if (!S_ISDIR(found.st_mode)) {
        return DIR_IS_GONE;
    }
    if (!dir->was_seen) {
        dir->was_seen = true;
        dir->device = found.st_dev;
        dir->inode = found.st_ino;
    }
    bool same = dir->device == found.st_dev && dir->inode == found.st_ino;
    return same ? DIR_STANDS : DIR_IS_GONE;
}

/* Whether the call that announced it may not have come to its mkdir: not in this thread, which does
 * something else now. inside: a list of idents of threads that are inside mkdtemp now; NULL: any
 * other thread may be. */
static bool
may_be_coming(const TempDir *dir, PyObject *inside)
{
    if (dir->maker == PyThread_get_thread_ident()) {
        return false;
    }
    if (inside == NULL) {
        return true;
    }
    PyObject *maker = PyLong_FromUnsignedLong(dir->maker);
    int found = maker != NULL ? PySequence_Contains(inside, maker) : -1;
    Py_XDECREF(maker);
    return found != 0;
}

static bool
is_gone(PyObject *object, const void *inside)
{
    TempDir *dir = (TempDir *)object;
    dir_state state = look(dir);
    return state == DIR_IS_GONE
           || (state == DIR_NOT_YET && !may_be_coming(dir, (PyObject *)inside));
}

/* The path as an absolute str, new reference; NULL with an exception. */
static PyObject *
absolute(PyObject *given)
{
    PyObject *path;
    if (!PyUnicode_FSDecoder(given, &path)) {
        return NULL;
    }
    if (PyUnicode_GET_LENGTH(path) > 0 && PyUnicode_READ_CHAR(path, 0) == '/') {
        return path;
    }
    char here[4096];
    PyObject *folder = getcwd(here, sizeof(here)) != NULL ? PyUnicode_DecodeFSDefault(here) : NULL;
    PyObject *whole = folder != NULL ? PyUnicode_FromFormat("%U/%U", folder, path)
                                     : PyErr_SetFromErrno(PyExc_OSError);
    Py_XDECREF(folder);
    Py_DECREF(path);
    return whole;
}

/* Whether mkdtemp, the innermost Python function, was called by TemporaryDirectory. */
static bool
is_called_by_object(PyThreadState *tstate)
{
    PyFrameObject *frame = PyThreadState_GetFrame(tstate);
    PyFrameObject *caller = frame != NULL ? PyFrame_GetBack(frame) : NULL;
    bool result = false;
    if (caller != NULL) {
        PyCodeObject *code = PyFrame_GetCode(frame);
        PyCodeObject *outer = PyFrame_GetCode(caller);
        result =
            PyUnicode_Compare(code->co_filename, outer->co_filename) == 0
            && PyUnicode_CompareWithASCIIString(outer->co_qualname, "TemporaryDirectory.__init__")
                   == 0;
        Py_DECREF(code);
        Py_DECREF(outer);
    }
    Py_XDECREF(caller);
    Py_XDECREF(frame);
    return result;
}

static TempDir *
TempDir_new(PyObject *given)
{
    PyObject *path = absolute(given);
    PyObject *raw = path != NULL ? PyUnicode_EncodeFSDefault(path) : NULL;
    TempDir *dir = raw != NULL ? PyObject_New(TempDir, glue->state->TempDir) : NULL;
    if (dir == NULL) {
        Py_XDECREF(path);
        Py_XDECREF(raw);
        return NULL;
    }
    dir->path = path;
    dir->raw = raw;
    dir->maker = PyThread_get_thread_ident();
    dir->was_seen = false;
    dir->has_object = false;
    return dir;
}

/* -1 with an exception. */
static int
record(PyThreadState *tstate, PyObject *given)
{
    TempDir *dir = TempDir_new(given);
    if (dir == NULL) {
        return -1;
    }
    int result = 0;
    dir->has_object = is_called_by_object(tstate);
    glue_end_where(glue->state->tempdirs, is_gone, NULL);
    struct stat found;
    /* A path that is no str, and garbage that was collected meanwhile (3.11), run Python code, which
     * may uninstall. What exists already, mkdtemp will not take. */
    if (glue->tracker != NULL && lstat(PyBytes_AS_STRING(dir->raw), &found) < 0) {
        PyObject *former = PyDict_GetItemWithError(glue->state->tempdirs, dir->path);
        if (former != NULL) {
            glue_death(former, NULL, NULL);
        }
        result = PyDict_SetItem(glue->state->tempdirs, dir->path, (PyObject *)dir);
        if (result == 0) {
            bool known;
            glue_birth(tstate, LG_TEMPDIR, dir, NULL, &known);
        }
    }
    Py_DECREF(dir);
    return result;
}

/* Our own event, raised once: another audit hook can keep a new one out, silently (Python/sysmodule.c,
 * PySys_AddAuditHook). */
#define HOOKED "leakguard.hooked"

/* Raised before all hooks are taken out, when the interpreter ends: one that starts in the same
 * process has none (Python/sysmodule.c, _PySys_ClearAuditHooks). */
#define CLEARED "cpython._PySys_ClearAuditHooks"

/* Never fails: what an audit hook raises, the program's own call would raise. */
static int
see_tempdirs(const char *event, PyObject *args, void *context)
{
    (void)context;
    if (!glue->tempdirs_audited && strcmp(event, HOOKED) == 0) {
        glue->tempdirs_audited = true;
        return 0;
    }
    if (event[0] == 'c' && strcmp(event, CLEARED) == 0) {
        glue->tempdirs_audited = false;
        return 0;
    }
    if (event[0] != 't' || !glue->tempdirs_on || strcmp(event, "tempfile.mkdtemp") != 0) {
        return 0;
    }
    PyThreadState *tstate = PyThreadState_Get();
    if (!glue_tracks(tstate) || glue->state == NULL || args == NULL || !PyTuple_Check(args)
        || PyTuple_GET_SIZE(args) != 1) {
        return 0;
    }
    saved_error saved = error_save();
    if (record(tstate, PyTuple_GET_ITEM(args, 0)) < 0 && glue->tracker != NULL) {
        glue->tracker->dropped++;
    }
    error_restore(saved);
    return 0;
}

void
unhook_tempdirs(void)
{
    glue->tempdirs_on = false;
}

static PyObject *
core_hook_tempdirs(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    if (!require_installed()) {
        return NULL;
    }
    if (!glue->tempdirs_audited) {
        if (PySys_AddAuditHook(see_tempdirs, NULL) < 0 || PySys_Audit(HOOKED, NULL) < 0) {
            return NULL;
        }
    }
    if (!glue->tempdirs_audited) {
        PyErr_SetString(PyExc_RuntimeError,
                        "leakguard: another audit hook lets none be added, so temporary "
                        "directories cannot be seen");
        return NULL;
    }
    glue->tempdirs_on = true;
    Py_RETURN_NONE;
}

/* inside: a list of the idents of the threads that are inside mkdtemp now. */
static PyObject *
core_sweep_tempdirs(PyObject *module, PyObject *inside)
{
    (void)module;
    if (!require_installed()) {
        return NULL;
    }
    glue_end_where(glue->state->tempdirs, is_gone, inside);
    Py_RETURN_NONE;
}

/* (path, whether it is there, whether a TemporaryDirectory made it) */
static PyObject *
core_tempdir_info(PyObject *module, PyObject *object)
{
    (void)module;
    if (!require_installed()) {
        return NULL;
    }
    if (!Py_IS_TYPE(object, glue->state->TempDir)) {
        PyErr_SetString(PyExc_TypeError, "not a temporary directory");
        return NULL;
    }
    TempDir *dir = (TempDir *)object;
    return Py_BuildValue("OOO", dir->path, look(dir) == DIR_STANDS ? Py_True : Py_False,
                         dir->has_object ? Py_True : Py_False);
}

PyMethodDef tempdir_functions[] = {
    {"hook_tempdirs", core_hook_tempdirs, METH_NOARGS, NULL},
    {"sweep_tempdirs", core_sweep_tempdirs, METH_O, "end the records of what is gone"},
    {"tempdir_info", core_tempdir_info, METH_O, "tempdir_info(dir) -> (path, stands, has_object)"},
    {NULL, NULL, 0, NULL},
};

static void
TempDir_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    Py_CLEAR(((TempDir *)self)->path);
    Py_CLEAR(((TempDir *)self)->raw);
    PyObject_Free(self);
    Py_DECREF(type);
}

static PyType_Slot TempDir_slots[] = {
    {Py_tp_dealloc, TempDir_dealloc},
    {0, NULL},
};

PyType_Spec TempDir_spec = {
    .name = "leakguard._core.TempDir",
    .basicsize = sizeof(TempDir),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = TempDir_slots,
};
