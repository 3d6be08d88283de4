/* Tasks that are freed while pending: what is to be known of each is taken down while it can be
 * asked, and told to Python once the task is gone: no code of the program's sees half a task.
 *
 * A task that the collector frees is emptied first (tp_clear), after all finalizers: its coroutine
 * has been closed by then, and no longer tells where it waited.
 */
#include "glue.h"

#include "compat.h"
#include "epitaph.h"

/* The coroutine of a task that is about to go, if it was pending and asyncio would say that this is a
 * fault. One that was emptied before has none any more: it was looked at then. */
static PyObject *
coroutine_of_fault(PyObject *task)
{
    if (!task_is_pending(task)) {
        return NULL;
    }
    PyObject *logs = task_attribute(task, "_log_destroy_pending");
    Py_XDECREF(logs);
    PyObject *coroutine = logs == Py_True ? task_attribute(task, "_coro") : NULL;
    if (coroutine == Py_None) {
        Py_CLEAR(coroutine);
    }
    return coroutine;
}

/* Gives up an error: the next part is to be asked without one. */
static PyObject *
or_none(PyObject *part)
{
    if (part != NULL) {
        return part;
    }
    PyErr_Clear();
    Py_RETURN_NONE;
}

/* (serial, born, scope, stack, creator, line, name, coroutine); NULL with an exception. */
static PyObject *
describe(PyObject *task, const lg_record *record, PyObject *coroutine)
{
    PyObject *stack = or_none(records_stack(record->stack));
    PyObject *creator = or_none(records_creator(task));
    PyObject *line = or_none(records_line(task));
    PyObject *name = or_none(task_name(task));
    return Py_BuildValue("KLkNNNNN", (unsigned long long)record->serial, (long long)record->born,
                         (unsigned long)record->scope, stack, creator, line, name,
                         Py_NewRef(coroutine));
}

PyObject *
destroyed_take(PyObject *task)
{
    if (!glue->wants_destroyed || glue->destroyed == NULL || LG_IS_FINALIZING()) {
        return NULL;
    }
    lg_record record;
    PyObject *details = NULL;
    saved_error saved = error_save();
    /* In tp_dealloc the count is zero: a call would free the task a second time. */
    Py_SET_REFCNT(task, Py_REFCNT(task) + 1);
    PyObject *coroutine = coroutine_of_fault(task);
    if (coroutine != NULL && lg_registry_find(glue->tracker->registry, task, &record) == LG_OK
        && record.kind == LG_TASK && !(record.flags & LG_FOUND)) {
        details = describe(task, &record, coroutine);
        if (details == NULL) {
            glue->tracker->dropped++;
        }
    }
    Py_XDECREF(coroutine);
    Py_SET_REFCNT(task, Py_REFCNT(task) - 1);
    error_restore(saved);
    return details;
}

void
destroyed_tell(PyObject *details)
{
    if (details == NULL) {
        return;
    }
    saved_error saved = error_save();
    PyObject *tell = Py_XNewRef(glue->destroyed);
    PyObject *result = tell != NULL ? PyObject_CallObject(tell, details) : NULL;
    if (result == NULL && glue->tracker != NULL) {
        glue->tracker->dropped++;
    }
    Py_XDECREF(result);
    Py_XDECREF(tell);
    Py_DECREF(details);
    error_restore(saved);
}
