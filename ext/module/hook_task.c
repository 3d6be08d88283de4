/* Births and deaths of asyncio tasks, seen at the slots of the C task type.
 *
 * Task(...), create_task, TaskGroup, gather, eager factories and uvloop all end in tp_init of
 * _asyncio.Task. super().__init__() in a subclass reaches it through the slot wrapper in the
 * type's dict, so that wrapper is written as well. A subclass without an __init__ of its own has
 * copied tp_init when it was made: the tree of subclasses is walked. tp_dealloc of the base runs
 * for every subclass. (Objects/typeobject.c: inherit_slots, subtype_dealloc, wrap_init;
 * Modules/_asynciomodule.c: TaskObj_dealloc. The same on 3.11 to 3.15.)
 */
#include "glue.h"

#include "compat.h"
#include "epitaph.h"

static bool
is_eager(PyObject *kwargs)
{
    PyObject *value = kwargs != NULL ? PyDict_GetItemWithError(kwargs, glue->eager_start) : NULL;
    if (value == NULL || value == Py_True || value == Py_False) {
        return value == Py_True;
    }
    int is_true = PyObject_IsTrue(value);
    if (is_true < 0) {
        PyErr_Clear();
    }
    return is_true > 0;
}

static PyObject *
coroutine_argument(PyObject *args, PyObject *kwargs)
{
    return PyTuple_GET_SIZE(args) > 0 ? PyTuple_GET_ITEM(args, 0)
                                      : PyDict_GetItemString(kwargs, "coro");
}

static int
hook_init(PyObject *self, PyObject *args, PyObject *kwargs)
{
    task_hook *hook = &glue->tasks;
    PyThreadState *tstate = PyThreadState_Get();
    if (!hook->on || !glue_tracks(tstate)) {
        return hook->init(self, args, kwargs);
    }
    /* Before the original: an eager task runs its first step in there, and what that creates has
     * this task as its creator. */
    bool known = false;
    uint64_t serial = glue_birth(tstate, LG_TASK, self, NULL, &known);
    int result = hook->init(self, args, kwargs);
    if (serial == 0 || glue->tracker == NULL) {
        return result;
    }
    if (result < 0) {
        glue_cancel(self);
    }
    else if (LG_HAVE_EAGER_TASKS) {
        /* Only an eager task can have children by now, and be done. */
        if (lg_registry_last_serial(glue->tracker->registry) != serial && task_is_done(self)) {
            epitaph_prepare(self, coroutine_argument(args, kwargs));
        }
        if (glue->task_ends.on && is_eager(kwargs)) {
            task_ends_look(self);
        }
    }
    return result;
}

/* Where only the main interpreter's tasks come here, the thread state need not be asked. */
static inline bool
tracks_type(void)
{
    return LG_HAVE_OWN_TASK_TYPES ? glue->tracker != NULL : glue_tracks(PyThreadState_Get());
}

static void
hook_dealloc(PyObject *self)
{
    task_hook *hook = &glue->tasks;
    PyObject *destroyed = NULL;
    if (tracks_type()) {
        /* A task that is freed while pending can be resurrected by its finalizer (the loop's
         * exception handler is given it): then it lives on, with its record. For subclasses
         * subtype_dealloc has run the finalizer and comes here only if that did not happen. */
        if (Py_TYPE(self)->tp_dealloc == hook_dealloc
            && PyObject_CallFinalizerFromDealloc(self) < 0) {
            return;
        }
        if (glue->wants_destroyed) {
            /* So that nobody finds it while it is described. */
            PyObject_GC_UnTrack(self);
            destroyed = destroyed_take(self);
        }
        glue_death(self, epitaph_of_task, self);
    }
    hook->dealloc(self);
    destroyed_tell(destroyed);
}

/* The garbage collector empties a task before it frees it: what is to stay known of a creator is
 * taken down here. subtype_clear comes here for every subclass, like subtype_dealloc. */
static int
hook_clear(PyObject *self)
{
    task_hook *hook = &glue->tasks;
    PyObject *destroyed = NULL;
    if (hook->on && glue_tracks(PyThreadState_Get())) {
        if (epitaph_look(self) == NULL) {
            epitaph_prepare(self, NULL);
        }
        destroyed = destroyed_take(self);
    }
    int result = hook->clear(self);
    destroyed_tell(destroyed);
    return result;
}

