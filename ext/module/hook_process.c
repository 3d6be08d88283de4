/* Births of child processes, seen at the method-table entries of the functions that start one, and
 * their ends, seen by looking: nothing here waits for a child, so its status stays the program's.
 *
 * subprocess, asyncio and multiprocessing (fork, spawn) all end in these entries: os.fork,
 * os.forkpty, os.posix_spawn(p) and _posixsubprocess.fork_exec (Modules/posixmodule.c,
 * Modules/_posixsubprocess.c, 3.11 to 3.15; fork_exec takes a tuple of arguments on 3.11). The entry
 * and not the audit event, which comes before the start: it has no pid, and no word of a failure.
 *
 * The key of a record is a Child, held by module_state.processes under its pid. Its end is looked
 * for with waitid(WNOWAIT), which takes nothing away: ECHILD means that somebody has waited.
 */
#include "glue.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "compat.h"

typedef struct {
    PyObject_HEAD
    PyObject *facts;          /* owned: what the description said at the start; NULL for nothing */
    unsigned long long start; /* clock ticks since boot; 0 where the system does not say */
    pid_t pid;
    bool
        is_ours; /* else another process's child, which waits for it: multiprocessing's forkserver */
} Child;

typedef enum { CHILD_RUNS, CHILD_IS_ZOMBIE, CHILD_IS_GONE } child_state;

/* A start that is under way. */
typedef struct {
    Child *child;    /* owned; NULL where it is not tracked */
    PyObject *owner; /* owned: the executor to which it is charged, or NULL */
} starting;

/* When a process started, in clock ticks since boot, and the letter of its state; 0 where the
 * system does not say. (proc(5): the name, in brackets, may itself hold any character.) */
static unsigned long long
start_of(pid_t pid, char *ret_state)
{
    char path[32];
    char text[1024];
    snprintf(path, sizeof(path), "/proc/%ld/stat", (long)pid);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) {
        return 0;
    }
    ssize_t length = read(file, text, sizeof(text) - 1);
    close(file);
    if (length <= 0) {
        return 0;
    }
    text[length] = '\0';
    const char *at = strrchr(text, ')');
    if (at == NULL || at[1] == '\0' || at[2] == '\0') {
        return 0;
    }
    *ret_state = at[2];
    for (int field = 2; at != NULL && field < 22; field++) {
        at = strchr(at + 1, ' ');
    }
    return at != NULL ? strtoull(at + 1, NULL, 10) : 0;
}

static child_state
look_elsewhere(const Child *child)
{
    char state = '?';
    unsigned long long start = start_of(child->pid, &state);
    if (child->start == 0) {
        return kill(child->pid, 0) == 0 ? CHILD_RUNS : CHILD_IS_GONE;
    }
    return start == child->start && state != 'Z' && state != 'X' ? CHILD_RUNS : CHILD_IS_GONE;
}

/* thorough: also whether the pid has gone to another child since, one that no hook has seen.
 * *ret_status, of a zombie: as subprocess's returncode. */
static child_state
look(const Child *child, bool thorough, int *ret_status)
{
    if (!child->is_ours) {
        return look_elsewhere(child);
    }
    siginfo_t info;
    memset(&info, 0, sizeof(info));
    if (waitid(P_PID, (id_t)child->pid, &info, WEXITED | WNOHANG | WNOWAIT) < 0) {
        return CHILD_IS_GONE;
    }
    char state;
    unsigned long long start = thorough ? start_of(child->pid, &state) : 0;
    if (start != 0 && child->start != 0 && start != child->start) {
        return CHILD_IS_GONE;
    }
    if (info.si_pid == 0) {
        return CHILD_RUNS;
    }
    *ret_status = info.si_code == CLD_EXITED ? info.si_status : -info.si_status;
    return CHILD_IS_ZOMBIE;
}

