#include "glue.h"

#include <stdlib.h>
#include <string.h>

#include "compat.h"
#include "epitaph.h"
#include "leakguard/clock.h"
#include "leakguard/process.h"
#include "leakguard/watermark.h"

glue_context *glue;

/* The thread ends. */
static void
end_local(void *specific)
{
    blocking_loop_end(specific);
    for (size_t i = 0; i < Py_ARRAY_LENGTH(glue->spare_locals); i++) {
        thread_local_state *none = NULL;
        if (atomic_compare_exchange_strong(&glue->spare_locals[i], &none, specific)) {
            return;
        }
    }
    free(specific);
}

/* Zeroed. Memory from the allocator costs a new thread more than all else that is done in it. */
static thread_local_state *
new_local(void)
{
    for (size_t i = 0; i < Py_ARRAY_LENGTH(glue->spare_locals); i++) {
        thread_local_state *spare = NULL;
        if (atomic_load_explicit(&glue->spare_locals[i], memory_order_relaxed) != NULL) {
            spare = atomic_exchange(&glue->spare_locals[i], NULL);
        }
        if (spare != NULL) {
            memset(spare, 0, sizeof(*spare));
            return spare;
        }
    }
    return calloc(1, sizeof(thread_local_state));
}

static int
make_context(void)
{
    glue_context *context = calloc(1, sizeof(*context));
    if (context == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    if (pthread_key_create(&context->local, end_local) != 0) {
        free(context);
        PyErr_SetString(PyExc_RuntimeError, "leakguard: no thread-local storage left");
        return -1;
    }
    context->next_serial = 1;
    glue = context;
    return 0;
}

static int
intern(PyObject **name, const char *text)
{
    Py_XSETREF(*name, PyUnicode_InternFromString(text));
    return *name != NULL ? 0 : -1;
}

int
glue_init(module_state *state)
{
    if (glue == NULL && make_context() < 0) {
        return -1;
    }
    if (glue->own_kinds == NULL) {
        glue->own_kinds = PyList_New(0);
    }
    if (glue->own_kinds == NULL || intern(&glue->eager_start, "eager_start") < 0
        || intern(&glue->qualname, "__qualname__") < 0 || intern(&glue->func, "func") < 0
        || intern(&glue->run, "run") < 0 || intern(&glue->target, "_target") < 0) {
        return -1;
    }
    glue->interp = PyInterpreterState_Get();
    glue->state = state;
    return 0;
}

void
glue_clear(void)
{
    PyObject **owned[] = {
        &glue->own_kinds,  &glue->eager_start,   &glue->qualname,         &glue->func,
        &glue->scope_var,  &glue->current_tasks, &glue->pure_task,        &glue->get_running_loop,
        &glue->pool_marks, &glue->pool_owner,    &glue->thread_type,      &glue->thread_run,
        &glue->tasks.done, &glue->destroyed,     &glue->describe_process, &glue->unclosed,
        &glue->run,        &glue->target,        &glue->spare_arguments,  &glue->run_forever,
    };
    for (size_t i = 0; i < Py_ARRAY_LENGTH(owned); i++) {
        Py_CLEAR(*owned[i]);
    }
    threads_free_spares();
    Py_CLEAR(glue->tasks.wrapper);
    Py_CLEAR(glue->asyncgens.wrapper);
    Py_CLEAR(glue->tasks.type);
    Py_CLEAR(glue->task_ends.type);
}

thread_local_state *
glue_local(void)
{
    thread_local_state *local = pthread_getspecific(glue->local);
    if (local == NULL) {
        local = new_local();
        if (local != NULL && pthread_setspecific(glue->local, local) != 0) {
            free(local);
            local = NULL;
        }
    }
    return local;
}

/* A thread that was there before this installation: looked up once, by its ident. */
static const void *
find_adopted(void)
{
    thread_local_state *local = glue_local();
    if (local == NULL || glue->state == NULL) {
        return NULL;
    }
    local->epoch = glue->epoch;
    local->record = NULL;
    PyObject *ident = PyLong_FromUnsignedLong(PyThread_get_thread_ident());
    if (ident != NULL) {
        local->record = PyDict_GetItemWithError(glue->state->adopted, ident);
        Py_DECREF(ident);
    }
    PyErr_Clear();
    return local->record;
}

static const void *
current_thread(const thread_local_state *local)
{
    return local == NULL || local->epoch != glue->epoch ? find_adopted() : local->record;
}

const void *
glue_current_thread(void)
{
    return current_thread(pthread_getspecific(glue->local));
}

/* The running loop, borrowed. Where the loop was running already when the hook was put in, asyncio
 * is asked (it returns None, and raises nothing, where no loop runs). */
static PyObject *
running_loop(const thread_local_state *local)
{
    if (local != NULL && local->loop_epoch == glue->epoch) {
        return local->running;
    }
    if (glue->get_running_loop == NULL) {
        return NULL;
    }
    PyCFunction function = PyCFunction_GET_FUNCTION(glue->get_running_loop);
    PyObject *loop = function(PyCFunction_GET_SELF(glue->get_running_loop), NULL);
    if (loop == NULL) {
        PyErr_Clear();
        return NULL;
    }
    /* Borrowing is safe: the thread that runs the loop holds it. */
    Py_DECREF(loop);
    return loop == Py_None ? NULL : loop;
}

PyObject *
glue_running_loop(void)
{
    return running_loop(pthread_getspecific(glue->local));
}

/* The task that runs in a loop, as asyncio's dict has it, borrowed; or NULL. While a task runs, that
 * dict does not change, and says the same. */
static PyObject *
task_in(PyObject *loop)
{
    uint64_t version = dict_version(glue->current_tasks);
    if (version != 0 && version == glue->last_task.version && loop == glue->last_task.loop) {
        return glue->last_task.task;
    }
    PyObject *task = PyDict_GetItemWithError(glue->current_tasks, loop);
    if (task == NULL) {
        PyErr_Clear();
    }
    task = task == Py_None ? NULL : task;
    glue->last_task.version = version;
    glue->last_task.loop = loop;
    glue->last_task.task = task;
    return task;
}

static const void *
current_task(PyThreadState *tstate, const thread_local_state *local)
{
    PyObject *loop;
    int known;
    PyObject *task = frames_running_task(tstate, &loop, &known);
    if (task != NULL || glue->current_tasks == NULL || PyDict_GET_SIZE(glue->current_tasks) == 0) {
        return task;
    }
    if (!known) {
        loop = running_loop(local);
    }
    return loop != NULL ? task_in(loop) : NULL;
}

const void *
glue_current_task(PyThreadState *tstate)
{
    return current_task(tstate, pthread_getspecific(glue->local));
}

static uint32_t
current_scope(void)
{
    PyObject *value = NULL;
    if (PyContextVar_Get(glue->scope_var, NULL, &value) < 0) {
        PyErr_Clear();
        return 0;
    }
    if (value == NULL) {
        return 0;
    }
    unsigned long scope = PyLong_Check(value) ? PyLong_AsUnsignedLong(value) : 0;
    Py_DECREF(value);
    return (uint32_t)scope;
}

static inline void
birthplace(PyThreadState *tstate, const thread_local_state *local, const void **ret_creator,
           uint32_t *ret_scope)
{
    *ret_creator = current_task(tstate, local);
    if (*ret_creator == NULL) {
        *ret_creator = current_thread(local);
    }
    *ret_scope = glue->scopes_active != 0 ? current_scope() : 0;
}

void
glue_birthplace(PyThreadState *tstate, const void **ret_creator, uint32_t *ret_scope)
{
    birthplace(tstate, pthread_getspecific(glue->local), ret_creator, ret_scope);
}

void
glue_release_frame(void *context, lg_frame frame)
{
    (void)context;
    Py_DECREF((PyObject *)frame.code);
}

void
glue_after_fork(void)
{
    epitaph_free_all(lg_process_after_fork(glue_current_thread()));
    if (glue->state != NULL) {
        glue_end_where(glue->state->processes, NULL, NULL);
        glue_end_where(glue->state->tempdirs, NULL, NULL);
    }
}

void
glue_end_where(PyObject *dict, bool (*is_gone)(PyObject *object, const void *context),
               const void *context)
{
    if (PyDict_GET_SIZE(dict) == 0) {
        return;
    }
    saved_error saved = error_save();
    PyObject *items = PyDict_Items(dict);
    for (Py_ssize_t i = 0; items != NULL && i < PyList_GET_SIZE(items); i++) {
        PyObject *key = PyTuple_GET_ITEM(PyList_GET_ITEM(items, i), 0);
        PyObject *object = PyTuple_GET_ITEM(PyList_GET_ITEM(items, i), 1);
        if (is_gone != NULL && !is_gone(object, context)) {
            continue;
        }
        glue_death(object, NULL, NULL);
        if (PyDict_GetItemWithError(dict, key) == object) {
            (void)PyDict_DelItem(dict, key);
        }
    }
    Py_XDECREF(items);
    error_restore(saved);
}

void
glue_forget_stacks(void)
{
    for (size_t i = 0; i < RECENT_STACKS; i++) {
        if (glue->recent[i].id != LG_STACK_EMPTY) { /* what was never used has no memory yet */
            glue->recent[i].id = LG_STACK_EMPTY;
        }
    }
}

/* A birth that the tracker has not taken, with that status. */
static LG_COLD uint64_t
record_otherwise(lg_status status, const lg_stack *stack, lg_stack_id *stack_id,
                 const lg_birth *birth, bool *ret_known)
{
    uint64_t serial = 0;
    lg_tracker *tracker = glue->tracker;
    if (status == LG_FULL) {
        /* Releasing code objects may run Python code, which may uninstall. */
        glue_forget_stacks();
        lg_watermark_before_evict(tracker);
        lg_depot_evict(tracker->depot, glue_release_frame, NULL);
        if (glue->tracker != tracker) {
            return 0;
        }
        status = lg_tracker_birth(tracker, stack, stack_id, birth, &serial);
    }
    if (status == LG_FULL) {
        lg_stack empty = {0};
        status = lg_tracker_birth(tracker, &empty, NULL, birth, &serial);
        tracker->dropped++;
    }
    *ret_known = status == LG_EXISTS;
    if (status == LG_OK) {
        return serial;
    }
    if (status != LG_EXISTS) {
        tracker->dropped++;
    }
    return 0;
}

/* *stack_id: as lg_tracker_birth has it. */
static inline uint64_t
record_birth(const lg_stack *stack, lg_stack_id *stack_id, const lg_birth *birth, bool *ret_known)
{
    uint64_t serial;
    lg_status status = lg_tracker_birth(glue->tracker, stack, stack_id, birth, &serial);
    if (LG_RARELY(status != LG_OK)) {
        return record_otherwise(status, stack, stack_id, birth, ret_known);
    }
    *ret_known = false;
    return serial;
}

/* Apart, for the room that the frames take. */
static __attribute__((noinline)) uint64_t
walk_and_record(PyThreadState *tstate, const frames_mark *loop, recent_stack *recent,
                const lg_birth *birth, bool *ret_known)
{
    lg_frame frames[glue->depth];
    lg_stack stack;
    lg_stack_id id = LG_STACK_EMPTY;
    frames_walk(tstate, *loop, frames, glue->depth, &stack);
    uint64_t serial = record_birth(&stack, &id, birth, ret_known);
    if (serial != 0 && id != LG_STACK_EMPTY
        && lg_depot_get(glue->tracker->depot, id, &recent->stack) == LG_OK) {
        recent->id = id;
        frames_look(tstate, loop, &recent->inside);
    }
    return serial;
}

static inline bool
is_same(PyThreadState *tstate, const frames_mark *loop, recent_stack *recent)
{
    if (frames_stand(tstate, loop, &recent->inside)) {
        return true;
    }
    if (!frames_match(tstate, *loop, &recent->stack)) {
        return false;
    }
    frames_look(tstate, loop, &recent->inside);
    return true;
}

uint64_t
glue_birth(PyThreadState *tstate, lg_kind kind, const void *object, const void *creator,
           bool *ret_known)
{
    if (lg_process_forked()) {
        glue_after_fork();
    }
    thread_local_state *local = pthread_getspecific(glue->local);
    static const frames_mark none = {NULL, NULL, 0};
    const frames_mark *loop = &none;
    if (local != NULL && local->loop_epoch == glue->epoch) {
        loop = &local->loop;
    }
    lg_birth birth = {
        .object = object,
        .creator = creator,
        .born = lg_clock_now(),
        .kind = kind,
    };
    if (creator == NULL) {
        birthplace(tstate, local, &birth.creator, &birth.scope);
    }
    recent_stack *recent = &glue->recent[frames_key(tstate) % RECENT_STACKS];
    uint64_t serial;
    if (recent->id != LG_STACK_EMPTY && is_same(tstate, loop, recent)) {
        serial = record_birth(&recent->stack, &recent->id, &birth, ret_known);
    }
    else {
        serial = walk_and_record(tstate, loop, recent, &birth, ret_known);
    }
    glue->seen[kind] += !*ret_known;
    return serial;
}

uint64_t
glue_adopt(lg_kind kind, const void *object)
{
    bool known;
    lg_stack empty = {0};
    lg_birth birth = {
        .object = object,
        .born = lg_clock_now(),
        .kind = kind,
        .flags = LG_FOUND,
    };
    return record_birth(&empty, NULL, &birth, &known);
}

/* Hangs a note on the ghost of a creator whose children live on. */
static LG_COLD void
annotate(lg_tracker *tracker, const lg_removed *removed, epitaph *note)
{
    /* Describing ran Python code: tracking may have ended, or the children gone. */
    if (note != NULL
        && (glue->tracker != tracker
            || lg_registry_annotate(tracker->registry, removed, &note->link) != LG_OK)) {
        epitaph_free_all(&note->link);
    }
}

void
glue_death(const void *key, epitaph *(*describe)(void *subject), void *subject)
{
    lg_removed removed;
    lg_tracker *tracker = glue->tracker;
    if (tracker == NULL || lg_tracker_death(tracker, key, &removed) != LG_OK) {
        return;
    }
    if (LG_RARELY(removed.notes != NULL)) {
        epitaph_free_all(removed.notes);
    }
    if (LG_RARELY(removed.is_creator && describe != NULL)) {
        annotate(tracker, &removed, describe(subject));
    }
    else if (LG_RARELY(epitaphs_are_prepared())) {
        epitaph *note = epitaph_prepared(key); /* its children went first: of no use any more */
        if (note != NULL) {
            epitaph_free_all(&note->link);
        }
    }
}

void
glue_cancel(const void *key)
{
    lg_removed removed;
    if (glue->tracker != NULL && lg_tracker_cancel(glue->tracker, key, &removed) == LG_OK) {
        epitaph_free_all(removed.notes);
    }
}