/* Calls `visit` for each subclass of `type`, at any depth. -1 with an exception. */
static int
walk_subclasses(PyTypeObject *type, void (*visit)(PyTypeObject *subclass))
{
    PyObject *list = PyObject_CallMethod((PyObject *)&PyType_Type, "__subclasses__", "O", type);
    if (list == NULL) {
        return -1;
    }
    int result = 0;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list) && result == 0; i++) {
        PyTypeObject *subclass = (PyTypeObject *)PyList_GET_ITEM(list, i);
        visit(subclass);
        result = walk_subclasses(subclass, visit);
    }
    Py_DECREF(list);
    return result;
}

static void
redirect(PyTypeObject *type)
{
    if (type->tp_init == glue->tasks.init) {
        type->tp_init = hook_init;
    }
}

static void
put_back(PyTypeObject *type)
{
    if (type->tp_init == hook_init) {
        type->tp_init = glue->tasks.init;
    }
}

static void
release(task_hook *hook)
{
    Py_CLEAR(hook->wrapper);
    Py_CLEAR(hook->done);
    Py_CLEAR(hook->type);
}

int
hook_tasks(PyTypeObject *type)
{
    task_hook *hook = &glue->tasks;
    if (hook->on) {
        return 0;
    }
    release(hook);
    hook->wrapper = slot_wrapper(type, "__init__");
    hook->done = PyObject_GetAttrString((PyObject *)type, "done");
    if (hook->wrapper == NULL || hook->done == NULL) {
        release(hook);
        return -1;
    }
    hook->type = (PyTypeObject *)Py_NewRef(type);
    /* What somebody else chained to and left there is not to be chained to itself. */
    if (type->tp_init != hook_init && !hook->init_chained) {
        hook->init = type->tp_init;
        type->tp_init = hook_init;
    }
    if (type->tp_dealloc != hook_dealloc && !hook->dealloc_chained) {
        hook->dealloc = type->tp_dealloc;
        type->tp_dealloc = hook_dealloc;
    }
    if (type->tp_clear != hook_clear && !hook->clear_chained) {
        hook->clear = type->tp_clear;
        type->tp_clear = hook_clear;
    }
    if (hook->wrapper->d_wrapped != (void *)hook_init) {
        hook->wrapped = hook->wrapper->d_wrapped;
        hook->wrapper->d_wrapped = (void *)hook_init;
    }
    hook->on = true;
    if (walk_subclasses(type, redirect) < 0) {
        unhook_tasks();
        return -1;
    }
    return 0;
}

void
unhook_tasks(void)
{
    task_hook *hook = &glue->tasks;
    if (!hook->on) {
        return;
    }
    /* What somebody else put over ours still ends in ours: a later hook must not chain to it. */
    hook->init_chained = hook->type->tp_init != hook_init;
    hook->dealloc_chained = hook->type->tp_dealloc != hook_dealloc;
    hook->clear_chained = hook->type->tp_clear != hook_clear;
    put_back(hook->type);
    if (!hook->dealloc_chained) {
        hook->type->tp_dealloc = hook->dealloc;
    }
    if (!hook->clear_chained) {
        hook->type->tp_clear = hook->clear;
    }
    if (hook->wrapper->d_wrapped == (void *)hook_init) {
        hook->wrapper->d_wrapped = hook->wrapped;
    }
    saved_error saved = error_save();
    if (walk_subclasses(hook->type, put_back) < 0) {
        PyErr_Clear();
    }
    error_restore(saved);
    hook->on = false;
}

bool
hook_tasks_is_on(void)
{
    return glue->tasks.on;
}

PyTypeObject *
task_base_type(PyObject *task)
{
    PyTypeObject *type = glue->tasks.type;
    return type != NULL && PyObject_TypeCheck(task, type) ? type : Py_TYPE(task);
}

/* What done() says; NULL with an exception. */
static PyObject *
call_done(PyObject *task)
{
    task_hook *hook = &glue->tasks;
    if (hook->type != NULL && PyObject_TypeCheck(task, hook->type)
        && Py_IS_TYPE(hook->done, &PyMethodDescr_Type)
        && ((PyMethodDescrObject *)hook->done)->d_method->ml_flags == METH_NOARGS) {
        return ((PyMethodDescrObject *)hook->done)->d_method->ml_meth(task, NULL);
    }
    return PyObject_CallMethod(task, "done", NULL);
}

/* Whether done() gives this, True or False. */
static bool
says_done(PyObject *task, const PyObject *answer)
{
    PyObject *result = call_done(task);
    if (result == NULL) {
        PyErr_Clear();
        return false;
    }
    bool is_so = result == answer;
    Py_DECREF(result);
    return is_so;
}

bool
task_is_done(PyObject *task)
{
    return says_done(task, Py_True);
}

bool
task_is_pending(PyObject *task)
{
    return says_done(task, Py_False);
}
