#include "blocked_tasks.h"

#include <stdlib.h>

#include "glue.h"

typedef struct {
    blocked_tasks *list;
    bool failed;
} gathering;

static bool
collect_task(void *context, const lg_record *record)
{
    gathering *self = context;
    blocked_tasks *list = self->list;
    PyObject *task = (PyObject *)record->object;
    if (Py_REFCNT(task) <= 0) {
        return true;
    }
    if (list->count == list->capacity) {
        size_t capacity = list->capacity != 0 ? list->capacity * 2 : 64;
        blocked_task *larger = realloc(list->tasks, capacity * sizeof(*larger));
        if (larger == NULL) {
            self->failed = true;
            return false;
        }
        list->tasks = larger;
        list->capacity = capacity;
    }
    list->tasks[list->count++] = (blocked_task){
        .task = Py_NewRef(task),
        .serial = record->serial,
    };
    return true;
}

/* An attribute by the generic look-up: no __getattribute__ of the program's runs. New reference;
 * NULL, without an exception, where it is absent or None. */
static PyObject *
attribute(PyObject *object, const char *name)
{
    PyObject *key = PyUnicode_InternFromString(name);
    PyObject *value = key != NULL ? PyObject_GenericGetAttr(object, key) : NULL;
    Py_XDECREF(key);
    if (value == NULL) {
        PyErr_Clear();
    }
    else if (value == Py_None) {
        Py_CLEAR(value);
    }
    return value;
}

static bool
is_pending(PyObject *future)
{
    PyObject *done = PyObject_CallMethod(future, "done", NULL);
    bool pending = done == Py_False;
    Py_XDECREF(done);
    if (done == NULL) {
        PyErr_Clear();
    }
    return pending;
}

static void
release(blocked_task *blocked)
{
    Py_CLEAR(blocked->task);
    Py_CLEAR(blocked->future);
    Py_CLEAR(blocked->coroutine);
}

/* Keeps those tasks that wait for a future which is not done. */
static void
keep_blocked(blocked_tasks *list)
{
    size_t kept = 0;
    for (size_t i = 0; i < list->count; i++) {
        blocked_task found = list->tasks[i];
        if (!task_is_done(found.task)) {
            found.future = attribute(found.task, "_fut_waiter");
            found.coroutine = attribute(found.task, "_coro");
        }
        if (found.future != NULL && is_pending(found.future)) {
            list->tasks[kept++] = found;
        }
        else {
            release(&found);
        }
    }
    list->count = kept;
}

bool
blocked_tasks_find(blocked_tasks *list)
{
    gathering all = {.list = list};
    lg_registry_visit_since(glue->tracker->registry, 0, LG_KIND_BIT(LG_TASK), collect_task, &all);
    keep_blocked(list);
    return !all.failed;
}

void
blocked_tasks_free(blocked_tasks *list)
{
    for (size_t i = 0; i < list->count; i++) {
        release(&list->tasks[i]);
    }
    free(list->tasks);
}
