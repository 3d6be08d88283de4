/* What differs between CPython 3.11 and 3.15, one small section per version.
 *
 * The frame accessors are for frames.c alone, the only file that includes internal headers.
 * Facts: Include/internal/pycore_frame.h (3.11-3.13), pycore_interpframe.h and pycore_tstate.h
 * (3.14+) of each version, seen compiled and run.
 */
#ifndef LG_COMPAT_H
#define LG_COMPAT_H

#include <Python.h>

#if PY_VERSION_HEX < 0x030B0000 || PY_VERSION_HEX >= 0x03100000
#error "leakguard knows CPython 3.11 to 3.15"
#endif

#if PY_VERSION_HEX < 0x030C0000 /* 3.11 */

#define LG_FRAME_HEADER "internal/pycore_frame.h"
#define LG_CURRENT_FRAME(tstate) ((tstate)->cframe->current_frame)
#define LG_FRAME_CODE(frame) ((frame)->f_code)
#define LG_FRAME_CODE_FIELD f_code
#define LG_FRAME_CODE_TAGS 0
#define LG_FRAME_INSTRUCTION(frame) ((frame)->prev_instr)
#define LG_FRAME_IS_PYTHON(frame) 1
/* The code of a coroutine, borrowed. Here wait_for() has a task of its own for what it waits for,
 * and cancels it. */
#define LG_COROUTINE_CODE(coroutine) ((PyObject *)((PyGenObject *)(coroutine))->gi_code)
#define LG_FORK_EXEC_FLAGS METH_VARARGS

#elif PY_VERSION_HEX < 0x030D0000 /* 3.12 */

#define LG_FRAME_HEADER "internal/pycore_frame.h"
#define LG_CURRENT_FRAME(tstate) ((tstate)->cframe->current_frame)
#define LG_FRAME_CODE(frame) ((frame)->f_code)
#define LG_FRAME_CODE_FIELD f_code
#define LG_FRAME_CODE_TAGS 0
#define LG_FRAME_INSTRUCTION(frame) ((frame)->prev_instr)
#define LG_FRAME_IS_PYTHON(frame) ((frame)->owner < FRAME_OWNED_BY_CSTACK)

#elif PY_VERSION_HEX < 0x030E0000 /* 3.13 */

#define LG_FRAME_HEADER "internal/pycore_frame.h"
#define LG_CURRENT_FRAME(tstate) ((tstate)->current_frame)
#define LG_FRAME_CODE(frame) _PyFrame_GetCode(frame)
#define LG_FRAME_CODE_FIELD f_executable
#define LG_FRAME_CODE_TAGS 0
#define LG_FRAME_INSTRUCTION(frame) ((frame)->instr_ptr)
#define LG_FRAME_IS_PYTHON(frame) ((frame)->owner < FRAME_OWNED_BY_CSTACK)
#define LG_HAVE_REFERENCE_TRACER 1

#else /* 3.14, 3.15 */

#define LG_FRAME_HEADER "internal/pycore_interpframe.h"
#define LG_TSTATE_HEADER "internal/pycore_tstate.h"
#define LG_CURRENT_FRAME(tstate) ((tstate)->current_frame)
#define LG_FRAME_CODE(frame) _PyFrame_GetCode(frame)
#define LG_FRAME_CODE_FIELD f_executable
#define LG_FRAME_CODE_TAGS 3 /* Include/internal/pycore_stackref.h: Py_TAG_BITS */
#define LG_FRAME_INSTRUCTION(frame) ((frame)->instr_ptr)
#define LG_FRAME_IS_PYTHON(frame) ((frame)->owner < FRAME_OWNED_BY_INTERPRETER)
#define LG_HAVE_REFERENCE_TRACER 1
/* The loop and the task that run in a thread stand in its thread state. */
#define LG_RUNNING_LOOP(tstate) (((_PyThreadStateImpl *)(tstate))->asyncio_running_loop)
#define LG_RUNNING_TASK(tstate) (((_PyThreadStateImpl *)(tstate))->asyncio_running_task)
/* A frame may hold references that are not counted in the object (pycore_stackref.h). */
#define LG_HAVE_BORROWED_REFERENCES 1

#endif

#if PY_VERSION_HEX >= 0x030C0000
#define LG_HAVE_EAGER_TASKS 1
#define LG_HAVE_OWN_TASK_TYPES 1 /* each interpreter: a heap type of the module's state */
#define LG_FORK_EXEC_FLAGS METH_FASTCALL
#define LG_TYPE_DICT(type) PyType_GetDict(type) /* new reference */
/* _thread.start_new_thread and start_joinable_thread are announced to audit hooks. */
#define LG_HAVE_THREAD_AUDIT 1
#else
#define LG_HAVE_EAGER_TASKS 0
#define LG_HAVE_OWN_TASK_TYPES 0
#define LG_TYPE_DICT(type) Py_XNewRef((type)->tp_dict)
#endif

#if PY_VERSION_HEX >= 0x030D0000
#define LG_IS_FINALIZING() Py_IsFinalizing()
#define LG_CURRENT_TSTATE() PyThreadState_GetUnchecked() /* NULL allowed */
#else
#define LG_IS_FINALIZING() _Py_IsFinalizing()
#define LG_CURRENT_TSTATE() _PyThreadState_UncheckedGet()
#endif

#if PY_VERSION_HEX < 0x030E0000
/* Another number after each change of the dict, and of no other dict (Objects/dictobject.c:
 * DICT_NEXT_VERSION). */
static inline uint64_t
dict_version(PyObject *dict)
{
    _Py_COMP_DIAG_PUSH _Py_COMP_DIAG_IGNORE_DEPR_DECLS return ((PyDictObject *)dict)
        ->ma_version_tag;
    _Py_COMP_DIAG_POP
}
#else
/* The thread state knows what is asked for most; no dict has a version. */
static inline uint64_t
dict_version(PyObject *dict)
{
    (void)dict;
    return 0;
}
#endif

/* A pending exception, set aside while our own code runs. */
typedef struct {
    PyObject *type; /* unused from 3.12 on */
    PyObject *value;
    PyObject *traceback; /* likewise */
} saved_error;

static inline saved_error
error_save(void)
{
    saved_error saved = {NULL, NULL, NULL};
#if PY_VERSION_HEX >= 0x030C0000
    saved.value = PyErr_GetRaisedException();
#else
    PyErr_Fetch(&saved.type, &saved.value, &saved.traceback);
#endif
    return saved;
}

/* Replaces whatever exception is pending now. */
static inline void
error_restore(saved_error saved)
{
#if PY_VERSION_HEX >= 0x030C0000
    PyErr_SetRaisedException(saved.value);
#else
    PyErr_Restore(saved.type, saved.value, saved.traceback);
#endif
}

#endif
