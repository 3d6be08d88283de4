/* Records as Python objects. */
#include "glue.h"

#include <stdlib.h>

#include "epitaph.h"

static PyStructSequence_Field record_fields[] = {
    {"kind", "number of the kind, an index into KINDS"},
    {"serial", NULL},
    {"object", "what was recorded: the task, a ThreadRun, the executor"},
    {"born", "nanoseconds of the monotonic clock"},
    {"stack", "id of the creation stack"},
    {"scope", "0 for none"},
    {"found", "whether it was there before tracking began"},
    {"creator", "serial of the creator, or 0"},
    {NULL, NULL},
};

PyStructSequence_Desc Record_desc = {
    .name = "leakguard._core.Record",
    .doc = "What is known of one live resource.",
    .fields = record_fields,
    .n_in_sequence = 8,
};

typedef struct {
    lg_record *records; /* owned; each record holds a reference of its object */
    size_t count;
    size_t capacity;
    bool failed;
} collection;

/* Under the registry's lock: takes references, runs no Python code. An object without references
 * is being freed, and is left out. */
static bool
collect(void *context, const lg_record *record)
{
    collection *all = context;
    bool is_native = record->kind == LG_NATIVE_THREAD;
    if (!is_native && Py_REFCNT((PyObject *)record->object) <= 0) {
        return true;
    }
    if (all->count == all->capacity) {
        size_t capacity = all->capacity != 0 ? all->capacity * 2 : 64;
        lg_record *larger = realloc(all->records, capacity * sizeof(*larger));
        if (larger == NULL) {
            all->failed = true;
            return false;
        }
        all->records = larger;
        all->capacity = capacity;
    }
    if (is_native) {
        lg_thread_hold((lg_thread *)record->object);
    }
    else {
        Py_INCREF((PyObject *)record->object);
    }
    all->records[all->count++] = *record;
    return true;
}

/* What a collected record is about, owned from here on; NULL with an exception. */
static PyObject *
object_of(module_state *state, const lg_record *record)
{
    if (record->kind == LG_NATIVE_THREAD) {
        return native_wrap(state, (lg_thread *)record->object);
    }
    return (PyObject *)record->object;
}

/* What an object's record is found by. */
static const void *
key_of(PyObject *object)
{
    lg_thread *native = native_of(object);
    return native != NULL ? (const void *)native : object;
}

static PyObject *
Record_from(module_state *state, const lg_record *record, PyObject *object)
{
    PyObject *result = PyStructSequence_New(state->Record);
    if (result == NULL) {
        return NULL;
    }
    PyObject *fields[] = {
        PyLong_FromLong(record->kind),
        PyLong_FromUnsignedLongLong(record->serial),
        Py_NewRef(object),
        PyLong_FromLongLong(record->born),
        PyLong_FromUnsignedLong(record->stack),
        PyLong_FromUnsignedLong(record->scope),
        PyBool_FromLong((record->flags & LG_FOUND) != 0),
        PyLong_FromUnsignedLongLong(record->creator),
    };
    bool failed = false;
    for (Py_ssize_t i = 0; i < (Py_ssize_t)Py_ARRAY_LENGTH(fields); i++) {
        failed = failed || fields[i] == NULL;
        PyStructSequence_SetItem(result, i, fields[i]);
    }
    if (failed) {
        Py_DECREF(result);
        return NULL;
    }
    return result;
}

PyObject *
records_live(module_state *state, uint64_t since, unsigned kinds, bool done)
{
    collection all = {0};
    lg_registry_visit_since(glue->tracker->registry, since, kinds, collect, &all);
    PyObject *list = all.failed ? PyErr_NoMemory() : PyList_New(0);
    for (size_t i = all.count; i-- > 0;) { /* oldest first */
        PyObject *object = object_of(state, &all.records[i]);
        if (object == NULL) {
            Py_CLEAR(list);
        }
        bool is_done = all.records[i].kind == LG_TASK && object != NULL && task_is_done(object);
        if (list != NULL && is_done == done) {
            PyObject *record = Record_from(state, &all.records[i], object);
            if (record == NULL || PyList_Append(list, record) < 0) {
                Py_CLEAR(list);
            }
            Py_XDECREF(record);
        }
        Py_XDECREF(object);
    }
    free(all.records);
    return list;
}

/* Moves to the front the keys (kind, stack) of what counts, lets go of all, returns how many. */
static size_t
take_keys(collection *all, uint64_t *keys)
{
    size_t count = 0;
    for (size_t i = 0; i < all->count; i++) {
        const lg_record *record = &all->records[i];
        PyObject *object = (PyObject *)record->object;
        bool is_done = record->kind == LG_TASK && task_is_done(object);
        if (!is_done && (record->flags & LG_FOUND) == 0) {
            keys[count++] = (uint64_t)record->kind << 32 | record->stack;
        }
        Py_DECREF(object);
    }
    return count;
}

