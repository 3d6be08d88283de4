/* What stays known of a creator that has ended while something that it created lives. */
#ifndef LG_EPITAPH_H
#define LG_EPITAPH_H

#include <Python.h>

#include "glue.h"

struct epitaph {
    lg_note link;       /* first: the registry's view of it */
    PyObject *name;     /* owned str, or NULL where not known */
    PyObject *function; /* owned str, or NULL */
    const char *ended;  /* static: "returned", "cancelled", "raised"; NULL where not known */
};

/* Takes references of its own; NULL where memory ran out. Sets no exception. */
epitaph *
epitaph_new(PyObject *name, PyObject *function, const char *ended);

/* Frees a chain of notes. */
void
epitaph_free_all(lg_note *notes);

/* The name of what a callable or coroutine runs: its __qualname__ (that of `func` for a partial),
 * else its type's name. New reference, NULL without an exception where memory ran out. */
PyObject *
function_name(PyObject *callable);

/* An attribute and the name of a task, without code of the program's for the hooked type. New
 * references; NULL, without an exception, where there is none. */
PyObject *
task_attribute(PyObject *task, const char *name);
PyObject *
task_name(PyObject *task);

/* Describes a task at its end, from the object; `task` is a PyObject * that may have no references
 * left. */
epitaph *
epitaph_of_task(void *task);

/* If the task is a creator, takes down what it is called and how it ended, for the time when the
 * object no longer tells: an eager task that has ended inside its creation has lost its coroutine
 * (passed here; else NULL), a pure-Python one is gone when its weak reference calls. Sets no
 * exception. */
void
epitaph_prepare(PyObject *task, PyObject *coroutine);

/* Whether there is any: mostly not. */
static inline bool
epitaphs_are_prepared(void)
{
    return glue->state != NULL && PyDict_GET_SIZE(glue->state->prepared) > 0;
}

/* What was prepared for this address, borrowed; or NULL: a tuple (name, function, ended), the first
 * two str or None, the last one of "returned", "cancelled", "raised" or None. */
PyObject *
epitaph_look(const void *address);

/* The note for what was prepared at this address, or NULL; once. */
epitaph *
epitaph_prepared(const void *address);

#endif
