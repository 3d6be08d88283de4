/* Threads of the operating system: who creates them, and what is known of them, for Python.
 *
 * pthread_create is called with or without the GIL, so all that is taken down at a birth is read
 * from the creating thread's own state: its frames, which nobody changes while it is here, and the
 * immutable strings of their code objects. References are not counted: frames are kept as text.
 * (PyGILState_GetThisThreadState and the walk, 3.11 to 3.15; a thread holds the GIL where the current
 * thread state is its own.)
 */
#include "glue.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "compat.h"
#include "epitaph.h"
#include "leakguard/sample.h"
#include "leakguard/symbol.h"
#include "leakguard/threads.h"

/* Stacks of all live threads. */
#define DEPOT_BYTES ((size_t)4 * 1024 * 1024)

/* The file and function of a code object, once for the process. */
typedef struct text {
    struct text *next;
    uint64_t hash;
    uint32_t file_length; /* both in UTF-8, one after the other */
    uint32_t function_length;
    char bytes[];
} text;

enum { BUCKETS = 1024, MOST_TEXTS = 8192, LONGEST = 1024 };

struct native_texts {
    pthread_mutex_t lock;
    text *buckets[BUCKETS];
    uint32_t count;
};

static void
lock_texts(void)
{
    pthread_mutex_lock(&glue->texts->lock);
}

static void
unlock_texts(void)
{
    pthread_mutex_unlock(&glue->texts->lock);
}

static void
renew_texts(void)
{
    pthread_mutex_init(&glue->texts->lock, NULL);
}

/* Copies a str as UTF-8, cut at `room`; returns its length. No GIL is needed: a str that a code
 * object holds does not change. */
static uint32_t
copy_utf8(PyObject *string, char *to, uint32_t room)
{
    Py_ssize_t length = PyUnicode_GET_LENGTH(string);
    int kind = (int)PyUnicode_KIND(string);
    const void *data = PyUnicode_DATA(string);
    uint32_t used = 0;
    for (Py_ssize_t i = 0; i < length && used + 4 <= room; i++) {
        Py_UCS4 code = PyUnicode_READ(kind, data, i);
        if (code >= 0xD800 && code <= 0xDFFF) {
            code = '?'; /* a byte of a file name that is no UTF-8 */
        }
        if (code < 0x80) {
            to[used++] = (char)code;
            continue;
        }
        int more = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
        to[used++] = (char)((0xF00 >> more) | (code >> (6 * more)));
        while (more-- > 0) {
            to[used++] = (char)(0x80 | ((code >> (6 * more)) & 0x3F));
        }
    }
    return used;
}

/* The text of a code object; NULL where there is no room for one more. */
static const text *
text_of(PyCodeObject *code)
{
    char bytes[2 * LONGEST];
    uint32_t file = copy_utf8(code->co_filename, bytes, LONGEST);
    uint32_t all = file + copy_utf8(code->co_qualname, bytes + file, LONGEST);
    uint64_t hash = UINT64_C(0xCBF29CE484222325);
    for (uint32_t i = 0; i < all; i++) {
        hash = (hash ^ (unsigned char)bytes[i]) * UINT64_C(0x100000001B3);
    }
    lock_texts();
    text **bucket = &glue->texts->buckets[hash % BUCKETS];
    text *found = *bucket;
    while (found != NULL
           && (found->hash != hash || found->file_length != file
               || found->file_length + found->function_length != all
               || memcmp(found->bytes, bytes, all) != 0)) {
        found = found->next;
    }
    if (found == NULL && glue->texts->count < MOST_TEXTS) {
        found = malloc(sizeof(*found) + all);
        if (found != NULL) {
            found->hash = hash;
            found->file_length = file;
            found->function_length = all - file;
            memcpy(found->bytes, bytes, all);
            found->next = *bucket;
            *bucket = found;
            glue->texts->count++;
        }
    }
    unlock_texts();
    return found;
}

static void
describe_frames(PyThreadState *tstate, lg_thread_caller *caller)
{
    lg_frame frames[LG_CALLER_FRAMES];
    lg_stack stack;
    frames_walk(tstate, (frames_mark){NULL, NULL, 0}, frames, LG_CALLER_FRAMES, &stack);
    for (uint32_t i = 0; i < stack.count; i++) {
        const text *known = text_of((PyCodeObject *)frames[i].code);
        if (known != NULL) {
            caller->frames[caller->count++] =
                (lg_frame){(uintptr_t)known, (uintptr_t)frames_line(frames[i])};
        }
    }
}

