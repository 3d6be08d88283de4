#define _GNU_SOURCE
#define Py_BUILD_CORE 1
#include "frames.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "compat.h"

#include LG_FRAME_HEADER
#ifdef LG_TSTATE_HEADER
#include LG_TSTATE_HEADER
#endif
#ifdef LG_HAVE_BORROWED_REFERENCES
#include "internal/pycore_frame.h" /* the states of a generator's frame */
#include "internal/pycore_stackref.h"
#endif

static const struct _PyInterpreterFrame *
skip_own(const struct _PyInterpreterFrame *frame)
{
    while (frame != NULL && !LG_FRAME_IS_PYTHON(frame)) {
        frame = frame->previous;
    }
    return frame;
}

static bool
runs_code(const struct _PyInterpreterFrame *frame, PyObject *code)
{
    return frame != NULL && code != NULL
           && (PyObject *)LG_FRAME_CODE((struct _PyInterpreterFrame *)frame) == code;
}

frames_mark
frames_here(PyThreadState *tstate, PyObject *run_forever, uint64_t run)
{
    const struct _PyInterpreterFrame *at = skip_own(LG_CURRENT_FRAME(tstate));
    const struct _PyInterpreterFrame *before = at != NULL ? skip_own(at->previous) : NULL;
    if (runs_code(at, run_forever)) {
        return (frames_mark){at, NULL, run};
    }
    if (runs_code(before, run_forever)) {
        return (frames_mark){before, NULL, run};
    }
    return (frames_mark){at, before, 0};
}

void
frames_walk(PyThreadState *tstate, frames_mark loop, lg_frame *frames, uint32_t capacity,
            lg_stack *ret_stack)
{
    uint64_t hash = LG_STACK_HASH_SEED;
    uint32_t count = 0;
    uint32_t inner = UINT32_MAX;
    struct _PyInterpreterFrame *frame = LG_CURRENT_FRAME(tstate);
    for (; frame != NULL; frame = frame->previous) {
        if (!LG_FRAME_IS_PYTHON(frame)) {
            continue;
        }
        if (count == capacity) {
            break;
        }
        if ((frame == loop.at || frame == loop.before) && inner == UINT32_MAX) {
            inner = count;
        }
        PyCodeObject *code = LG_FRAME_CODE(frame);
        lg_frame words = {(uintptr_t)code, (uintptr_t)LG_FRAME_INSTRUCTION(frame)};
        hash = lg_stack_hash_step(hash, words);
        frames[count++] = words;
    }
    *ret_stack = (lg_stack){
        .frames = frames,
        .count = count,
        .inner = inner < count ? inner : count,
        .truncated = frame != NULL,
        .hash = hash,
    };
    ret_stack->hash = lg_stack_hash_end(ret_stack);
}

uint64_t
frames_key(PyThreadState *tstate)
{
    enum { FRAMES = 4 }; /* gather() and its two helpers, and its caller */
    uint64_t key = 0;
    const struct _PyInterpreterFrame *frame = LG_CURRENT_FRAME(tstate);
    for (int i = 0; i < FRAMES && frame != NULL; i++, frame = frame->previous) {
        key = key * 3 + (uintptr_t)LG_FRAME_INSTRUCTION(frame);
    }
    return key * UINT64_C(0x9E3779B97F4A7C15) >> 32;
}

int
frames_line(lg_frame frame)
{
    PyCodeObject *code = (PyCodeObject *)frame.code;
    /* On 3.11 and 3.12 a frame that has not begun stands one instruction before its code. */
    int offset = (int)((intptr_t)frame.place - (intptr_t)_PyCode_CODE(code));
    int line = PyCode_Addr2Line(code, offset);
    return line > 0 ? line : code->co_firstlineno;
}

static inline bool
is_at(const struct _PyInterpreterFrame *frame, uintptr_t place)
{
    return frame != NULL && (uintptr_t)LG_FRAME_INSTRUCTION(frame) == place;
}

