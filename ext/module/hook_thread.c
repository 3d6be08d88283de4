/* Births and ends of Python threads, seen at the method-table entries of _thread's start
 * functions.
 *
 * The function that a new thread is to run is passed on inside a ThreadRun, which runs in the new
 * thread: it alone knows a raw thread's ident and its end. Its address is the key of the thread's
 * record. It answers every attribute and its repr as the function would: "Exception ignored in
 * thread started by ..." shows them, audit hooks read __self__ (Modules/_threadmodule.c,
 * thread_run and thread_PyThread_start_new_thread, 3.11 to 3.15).
 */
#include "glue.h"

#include <structmember.h>

#include "compat.h"
#include "epitaph.h"

typedef enum { STARTING, RUNNING, ENDED } run_state;

enum { MOST_SPARE_RUNS = 64 };

typedef struct thread_run {
    PyObject_HEAD
    union {
        PyObject *function;       /* owned, as long as CPython would hold it; NULL where adopted */
        struct thread_run *spare; /* the next one in `glue->spare_runs` */
    };
    PyObject *adopted;   /* owned: weak reference to the Thread of an adopted thread, or NULL */
    lg_thread *native;   /* held; NULL where it is not known */
    PyObject *label;     /* owned: see label_of; or NULL */
    unsigned long ident; /* 0 while starting */
    run_state state;
} ThreadRun;

/* The threading.Thread behind a function that threading starts, borrowed; or NULL. */
static PyObject *
thread_of(PyObject *function)
{
    if (!PyMethod_Check(function)) {
        return NULL;
    }
    PyObject *self = PyMethod_GET_SELF(function);
    if (glue->thread_type == NULL || !PyObject_TypeCheck(self, (PyTypeObject *)glue->thread_type)) {
        return NULL;
    }
    return self;
}

/* What a Thread was made to call: new reference, or NULL. Thread.run deletes it when it has
 * returned. */
static PyObject *
target_of(PyObject *thread)
{
    /* The generic look-up: no __getattr__ of the program's runs. */
    PyObject *target = PyObject_GenericGetAttr(thread, glue->target);
    if (target == NULL) {
        PyErr_Clear();
    }
    return target;
}

/* What keeps the target's name: a str, or a static type, whose name would be made anew each time.
 * New reference; NULL where there is no target, or memory ran out. */
static PyObject *
label_of(PyObject *target)
{
    if (target == NULL || target == Py_None) {
        return NULL;
    }
    bool is_static =
        PyType_Check(target) && !PyType_HasFeature((PyTypeObject *)target, Py_TPFLAGS_HEAPTYPE);
    return is_static ? Py_NewRef(target) : function_name(target);
}

/* The name of what the thread runs: for a Thread that of the overridden run, else of the target,
 * else of its class. New reference; NULL without an exception where it is not known. */
static PyObject *
name_of_run(const ThreadRun *run)
{
    PyObject *thread = run->function != NULL ? thread_of(run->function) : NULL;
    PyObject *named = run->function;
    if (thread != NULL) {
        named = _PyType_Lookup(Py_TYPE(thread), glue->run);
        if (named == NULL || named == glue->thread_run) {
            named = run->label;
        }
    }
    PyObject *name;
    if (named != NULL) {
        Py_INCREF(named);
        name = PyUnicode_Check(named) ? Py_NewRef(named) : function_name(named);
        Py_DECREF(named);
    }
    else {
        name = thread != NULL ? PyType_GetName(Py_TYPE(thread)) : NULL;
        PyErr_Clear();
    }
    return name;
}

/* Memory of one that has gone, else new; NULL with an exception. */
static ThreadRun *
allocate_run(PyTypeObject *type)
{
    ThreadRun *run = glue->spare_runs;
    if (run == NULL) {
        return PyObject_New(ThreadRun, type);
    }
    glue->spare_runs = run->spare;
    glue->spare_run_count--;
    (void)PyObject_Init((PyObject *)run, type);
    return run;
}

static void
free_run(ThreadRun *run)
{
    if (glue->spare_run_count == MOST_SPARE_RUNS || glue->state == NULL) {
        PyObject_Free(run);
        return;
    }
    run->spare = glue->spare_runs;
    glue->spare_runs = run;
    glue->spare_run_count++;
}

void
threads_free_spares(void)
{
    while (glue->spare_runs != NULL) {
        ThreadRun *run = glue->spare_runs;
        glue->spare_runs = run->spare;
        PyObject_Free(run);
    }
    glue->spare_run_count = 0;
}