static int
compare_keys(const void *left, const void *right)
{
    uint64_t one = *(const uint64_t *)left, other = *(const uint64_t *)right;
    return (one > other) - (one < other);
}

static int
count_key(PyObject *dict, uint64_t key, size_t count)
{
    PyObject *pair = Py_BuildValue("iI", (int)(key >> 32), (unsigned)(key & UINT32_MAX));
    PyObject *number = PyLong_FromSize_t(count);
    int result = pair != NULL && number != NULL ? PyDict_SetItem(dict, pair, number) : -1;
    Py_XDECREF(pair);
    Py_XDECREF(number);
    return result;
}

PyObject *
records_count(unsigned kinds)
{
    collection all = {0};
    kinds &= ~LG_KIND_BIT(LG_NATIVE_THREAD);
    lg_registry_visit_since(glue->tracker->registry, 0, kinds, collect, &all);
    uint64_t *keys = malloc((all.count + 1) * sizeof(*keys));
    if (all.failed || keys == NULL) {
        for (size_t i = 0; i < all.count; i++) {
            Py_DECREF((PyObject *)all.records[i].object);
        }
        free(all.records);
        free(keys);
        return PyErr_NoMemory();
    }
    size_t count = take_keys(&all, keys);
    free(all.records);
    qsort(keys, count, sizeof(*keys), compare_keys);
    PyObject *dict = PyDict_New();
    size_t first = 0;
    for (size_t i = 1; dict != NULL && i <= count; i++) {
        if (i == count || keys[i] != keys[first]) {
            if (count_key(dict, keys[first], i - first) < 0) {
                Py_CLEAR(dict);
            }
            first = i;
        }
    }
    free(keys);
    return dict;
}

PyObject *
records_find(module_state *state, PyObject *object)
{
    lg_record record;
    if (lg_registry_find(glue->tracker->registry, key_of(object), &record) != LG_OK) {
        Py_RETURN_NONE;
    }
    return Record_from(state, &record, object);
}

PyObject *
records_creator(PyObject *object)
{
    lg_record creator;
    const lg_note *link = NULL;
    if (lg_registry_find_creator(glue->tracker->registry, key_of(object), &creator, &link)
        != LG_OK) {
        Py_RETURN_NONE;
    }
    if (creator.kind == LG_NATIVE_THREAD) {
        /* It may end at any moment, without the GIL: nothing more is told of it. */
        return Py_BuildValue("iKOOsz", (int)creator.kind, (unsigned long long)creator.serial,
                             Py_None, Py_None, "native thread",
                             creator.object == NULL ? "returned" : NULL);
    }
    const epitaph *note = (const epitaph *)link;
    PyObject *living = (PyObject *)creator.object;
    if (living != NULL && Py_REFCNT(living) <= 0) {
        living = NULL;
    }
    /* Owned before anything is allocated: on 3.11 an allocation can collect what is borrowed. */
    PyObject *name = NULL;
    PyObject *function = NULL;
    const char *ended = NULL;
    Py_XINCREF(living);
    if (living != NULL) {
        /* It can be asked, but for the function of an eager task that has lost its coroutine. */
        PyObject *prepared = epitaph_look(living);
        function = prepared != NULL ? Py_NewRef(PyTuple_GET_ITEM(prepared, 1)) : NULL;
    }
    else if (note != NULL) {
        name = Py_XNewRef(note->name);
        function = Py_XNewRef(note->function);
        ended = note->ended;
    }
    PyObject *result =
        Py_BuildValue("iKOOOz", (int)creator.kind, (unsigned long long)creator.serial,
                      living != NULL ? living : Py_None, name != NULL ? name : Py_None,
                      function != NULL ? function : Py_None, ended);
    Py_XDECREF(name);
    Py_XDECREF(function);
    Py_XDECREF(living);
    return result;
}

typedef struct {
    uint64_t *serials;
    size_t count;
    size_t capacity;
} serial_list;

static bool
add_serial(void *context, const lg_record *record)
{
    serial_list *list = context;
    if (list->count == list->capacity) {
        size_t capacity = list->capacity != 0 ? list->capacity * 2 : 16;
        uint64_t *larger = realloc(list->serials, capacity * sizeof(*larger));
        if (larger == NULL) {
            return false;
        }
        list->serials = larger;
        list->capacity = capacity;
    }
    list->serials[list->count++] = record->serial;
    return true;
}

