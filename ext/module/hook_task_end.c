/* The end of asyncio's C tasks, also of those that something holds when they are done.
 *
 * A task ends inside one of its steps. Each begins in a TaskStepMethWrapper, which the loop calls, or
 * in a builtin method `task_wakeup`, which the future that the task waits for has among its
 * callbacks; an eager task's first one runs inside tp_init (hook_task.c). So tp_call of the first
 * and ml_meth of the second are replaced, while somebody counts tasks: nothing else that the program does
 * is touched, and no callback of a task is added. The type has no name in its module: it is found
 * among the subclasses of object. The builtin's definition is found in the callbacks of the first
 * future that a task is seen to wait for; a task that waits for a future of another class than the
 * C one before that happened, and ends there, ends for us when it is freed; so does every task of
 * the pure-Python class.
 * (Modules/_asynciomodule.c: task_call_step_soon, TaskStepMethWrapper_call, TaskWakeupDef,
 * task_step_impl; the same on 3.11 to 3.15.)
 */
#include "glue.h"

#include <string.h>

#include "compat.h"
#include "epitaph.h"

static PyObject *
hook_wakeup(PyObject *task, PyObject *future);

/* The getter of a C type's attribute; NULL where it has no such one. */
static PyGetSetDef *
getter_of(PyTypeObject *type, const char *name)
{
    PyObject *dict = LG_TYPE_DICT(type);
    PyObject *found = dict != NULL ? PyDict_GetItemString(dict, name) : NULL;
    PyGetSetDef *definition = NULL;
    if (found != NULL && Py_IS_TYPE(found, &PyGetSetDescr_Type)) {
        definition = ((PyGetSetDescrObject *)found)->d_getset; /* static in the module */
    }
    Py_XDECREF(dict);
    return definition;
}

/* The wakeup of `task` among the callbacks (callback, context) of a future. */
static PyMethodDef *
wakeup_among(PyObject *callbacks, PyObject *task)
{
    for (Py_ssize_t i = 0; PyList_Check(callbacks) && i < PyList_GET_SIZE(callbacks); i++) {
        PyObject *pair = PyList_GET_ITEM(callbacks, i);
        PyObject *callback = PyTuple_Check(pair) ? PyTuple_GET_ITEM(pair, 0) : Py_None;
        if (PyCFunction_CheckExact(callback) && PyCFunction_GET_SELF(callback) == task
            && PyCFunction_GET_FLAGS(callback) == METH_O) {
            PyMethodDef *definition = ((PyCFunctionObject *)callback)->m_ml;
            if (strcmp(definition->ml_name, "task_wakeup") == 0) {
                return definition;
            }
        }
    }
    return NULL;
}

static void
find_wakeup(task_end_hook *hook, PyObject *task)
{
    saved_error saved = error_save();
    PyObject *future = hook->waits_for->get(task, hook->waits_for->closure);
    PyTypeObject *type = glue->tasks.type->tp_base; /* _asyncio.Future */
    PyObject *callbacks = NULL;
    if (future != NULL && PyObject_TypeCheck(future, type)) {
        callbacks = hook->callbacks->get(future, hook->callbacks->closure);
    }
    hook->wakeup = callbacks != NULL ? wakeup_among(callbacks, task) : NULL;
    if (hook->wakeup != NULL) {
        hook->wake = hook->wakeup->ml_meth;
        hook->wakeup->ml_meth = hook_wakeup;
    }
    Py_XDECREF(callbacks);
    Py_XDECREF(future);
    PyErr_Clear();
    error_restore(saved);
}

void
task_ends_look(PyObject *task)
{
    task_end_hook *hook = &glue->task_ends;
    if (!hook->on || !glue_tracks(PyThreadState_Get())) {
        return;
    }
    if (task_is_done(task)) {
        (void)lg_registry_end(glue->tracker->registry, task);
    }
    else if (hook->wakeup == NULL) {
        find_wakeup(hook, task);
    }
}

/* Whoever calls these holds what it calls, and that the task. */

static PyObject *
hook_wakeup(PyObject *task, PyObject *future)
{
    PyObject *result = glue->task_ends.wake(task, future);
    task_ends_look(task);
    return result;
}

