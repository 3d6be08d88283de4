/* Event loops that do not come back to their selector in time: tells leakguard/blocking.h when a
 * thread's loop goes to its selector and when it is back.
 *
 * asyncio's loops call a method of a select object: its method-table entry is replaced
 * (Modules/selectmodule.c; method descriptors read ml_meth at each call, Objects/descrobject.c and
 * Python/bytecodes.c). Only the object that the running loop itself waits on counts: loop._selector
 * is the `selectors` object, its _selector the select object (Lib/selectors.py, the same on 3.11
 * to 3.15); SelectSelector has none and is known by its set of readers. uvloop waits in libuv,
 * without the GIL: the GOT entry for epoll_pwait of its own module is replaced.
 */
#define _GNU_SOURCE
#include "glue.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#ifdef __linux__
#include <sys/epoll.h>
#endif

#include "compat.h"

struct loop_watch {
    lg_loop *loop;
    PyThreadState *tstate; /* of the thread that runs it, which is this struct's too */
    const void *selector;  /* what it waits on, to be compared only; NULL for uvloop */
    frames_mark mark;
    frames_dump dump; /* written by the signal handler */
};

static void
look(void *context)
{
    loop_watch *watch = context;
    if (LG_IS_FINALIZING()) {
        watch->dump.count = 0;
    }
    else {
        frames_take_down(watch->tstate, watch->mark, &watch->dump);
    }
}

static PyObject *
text_as_object(const frames_dump *dump, struct frames_text text)
{
    return PyUnicode_FromKindAndData(text.kind, dump->bytes + text.at, text.length);
}

/* ((file, line, function), ...), outermost first. */
static PyObject *
frames_as_object(const frames_dump *dump)
{
    PyObject *frames = PyTuple_New(dump->count);
    for (uint32_t i = 0; frames != NULL && i < dump->count; i++) {
        const struct frames_taken *taken = &dump->frames[dump->count - 1 - i];
        PyObject *frame = Py_BuildValue("NiN", text_as_object(dump, taken->file), taken->line,
                                        text_as_object(dump, taken->function));
        if (frame == NULL) {
            Py_CLEAR(frames);
            break;
        }
        PyTuple_SET_ITEM(frames, (Py_ssize_t)i, frame);
    }
    return frames;
}

static PyObject *
natives_as_object(const lg_block *block)
{
    PyObject *frames = PyTuple_New(block->count);
    for (uint32_t i = 0; frames != NULL && i < block->count; i++) {
        uint32_t place = block->count - 1 - i;
        /* All but the innermost are return addresses: the call stands before them. */
        PyObject *address = PyLong_FromUnsignedLongLong(block->frames[place] - (place != 0));
        if (address == NULL) {
            Py_CLEAR(frames);
            break;
        }
        PyTuple_SET_ITEM(frames, (Py_ssize_t)i, address);
    }
    return frames;
}

/* (begin, duration, ident, address of the coroutine, of the task, frames, the coroutine's place in
 * them or -1, native frames) */
static PyObject *
block_as_object(const loop_watch *watch, const lg_block *block)
{
    static const frames_dump nothing;
    const frames_dump *dump = block->sampled ? &watch->dump : &nothing;
    bool shown = dump->coroutine != NULL && dump->coroutine_at < dump->count;
    int place = shown ? (int)(dump->count - 1 - dump->coroutine_at) : -1;
    return Py_BuildValue("LLkKKNiN", (long long)block->begin, (long long)block->duration,
                         PyThread_get_thread_ident(),
                         (unsigned long long)(uintptr_t)dump->coroutine,
                         (unsigned long long)(uintptr_t)dump->task, frames_as_object(dump), place,
                         natives_as_object(block));
}