static bool
is_gone(PyObject *object, const void *thorough)
{
    int status;
    return look((const Child *)object, *(const bool *)thorough, &status) == CHILD_IS_GONE;
}

/* Asks Python what is about to be started. False with an exception that is not ours to swallow: a
 * KeyboardInterrupt that arrived just before the start. */
static bool
describe(starting *start, const char *way, PyObject *words)
{
    PyObject *description = Py_NewRef(glue->describe_process);
    PyObject *told = PyObject_CallFunction(description, "sO", way, words);
    Py_DECREF(description);
    if (told == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_Exception)) {
            return false;
        }
        PyErr_Clear();
        glue->failures++;
        return true;
    }
    if (PyTuple_Check(told) && PyTuple_GET_SIZE(told) == 2) {
        PyObject *owner = PyTuple_GET_ITEM(told, 0);
        start->owner = owner != Py_None ? Py_NewRef(owner) : NULL;
        start->child->facts = Py_NewRef(PyTuple_GET_ITEM(told, 1));
    }
    Py_DECREF(told);
    return true;
}

static Child *
Child_new(bool is_ours)
{
    Child *child = PyObject_New(Child, glue->state->Child);
    if (child == NULL) {
        PyErr_Clear();
        glue->tracker->dropped++;
        return NULL;
    }
    child->facts = NULL;
    child->start = 0;
    child->pid = 0;
    child->is_ours = is_ours;
    return child;
}

/* False with an exception. words: what the child is to be called with, or None. */
static bool
begin(starting *start, const char *way, PyObject *words, bool is_ours)
{
    start->child = NULL;
    start->owner = NULL;
    if (!glue_tracks(PyThreadState_Get()) || glue->state == NULL
        || glue->describe_process == NULL) {
        return true;
    }
    start->child = Child_new(is_ours);
    if (start->child != NULL && !describe(start, way, words)) {
        Py_CLEAR(start->child);
        return false;
    }
    return true;
}

static void
record(const starting *start, pid_t pid)
{
    Child *child = start->child;
    char state;
    child->pid = pid;
    child->start = start_of(pid, &state);
    glue_end_where(glue->state->processes, is_gone, &(bool){false});
    if (glue->tracker == NULL) {
        return; /* on 3.11 that can collect garbage, whose finalizers may uninstall */
    }
    PyObject *key = PyLong_FromLong(pid);
    PyObject *processes = glue->state->processes;
    PyObject *former = key != NULL ? PyDict_GetItemWithError(processes, key) : NULL;
    if (former != NULL) {
        glue_death(former, NULL, NULL); /* that pid had another child, waited for since */
    }
    if (key == NULL || PyDict_SetItem(processes, key, (PyObject *)child) < 0) {
        PyErr_Clear();
        glue->tracker->dropped++;
    }
    else {
        bool known;
        glue_birth(PyThreadState_Get(), LG_PROCESS, child, start->owner, &known);
    }
    Py_XDECREF(key);
}

/* Passes the result on. pid: as an object, borrowed; 0 in the child; NULL where nothing started. */
static PyObject *
finish(starting *start, PyObject *result, PyObject *pid)
{
    if (start->child != NULL && pid != NULL && glue->tracker != NULL && glue->state != NULL) {
        long number = PyLong_AsLong(pid);
        if (number > 0) {
            record(start, (pid_t)number);
        }
        else if (number < 0) {
            PyErr_Clear();
        }
    }
    Py_XDECREF(start->child);
    Py_XDECREF(start->owner);
    return result;
}

static PyObject *
hook_fork(PyObject *module, PyObject *unused)
{
    starting start;
    if (!begin(&start, "fork", Py_None, true)) {
        return NULL;
    }
    witness_announced();
    PyObject *pid = glue->processes[START_FORK].original(module, unused);
    return finish(&start, pid, pid);
}