static ThreadRun *
ThreadRun_new_for(module_state *state)
{
    ThreadRun *run = allocate_run(state->ThreadRun);
    if (run != NULL) {
        run->function = NULL;
        run->adopted = NULL;
        run->native = NULL;
        run->label = NULL;
        run->ident = 0;
        run->state = STARTING;
    }
    return run;
}

static epitaph *
describe_run(void *subject)
{
    ThreadRun *run = subject;
    saved_error saved = error_save();
    PyObject *thread = run->function != NULL ? thread_of(run->function) : NULL;
    PyObject *name = thread != NULL ? PyObject_GetAttrString(thread, "name") : NULL;
    if (name == NULL) {
        PyErr_Clear();
    }
    else if (!PyUnicode_Check(name)) {
        Py_CLEAR(name);
    }
    bool raised = saved.value != NULL || saved.type != NULL;
    PyObject *label = name_of_run(run);
    epitaph *note = epitaph_new(name, label, raised ? "raised" : "returned");
    Py_XDECREF(label);
    Py_XDECREF(name);
    error_restore(saved);
    return note;
}

static PyObject *
ThreadRun_call(PyObject *self, PyObject *args, PyObject *kwargs)
{
    ThreadRun *run = (ThreadRun *)self;
    thread_local_state *local = glue_local();
    run->ident = PyThread_get_thread_ident();
    run->state = RUNNING;
    if (local != NULL) {
        local->record = run;
        local->epoch = glue->epoch;
    }
    PyObject *result = PyObject_Call(run->function, args, kwargs);
    run->state = ENDED;
    if (local != NULL) {
        local->record = NULL;
    }
    glue_death(run, describe_run, run);
    return result;
}

static void
ThreadRun_dealloc(PyObject *self)
{
    ThreadRun *run = (ThreadRun *)self;
    /* A thread that could not run to its end, or an adopted one. */
    if (run->state != ENDED) {
        glue_death(run, NULL, NULL);
    }
    PyTypeObject *type = Py_TYPE(self);
    Py_CLEAR(run->function);
    Py_CLEAR(run->adopted);
    Py_CLEAR(run->label);
    if (run->native != NULL) {
        lg_thread_release(run->native);
    }
    free_run(run);
    Py_DECREF(type);
}

static PyObject *
ThreadRun_repr(PyObject *self)
{
    ThreadRun *run = (ThreadRun *)self;
    if (run->function != NULL) {
        return PyObject_Repr(run->function);
    }
    return PyUnicode_FromFormat("<adopted thread %lu>", run->ident);
}

static PyObject *
ThreadRun_getattro(PyObject *self, PyObject *name)
{
    ThreadRun *run = (ThreadRun *)self;
    if (run->function != NULL) {
        return PyObject_GetAttr(run->function, name);
    }
    return PyObject_GenericGetAttr(self, name);
}

PyObject *
thread_info(module_state *state, PyObject *object)
{
    if (!Py_IS_TYPE(object, state->ThreadRun)) {
        PyErr_SetString(PyExc_TypeError, "not a ThreadRun");
        return NULL;
    }
    ThreadRun *run = (ThreadRun *)object;
    PyObject *function = run->function != NULL ? run->function : Py_None;
    PyObject *thread;
    if (run->adopted != NULL) {
        thread = PyObject_CallNoArgs(run->adopted);
        if (thread == NULL) {
            return NULL;
        }
    }
    else {
        thread = thread_of(function);
        thread = Py_NewRef(thread != NULL ? thread : Py_None);
    }
    PyObject *label = name_of_run(run);
    label = label != NULL ? label : Py_NewRef(Py_None);
    return Py_BuildValue("ONNki", function, thread, label, run->ident, (int)run->state);
}

lg_thread *
thread_native(module_state *state, PyObject *object)
{
    return Py_IS_TYPE(object, state->ThreadRun) ? ((ThreadRun *)object)->native : NULL;
}

void
thread_link(PyObject *run, lg_thread *thread)
{
    lg_thread_hold(thread);
    ((ThreadRun *)run)->native = thread;
}

PyObject *
thread_adopt(module_state *state, PyObject *thread, unsigned long ident)
{
    ThreadRun *run = ThreadRun_new_for(state);
    if (run == NULL) {
        return NULL;
    }
    run->ident = ident;
    run->state = RUNNING;
    run->adopted = PyWeakref_NewRef(thread, NULL);
    PyObject *key = PyLong_FromUnsignedLong(ident);
    if (run->adopted == NULL || key == NULL
        || PyDict_SetItem(state->adopted, key, (PyObject *)run) < 0) {
        Py_XDECREF(key);
        Py_DECREF(run);
        return NULL;
    }
    Py_DECREF(key);
    glue_adopt(LG_THREAD, run);
    return (PyObject *)run;
}

