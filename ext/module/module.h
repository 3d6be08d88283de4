/* The functions of leakguard._core: each file has those of one concern, and a table of them. */
#ifndef LG_MODULE_H
#define LG_MODULE_H

#include <Python.h>

#include "epitaph.h"
#include "glue.h"
#include "leakguard/threads.h"

static inline module_state *
state_of(PyObject *module)
{
    return (module_state *)PyModule_GetState(module);
}

/* Whether this is the interpreter that is tracked: another one imports this module too. */
static inline bool
is_here(void)
{
    return glue != NULL && PyInterpreterState_Get() == glue->interp;
}

/* Threads that nobody announced get their records. */
static inline void
find_natives(void)
{
    if (lg_threads_is_on()) {
        lg_threads_scan(0);
        epitaph_free_all(lg_threads_take_notes());
    }
}

extern PyMethodDef hook_functions[];   /* module_hooks.c */
extern PyMethodDef birth_functions[];  /* module_births.c */
extern PyMethodDef record_functions[]; /* module_records.c */
extern PyMethodDef scope_functions[];  /* module_scopes.c */
extern PyMethodDef limit_functions[];  /* module_limits.c */
extern PyMethodDef exit_functions[];   /* module_exit.c */

#endif
