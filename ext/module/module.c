/* leakguard._core: hands the hooks and the records to Python. */
#include "compat.h"
#include "epitaph.h"
#include "glue.h"
#include "leakguard/clock.h"
#include "leakguard/interpose.h"
#include "leakguard/process.h"
#include "leakguard/watermark.h"
#include "objects.h"
#include "waiting_place.h"

static module_state *
state_of(PyObject *module)
{
    return (module_state *)PyModule_GetState(module);
}

/* Whether this is the interpreter that is tracked: another one imports this module too. */
static bool
is_here(void)
{
    return glue != NULL && PyInterpreterState_Get() == glue->interp;
}

bool
require_installed(void)
{
    if (!is_here() || glue->tracker == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "leakguard is not installed: call leakguard.install()");
        return false;
    }
    if (lg_process_forked()) {
        glue_after_fork();
    }
    return true;
}

/* Threads that nobody announced get their records. */
static void
find_natives(void)
{
    if (lg_threads_is_on()) {
        lg_threads_scan(0);
        epitaph_free_all(lg_threads_take_notes());
    }
}

static void
retain_frame(lg_frame frame)
{
    Py_INCREF((PyObject *)frame.code);
}

static PyObject *
core_install(PyObject *module, PyObject *args)
{
    unsigned int depth;
    Py_ssize_t max_bytes;
    if (!PyArg_ParseTuple(args, "In:install", &depth, &max_bytes)) {
        return NULL;
    }
    if (depth < 1 || depth > LG_MAX_STACK_DEPTH) {
        return PyErr_Format(PyExc_ValueError, "stack_depth must be 1 to %d, not %u",
                            LG_MAX_STACK_DEPTH, depth);
    }
    if (PyInterpreterState_Get() != PyInterpreterState_Main() || glue == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "leakguard tracks the main interpreter only");
        return NULL;
    }
    glue->state = state_of(module);
    glue->depth = depth;
    glue_forget_stacks();
    if (glue->tracker != NULL) {
        Py_RETURN_NONE;
    }
    lg_depot_config config = {
        .allocator = lg_allocator_system(),
        .max_bytes = (size_t)max_bytes,
        .retain = retain_frame,
    };
    lg_tracker *tracker;
    if (lg_tracker_new(&config, glue->next_serial, &tracker) != LG_OK
        || lg_process_set_tracker(tracker) != LG_OK) {
        return PyErr_NoMemory();
    }
    glue->epoch++;
    glue->tracker = tracker;
    Py_RETURN_NONE;
}

static void
uninstall(void)
{
    witness_stop();
    task_ends_stop();
    unhook_tasks();
    unhook_asyncgens();
    unhook_threads();
    unhook_loops();
    unhook_natives();
    unhook_processes();
    unhook_tempdirs();
    blocking_stop();
    terminate_disarm();
    lg_tracker *tracker = glue->tracker;
    if (tracker == NULL) {
        return;
    }
    lg_process_set_tracker(NULL);
    glue->next_serial = lg_registry_last_serial(tracker->registry) + 1;
    glue->tracker = NULL;
    glue->wants_destroyed = false;
    Py_CLEAR(glue->destroyed);
    Py_CLEAR(glue->unclosed);
    epitaph_free_all(lg_tracker_free(tracker, glue_release_frame, NULL));
    if (glue->state != NULL) {
        PyDict_Clear(glue->state->watches);
        PyDict_Clear(glue->state->adopted);
        PyDict_Clear(glue->state->prepared);
        PyDict_Clear(glue->state->processes);
        PyDict_Clear(glue->state->tempdirs);
    }
}

static PyObject *
core_uninstall(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    if (is_here()) {
        uninstall();
    }
    Py_RETURN_NONE;
}

static PyObject *
core_is_installed(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    return PyBool_FromLong(is_here() && glue->tracker != NULL);
}

/* (task type, pure-Python task type or None, current tasks, the module _asyncio) */
static PyObject *
core_hook_tasks(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *type, *pure, *current, *asyncio_core;
    if (!require_installed()
        || !PyArg_ParseTuple(args, "O!OO!O:hook_tasks", &PyType_Type, &type, &pure, &PyDict_Type,
                             &current, &asyncio_core)) {
        return NULL;
    }
    PyObject *get_running_loop = PyObject_GetAttrString(asyncio_core, "_get_running_loop");
    if (get_running_loop == NULL) {
        return NULL;
    }
    if (!PyCFunction_CheckExact(get_running_loop)
        || PyCFunction_GET_FLAGS(get_running_loop) != METH_NOARGS) {
        Py_CLEAR(get_running_loop);
    }
    Py_XSETREF(glue->get_running_loop, get_running_loop);
    Py_XSETREF(glue->current_tasks, Py_NewRef(current));
    Py_XSETREF(glue->pure_task, PyType_Check(pure) ? Py_NewRef(pure) : NULL);
    if (hook_loops(asyncio_core) < 0 || hook_tasks((PyTypeObject *)type) < 0) {
        return NULL;
    }
    task_ends_hook();
    Py_RETURN_NONE;
}