/* Whether a new thread with this target (may be NULL) is a pool's. */
static bool
is_pooled(PyObject *thread, PyObject *target)
{
    PyObject *type = (PyObject *)Py_TYPE(thread);
    if (type != glue->thread_type && PyDict_GetItemWithError(glue->pool_marks, type) != NULL) {
        return true;
    }
    if (target != NULL && PyMethod_Check(target)) {
        target = PyMethod_GET_FUNCTION(target);
    }
    /* Only plain functions are looked up: hashing anything else could run its code. */
    return target != NULL && PyFunction_Check(target)
           && PyDict_GetItemWithError(glue->pool_marks, target) != NULL;
}

/* The executor to which a new thread of a pool is charged: new reference, or NULL. */
static PyObject *
pool_owner(PyObject *thread, PyObject *target)
{
    if (thread == NULL || glue->pool_marks == NULL) {
        return NULL;
    }
    PyObject *owner =
        is_pooled(thread, target) ? PyObject_CallOneArg(glue->pool_owner, thread) : NULL;
    if (owner == NULL && PyErr_Occurred()) {
        PyErr_Clear();
        glue->failures++;
    }
    if (owner == Py_None) {
        Py_CLEAR(owner);
    }
    return owner;
}

/* A tuple whose items are NULL: the last start's, used again as zip() does it, else a new one. */
static PyObject *
take_arguments(Py_ssize_t count)
{
    PyObject *spare = glue->spare_arguments;
    glue->spare_arguments = NULL;
    if (spare != NULL && PyTuple_GET_SIZE(spare) != count) {
        Py_CLEAR(spare);
    }
    return spare != NULL ? spare : PyTuple_New(count);
}

static void
give_arguments(PyObject *arguments)
{
    if (Py_REFCNT(arguments) == 1) {
        PyObject_GC_UnTrack(arguments); /* gc.get_objects() shows no NULL */
        for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(arguments); i++) {
            PyObject *item = PyTuple_GET_ITEM(arguments, i);
            PyTuple_SET_ITEM(arguments, i, NULL);
            Py_DECREF(item);
        }
        if (glue->spare_arguments == NULL && glue->state != NULL) {
            glue->spare_arguments = arguments;
            return;
        }
    }
    Py_DECREF(arguments);
}

/* The arguments with `run` in the place of the function, and what is passed on as keywords: owned
 * where it is not `kwargs` itself. NULL without an exception. */
static PyObject *
with_run(PyObject *args, PyObject *kwargs, PyObject *run, PyObject **ret_kwargs)
{
    Py_ssize_t count = PyTuple_GET_SIZE(args);
    PyObject *changed = take_arguments(count);
    *ret_kwargs = kwargs;
    for (Py_ssize_t i = 0; changed != NULL && i < count; i++) {
        PyTuple_SET_ITEM(changed, i, Py_NewRef(i == 0 ? run : PyTuple_GET_ITEM(args, i)));
    }
    if (changed != NULL && count == 0) {
        *ret_kwargs = PyDict_Copy(kwargs);
        if (*ret_kwargs == NULL || PyDict_SetItemString(*ret_kwargs, "function", run) < 0) {
            Py_CLEAR(*ret_kwargs);
            Py_CLEAR(changed);
        }
    }
    return changed;
}

static PyObject *
call_original(int which, PyObject *module, PyObject *args, PyObject *kwargs)
{
    PyCFunction original = glue->threads[which].original;
    if (which == START_JOINABLE_THREAD) {
        return ((PyCFunctionWithKeywords)(void (*)(void))original)(module, args, kwargs);
    }
    return original(module, args);
}

/* Calls the original, and takes the birth back where it fails. */
static PyObject *
start_run(int which, PyObject *module, PyObject *args, PyObject *kwargs, ThreadRun *run)
{
    thread_local_state *local = lg_threads_is_on() ? glue_local() : NULL;
    PyObject *outer = local != NULL ? local->starting : NULL;
    if (local != NULL) {
        local->starting = (PyObject *)run;
    }
    PyObject *result = call_original(which, module, args, kwargs);
    if (local != NULL) {
        local->starting = outer;
    }
    if (result == NULL) {
        if (PyErr_ExceptionMatches(PyExc_TypeError)) {
            glue->seen[LG_THREAD]--; /* refused before anybody could announce it */
        }
        glue_cancel(run);
    }
    else if (run->ident == 0 && PyLong_CheckExact(result)) {
        run->ident = PyLong_AsUnsignedLong(result);
    }
    return result;
}