/* The frame, or the next one that is not the interpreter's own, if that stands at this instruction;
 * else NULL. The depot holds the code object that the instruction belongs to: a frame that stands
 * there runs that code, and only one that does not has to be looked at. */
static inline const struct _PyInterpreterFrame *
stands_at(const struct _PyInterpreterFrame *frame, uintptr_t place)
{
    if (__builtin_expect(is_at(frame, place), 1)) {
        return frame;
    }
    frame = skip_own(frame);
    return is_at(frame, place) ? frame : NULL;
}

bool
frames_match(PyThreadState *tstate, frames_mark loop, const lg_stack *stack)
{
    const struct _PyInterpreterFrame *frame = LG_CURRENT_FRAME(tstate);
    const lg_frame *words = stack->frames;
    const lg_frame *border = words + stack->inner;
    const lg_frame *end = words + stack->count;
    for (; words < border; words++, frame = frame->previous) {
        frame = stands_at(frame, words->place);
        if (frame == NULL || frame == loop.at || frame == loop.before) {
            return false;
        }
    }
    if (words < end) {
        frame = stands_at(frame, words->place);
        if (frame == NULL || (frame != loop.at && frame != loop.before)) {
            return false;
        }
        words++;
        frame = frame->previous;
    }
    for (; words < end; words++, frame = frame->previous) {
        frame = stands_at(frame, words->place);
        if (frame == NULL) {
            return false;
        }
    }
    return (skip_own(frame) != NULL) == stack->truncated;
}

void
frames_look(PyThreadState *tstate, const frames_mark *loop, frames_inside *ret_inside)
{
    ret_inside->run = 0;
    if (loop->run == 0) {
        return;
    }
    const struct _PyInterpreterFrame *frame = LG_CURRENT_FRAME(tstate);
    for (uint32_t i = 0; i < FRAMES_INSIDE && frame != NULL; i++, frame = frame->previous) {
        ret_inside->at[i].frame = frame;
        ret_inside->at[i].place = (uintptr_t)LG_FRAME_INSTRUCTION(frame);
        if (frame == loop->at) {
            ret_inside->run = loop->run;
            ret_inside->count = i + 1;
            return;
        }
    }
}

/* The same address, of which the compiler does not know that it is. */
static inline const struct _PyInterpreterFrame *
unrelated(const struct _PyInterpreterFrame *frame)
{
    __asm__("" : "+r"(frame));
    return frame;
}

/* Each frame is read where the last one lay, once it is known to lie there: so the processor, which
 * foresees that, need not wait for each address to read the next. The frames of the interpreter's
 * own are compared like all others, since a branch that goes another way for them makes it wait for
 * all addresses before. (Without the one or the other, the comparison takes 10 ns more.) */
bool
frames_stand(PyThreadState *tstate, const frames_mark *loop, frames_inside *inside)
{
    if (inside->run == 0 || inside->run != loop->run) {
        return false;
    }
    const struct _PyInterpreterFrame *last = NULL;
    const struct _PyInterpreterFrame *frame = LG_CURRENT_FRAME(tstate);
    for (uint32_t i = 0; i < inside->count; i++, frame = last->previous) {
        last = unrelated(inside->at[i].frame);
        if (LG_RARELY(frame != inside->at[i].frame)) {
            inside->at[i].frame = last = frame;
        }
        if (last == NULL || (uintptr_t)LG_FRAME_INSTRUCTION(last) != inside->at[i].place) {
            return false;
        }
    }
    return last == loop->at;
}

PyObject *
frames_running_task(PyThreadState *tstate, PyObject **ret_loop, int *ret_known)
{
#ifdef LG_RUNNING_TASK
    *ret_loop = LG_RUNNING_LOOP(tstate);
    *ret_known = 1;
    return LG_RUNNING_TASK(tstate);
#else
    (void)tstate;
    *ret_loop = NULL;
    *ret_known = 0;
    return NULL;
#endif
}

/* Include/internal/pycore_frame.h: from 3.13 on there are several states of the kind. */
#ifndef FRAME_STATE_SUSPENDED
#define FRAME_STATE_SUSPENDED(state) ((state) == FRAME_SUSPENDED)
#endif