/* In the loop's thread, between two of its iterations; uvloop does not hold the GIL here. */
static void
tell(void *context, const lg_block *block)
{
    const loop_watch *watch = context;
    if (LG_IS_FINALIZING()) {
        return;
    }
    PyGILState_STATE state = PyGILState_Ensure();
    saved_error saved = error_save();
    PyObject *listener = Py_XNewRef(glue->blocking.listener);
    PyObject *told = listener != NULL ? block_as_object(watch, block) : NULL;
    PyObject *result = told != NULL ? PyObject_CallOneArg(listener, told) : NULL;
    glue->failures += listener != NULL && result == NULL;
    Py_XDECREF(result);
    Py_XDECREF(told);
    Py_XDECREF(listener);
    PyErr_Clear();
    error_restore(saved);
    PyGILState_Release(state);
}

static PyObject *
attribute(PyObject *object, const char *name)
{
    PyObject *value = object != NULL ? PyObject_GetAttrString(object, name) : NULL;
    PyErr_Clear();
    return value;
}

static bool
is_uvloop(PyObject *loop)
{
    for (PyTypeObject *type = Py_TYPE(loop); type != NULL; type = type->tp_base) {
        if (strcmp(type->tp_name, "uvloop.loop.Loop") == 0) {
            return true;
        }
    }
    return false;
}

/* What the loop waits on; NULL where it is none of what is hooked. */
static const void *
selector_of(PyObject *loop)
{
    PyObject *outer = attribute(loop, "_selector");
    PyObject *inner = attribute(outer, "_selector");
    PyObject *readers = inner == NULL ? attribute(outer, "_readers") : NULL;
    const void *key = inner != NULL ? inner : readers;
    Py_XDECREF(readers);
    Py_XDECREF(inner);
    Py_XDECREF(outer);
    return key;
}

static void
begin(thread_local_state *local, PyThreadState *tstate, const void *selector)
{
    loop_watch *watch = calloc(1, sizeof(*watch));
    if (watch == NULL) {
        return;
    }
    watch->tstate = tstate;
    watch->selector = selector;
    watch->mark = local->loop_epoch == glue->epoch ? local->loop : (frames_mark){NULL, NULL, 0};
    watch->loop = lg_loop_begin(watch);
    if (watch->loop == NULL) {
        free(watch);
        return;
    }
    local->watch = watch;
}

void
blocking_loop_begin(thread_local_state *local, PyThreadState *tstate, PyObject *loop)
{
    blocking_loop_end(local);
    local->asked = lg_blocking_generation();
    if (!lg_blocking_is_on()) {
        return;
    }
    saved_error saved = error_save();
    bool is_uv = is_uvloop(loop);
    const void *selector = is_uv ? NULL : selector_of(loop);
    bool known = is_uv ? glue->blocking.slots.count != 0 : selector != NULL;
    if (known && local->watch == NULL) {
        begin(local, tstate, selector);
    }
    error_restore(saved);
}

void
blocking_loop_end(thread_local_state *local)
{
    loop_watch *watch = local->watch;
    if (watch != NULL) {
        /* Telling runs Python code, which may come back here. */
        local->watch = NULL;
        lg_loop_end(watch->loop);
        free(watch);
    }
}

/* The calling thread's, where it is watched now; of a loop that ran before it was asked for, too. */
static loop_watch *
current_watch(void)
{
    thread_local_state *local = glue_local();
    if (local == NULL || !lg_blocking_is_on()) {
        return NULL;
    }
    if (local->asked != lg_blocking_generation()) {
        PyThreadState *tstate = PyThreadState_Get();
        PyObject *loop = glue_tracks(tstate) ? glue_running_loop() : NULL;
        blocking_loop_end(local);
        if (loop != NULL) {
            blocking_loop_begin(local, tstate, loop);
        }
    }
    return local->watch;
}

static loop_watch *
goes(const void *selector)
{
    loop_watch *watch = current_watch();
    if (watch == NULL || watch->selector != selector) {
        return NULL;
    }
    lg_loop_idle(watch->loop);
    return watch;
}

/* Signal handlers in Python have run meanwhile, and may have ended all. */
static void
is_back(const loop_watch *watch)
{
    thread_local_state *local = pthread_getspecific(glue->local);
    if (watch != NULL && local != NULL && local->watch == watch) {
        lg_loop_busy(watch->loop);
    }
}

