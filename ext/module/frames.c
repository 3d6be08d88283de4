#define Py_BUILD_CORE 1
#include "frames.h"

#include "compat.h"

#include LG_FRAME_HEADER
#ifdef LG_TSTATE_HEADER
#include LG_TSTATE_HEADER
#endif
#ifdef LG_HAVE_BORROWED_REFERENCES
#include "internal/pycore_frame.h"
#include "internal/pycore_stackref.h"
#endif

frames_mark
frames_here(PyThreadState *tstate)
{
    struct _PyInterpreterFrame *frame = LG_CURRENT_FRAME(tstate);
    while (frame != NULL && !LG_FRAME_IS_PYTHON(frame)) {
        frame = frame->previous;
    }
    frames_mark mark = {frame, NULL};
    if (frame != NULL) {
        frame = frame->previous;
        while (frame != NULL && !LG_FRAME_IS_PYTHON(frame)) {
            frame = frame->previous;
        }
        mark.before = frame;
    }
    return mark;
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
        lg_frame words = {
            (uintptr_t)code,
            (uintptr_t)LG_FRAME_INSTRUCTION(frame) - (uintptr_t)_PyCode_CODE(code),
        };
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
