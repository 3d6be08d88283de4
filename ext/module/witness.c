/* The witness: counts births a second time through CPython's own channels, for comparison with
 * what the hooks saw. Thread starts (3.12+) and process starts by the audit events, task objects by
 * the reference tracer (3.13+). Used by `doctor`, the tests and LEAKGUARD_WITNESS=1 only: an audit
 * hook makes every audit event build its arguments, and cannot be taken out again.
 */
#include "glue.h"

#include <string.h>

#include "compat.h"

static void
count_thread_start(const char *event)
{
    if (strcmp(event, "_thread.start_new_thread") == 0
        || strcmp(event, "_thread.start_joinable_thread") == 0) {
        glue->witness.threads++;
    }
}

/* Whether a Popen was announced in this thread, and has not begun. */
static bool
is_popened(const thread_local_state *local)
{
    return local != NULL && local->popened == glue->witness.session;
}

/* Popen announces itself and may then call os.posix_spawn, which does too: one process. */
static void
count_process_start(const char *event)
{
    thread_local_state *local = glue_local();
    bool popened = is_popened(local);
    if (strcmp(event, "subprocess.Popen") == 0) {
        if (popened) {
            glue->witness.processes--; /* the one before it never began */
        }
        else if (local != NULL) {
            local->popened = glue->witness.session;
            glue->witness.popened++;
        }
        glue->witness.processes++;
    }
    else if (strcmp(event, "os.posix_spawn") == 0 && popened) {
        local->popened = 0;
        glue->witness.popened--;
    }
    else if (strcmp(event, "os.posix_spawn") == 0 || strcmp(event, "os.fork") == 0
             || strcmp(event, "os.forkpty") == 0) {
        glue->witness.processes++;
    }
}

static int
count_starts(const char *event, PyObject *args, void *context)
{
    (void)args;
    (void)context;
    /* Rejects nearly every event by its first character. */
    if (!glue->witness.on || (event[0] != '_' && event[0] != 'o' && event[0] != 's')) {
        return 0;
    }
    PyThreadState *tstate = LG_CURRENT_TSTATE();
    if (tstate == NULL || tstate->interp != glue->interp) {
        return 0;
    }
    if (event[0] == '_') {
        count_thread_start(event);
    }
    else {
        count_process_start(event);
    }
    return 0;
}

static int
watch_starts(void)
{
    if (!glue->witness.audited) {
        if (PySys_AddAuditHook(count_starts, NULL) < 0) {
            return -1;
        }
        glue->witness.audited = true;
    }
    return 0;
}

void
witness_announced(void)
{
    glue->witness.seen_processes++;
}

void
witness_refused(void)
{
    glue->witness.seen_processes--;
}

void
witness_popened(void)
{
    thread_local_state *local = pthread_getspecific(glue->local);
    if (glue->witness.on && is_popened(local)) {
        local->popened = 0;
        glue->witness.popened--;
        glue->witness.seen_processes++;
    }
}

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
    if (watch_starts() < 0 || watch_tasks() < 0) {
        return -1;
    }
    glue->witness.threads = 0;
    glue->witness.tasks = 0;
    glue->witness.processes = 0;
    glue->witness.seen_processes = 0;
    glue->witness.popened = 0;
    glue->witness.session++;
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
    uint64_t processes = glue->witness.processes - glue->witness.popened;
    bool sees_processes = glue->processes[START_FORK].on;
    return Py_BuildValue(
        "{sNsNsN}", "process", pair(sees_processes, processes, glue->witness.seen_processes),
        "thread",
        pair(threads, glue->witness.threads, glue->seen[LG_THREAD] - glue->witness.seen_threads),
        "task", pair(tasks, glue->witness.tasks, glue->seen[LG_TASK] - glue->witness.seen_tasks));
}