static PyObject *
start_thread(int which, PyObject *module, PyObject *args, PyObject *kwargs)
{
    PyThreadState *tstate = PyThreadState_Get();
    PyObject *function = NULL;
    if (glue_tracks(tstate) && glue->state != NULL) {
        function = PyTuple_GET_SIZE(args) > 0 ? PyTuple_GET_ITEM(args, 0)
                   : kwargs != NULL           ? PyDict_GetItemString(kwargs, "function")
                                              : NULL;
    }
    /* Wrong arguments get the original's own error. */
    if (function == NULL || !PyCallable_Check(function)) {
        return call_original(which, module, args, kwargs);
    }
    PyObject *thread = thread_of(function);
    PyObject *target = thread != NULL ? target_of(thread) : NULL;
    PyObject *passed_kwargs = NULL;
    PyObject *passed = NULL;
    ThreadRun *run = ThreadRun_new_for(glue->state);
    if (run != NULL) {
        run->function = Py_NewRef(function);
        run->label = label_of(target);
        passed = with_run(args, kwargs, (PyObject *)run, &passed_kwargs);
    }
    PyObject *result;
    if (passed == NULL) {
        PyErr_Clear();
        glue->tracker->dropped++;
        result = call_original(which, module, args, kwargs);
    }
    else {
        PyObject *owner = pool_owner(thread, target);
        bool known;
        if (glue->tracker != NULL) {
            glue_birth(tstate, LG_THREAD, run, owner, &known);
        }
        Py_XDECREF(owner);
        result = start_run(which, module, passed, passed_kwargs, run);
        give_arguments(passed);
        if (passed_kwargs != kwargs) {
            Py_DECREF(passed_kwargs);
        }
    }
    Py_XDECREF(run);
    Py_XDECREF(target);
    return result;
}

static PyObject *
hook_start_new_thread(PyObject *module, PyObject *args)
{
    return start_thread(START_NEW_THREAD, module, args, NULL);
}

static PyObject *
hook_start_new(PyObject *module, PyObject *args)
{
    return start_thread(START_NEW, module, args, NULL);
}

static PyObject *
hook_start_joinable_thread(PyObject *module, PyObject *args, PyObject *kwargs)
{
    return start_thread(START_JOINABLE_THREAD, module, args, kwargs);
}

static const struct {
    const char *name;
    int flags;
    PyCFunction replacement;
    bool everywhere; /* on all versions; else from 3.13 on, or gone from a later one */
} entries[THREAD_STARTS] = {
    [START_NEW_THREAD] = {"start_new_thread", METH_VARARGS, hook_start_new_thread, true},
    [START_NEW] = {"start_new", METH_VARARGS, hook_start_new, false},
    [START_JOINABLE_THREAD] = {"start_joinable_thread", METH_VARARGS | METH_KEYWORDS,
                               (PyCFunction)(void (*)(void))hook_start_joinable_thread, false},
};

int
hook_threads(void)
{
    PyObject *module = PyImport_ImportModule("_thread");
    int result = module != NULL ? 0 : -1;
    for (int i = 0; result == 0 && i < THREAD_STARTS; i++) {
        result = method_replace(&glue->threads[i], module, entries[i].name, entries[i].flags,
                                entries[i].replacement, !entries[i].everywhere);
    }
    if (result < 0) {
        unhook_threads();
    }
    Py_XDECREF(module);
    return result;
}

void
unhook_threads(void)
{
    for (int i = 0; i < THREAD_STARTS; i++) {
        method_put_back(&glue->threads[i], entries[i].replacement);
    }
}

PyObject *
hook_threads_names(void)
{
    PyObject *names = PyList_New(0);
    for (int i = 0; names != NULL && i < THREAD_STARTS; i++) {
        if (!method_is_replaced(&glue->threads[i], entries[i].replacement)) {
            continue;
        }
        PyObject *name = PyUnicode_FromString(entries[i].name);
        if (name == NULL || PyList_Append(names, name) < 0) {
            Py_CLEAR(names);
        }
        Py_XDECREF(name);
    }
    return names;
}

static PyType_Slot ThreadRun_slots[] = {
    {Py_tp_call, ThreadRun_call},
    {Py_tp_dealloc, ThreadRun_dealloc},
    {Py_tp_repr, ThreadRun_repr},
    {Py_tp_getattro, ThreadRun_getattro},
    {0, NULL},
};

PyType_Spec ThreadRun_spec = {
    .name = "leakguard._core.ThreadRun",
    .basicsize = sizeof(ThreadRun),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = ThreadRun_slots,
};