static PyObject *
hook_forkpty(PyObject *module, PyObject *unused)
{
    starting start;
    if (!begin(&start, "forkpty", Py_None, true)) {
        return NULL;
    }
    witness_announced();
    PyObject *pair = glue->processes[START_FORKPTY].original(module, unused);
    bool is_pair = pair != NULL && PyTuple_Check(pair) && PyTuple_GET_SIZE(pair) == 2;
    return finish(&start, pair, is_pair ? PyTuple_GET_ITEM(pair, 0) : NULL);
}

typedef PyObject *(*fast_function)(PyObject *, PyObject *const *, Py_ssize_t);
typedef PyObject *(*fast_function_with_keywords)(PyObject *, PyObject *const *, Py_ssize_t,
                                                 PyObject *);

static PyObject *
spawn(process_start which, PyObject *module, PyObject *const *args, Py_ssize_t count,
      PyObject *names)
{
    starting start;
    const char *way = which == START_POSIX_SPAWN ? "posix_spawn" : "posix_spawnp";
    if (!begin(&start, way, count > 1 ? args[1] : Py_None, true)) {
        return NULL;
    }
    witness_announced();
    PyCFunction original = glue->processes[which].original;
    PyObject *pid =
        ((fast_function_with_keywords)(void (*)(void))original)(module, args, count, names);
    if (pid == NULL && !PyErr_ExceptionMatches(PyExc_OSError)) {
        witness_refused();
    }
    return finish(&start, pid, pid);
}

static PyObject *
hook_posix_spawn(PyObject *module, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    return spawn(START_POSIX_SPAWN, module, args, count, names);
}

static PyObject *
hook_posix_spawnp(PyObject *module, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    return spawn(START_POSIX_SPAWNP, module, args, count, names);
}

static PyObject *
hook_fork_exec(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    starting start;
    if (!begin(&start, "fork_exec", count > 0 ? args[0] : Py_None, true)) {
        return NULL;
    }
    witness_popened();
    PyCFunction original = glue->processes[START_FORK_EXEC].original;
    PyObject *pid = ((fast_function)(void (*)(void))original)(module, args, count);
    return finish(&start, pid, pid);
}

static PyObject *
hook_fork_exec_tuple(PyObject *module, PyObject *args)
{
    starting start;
    PyObject *words = PyTuple_GET_SIZE(args) > 0 ? PyTuple_GET_ITEM(args, 0) : Py_None;
    if (!begin(&start, "fork_exec", words, true)) {
        return NULL;
    }
    witness_popened();
    PyObject *pid = glue->processes[START_FORK_EXEC].original(module, args);
    return finish(&start, pid, pid);
}

#define AS_FUNCTION(function) ((PyCFunction)(void (*)(void))(function))

static const struct {
    const char *name;
    int flags;
    PyCFunction replacement;
} entries[PROCESS_STARTS] = {
    [START_FORK] = {"fork", METH_NOARGS, hook_fork},
    [START_FORKPTY] = {"forkpty", METH_NOARGS, hook_forkpty},
    [START_POSIX_SPAWN] = {"posix_spawn", METH_FASTCALL | METH_KEYWORDS,
                           AS_FUNCTION(hook_posix_spawn)},
    [START_POSIX_SPAWNP] = {"posix_spawnp", METH_FASTCALL | METH_KEYWORDS,
                            AS_FUNCTION(hook_posix_spawnp)},
    [START_FORK_EXEC] = {"fork_exec", LG_FORK_EXEC_FLAGS,
                         LG_FORK_EXEC_FLAGS == METH_VARARGS ? hook_fork_exec_tuple
                                                            : AS_FUNCTION(hook_fork_exec)},
};

static int
replace(int which, PyObject *module)
{
    return method_replace(&glue->processes[which], module, entries[which].name,
                          entries[which].flags, entries[which].replacement,
                          which != START_FORK_EXEC);
}

void
unhook_processes(void)
{
    for (int i = 0; i < PROCESS_STARTS; i++) {
        method_put_back(&glue->processes[i], entries[i].replacement);
    }
}