typedef PyObject *(*fast)(PyObject *, PyObject *const *, Py_ssize_t);
typedef PyObject *(*fast_with_keywords)(PyObject *, PyObject *const *, Py_ssize_t, PyObject *);
#define ORIGINAL(number, type) ((type)(void (*)(void))glue->blocking.selectors[number].original)
#define AS_FUNCTION(function) ((PyCFunction)(void (*)(void))(function))

#define METHOD(number)                                                                             \
    static PyObject *method_##number(PyObject *self, PyObject *const *args, Py_ssize_t count)      \
    {                                                                                              \
        loop_watch *watch = goes(self);                                                            \
        PyObject *result = ORIGINAL(number, fast)(self, args, count);                              \
        is_back(watch);                                                                            \
        return result;                                                                             \
    }

static PyObject *
epoll_poll(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    loop_watch *watch = goes(self);
    PyObject *result = ORIGINAL(SELECT_EPOLL, fast_with_keywords)(self, args, count, names);
    is_back(watch);
    return result;
}

static PyObject *
select_select(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    loop_watch *watch = count > 0 ? goes(args[0]) : NULL;
    PyObject *result = ORIGINAL(SELECT_SELECT, fast)(module, args, count);
    is_back(watch);
    return result;
}

METHOD(SELECT_POLL)
METHOD(SELECT_DEVPOLL)
METHOD(SELECT_KQUEUE)

static const struct {
    const char *type, *name;
    int flags;
    PyCFunction replacement;
} entries[SELECTORS] = {
    [SELECT_EPOLL] = {"epoll", "poll", METH_FASTCALL | METH_KEYWORDS, AS_FUNCTION(epoll_poll)},
    [SELECT_POLL] = {"poll", "poll", METH_FASTCALL, AS_FUNCTION(method_SELECT_POLL)},
    [SELECT_DEVPOLL] = {"devpoll", "poll", METH_FASTCALL, AS_FUNCTION(method_SELECT_DEVPOLL)},
    [SELECT_KQUEUE] = {"kqueue", "control", METH_FASTCALL, AS_FUNCTION(method_SELECT_KQUEUE)},
    [SELECT_SELECT] = {NULL, "select", METH_FASTCALL, AS_FUNCTION(select_select)},
};

/* What has the method: a type of the module, or the module itself; owned, NULL without an exception
 * where this system has none. select.poll is no type but a function that makes an object of one. */
static PyObject *
owner_of(PyObject *module, const char *type_name)
{
    if (type_name == NULL) {
        return Py_NewRef(module);
    }
    PyObject *type = attribute(module, type_name);
    if (type != NULL && !PyType_Check(type)) {
        PyObject *object = PyObject_CallNoArgs(type);
        Py_SETREF(type, object != NULL ? Py_NewRef((PyObject *)Py_TYPE(object)) : NULL);
        Py_XDECREF(object);
        PyErr_Clear();
    }
    return type;
}

int
hook_select(PyObject *module)
{
    int result = 0;
    for (int i = 0; result == 0 && i < SELECTORS; i++) {
        PyObject *owner = owner_of(module, entries[i].type);
        if (owner != NULL) {
            result = method_replace(&glue->blocking.selectors[i], owner, entries[i].name,
                                    entries[i].flags, entries[i].replacement, true);
            Py_DECREF(owner);
        }
    }
    return result;
}

#ifdef __linux__

typedef int (*epoll_function)(int, struct epoll_event *, int, int, const sigset_t *);

