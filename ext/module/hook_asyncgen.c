/* The first iteration of each async generator, seen where __anext__ and asend begin.
 *
 * `async for`, anext() and `yield from` of a wrapper call am_anext of the one async generator type,
 * which cannot be subclassed; a call of __anext__ by name goes through the slot wrapper in its dict,
 * one of asend through its method table. athrow and aclose start no generator. The type is static on
 * 3.11 to 3.15, and GET_ANEXT is not specialised: it reads the slot each time. (Objects/genobject.c:
 * PyAsyncGen_Type, async_gen_as_async, async_gen_methods; Python/bytecodes.c: GET_ANEXT;
 * Python/bltinmodule.c: builtin_anext.)
 *
 * A weak reference tells the end. It goes before the generator's finalizer hands it to the loop,
 * which closes it: what was dropped has no record any more, though it lives for another tick.
 */
#include "glue.h"

#include "compat.h"

static void
note_iteration(PyObject *generator)
{
    if (!glue->asyncgens.on || !glue_tracks(PyThreadState_Get()) || glue->state == NULL) {
        return;
    }
    lg_record record;
    if (lg_registry_find(glue->tracker->registry, generator, &record) == LG_OK) {
        return;
    }
    saved_error saved = error_save();
    if (born_register(glue->state, LG_ASYNCGEN, generator, false) < 0) {
        PyErr_Clear();
        glue->failures++;
    }
    error_restore(saved);
}

static PyObject *
hook_anext(PyObject *generator)
{
    note_iteration(generator);
    return glue->asyncgens.anext(generator);
}

static PyObject *
hook_asend(PyObject *generator, PyObject *value)
{
    note_iteration(generator);
    return glue->asyncgens.asend.original(generator, value);
}

int
hook_asyncgens(void)
{
    asyncgen_hook *hook = &glue->asyncgens;
    PyTypeObject *type = &PyAsyncGen_Type;
    if (hook->on) {
        return 0;
    }
    Py_XSETREF(hook->wrapper, slot_wrapper(type, "__anext__"));
    if (hook->wrapper == NULL
        || method_replace(&hook->asend, (PyObject *)type, "asend", METH_O, hook_asend, false) < 0) {
        return -1;
    }
    unaryfunc *slot = &type->tp_as_async->am_anext;
    if (*slot != hook_anext && !hook->anext_chained) {
        hook->anext = *slot;
        *slot = hook_anext;
    }
    if (hook->wrapper->d_wrapped != (void *)hook_anext) {
        hook->wrapped = hook->wrapper->d_wrapped;
        hook->wrapper->d_wrapped = (void *)hook_anext;
    }
    hook->on = true;
    return 0;
}

void
unhook_asyncgens(void)
{
    asyncgen_hook *hook = &glue->asyncgens;
    if (!hook->on) {
        return;
    }
    unaryfunc *slot = &PyAsyncGen_Type.tp_as_async->am_anext;
    hook->anext_chained = *slot != hook_anext;
    if (!hook->anext_chained) {
        *slot = hook->anext;
    }
    if (hook->wrapper->d_wrapped == (void *)hook_anext) {
        hook->wrapper->d_wrapped = hook->wrapped;
    }
    method_put_back(&hook->asend, hook_asend);
    hook->on = false;
}