/* (description): a callable, (way, words or None) -> (executor or None, what process_info tells) */
static PyObject *
core_hook_processes(PyObject *module, PyObject *description)
{
    (void)module;
    PyObject *posix = require_installed() ? PyImport_ImportModule("posix") : NULL;
    if (posix == NULL) {
        return NULL;
    }
    Py_XSETREF(glue->describe_process, Py_NewRef(description));
    int result = 0;
    for (int i = 0; result == 0 && i < START_FORK_EXEC; i++) {
        result = replace(i, posix);
    }
    Py_DECREF(posix);
    if (result < 0) {
        unhook_processes();
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
core_hook_fork_exec(PyObject *module, PyObject *posixsubprocess)
{
    (void)module;
    if (!require_installed() || replace(START_FORK_EXEC, posixsubprocess) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* A callback for Hook, after multiprocessing.popen_forkserver.Popen._launch(self, process): the
 * forkserver has started the process, and waits for it. */
static PyObject *
core_forkserver_started(PyObject *module, PyObject *args, PyObject *kwargs)
{
    (void)module;
    (void)kwargs;
    starting start;
    if (PyTuple_GET_SIZE(args) < 2 || glue->tracker == NULL
        || !begin(&start, "forkserver", PyTuple_GET_ITEM(args, 1), false)) {
        return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
    }
    PyObject *pid = PyObject_GetAttrString(PyTuple_GET_ITEM(args, 0), "pid");
    PyObject *result = finish(&start, pid != NULL ? Py_NewRef(Py_None) : NULL, pid);
    Py_XDECREF(pid);
    return result;
}

static PyObject *
core_sweep_processes(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    if (!require_installed()) {
        return NULL;
    }
    glue_end_where(glue->state->processes, is_gone, &(bool){true});
    Py_RETURN_NONE;
}

/* (pid, whether it is our own child, state, exit status or None, what the description said) */
static PyObject *
core_process_info(PyObject *module, PyObject *object)
{
    (void)module;
    if (!require_installed()) {
        return NULL;
    }
    if (!Py_IS_TYPE(object, glue->state->Child)) {
        PyErr_SetString(PyExc_TypeError, "not a child process");
        return NULL;
    }
    const Child *child = (const Child *)object;
    static const char *const names[] = {"running", "zombie", NULL};
    int status = 0;
    child_state state = look(child, true, &status);
    PyObject *number = state == CHILD_IS_ZOMBIE ? PyLong_FromLong(status) : Py_NewRef(Py_None);
    return Py_BuildValue("lOzNO", (long)child->pid, child->is_ours ? Py_True : Py_False,
                         names[state], number, child->facts != NULL ? child->facts : Py_None);
}

PyMethodDef process_functions[] = {
    {"hook_processes", core_hook_processes, METH_O, "hook_processes(description)"},
    {"hook_fork_exec", core_hook_fork_exec, METH_O, "hook_fork_exec(_posixsubprocess)"},
    {"forkserver_started", AS_FUNCTION(core_forkserver_started), METH_VARARGS | METH_KEYWORDS,
     "forkserver_started(popen, process): a callback"},
    {"sweep_processes", core_sweep_processes, METH_NOARGS, "end the records of what is gone"},
    {"process_info", core_process_info, METH_O,
     "process_info(child) -> (pid, is_ours, state or None, status or None, description)"},
    {NULL, NULL, 0, NULL},
};

static void
Child_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    Py_CLEAR(((Child *)self)->facts);
    PyObject_Free(self);
    Py_DECREF(type);
}

static PyType_Slot Child_slots[] = {
    {Py_tp_dealloc, Child_dealloc},
    {0, NULL},
};

PyType_Spec Child_spec = {
    .name = "leakguard._core.Child",
    .basicsize = sizeof(Child),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = Child_slots,
};