static PyObject *
core_hook_asyncgens(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    if (!require_installed() || hook_asyncgens() < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
core_hook_threads(PyObject *module, PyObject *thread_type)
{
    (void)module;
    if (!require_installed()) {
        return NULL;
    }
    PyObject *run =
        PyType_Check(thread_type) ? _PyType_Lookup((PyTypeObject *)thread_type, glue->run) : NULL;
    if (run == NULL) {
        PyErr_SetString(PyExc_TypeError, "hook_threads wants threading.Thread");
        return NULL;
    }
    Py_INCREF(run);
    Py_XSETREF(glue->thread_type, Py_NewRef(thread_type));
    Py_XSETREF(glue->thread_run, run);
    if (hook_threads() < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* (kernel ids of the threads that Python knows) */
static PyObject *
core_hook_natives(PyObject *module, PyObject *known)
{
    (void)module;
    if (!require_installed()) {
        return NULL;
    }
    if (!PyTuple_Check(known)) {
        PyErr_SetString(PyExc_TypeError, "hook_natives wants a tuple of kernel ids");
        return NULL;
    }
    if (hook_natives(known) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* Of a NativeThread, or of a ThreadRun whose native thread was seen; else None. */
static PyObject *
core_native_info(PyObject *module, PyObject *object)
{
    if (!require_installed()) {
        return NULL;
    }
    lg_thread *thread = native_of(object);
    if (thread == NULL) {
        thread = thread_native(state_of(module), object);
    }
    if (thread == NULL) {
        Py_RETURN_NONE;
    }
    return native_info(thread);
}

static PyObject *
core_native_symbol(PyObject *module, PyObject *address)
{
    (void)module;
    return native_symbol(address);
}

static PyObject *
core_native_samples(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *tids;
    double timeout;
    if (!require_installed()
        || !PyArg_ParseTuple(args, "O!d:native_samples", &PyTuple_Type, &tids, &timeout)) {
        return NULL;
    }
    return native_samples(tids, timeout);
}

/* (seconds, listener) */
static PyObject *
core_blocking_start(PyObject *module, PyObject *args)
{
    (void)module;
    double bound;
    PyObject *listener;
    if (!require_installed() || !PyArg_ParseTuple(args, "dO:blocking_start", &bound, &listener)
        || blocking_start(bound, listener) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
core_blocking_stop(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    if (is_here()) {
        blocking_stop();
    }
    Py_RETURN_NONE;
}

static PyObject *
core_hook_select(PyObject *module, PyObject *select)
{
    (void)module;
    if (!require_installed() || hook_select(select) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
core_hook_uvloop(PyObject *module, PyObject *loops)
{
    (void)module;
    if (!require_installed() || hook_uvloop(loops) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
core_blocking_enter(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    return require_installed() ? PyLong_FromLongLong(blocking_enter()) : NULL;
}

static PyObject *
core_blocking_exempt(PyObject *module, PyObject *exempt)
{
    (void)module;
    if (is_here()) {
        blocking_exempt(exempt == Py_True);
    }
    Py_RETURN_NONE;
}

/* (kernel id of the watcher or 0, names of what is hooked) */
static PyObject *
core_blocking_state(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    PyObject *hooks = is_here() ? blocking_hooks() : PyList_New(0);
    return hooks != NULL ? Py_BuildValue("iN", (int)lg_blocking_watcher(), hooks) : NULL;
}

static PyObject *
core_own_kinds(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    return is_here() ? PyList_AsTuple(glue->own_kinds) : PyTuple_New(0);
}

static PyObject *
core_resource_info(PyObject *module, PyObject *object)
{
    (void)module;
    return require_installed() ? capi_resource_info(object) : NULL;
}

static PyObject *
core_hooks(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    bool on = is_here();
    PyObject *threads = on ? hook_threads_names() : PyList_New(0);
    if (threads == NULL) {
        return NULL;
    }
    size_t changed, left_alone;
    lg_threads_slots(&changed, &left_alone);
    PyObject *natives = on && lg_threads_is_on()
                            ? Py_BuildValue("nn", (Py_ssize_t)changed, (Py_ssize_t)left_alone)
                            : Py_NewRef(Py_None);
    return Py_BuildValue("{sOsOsOsNsN}", "tasks", on && hook_tasks_is_on() ? Py_True : Py_False,
                         "task_ends", on && task_ends_is_on() ? Py_True : Py_False, "loops",
                         on && hook_loops_is_on() ? Py_True : Py_False, "threads", threads,
                         "natives", natives);
}

static PyObject *
core_set_pools(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *marks, *owner;
    if (!require_installed()
        || !PyArg_ParseTuple(args, "O!O:set_pools", &PyDict_Type, &marks, &owner)) {
        return NULL;
    }
    Py_XSETREF(glue->pool_marks, Py_NewRef(marks));
    Py_XSETREF(glue->pool_owner, Py_NewRef(owner));
    Py_RETURN_NONE;
}

static PyObject *
core_set_scope_variable(PyObject *module, PyObject *variable)
{
    (void)module;
    if (!require_installed()) {
        return NULL;
    }
    if (!PyContextVar_CheckExact(variable)) {
        PyErr_SetString(PyExc_TypeError, "set_scope_variable wants a contextvars.ContextVar");
        return NULL;
    }
    Py_XSETREF(glue->scope_var, Py_NewRef(variable));
    Py_RETURN_NONE;
}

static PyObject *
core_set_destroyed(PyObject *module, PyObject *callable)
{
    (void)module;
    if (!require_installed()) {
        return NULL;
    }
    Py_XSETREF(glue->destroyed, Py_NewRef(callable));
    Py_RETURN_NONE;
}

/* (callable, bits of kinds) */
static PyObject *
core_set_unclosed(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *callable;
    unsigned int kinds;
    if (!require_installed() || !PyArg_ParseTuple(args, "OI:set_unclosed", &callable, &kinds)) {
        return NULL;
    }
    Py_XSETREF(glue->unclosed, Py_NewRef(callable));
    glue->unclosed_kinds = kinds;
    Py_RETURN_NONE;
}

static PyObject *
core_want_destroyed(PyObject *module, PyObject *wanted)
{
    (void)module;
    if (is_here()) {
        glue->wants_destroyed = wanted == Py_True;
    }
    Py_RETURN_NONE;
}

/* (mask of kinds, scope or 0, roots of leakguard's files, of the standard library's) */
static PyObject *
core_watermark(PyObject *module, PyObject *args)
{
    unsigned int kinds;
    unsigned int scope;
    PyObject *own, *library;
    if (!require_installed()
        || !PyArg_ParseTuple(args, "IIO!O!:watermark", &kinds, &scope, &PyTuple_Type, &own,
                             &PyTuple_Type, &library)) {
        return NULL;
    }
    find_natives();
    return fanout_open(state_of(module), kinds, scope, own, library);
}

static PyObject *
core_scope_begins(PyObject *module, PyObject *args)
{
    (void)module;
    unsigned int number, parent;
    if (!require_installed() || !PyArg_ParseTuple(args, "II:scope_begins", &number, &parent)) {
        return NULL;
    }
    lg_watermark_add_scope(glue->tracker, number, parent);
    Py_RETURN_NONE;
}

static PyObject *
core_count_scopes(PyObject *module, PyObject *change)
{
    (void)module;
    long delta = PyLong_AsLong(change);
    if (delta == -1 && PyErr_Occurred()) {
        return NULL;
    }
    if (!require_installed()) {
        return NULL;
    }
    glue->scopes_active = (uint32_t)((long)glue->scopes_active + delta);
    Py_RETURN_NONE;
}

static PyObject *
core_enter_scope(PyObject *module, PyObject *number)
{
    (void)module;
    unsigned long scope = PyLong_AsUnsignedLong(number);
    if ((scope == (unsigned long)-1 && PyErr_Occurred()) || !require_installed()) {
        return NULL;
    }
    thread_local_state *local = glue_local();
    if (local == NULL) {
        return PyErr_NoMemory();
    }
    uint32_t before = local->scope;
    local->scope = (uint32_t)scope;
    return PyLong_FromUnsignedLong(before);
}

static PyObject *
announce_birth(PyObject *kind, PyObject *args, PyObject *kwargs)
{
    (void)kwargs;
    if (is_here() && glue->tracker != NULL && PyTuple_GET_SIZE(args) > 0
        && born_register(glue->state, (lg_kind)PyLong_AsLong(kind), PyTuple_GET_ITEM(args, 0),
                         false)
               < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

#define WITH_KEYWORDS(function) ((PyCFunction)(void (*)(void))(function))

static PyMethodDef announcer_definition = {"announce_birth", WITH_KEYWORDS(announce_birth),
                                           METH_VARARGS | METH_KEYWORDS, NULL};

/* A callback for Hook that gets the arguments of a method: records the first of them, the object,
 * as born. */
static PyObject *
core_announcer(PyObject *module, PyObject *kind)
{
    (void)module;
    long number = PyLong_AsLong(kind);
    if (number == -1 && PyErr_Occurred()) {
        return NULL;
    }
    if (number < 0 || number >= LG_KIND_COUNT) {
        return PyErr_Format(PyExc_ValueError, "no kind has the number %ld", number);
    }
    return PyCFunction_New(&announcer_definition, kind);
}

static PyObject *
core_birth_failed(PyObject *module, PyObject *args, PyObject *kwargs)
{
    (void)module;
    (void)kwargs;
    if (is_here() && glue->tracker != NULL && PyTuple_GET_SIZE(args) > 0) {
        glue_cancel(PyTuple_GET_ITEM(args, 0));
    }
    Py_RETURN_NONE;
}

static PyObject *
core_pure_task_ending(PyObject *module, PyObject *args, PyObject *kwargs)
{
    (void)module;
    (void)kwargs;
    if (is_here() && glue->tracker != NULL && PyTuple_GET_SIZE(args) > 0) {
        epitaph_prepare(PyTuple_GET_ITEM(args, 0), NULL);
    }
    Py_RETURN_NONE;
}

/* A list of the live objects of these types. */
static PyObject *
core_instances(PyObject *module, PyObject *types)
{
    (void)module;
    if (!PyTuple_Check(types)) {
        return PyErr_Format(PyExc_TypeError, "types must be a tuple, not %.100s",
                            Py_TYPE(types)->tp_name);
    }
    return live_instances(types);
}

static int
adopt(PyObject *module, lg_kind kind, PyObject *object)
{
    if (kind == LG_TASK && glue->tasks.type != NULL
        && PyObject_TypeCheck(object, glue->tasks.type)) {
        lg_record record;
        if (lg_registry_find(glue->tracker->registry, object, &record) != LG_OK) {
            glue_adopt(kind, object);
        }
        return 0;
    }
    return born_register(state_of(module), kind, object, true);
}

/* (kind, types, accept or None): the live objects of these types that `accept` agrees to, as
 * found. */
static PyObject *
core_adopt(PyObject *module, PyObject *args)
{
    int kind;
    PyObject *types, *accept = Py_None;
    if (!require_installed()
        || !PyArg_ParseTuple(args, "iO!|O:adopt", &kind, &PyTuple_Type, &types, &accept)) {
        return NULL;
    }
    PyObject *objects = live_instances(types);
    if (objects == NULL) {
        return NULL;
    }
    int result = 0;
    for (Py_ssize_t i = 0; result == 0 && i < PyList_GET_SIZE(objects); i++) {
        PyObject *object = PyList_GET_ITEM(objects, i);
        PyObject *verdict = accept != Py_None ? PyObject_CallOneArg(accept, object) : NULL;
        if ((accept == Py_None || verdict == Py_True) && glue->tracker != NULL) {
            result = adopt(module, (lg_kind)kind, object);
        }
        else if (verdict == NULL) {
            result = -1;
        }
        Py_XDECREF(verdict);
    }
    Py_DECREF(objects);
    if (result < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
core_adopt_thread(PyObject *module, PyObject *args)
{
    PyObject *thread;
    unsigned long ident;
    if (!require_installed() || !PyArg_ParseTuple(args, "Ok:adopt_thread", &thread, &ident)) {
        return NULL;
    }
    return thread_adopt(state_of(module), thread, ident);
}

static PyObject *
core_adopted(PyObject *module, PyObject *unused)
{
    (void)unused;
    return PyDict_Copy(state_of(module)->adopted);
}

static PyObject *
core_end_adopted(PyObject *module, PyObject *ident)
{
    PyObject *run = PyDict_GetItemWithError(state_of(module)->adopted, ident);
    if (run == NULL) {
        if (PyErr_Occurred()) {
            return NULL;
        }
        Py_RETURN_NONE;
    }
    glue_death(run, NULL, NULL);
    if (PyDict_DelItem(state_of(module)->adopted, ident) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
core_live(PyObject *module, PyObject *args)
{
    unsigned long long since;
    unsigned int kinds;
    int done = 0;
    if (!require_installed() || !PyArg_ParseTuple(args, "KI|p:live", &since, &kinds, &done)) {
        return NULL;
    }
    if (kinds & LG_KIND_BIT(LG_NATIVE_THREAD)) {
        find_natives();
    }
    return records_live(state_of(module), since, kinds, done != 0);
}

static PyObject *
core_waiting_forever(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *own, *cancellers;
    double timeout;
    if (!require_installed()
        || !PyArg_ParseTuple(args, "O!O!d:waiting_forever", &PyTuple_Type, &own, &PyTuple_Type,
                             &cancellers, &timeout)) {
        return NULL;
    }
    return waiting_forever(own, cancellers, timeout);
}

static PyObject *
core_find(PyObject *module, PyObject *object)
{
    return require_installed() ? records_find(state_of(module), object) : NULL;
}

static PyObject *
core_count(PyObject *module, PyObject *kinds)
{
    (void)module;
    unsigned long mask = PyLong_AsUnsignedLong(kinds);
    if (mask == (unsigned long)-1 && PyErr_Occurred()) {
        return NULL;
    }
    return require_installed() ? records_count((unsigned)mask) : NULL;
}

static PyObject *
core_creator(PyObject *module, PyObject *object)
{
    (void)module;
    return require_installed() ? records_creator(object) : NULL;
}

static PyObject *
core_line(PyObject *module, PyObject *object)
{
    (void)module;
    return require_installed() ? records_line(object) : NULL;
}

static PyObject *
core_stack(PyObject *module, PyObject *id)
{
    (void)module;
    unsigned long number = PyLong_AsUnsignedLong(id);
    if (number == (unsigned long)-1 && PyErr_Occurred()) {
        return NULL;
    }
    return require_installed() ? records_stack((uint32_t)number) : NULL;
}

static PyObject *
core_stats(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    if (!is_here()) {
        PyErr_SetString(PyExc_RuntimeError, "leakguard tracks the main interpreter only");
        return NULL;
    }
    if (lg_process_forked()) {
        glue_after_fork();
    }
    find_natives();
    return records_stats();
}

/* (epoch, serial of the newest birth, dropped): what a checkpoint remembers. */
static PyObject *
core_mark(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    if (!require_installed()) {
        return NULL;
    }
    find_natives();
    return Py_BuildValue("KKK", (unsigned long long)glue->epoch,
                         (unsigned long long)lg_registry_last_serial(glue->tracker->registry),
                         (unsigned long long)glue->tracker->dropped);
}

static PyObject *
core_newest_live(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    if (!require_installed()) {
        return NULL;
    }
    find_natives();
    return PyLong_FromUnsignedLongLong(lg_registry_newest_live(glue->tracker->registry));
}

/* What a clean check asks, in one step. */
static PyObject *
core_is_quiet(PyObject *module, PyObject *args)
{
    (void)module;
    unsigned long long epoch, serial, dropped;
    if (!PyArg_ParseTuple(args, "KKK:is_quiet", &epoch, &serial, &dropped)) {
        return NULL;
    }
    if (!is_here() || glue->tracker == NULL || glue->epoch != epoch || lg_process_forked()) {
        Py_RETURN_FALSE;
    }
    find_natives();
    return PyBool_FromLong(lg_registry_newest_live(glue->tracker->registry) <= serial
                           && glue->tracker->dropped == dropped);
}

/* The same, and that nothing was born at all. */
static PyObject *
core_is_untouched(PyObject *module, PyObject *args)
{
    (void)module;
    unsigned long long epoch, serial, dropped;
    if (!PyArg_ParseTuple(args, "KKK:is_untouched", &epoch, &serial, &dropped)) {
        return NULL;
    }
    if (!is_here() || glue->tracker == NULL || glue->epoch != epoch || lg_process_forked()) {
        Py_RETURN_FALSE;
    }
    find_natives();
    return PyBool_FromLong(lg_registry_last_serial(glue->tracker->registry) == serial
                           && glue->tracker->dropped == dropped);
}

static PyObject *
core_failures(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    return PyLong_FromUnsignedLongLong(is_here() ? glue->failures : 0);
}

static PyObject *
core_now(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    return PyLong_FromLongLong(lg_clock_now());
}

static PyObject *
core_thread_info(PyObject *module, PyObject *run)
{
    return thread_info(state_of(module), run);
}

static PyObject *
core_function_name(PyObject *module, PyObject *callable)
{
    (void)module;
    if (glue == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "leakguard tracks the main interpreter only");
        return NULL;
    }
    PyObject *name = function_name(callable);
    return name != NULL ? name : PyErr_NoMemory();
}

static PyObject *
core_untrack(PyObject *module, PyObject *object)
{
    (void)module;
    if (PyObject_IS_GC(object)) {
        PyObject_GC_UnTrack(object);
    }
    Py_RETURN_NONE;
}

static PyObject *
core_waiting_place(PyObject *module, PyObject *coroutine)
{
    (void)module;
    return waiting_place(coroutine);
}

static PyObject *
core_is_main_interpreter(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    return PyBool_FromLong(PyInterpreterState_Get() == PyInterpreterState_Main());
}

static PyObject *
core_witness_start(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    if (!require_installed() || witness_start() < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
core_witness_stop(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    if (is_here()) {
        witness_stop();
    }
    Py_RETURN_NONE;
}

static PyObject *
core_witness_counts(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    return require_installed() ? witness_counts() : NULL;
}

static PyObject *
core_exit_status_arm(PyObject *module, PyObject *code)
{
    (void)module;
    long number = PyLong_AsLong(code);
    if ((number == -1 && PyErr_Occurred()) || !require_installed()
        || exit_status_arm((int)number) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
core_exit_status_set(PyObject *module, PyObject *leaked)
{
    (void)module;
    if (!require_installed()) {
        return NULL;
    }
    exit_status_set(leaked == Py_True);
    Py_RETURN_NONE;
}

static PyObject *
core_free_signal(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    return PyLong_FromLong(terminate_free_signal());
}

static PyObject *
core_terminate_arm(PyObject *module, PyObject *args)
{
    (void)module;
    int ask;
    double grace;
    if (!PyArg_ParseTuple(args, "id:terminate_arm", &ask, &grace) || !require_installed()
        || terminate_arm(ask, grace) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
core_terminate_die(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    terminate_die();
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"install", core_install, METH_VARARGS, "install(depth, max_bytes)"},
    {"uninstall", core_uninstall, METH_NOARGS, NULL},
    {"is_installed", core_is_installed, METH_NOARGS, NULL},
    {"hook_tasks", core_hook_tasks, METH_VARARGS,
     "hook_tasks(Task, _PyTask or None, current_tasks, _asyncio)"},
    {"hook_asyncgens", core_hook_asyncgens, METH_NOARGS, NULL},
    {"hook_threads", core_hook_threads, METH_O, "hook_threads(threading.Thread)"},
    {"hook_natives", core_hook_natives, METH_O, "hook_natives(kernel ids that Python knows)"},
    {"native_info", core_native_info, METH_O,
     "native_info(object) -> (tid, ident, start, native frames, frames, stack size) or None"},
    {"native_symbol", core_native_symbol, METH_O,
     "native_symbol(address) -> (function, offset, module, offset in the module)"},
    {"native_samples", core_native_samples, METH_VARARGS,
     "native_samples(kernel ids, seconds) -> id -> native frames or a word"},
    {"blocking_start", core_blocking_start, METH_VARARGS, "blocking_start(seconds, listener)"},
    {"blocking_stop", core_blocking_stop, METH_NOARGS, NULL},
    {"hook_select", core_hook_select, METH_O, "hook_select(select)"},
    {"hook_uvloop", core_hook_uvloop, METH_O, "hook_uvloop(uvloop.loop)"},
    {"blocking_enter", core_blocking_enter, METH_NOARGS,
     "what this thread's loop did until now counts by itself; the moment, in nanoseconds"},
    {"blocking_exempt", core_blocking_exempt, METH_O,
     "blocking_exempt(True): what runs in this thread from here on is leakguard's own"},
    {"blocking_state", core_blocking_state, METH_NOARGS,
     "(kernel id of the watcher or 0, names of what is hooked)"},
    {"own_kinds", core_own_kinds, METH_NOARGS, "kinds that other extensions added, in order"},
    {"resource_info", core_resource_info, METH_O, "resource_info(object) -> (name, state or None)"},
    {"hooks", core_hooks, METH_NOARGS, "which hooks are on"},
    {"set_pools", core_set_pools, METH_VARARGS, "set_pools(marks, owner)"},
    {"set_scope_variable", core_set_scope_variable, METH_O, NULL},
    {"set_destroyed", core_set_destroyed, METH_O,
     "set_destroyed(callable): told of tasks that are freed while pending"},
    {"set_unclosed", core_set_unclosed, METH_VARARGS,
     "set_unclosed(callable, kinds): given what the collector frees, whole"},
    {"want_destroyed", core_want_destroyed, METH_O, "want_destroyed(whether anybody may ask)"},
    {"watermark", core_watermark, METH_VARARGS,
     "watermark(kinds, scope, own roots, library roots) -> Watermark"},
    {"scope_begins", core_scope_begins, METH_VARARGS, "scope_begins(number, parent)"},
    {"count_scopes", core_count_scopes, METH_O, "count_scopes(change)"},
    {"enter_scope", core_enter_scope, METH_O, "enter_scope(number) -> this thread's, before"},
    {"announcer", core_announcer, METH_O, "announcer(kind) -> callback that records a birth"},
    {"birth_failed", WITH_KEYWORDS(core_birth_failed), METH_VARARGS | METH_KEYWORDS, NULL},
    {"pure_task_ending", WITH_KEYWORDS(core_pure_task_ending), METH_VARARGS | METH_KEYWORDS, NULL},
    {"instances", core_instances, METH_O, "instances(types): all live ones"},
    {"adopt", core_adopt, METH_VARARGS, "adopt(kind, types, accept=None): live ones"},
    {"adopt_thread", core_adopt_thread, METH_VARARGS, "adopt_thread(thread, ident)"},
    {"adopted", core_adopted, METH_NOARGS, "ident -> ThreadRun"},
    {"end_adopted", core_end_adopted, METH_O, "end_adopted(ident)"},
    {"live", core_live, METH_VARARGS,
     "live(since, kinds, done=False) -> list of Record, oldest first"},
    {"waiting_forever", core_waiting_forever, METH_VARARGS,
     "waiting_forever(own types, types that cancel, seconds) -> (serials of tasks that wait for "
     "ever, of waiting ones that nobody holds), or why it gave up"},
    {"find", core_find, METH_O, "find(object) -> its Record, or None"},
    {"count", core_count, METH_O,
     "count(kinds) -> (kind, stack) -> how many live, by creation stack"},
    {"creator", core_creator, METH_O,
     "creator(object) -> (kind, serial, object, name, function, ended) or None"},
    {"line", core_line, METH_O, "line(object or None) -> serials of it and its creators"},
    {"stack", core_stack, METH_O, "stack(id) -> (frames, inner, truncated)"},
    {"stats", core_stats, METH_NOARGS, NULL},
    {"mark", core_mark, METH_NOARGS, "(epoch, serial, dropped)"},
    {"newest_live", core_newest_live, METH_NOARGS, NULL},
    {"is_quiet", core_is_quiet, METH_VARARGS,
     "is_quiet(epoch, serial, dropped): whether nothing lives that was born since this mark"},
    {"is_untouched", core_is_untouched, METH_VARARGS,
     "is_untouched(epoch, serial, dropped): whether nothing was born since this mark"},
    {"failures", core_failures, METH_NOARGS, NULL},
    {"now", core_now, METH_NOARGS, "nanoseconds, as in Record.born"},
    {"thread_info", core_thread_info, METH_O,
     "thread_info(run) -> (function, thread, label, ident, state)"},
    {"function_name", core_function_name, METH_O, "what a callable or coroutine is called"},
    {"untrack", core_untrack, METH_O, "the garbage collector need not look at this object"},
    {"waiting_place", core_waiting_place, METH_O,
     "waiting_place(coroutine) -> bytes, equal where two wait at the same place, or None"},
    {"is_main_interpreter", core_is_main_interpreter, METH_NOARGS, NULL},
    {"witness_start", core_witness_start, METH_NOARGS, NULL},
    {"witness_stop", core_witness_stop, METH_NOARGS, NULL},
    {"witness_counts", core_witness_counts, METH_NOARGS, "kind -> (witnessed, seen) or None"},
    {"exit_status_arm", core_exit_status_arm, METH_O, "exit_status_arm(code)"},
    {"exit_status_set", core_exit_status_set, METH_O, "exit_status_set(leaked)"},
    {"free_signal", core_free_signal, METH_NOARGS, "a real-time signal that nobody uses, or 0"},
    {"terminate_arm", core_terminate_arm, METH_VARARGS, "terminate_arm(signal, grace)"},
    {"terminate_die", core_terminate_die, METH_NOARGS, "die of SIGTERM"},
    {NULL, NULL, 0, NULL},
};

static int
module_exec(PyObject *module)
{
    module_state *state = state_of(module);
    state->watches = PyDict_New();
    state->adopted = PyDict_New();
    state->prepared = PyDict_New();
    state->processes = PyDict_New();
    state->tempdirs = PyDict_New();
    state->ThreadRun = (PyTypeObject *)PyType_FromModuleAndSpec(module, &ThreadRun_spec, NULL);
    state->NativeThread =
        (PyTypeObject *)PyType_FromModuleAndSpec(module, &NativeThread_spec, NULL);
    state->Resource = (PyTypeObject *)PyType_FromModuleAndSpec(module, &Resource_spec, NULL);
    state->Child = (PyTypeObject *)PyType_FromModuleAndSpec(module, &Child_spec, NULL);
    state->TempDir = (PyTypeObject *)PyType_FromModuleAndSpec(module, &TempDir_spec, NULL);
    state->Hook = (PyTypeObject *)PyType_FromModuleAndSpec(module, &Hook_spec, NULL);
    state->Record = PyStructSequence_NewType(&Record_desc);
    state->Watermark = (PyTypeObject *)PyType_FromModuleAndSpec(module, &Watermark_spec, NULL);
    if (state->watches == NULL || state->adopted == NULL || state->prepared == NULL
        || state->processes == NULL || state->tempdirs == NULL || state->ThreadRun == NULL
        || state->NativeThread == NULL || state->Resource == NULL || state->Child == NULL
        || state->TempDir == NULL || state->Hook == NULL || state->Record == NULL
        || state->Watermark == NULL || PyModule_AddFunctions(module, process_functions) < 0
        || PyModule_AddFunctions(module, tempdir_functions) < 0) {
        return -1;
    }
    const char *unwinder = lg_unwind_version();
    int added = unwinder != NULL ? PyModule_AddStringConstant(module, "LIBUNWIND", unwinder)
                                 : PyModule_AddObjectRef(module, "LIBUNWIND", Py_None);
    if (added < 0 || PyModule_AddType(module, state->Hook) < 0
        || PyModule_AddType(module, state->Record) < 0
        || PyModule_AddIntConstant(module, "MAX_STACK_DEPTH", LG_MAX_STACK_DEPTH) < 0
        || PyModule_AddIntConstant(module, "HAS_NATIVE_THREADS", LG_CAN_INTERPOSE) < 0) {
        return -1;
    }
    if (PyInterpreterState_Get() == PyInterpreterState_Main()) {
        if (glue_init(state) < 0) {
            return -1;
        }
        PyObject *capsule = capi_capsule();
        added = capsule != NULL ? PyModule_AddObjectRef(module, "C_API", capsule) : -1;
        Py_XDECREF(capsule);
        return added;
    }
    return 0;
}

static int
module_traverse(PyObject *module, visitproc visit, void *arg)
{
    module_state *state = state_of(module);
    Py_VISIT(state->ThreadRun);
    Py_VISIT(state->NativeThread);
    Py_VISIT(state->Resource);
    Py_VISIT(state->Child);
    Py_VISIT(state->TempDir);
    Py_VISIT(state->Hook);
    Py_VISIT(state->Record);
    Py_VISIT(state->Watermark);
    Py_VISIT(state->watches);
    Py_VISIT(state->adopted);
    Py_VISIT(state->prepared);
    Py_VISIT(state->processes);
    Py_VISIT(state->tempdirs);
    return 0;
}

static int
module_clear(PyObject *module)
{
    module_state *state = state_of(module);
    /* The hooks use this state: they go first. */
    if (glue != NULL && glue->state == state) {
        uninstall();
        glue->state = NULL;
        glue_clear();
    }
    Py_CLEAR(state->watches);
    Py_CLEAR(state->adopted);
    Py_CLEAR(state->prepared);
    Py_CLEAR(state->processes);
    Py_CLEAR(state->tempdirs);
    Py_CLEAR(state->ThreadRun);
    Py_CLEAR(state->NativeThread);
    Py_CLEAR(state->Resource);
    Py_CLEAR(state->Child);
    Py_CLEAR(state->TempDir);
    Py_CLEAR(state->Hook);
    Py_CLEAR(state->Record);
    Py_CLEAR(state->Watermark);
    return 0;
}

static void
module_free(void *module)
{
    (void)module_clear(module);
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, module_exec},
#ifdef Py_mod_multiple_interpreters
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
#ifdef Py_mod_gil
    /* Free-threaded builds: install() refuses, so nothing here runs; importing must not switch
     * the GIL on. */
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "leakguard._core",
    .m_doc = "Hooks and records; see the leakguard package for what people use.",
    .m_size = sizeof(module_state),
    .m_methods = functions,
    .m_slots = slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC
PyInit__core(void)
{
    return PyModuleDef_Init(&definition);
}
