/* Changes exit status 0 where leaks were found, after Python has finalised.
 *
 * on_exit (glibc) hands the status over, after Py_FinalizeEx and with atexit done; handlers run
 * last in, first out, so one that is armed at interpreter start runs nearly last. _exit is the
 * only way to another status from there, so stdio is flushed by hand.
 */
#include "glue.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#ifdef __GLIBC__
static void
change_status(int status, void *context)
{
    (void)context;
    if (status == 0 && glue->exit.leaked && getpid() == glue->exit.pid) {
        fflush(NULL);
        _exit(glue->exit.code);
    }
}
#endif

int
exit_status_arm(int code)
{
    bool armed = glue->exit.pid != 0;
    glue->exit.pid = getpid();
    glue->exit.code = code;
#ifdef __GLIBC__
    if (!armed && on_exit(change_status, NULL) != 0) {
        PyErr_SetString(PyExc_RuntimeError, "leakguard: the C library refused an exit handler");
        return -1;
    }
    return 0;
#else
    (void)armed;
    PyErr_SetString(PyExc_NotImplementedError,
                    "leakguard: this system's C library has no on_exit: the exit status stays");
    return -1;
#endif
}

void
exit_status_set(bool leaked)
{
    glue->exit.leaked = leaked;
}