bool
frames_suspended(PyObject *object, lg_frame *ret_frame)
{
    if (!PyCoro_CheckExact(object)) {
        return false;
    }
    PyGenObject *coroutine = (PyGenObject *)object;
    if (!FRAME_STATE_SUSPENDED(coroutine->gi_frame_state)) {
        return false;
    }
    struct _PyInterpreterFrame *frame = (struct _PyInterpreterFrame *)(void *)&coroutine->gi_iframe;
    PyCodeObject *code = LG_FRAME_CODE(frame);
    *ret_frame = (lg_frame){
        (uintptr_t)code,
        (uintptr_t)LG_FRAME_INSTRUCTION(frame) - (uintptr_t)_PyCode_CODE(code),
    };
    return true;
}

#ifdef LG_HAVE_BORROWED_REFERENCES

static void
visit_borrowed(_PyStackRef reference, visitproc visit, void *context)
{
    if (!PyStackRef_IsNullOrInt(reference) && !PyStackRef_RefcountOnObject(reference)) {
        (void)visit(PyStackRef_AsPyObjectBorrow(reference), context);
    }
}

/* As gen_traverse (Objects/genobject.c) and _PyFrame_Traverse (Python/frame.c) go. */
void
frames_visit_borrowed(PyObject *object, visitproc visit, void *context)
{
    if (!PyGen_CheckExact(object) && !PyCoro_CheckExact(object) && !PyAsyncGen_CheckExact(object)) {
        return;
    }
    PyGenObject *generator = (PyGenObject *)object;
    _PyInterpreterFrame *frame = &generator->gi_iframe;
    visit_borrowed(frame->f_executable, visit, context);
    if (generator->gi_frame_state == FRAME_CLEARED) {
        return;
    }
    visit_borrowed(frame->f_funcobj, visit, context);
    for (_PyStackRef *place = frame->localsplus; place < frame->stackpointer; place++) {
        visit_borrowed(*place, visit, context);
    }
}

#else

void
frames_visit_borrowed(PyObject *object, visitproc visit, void *context)
{
    (void)object;
    (void)visit;
    (void)context;
}

#endif

#ifdef __linux__

/* Copies memory that may not be there. The kernel copies; where a sandbox forbids that call, the
 * kernel is asked by one that fails before it does anything (`how` is no valid one), and tells
 * EFAULT for what cannot be read. */
static bool
copy(void *to, const void *from, size_t size)
{
    struct iovec local = {to, size};
    struct iovec remote = {(void *)from, size};
    long copied = syscall(SYS_process_vm_readv, (long)getpid(), &local, 1L, &remote, 1L, 0L);
    if (copied >= 0 || (errno != EPERM && errno != ENOSYS)) {
        return copied == (long)size;
    }
    const char *ends[] = {from, (const char *)from + (size > 8 ? size - 8 : 0)};
    for (int i = 0; i < 2; i++) {
        if (syscall(SYS_rt_sigprocmask, ~0L, ends[i], NULL, 8L) == 0 || errno == EFAULT) {
            return false;
        }
    }
    memcpy(to, from, size);
    return true;
}

/* Whether this is a living object of the type. In freed memory the allocator's link, an address,
 * stands in place of the reference count. */
static bool
is_alive(const PyObject *head, const PyTypeObject *type)
{
    uint64_t count;
    memcpy(&count, head, sizeof(count));
    return (uint32_t)count != 0 && (count & UINT64_C(0x0000FFFF00000000)) == 0
           && head->ob_type == type;
}