static void
describe(void *context, lg_thread *thread, lg_thread_caller *ret_caller)
{
    (void)context;
    PyThreadState *tstate = LG_IS_FINALIZING() ? NULL : PyGILState_GetThisThreadState();
    if (tstate == NULL) {
        return;
    }
    if (tstate->interp != glue->interp) {
        ret_caller->claimed = true; /* only the main interpreter is tracked */
        return;
    }
    thread_local_state *local = pthread_getspecific(glue->local);
    if (local != NULL && local->starting != NULL) {
        ret_caller->claimed = true;
        thread_link(local->starting, thread);
        local->starting = NULL;
        return;
    }
    describe_frames(tstate, ret_caller);
    if (LG_CURRENT_TSTATE() == tstate) {
        glue_birthplace(tstate, &ret_caller->creator, &ret_caller->scope);
    }
    else if (local != NULL && local->epoch == glue->epoch) {
        /* Neither the running task nor the context can be asked for: the thread, and the block that
         * was entered in it last. */
        ret_caller->creator = local->record;
        ret_caller->scope = local->scope;
    }
}

int
hook_natives(PyObject *known)
{
    if (glue->texts == NULL) {
        glue->texts = calloc(1, sizeof(*glue->texts));
        if (glue->texts == NULL || pthread_atfork(lock_texts, unlock_texts, renew_texts) != 0) {
            PyErr_NoMemory();
            return -1;
        }
        renew_texts();
    }
    lg_depot_config depot = {.allocator = lg_allocator_system(), .max_bytes = DEPOT_BYTES};
    lg_threads_config config = {.depot = &depot, .describe = describe};
    glue_current_thread(); /* looked up now: where the GIL is not held it cannot be */
    lg_status status = lg_threads_start(&config, glue->tracker);
    if (status == LG_NOT_FOUND) {
        PyErr_SetString(PyExc_RuntimeError,
                        "leakguard: native threads cannot be seen here: pthread_create cannot be "
                        "taken over (glibc on x86_64 or aarch64 is needed)");
        return -1;
    }
    for (Py_ssize_t i = 0; status == LG_OK && i < PyTuple_GET_SIZE(known); i++) {
        long tid = PyLong_AsLong(PyTuple_GET_ITEM(known, i));
        if (tid == -1 && PyErr_Occurred()) {
            lg_threads_stop();
            return -1;
        }
        status = lg_threads_know((pid_t)tid);
    }
    pid_t watcher = lg_blocking_watcher();
    if (status == LG_OK && watcher != 0) {
        status = lg_threads_know(watcher);
    }
    if (status != LG_OK) {
        lg_threads_stop();
        PyErr_NoMemory();
        return -1;
    }
    lg_threads_scan(LG_FOUND);
    return 0;
}

void
unhook_natives(void)
{
    lg_threads_stop();
    epitaph_free_all(lg_threads_take_notes());
}

typedef struct {
    PyObject_HEAD
    lg_thread *thread; /* held */
} NativeThread;

PyObject *
native_wrap(module_state *state, lg_thread *thread)
{
    NativeThread *native = PyObject_New(NativeThread, state->NativeThread);
    if (native == NULL) {
        lg_thread_release(thread);
        return NULL;
    }
    native->thread = thread;
    return (PyObject *)native;
}

static void
NativeThread_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    lg_thread_release(((NativeThread *)self)->thread);
    PyObject_Free(self);
    Py_DECREF(type);
}

lg_thread *
native_of(PyObject *object)
{
    bool is_native = glue->state != NULL && Py_IS_TYPE(object, glue->state->NativeThread);
    return is_native ? ((NativeThread *)object)->thread : NULL;
}

/* The stack's frames as `convert` gives them, outermost first. New reference. */
static PyObject *
stack_as_tuple(lg_stack_id id, PyObject *(*convert)(lg_frame frame))
{
    lg_frame frames[LG_NATIVE_DEPTH > LG_CALLER_FRAMES ? LG_NATIVE_DEPTH : LG_CALLER_FRAMES];
    uint32_t count = 0;
    if (lg_threads_stack(id, frames, Py_ARRAY_LENGTH(frames), &count) != LG_OK) {
        count = 0; /* its thread has ended since */
    }
    PyObject *result = PyTuple_New((Py_ssize_t)count);
    for (uint32_t i = 0; result != NULL && i < count; i++) {
        PyObject *frame = convert(frames[count - 1 - i]);
        if (frame == NULL) {
            Py_CLEAR(result);
            break;
        }
        PyTuple_SET_ITEM(result, (Py_ssize_t)i, frame);
    }
    return result;
}

