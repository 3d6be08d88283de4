/* SIGTERM where the program leaves it at its default: the process dies of it as ever, but Python
 * first gets a moment to say what is alive.
 *
 * signal.getsignal() still answers SIG_DFL, for the handler is C's: it asks for a real-time signal
 * that nobody uses and whose Python-level handler is ours (PyErr_SetInterruptEx, async-signal-safe:
 * it runs at once in time.sleep, select and lock waits, where pending calls do not), and arms a
 * timer made beforehand. The timer's shots send that signal to the main thread again, which wakes
 * it where the first came just before a system call began to wait, or came to another thread. The
 * last shot, when no Python has run within the grace, ends the process.
 *
 * signal.signal(SIGTERM, SIG_DFL), later in the program, puts the handler in again: seen at the
 * method-table entry of _signal.signal (METH_FASTCALL, Modules/signalmodule.c, 3.11 to 3.15). A
 * forked child has no timer and dies at once.
 */
#include "glue.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "compat.h"

#if defined(_POSIX_TIMERS) && _POSIX_TIMERS > 0 && defined(SIGRTMAX)

static const char TOO_LATE[] = "leakguard: SIGTERM: no Python ran within the grace: no snapshot\n";

enum { SHOTS = 16 };

void
terminate_die(void)
{
    struct sigaction plain = {.sa_handler = SIG_DFL};
    sigset_t only;
    sigemptyset(&plain.sa_mask);
    sigemptyset(&only);
    sigaddset(&only, SIGTERM);
    sigaction(SIGTERM, &plain, NULL);
    kill(getpid(), SIGTERM);
    pthread_sigmask(SIG_UNBLOCK, &only, NULL);
}

/* Whether the grace is over. */
static bool
shot(void)
{
    glue->terminate.shots -= 1 + timer_getoverrun(glue->terminate.timer);
    if (glue->terminate.shots <= 0) {
        ssize_t ignored = write(STDERR_FILENO, TOO_LATE, sizeof(TOO_LATE) - 1);
        (void)ignored;
        return true;
    }
    pthread_kill(glue->terminate.main, glue->terminate.ask);
    return false;
}

static void
on_sigterm(int number, siginfo_t *info, void *context)
{
    (void)number;
    (void)context;
    int saved = errno;
    if (getpid() != glue->terminate.pid || LG_IS_FINALIZING()) {
        terminate_die();
    }
    else if (info->si_code == SI_TIMER) {
        if (shot()) {
            terminate_die();
        }
    }
    else if (glue->terminate.asked) {
        terminate_die();
    }
    else {
        glue->terminate.asked = 1;
        glue->terminate.shots = SHOTS;
        timer_settime(glue->terminate.timer, 0, &glue->terminate.pace, NULL);
        PyErr_SetInterruptEx(glue->terminate.ask);
    }
    errno = saved;
}

/* Puts the handler in where the disposition is the default. */
static bool
put_in(void)
{
    struct sigaction now;
    if (sigaction(SIGTERM, NULL, &now) != 0 || (now.sa_flags & SA_SIGINFO)
        || now.sa_handler != SIG_DFL) {
        return false;
    }
    struct sigaction ours = {.sa_sigaction = on_sigterm, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigemptyset(&ours.sa_mask);
    return sigaction(SIGTERM, &ours, NULL) == 0;
}

static PyObject *
hook_signal(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    _PyCFunctionFast original = (_PyCFunctionFast)(void (*)(void))glue->set_signal.original;
    PyObject *result = original(module, args, count);
    if (result != NULL && glue->terminate.pid == getpid() && !glue->terminate.asked) {
        put_in();
    }
    return result;
}

static PyCFunction
replacement(void)
{
    return (PyCFunction)(void (*)(void))hook_signal;
}

int
terminate_free_signal(void)
{
    /* Not the last one: valgrind's. */
    for (int number = SIGRTMAX - 1; number > SIGRTMIN; number--) {
        struct sigaction now;
        if (sigaction(number, NULL, &now) == 0 && !(now.sa_flags & SA_SIGINFO)
            && now.sa_handler == SIG_DFL) {
            return number;
        }
    }
    return 0;
}

int
terminate_arm(int ask, double grace)
{
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGTERM};
    if (glue->terminate.pid != 0) {
        return 0;
    }
    if (timer_create(CLOCK_MONOTONIC, &event, &glue->terminate.timer) != 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    double pace = grace / SHOTS;
    struct timespec each = {.tv_sec = (time_t)pace,
                            .tv_nsec = (long)((pace - (double)(time_t)pace) * 1e9)};
    if (each.tv_sec == 0 && each.tv_nsec < 1000) {
        each.tv_nsec = 1000; /* 0 would disarm it */
    }
    glue->terminate.pace = (struct itimerspec){.it_value = each, .it_interval = each};
    glue->terminate.main = pthread_self();
    PyObject *module = PyImport_ImportModule("_signal");
    int result = -1;
    if (module != NULL) {
        result = method_replace(&glue->set_signal, module, "signal", METH_FASTCALL, replacement(),
                                false);
        Py_DECREF(module);
    }
    if (result < 0) {
        timer_delete(glue->terminate.timer);
        return -1;
    }
    glue->terminate.ask = ask;
    glue->terminate.asked = 0;
    glue->terminate.pid = getpid();
    put_in();
    return 0;
}

void
terminate_disarm(void)
{
    if (glue->terminate.pid == 0) {
        return;
    }
    struct sigaction now;
    if (sigaction(SIGTERM, NULL, &now) == 0 && (now.sa_flags & SA_SIGINFO)
        && now.sa_sigaction == on_sigterm) {
        struct sigaction plain = {.sa_handler = SIG_DFL};
        sigemptyset(&plain.sa_mask);
        sigaction(SIGTERM, &plain, NULL);
    }
    method_put_back(&glue->set_signal, replacement());
    if (glue->terminate.pid == getpid()) {
        timer_delete(glue->terminate.timer);
    }
    glue->terminate.pid = 0;
}

#else

int
terminate_free_signal(void)
{
    return 0;
}

int
terminate_arm(int ask, double grace)
{
    (void)ask;
    (void)grace;
    PyErr_SetString(PyExc_NotImplementedError, "leakguard: this system has no POSIX timers");
    return -1;
}

void
terminate_disarm(void)
{
}

void
terminate_die(void)
{
}

#endif