/* The characters of a str into the dump; a str that is none gives none. */
static struct frames_text
take_text(frames_dump *dump, const PyObject *string)
{
    enum { LONGEST = 1024 };
    PyCompactUnicodeObject head;
    struct frames_text text = {.at = dump->used, .kind = PyUnicode_1BYTE_KIND};
    if (string == NULL || !copy(&head, string, sizeof(PyASCIIObject))
        || !is_alive((PyObject *)&head, &PyUnicode_Type) || !head._base.state.compact) {
        return text;
    }
    size_t start = head._base.state.ascii ? sizeof(PyASCIIObject) : sizeof(head);
    size_t kind = head._base.state.kind;
    size_t length = (size_t)head._base.length;
    length = length < LONGEST ? length : LONGEST;
    size_t aligned = (dump->used + 3u) & ~3u;
    if (aligned + length * kind > FRAMES_BYTES
        || !copy(dump->bytes + aligned, (const char *)string + start, length * kind)) {
        return text;
    }
    dump->used = (uint32_t)(aligned + length * kind);
    return (struct frames_text){(uint32_t)aligned, (uint32_t)length, (int)kind};
}

/* The code object of a frame, of which `frame` is a copy, into `ret_head`; NULL where it is none. */
static PyCodeObject *
take_code(const struct _PyInterpreterFrame *frame, PyCodeObject *ret_head)
{
    uintptr_t word = 0;
    memcpy(&word, &frame->LG_FRAME_CODE_FIELD, sizeof(word));
    PyCodeObject *code = (PyCodeObject *)(word & ~(uintptr_t)LG_FRAME_CODE_TAGS);
    bool found = code != NULL && copy(ret_head, code, sizeof(*ret_head))
                 && is_alive((PyObject *)ret_head, &PyCode_Type);
    return found ? code : NULL;
}

static void
take_frame(frames_dump *dump, const struct _PyInterpreterFrame *frame, PyCodeObject *code,
           const PyCodeObject *head)
{
    ptrdiff_t offset = (const char *)LG_FRAME_INSTRUCTION(frame) - (const char *)_PyCode_CODE(code);
    int line = head->co_firstlineno;
    if (offset >= 0 && offset < Py_SIZE(head) * (Py_ssize_t)sizeof(_Py_CODEUNIT)) {
        int found = PyCode_Addr2Line(code, (int)offset);
        line = found > 0 ? found : line;
    }
    struct frames_taken *taken = &dump->frames[dump->count++];
    taken->line = line;
    taken->file = take_text(dump, head->co_filename);
    taken->function = take_text(dump, head->co_qualname);
}

void
frames_take_down(PyThreadState *tstate, frames_mark loop, frames_dump *dump)
{
    enum { DEEPEST = 100000 };
    struct _PyInterpreterFrame frame;
    dump->count = dump->used = 0;
    dump->coroutine_at = FRAMES_TAKEN;
    dump->truncated = false;
    dump->coroutine = dump->task = NULL;
#ifdef LG_RUNNING_TASK
    dump->task = LG_RUNNING_TASK(tstate);
#endif
    const struct _PyInterpreterFrame *at = LG_CURRENT_FRAME(tstate);
    for (int depth = 0; at != NULL && depth < DEEPEST; at = frame.previous, depth++) {
        if (!copy(&frame, at, offsetof(struct _PyInterpreterFrame, localsplus))) {
            break;
        }
        if (!LG_FRAME_IS_PYTHON(&frame)) {
            continue;
        }
        if (at == loop.at || at == loop.before) {
            break;
        }
        PyCodeObject head;
        PyCodeObject *code = take_code(&frame, &head);
        if (code == NULL) {
            continue;
        }
        if (frame.owner == FRAME_OWNED_BY_GENERATOR
            && (head.co_flags & (CO_COROUTINE | CO_ITERABLE_COROUTINE)) != 0) {
            dump->coroutine = (const char *)at - offsetof(PyGenObject, gi_iframe);
            dump->coroutine_at = dump->count;
        }
        if (dump->count == FRAMES_TAKEN) {
            dump->truncated = true;
        }
        else {
            take_frame(dump, &frame, code, &head);
        }
    }
}

#else

void
frames_take_down(PyThreadState *tstate, frames_mark loop, frames_dump *dump)
{
    (void)tstate;
    (void)loop;
    dump->count = 0;
    dump->coroutine = dump->task = NULL;
}

#endif