PyObject *
records_line(PyObject *object)
{
    serial_list list = {0};
    lg_registry *registry = glue->tracker->registry;
    const void *starts[] = {key_of(object), NULL};
    if (object == Py_None) {
        starts[0] = glue_current_task(PyThreadState_Get());
        starts[1] = glue_current_thread();
    }
    for (size_t i = 0; i < Py_ARRAY_LENGTH(starts); i++) {
        if (starts[i] != NULL) {
            lg_registry_visit_line(registry, starts[i], add_serial, &list);
        }
    }
    PyObject *result = PyList_New(0);
    for (size_t i = 0; result != NULL && i < list.count; i++) {
        PyObject *serial = PyLong_FromUnsignedLongLong(list.serials[i]);
        if (serial == NULL || PyList_Append(result, serial) < 0) {
            Py_CLEAR(result);
        }
        Py_XDECREF(serial);
    }
    free(list.serials);
    return result;
}

static PyObject *
frame_as_tuple(lg_frame frame)
{
    PyCodeObject *code = (PyCodeObject *)frame.code;
    return Py_BuildValue("OiO", code->co_filename, frames_line(frame), code->co_qualname);
}

/* Whether this is what a specialised call of a class has between the caller and `__init__`: code of
 * the interpreter's own, which no frame object shows. (Python/specialize.c: _Py_InitCleanup, where
 * both names are "__init__"; 3.13 and later leave it in the chain of frames that runs.) */
static bool
is_shim(lg_frame frame)
{
    PyCodeObject *code = (PyCodeObject *)frame.code;
    return PyUnicode_CompareWithASCIIString(code->co_filename, "__init__") == 0
           && PyUnicode_CompareWithASCIIString(code->co_name, "__init__") == 0;
}

PyObject *
records_stack(uint32_t id)
{
    lg_stack stack;
    if (lg_depot_get(glue->tracker->depot, id, &stack) != LG_OK) {
        PyErr_Format(PyExc_KeyError, "no stack has the id %u", id);
        return NULL;
    }
    /* A copy that holds its code objects: what is allocated below can collect garbage (3.11), whose
     * finalisers can evict. */
    lg_frame copy[LG_MAX_STACK_DEPTH];
    uint32_t all = stack.count < LG_MAX_STACK_DEPTH ? stack.count : LG_MAX_STACK_DEPTH;
    uint32_t count = 0, inner = 0;
    for (uint32_t i = 0; i < all; i++) {
        if (!is_shim(stack.frames[i])) {
            copy[count++] = stack.frames[i];
            Py_INCREF((PyObject *)stack.frames[i].code);
            inner += i < stack.inner;
        }
    }
    PyObject *frames = PyTuple_New((Py_ssize_t)count);
    for (uint32_t i = 0; frames != NULL && i < count; i++) {
        PyObject *frame = frame_as_tuple(copy[count - 1 - i]);
        if (frame == NULL) {
            Py_CLEAR(frames);
            break;
        }
        PyTuple_SET_ITEM(frames, (Py_ssize_t)i, frame);
    }
    for (uint32_t i = 0; i < count; i++) {
        Py_DECREF((PyObject *)copy[i].code);
    }
    if (frames == NULL) {
        return NULL;
    }
    return Py_BuildValue("NII", frames, (unsigned)inner, (unsigned)stack.truncated);
}

/* Adds `value` (stolen, may be NULL) to a dict. */
static int
set_item(PyObject *dict, const char *name, PyObject *value)
{
    int result = value != NULL ? PyDict_SetItemString(dict, name, value) : -1;
    Py_XDECREF(value);
    return result;
}

PyObject *
records_stats(void)
{
    lg_registry_stats registry = {0};
    lg_depot_stats depot = {0};
    uint64_t dropped = 0;
    if (glue->tracker != NULL) {
        registry = lg_registry_get_stats(glue->tracker->registry);
        depot = lg_depot_get_stats(glue->tracker->depot);
        dropped = glue->tracker->dropped;
    }
    int count_of_kinds = LG_KIND_COUNT + (int)PyList_GET_SIZE(glue->own_kinds);
    PyObject *kinds = PyTuple_New(count_of_kinds);
    for (int kind = 0; kinds != NULL && kind < count_of_kinds; kind++) {
        const lg_kind_count *count = &registry.kinds[kind];
        PyObject *pair = Py_BuildValue("KK", (unsigned long long)count->created,
                                       (unsigned long long)count->ended);
        if (pair == NULL) {
            Py_CLEAR(kinds);
            break;
        }
        PyTuple_SET_ITEM(kinds, kind, pair);
    }
    PyObject *result = kinds != NULL ? PyDict_New() : NULL;
    if (result == NULL) {
        Py_XDECREF(kinds);
        return NULL;
    }
    if (set_item(result, "kinds", kinds) < 0
        || set_item(result, "stacks", PyLong_FromSize_t(depot.stacks)) < 0
        || set_item(result, "bytes", PyLong_FromSize_t(depot.bytes + registry.bytes)) < 0
        || set_item(result, "dropped", PyLong_FromUnsignedLongLong(dropped)) < 0) {
        Py_CLEAR(result);
    }
    return result;
}