static int
uvloop_epoll_pwait(int poll, struct epoll_event *events, int most, int timeout,
                   const sigset_t *mask)
{
    epoll_function original = (epoll_function)atomic_load(&glue->blocking.epoll_pwait);
    thread_local_state *local = pthread_getspecific(glue->local);
    if (local != NULL && local->running != NULL && local->asked != lg_blocking_generation()
        && local->loop_epoch == glue->epoch && lg_blocking_is_on()) {
        /* A loop that ran before it was asked for. */
        local->asked = lg_blocking_generation();
        blocking_loop_end(local);
        begin(local, PyGILState_GetThisThreadState(), NULL);
    }
    loop_watch *watch = local != NULL ? local->watch : NULL;
    if (watch == NULL || watch->selector != NULL) {
        return original(poll, events, most, timeout, mask);
    }
    lg_loop_idle(watch->loop);
    int result = original(poll, events, most, timeout, mask);
    int saved = errno;
    lg_loop_busy(watch->loop);
    errno = saved;
    return result;
}

#define UVLOOP_WAIT ((void (*)(void))uvloop_epoll_pwait)

int
hook_uvloop(PyObject *module)
{
    const PyModuleDef *inside = PyModule_GetDef(module);
    if (inside == NULL) {
        PyErr_Clear();
        return 0;
    }
    if (glue->blocking.slots.count == 0) {
        (void)lg_interpose_object(&glue->blocking.slots, inside, "epoll_pwait", UVLOOP_WAIT,
                                  &glue->blocking.epoll_pwait);
    }
    return 0;
}

static void
unhook_uvloop(void)
{
    lg_interpose_object_end(&glue->blocking.slots, UVLOOP_WAIT);
}

#else

int
hook_uvloop(PyObject *module)
{
    (void)module;
    return 0;
}

static void
unhook_uvloop(void)
{
}

#endif

int
blocking_start(double bound, PyObject *listener)
{
    static const lg_blocking_config config = {.look = look, .tell = tell};
    /* So that a moment and a bound have a sum. */
    int64_t nanoseconds = bound < 1e9 ? (int64_t)(bound * 1e9) : INT64_C(1000000000000000000);
    Py_XSETREF(glue->blocking.listener, Py_NewRef(listener));
    if (lg_blocking_start(nanoseconds, &config) != LG_OK) {
        Py_CLEAR(glue->blocking.listener);
        PyErr_SetString(PyExc_RuntimeError,
                        "leakguard: the thread that watches for blocking cannot be started");
        return -1;
    }
    return 0;
}

void
blocking_stop(void)
{
    lg_blocking_stop();
    unhook_uvloop();
    for (int i = 0; i < SELECTORS; i++) {
        method_put_back(&glue->blocking.selectors[i], entries[i].replacement);
    }
    Py_CLEAR(glue->blocking.listener);
}

int64_t
blocking_enter(void)
{
    thread_local_state *local = glue_local();
    int64_t now = lg_blocking_now();
    bool known = local != NULL && local->asked == lg_blocking_generation();
    loop_watch *watch = current_watch();
    if (watch != NULL && known) {
        lg_loop_cut(watch->loop);
    }
    return now;
}

void
blocking_exempt(bool exempt)
{
    loop_watch *watch = lg_blocking_is_on() ? current_watch() : NULL;
    if (watch != NULL) {
        lg_loop_exempt(watch->loop, exempt);
    }
}

PyObject *
blocking_hooks(void)
{
    PyObject *names = PyList_New(0);
    for (int i = 0; names != NULL && i < SELECTORS; i++) {
        if (!method_is_replaced(&glue->blocking.selectors[i], entries[i].replacement)) {
            continue;
        }
        PyObject *name =
            PyUnicode_FromFormat("select.%s%s%s", entries[i].type != NULL ? entries[i].type : "",
                                 entries[i].type != NULL ? "." : "", entries[i].name);
        if (name == NULL || PyList_Append(names, name) < 0) {
            Py_CLEAR(names);
        }
        Py_XDECREF(name);
    }
    if (names == NULL) {
        return NULL;
    }
    PyObject *uvloop = PyUnicode_FromString("uvloop");
    if (uvloop == NULL || (glue->blocking.slots.count != 0 && PyList_Append(names, uvloop) < 0)) {
        Py_CLEAR(names);
    }
    Py_XDECREF(uvloop);
    return names;
}