static PyObject *
hook_step(PyObject *self, PyObject *args, PyObject *kwargs)
{
    task_end_hook *hook = &glue->task_ends;
    PyObject *task = hook->task_of->get(self, hook->task_of->closure);
    Py_XDECREF(task); /* `self` holds it */
    PyObject *result = hook->step(self, args, kwargs);
    if (task != NULL && task != Py_None) {
        task_ends_look(task);
    }
    return result;
}

/* Finds what is to be replaced; false where this asyncio is not built as is known. */
static bool
find_parts(task_end_hook *hook)
{
    if (hook->type != NULL && hook->module == glue->tasks.type) {
        return true;
    }
    PyObject *classes =
        PyObject_CallMethod((PyObject *)&PyType_Type, "__subclasses__", "O", &PyBaseObject_Type);
    for (Py_ssize_t i = 0; classes != NULL && i < PyList_GET_SIZE(classes); i++) {
        PyTypeObject *type = (PyTypeObject *)PyList_GET_ITEM(classes, i);
        const char *name = strrchr(type->tp_name, '.');
        if (strcmp(name != NULL ? name + 1 : type->tp_name, "TaskStepMethWrapper") == 0
            && (type->tp_flags & Py_TPFLAGS_BASETYPE) == 0) {
            Py_XSETREF(hook->type, (PyTypeObject *)Py_NewRef(type));
        }
    }
    Py_XDECREF(classes);
    PyErr_Clear();
    if (hook->type == NULL || glue->tasks.type == NULL) {
        return false;
    }
    hook->task_of = getter_of(hook->type, "__self__");
    hook->waits_for = getter_of(glue->tasks.type, "_fut_waiter");
    hook->callbacks = getter_of(glue->tasks.type->tp_base, "_callbacks");
    bool found = hook->task_of != NULL && hook->waits_for != NULL && hook->callbacks != NULL;
    hook->module = found ? glue->tasks.type : NULL;
    return found;
}

void
task_ends_hook(void)
{
    task_end_hook *hook = &glue->task_ends;
    if (hook->on || hook->wanted == 0 || !hook_tasks_is_on()) {
        return;
    }
    saved_error saved = error_save();
    bool found = find_parts(hook);
    error_restore(saved);
    if (!found) {
        glue->failures++;
        return;
    }
    /* What somebody else chained to and left there is not to be chained to itself. */
    if (hook->type->tp_call != hook_step && !hook->step_chained) {
        hook->step = hook->type->tp_call;
        hook->type->tp_call = hook_step;
    }
    if (hook->wakeup != NULL && hook->wakeup->ml_meth != hook_wakeup && !hook->wake_chained) {
        hook->wake = hook->wakeup->ml_meth;
        hook->wakeup->ml_meth = hook_wakeup;
    }
    hook->on = true;
}

static void
task_ends_unhook(void)
{
    task_end_hook *hook = &glue->task_ends;
    if (!hook->on) {
        return;
    }
    hook->on = false;
    hook->step_chained = hook->type->tp_call != hook_step;
    if (!hook->step_chained) {
        hook->type->tp_call = hook->step;
    }
    if (hook->wakeup != NULL) {
        hook->wake_chained = hook->wakeup->ml_meth != hook_wakeup;
        if (!hook->wake_chained) {
            hook->wakeup->ml_meth = hook->wake;
        }
    }
}

bool
task_ends_is_on(void)
{
    const task_end_hook *hook = &glue->task_ends;
    return (hook->type != NULL && hook->type->tp_call == hook_step)
           || (hook->wakeup != NULL && hook->wakeup->ml_meth == hook_wakeup);
}

void
task_ends_stop(void)
{
    glue->task_ends.wanted = 0;
    task_ends_unhook();
}

void
task_ends_want(void)
{
    glue->task_ends.wanted++;
    task_ends_hook();
}

void
task_ends_release(void)
{
    glue->task_ends.wanted--;
    if (glue->task_ends.wanted == 0) {
        task_ends_unhook();
    }
}
