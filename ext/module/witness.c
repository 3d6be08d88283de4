/* The witness: counts births a second time through CPython's own channels, for comparison with
 * what the hooks saw. Thread starts by the audit events (3.12+), task objects by the reference
 * tracer (3.13+). Used by `doctor`, the tests and LEAKGUARD_WITNESS=1 only: an audit hook makes
 * every audit event build its arguments, and cannot be taken out again.
 */
#include "glue.h"

#include <string.h>

#include "compat.h"

#ifdef LG_HAVE_THREAD_AUDIT
static int
count_thread_starts(const char *event, PyObject *args, void *context)
{
    (void)args;
    (void)context;
    /* Rejects nearly every event by its first character. */
    if (event[0] != '_' || !glue->witness.on) {
        return 0;
    }
    if ((strcmp(event, "_thread.start_new_thread") == 0
         || strcmp(event, "_thread.start_joinable_thread") == 0)
        && PyThreadState_Get()->interp == glue->interp) {
        glue->witness.threads++;
    }
    return 0;
}

static int
watch_threads(void)
{
    if (!glue->witness.audited) {
        if (PySys_AddAuditHook(count_thread_starts, NULL) < 0) {
            return -1;
        }
        glue->witness.audited = true;
    }
    return 0;
}
#else
static int
watch_threads(void)
{
    return 0;
}
#endif

#ifdef LG_HAVE_REFERENCE_TRACER
static bool
is_task(PyTypeObject *type)
{
    return (glue->tasks.type != NULL && PyType_IsSubtype(type, glue->tasks.type))
           || (glue->pure_task != NULL && PyType_IsSubtype(type, (PyTypeObject *)glue->pure_task));
}

static int
count_tasks(PyObject *object, PyRefTracerEvent event, void *context)
{
    (void)context;
    /* 3.15 calls once more, without an object, when a tracer is removed. */
    if (object != NULL && event == PyRefTracer_CREATE
        && PyType_HasFeature(Py_TYPE(object), Py_TPFLAGS_HEAPTYPE)
        && PyThreadState_Get()->interp == glue->interp && is_task(Py_TYPE(object))) {
        glue->witness.tasks++;
    }
    if (glue->witness.chained != NULL) {
        return ((PyRefTracer)glue->witness.chained)(object, event, glue->witness.chained_context);
    }
    return 0;
}

static int
watch_tasks(void)
{
    void *context;
    PyRefTracer found = PyRefTracer_GetTracer(&context);
    if (found == count_tasks) {
        return 0;
    }
    glue->witness.chained = (void *)found;
    glue->witness.chained_context = context;
    return PyRefTracer_SetTracer(count_tasks, NULL);
}

static void
unwatch_tasks(void)
{
    void *context;
    if (PyRefTracer_GetTracer(&context) == count_tasks) {
        PyRefTracer_SetTracer((PyRefTracer)glue->witness.chained, glue->witness.chained_context);
        glue->witness.chained = NULL;
    }
}
#else
static int
watch_tasks(void)
{
    return 0;
}

static void
unwatch_tasks(void)
{
}
#endif

int
witness_start(void)
{
    if (watch_threads() < 0 || watch_tasks() < 0) {
        return -1;
    }
    glue->witness.threads = 0;
    glue->witness.tasks = 0;
    glue->witness.seen_threads = glue->seen[LG_THREAD];
    glue->witness.seen_tasks = glue->seen[LG_TASK];
    glue->witness.on = true;
    return 0;
}

void
witness_stop(void)
{
    glue->witness.on = false;
    unwatch_tasks();
}

static PyObject *
pair(bool available, uint64_t witnessed, uint64_t seen)
{
    if (!available) {
        Py_RETURN_NONE;
    }
    return Py_BuildValue("KK", (unsigned long long)witnessed, (unsigned long long)seen);
}

PyObject *
witness_counts(void)
{
    bool threads = false;
    bool tasks = false;
#ifdef LG_HAVE_THREAD_AUDIT
    threads = true;
#endif
#ifdef LG_HAVE_REFERENCE_TRACER
    tasks = true;
#endif
    return Py_BuildValue(
        "{sNsN}", "thread",
        pair(threads, glue->witness.threads, glue->seen[LG_THREAD] - glue->witness.seen_threads),
        "task", pair(tasks, glue->witness.tasks, glue->seen[LG_TASK] - glue->witness.seen_tasks));
}