static PyObject *
address_of(lg_frame frame)
{
    /* A return address: the call stands before it. */
    return PyLong_FromUnsignedLongLong(frame.code - 1);
}

static PyObject *
frame_of(lg_frame frame)
{
    const text *known = (const text *)frame.code;
    PyObject *file = PyUnicode_DecodeUTF8(known->bytes, known->file_length, "replace");
    PyObject *function =
        PyUnicode_DecodeUTF8(known->bytes + known->file_length, known->function_length, "replace");
    PyObject *result = NULL;
    if (file != NULL && function != NULL) {
        result = Py_BuildValue("OiO", file, (int)frame.place, function);
    }
    Py_XDECREF(file);
    Py_XDECREF(function);
    return result;
}

PyObject *
native_info(lg_thread *thread)
{
    lg_thread_info info = lg_thread_get_info(thread);
    PyObject *native = stack_as_tuple(info.native, address_of);
    PyObject *caller = native != NULL ? stack_as_tuple(info.caller, frame_of) : NULL;
    if (caller == NULL) {
        Py_XDECREF(native);
        return NULL;
    }
    return Py_BuildValue("ikKNNn", (int)info.tid, (unsigned long)info.handle,
                         (unsigned long long)info.start, native, caller,
                         (Py_ssize_t)info.stack_size);
}

PyObject *
native_symbol(PyObject *address)
{
    unsigned long long number = PyLong_AsUnsignedLongLong(address);
    if (number == (unsigned long long)-1 && PyErr_Occurred()) {
        return NULL;
    }
    lg_symbol symbol = lg_symbol_of((uintptr_t)number);
    PyObject *module = symbol.module != NULL ? PyUnicode_DecodeFSDefault(symbol.module) : NULL;
    if (module == NULL && PyErr_Occurred()) {
        return NULL;
    }
    PyObject *result =
        Py_BuildValue("zKOK", symbol.function, (unsigned long long)symbol.offset,
                      module != NULL ? module : Py_None, (unsigned long long)symbol.module_offset);
    Py_XDECREF(module);
    return result;
}

/* The frames of one answer, outermost first; or a word. */
static PyObject *
sample_as_object(const lg_sample *sample)
{
    static const char *const words[] = {
        [LG_SAMPLE_DONE] = "",
        [LG_SAMPLE_GONE] = "gone",
        [LG_SAMPLE_BLOCKED] = "blocked",
        [LG_SAMPLE_SILENT] = "silent",
    };
    if (sample->result != LG_SAMPLE_DONE) {
        return PyUnicode_FromString(words[sample->result]);
    }
    PyObject *frames = PyTuple_New((Py_ssize_t)sample->count);
    for (uint32_t i = 0; frames != NULL && i < sample->count; i++) {
        uint32_t at = sample->count - 1 - i;
        PyObject *address = PyLong_FromUnsignedLongLong(sample->frames[at] - (at != 0));
        if (address == NULL) {
            Py_CLEAR(frames);
            break;
        }
        PyTuple_SET_ITEM(frames, (Py_ssize_t)i, address);
    }
    return frames;
}

PyObject *
native_samples(PyObject *tids, double timeout)
{
    Py_ssize_t count = PyTuple_GET_SIZE(tids);
    lg_sample *samples = calloc((size_t)count + 1, sizeof(*samples));
    PyObject *result = samples != NULL ? PyDict_New() : PyErr_NoMemory();
    bool failed = result == NULL;
    for (Py_ssize_t i = 0; !failed && i < count; i++) {
        samples[i].tid = (pid_t)PyLong_AsLong(PyTuple_GET_ITEM(tids, i));
        failed = PyErr_Occurred() != NULL;
    }
    /* The GIL stays held: Python's threads stand still, their frames and answers belong together. */
    if (!failed && count > 0) {
        lg_status status = lg_sample_threads(samples, (size_t)count, (int64_t)(timeout * 1e9));
        if (status != LG_OK) {
            free(samples);
            return result;
        }
    }
    for (Py_ssize_t i = 0; !failed && i < count; i++) {
        PyObject *answer = sample_as_object(&samples[i]);
        failed = answer == NULL || PyDict_SetItem(result, PyTuple_GET_ITEM(tids, i), answer) < 0;
        Py_XDECREF(answer);
    }
    free(samples);
    if (failed) {
        Py_CLEAR(result);
    }
    return result;
}

static PyType_Slot NativeThread_slots[] = {
    {Py_tp_dealloc, NativeThread_dealloc},
    {0, NULL},
};

PyType_Spec NativeThread_spec = {
    .name = "leakguard._core.NativeThread",
    .basicsize = sizeof(NativeThread),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = NativeThread_slots,
};
