/* What a C library does with threads, for the tests: starts them in each way, leaks them, ends them;
 * waits in C with and without the GIL; registers resources of its own. */
#define _GNU_SOURCE
#include <Python.h>
#include <dlfcn.h>
#include <pthread.h>
#include <semaphore.h>
#include <unistd.h>

#include "leakguard/leakguard.h"

enum { MOST = 512 };

static struct {
    sem_t gate;
    sem_t ready;
    pthread_t threads[MOST];
    int started;
    pthread_mutex_t held;
    const leakguard_api *leakguard;
    int connections;
} all = {.held = PTHREAD_MUTEX_INITIALIZER, .connections = -1};

#define EXPORTED __attribute__((visibility("default"), noinline))

EXPORTED void *
ext_worker(void *argument);
EXPORTED void *
ext_leaver(void *argument);
EXPORTED int
ext_start(void *(*run)(void *), pthread_attr_t *attributes);
EXPORTED void
ext_sleep(double seconds);
EXPORTED void
ext_take_lock(void);

void *
ext_worker(void *argument)
{
    sem_post(&all.ready);
    while (sem_wait(&all.gate) != 0) {
        /* a signal */
    }
    return argument;
}

void *
ext_leaver(void *argument)
{
    ext_worker(argument);
    pthread_exit(argument);
}

int
ext_start(void *(*run)(void *), pthread_attr_t *attributes)
{
    volatile int result = pthread_create(&all.threads[all.started % MOST], attributes, run, NULL);
    return result;
}

void
ext_sleep(double seconds)
{
    volatile int unused = usleep((useconds_t)(seconds * 1e6));
    (void)unused;
}

void
ext_take_lock(void)
{
    pthread_mutex_lock(&all.held);
    pthread_mutex_unlock(&all.held);
}

/* start(how="worker", released=False, detached=False): one thread, which waits for finish(). */
static PyObject *
start(PyObject *module, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"how", "released", "detached", NULL};
    const char *how = "worker";
    int released = 0, detached = 0, result;
    (void)module;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|spp", names, &how, &released, &detached)) {
        return NULL;
    }
    void *(*run)(void *) = how[0] == 'l' ? ext_leaver : ext_worker;
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    if (detached) {
        pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    }
    if (released) {
        Py_BEGIN_ALLOW_THREADS result = ext_start(run, &attributes);
        Py_END_ALLOW_THREADS
    }
    else {
        result = ext_start(run, &attributes);
    }
    pthread_attr_destroy(&attributes);
    if (result != 0) {
        errno = result;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    all.started += !detached;
    while (sem_wait(&all.ready) != 0) {
        /* a signal */
    }
    Py_RETURN_NONE;
}

/* finish(detached=0): ends all that start() started, joins those that can be. */
static PyObject *
finish(PyObject *module, PyObject *args)
{
    int detached = 0;
    (void)module;
    if (!PyArg_ParseTuple(args, "|i", &detached)) {
        return NULL;
    }
    for (int i = 0; i < all.started + detached; i++) {
        sem_post(&all.gate);
    }
    Py_BEGIN_ALLOW_THREADS for (int i = 0; i < all.started; i++)
    {
        pthread_join(all.threads[i], NULL);
    }
    Py_END_ALLOW_THREADS all.started = 0;
    Py_RETURN_NONE;
}

static void *
nothing(void *argument)
{
    return argument;
}

/* batches(count, size): starts and joins `size` threads, `count` times. */
static PyObject *
batches(PyObject *module, PyObject *args)
{
    int count, size;
    (void)module;
    if (!PyArg_ParseTuple(args, "ii", &count, &size)) {
        return NULL;
    }
    for (int i = 0; i < count; i++) {
        int made = 0;
        while (made < size && pthread_create(&all.threads[made], NULL, nothing, NULL) == 0) {
            made++;
        }
        for (int j = 0; j < made; j++) {
            pthread_join(all.threads[j], NULL);
        }
        if (made < size) {
            return PyErr_Format(PyExc_RuntimeError, "only %d threads", made);
        }
    }
    Py_RETURN_NONE;
}

static void *
call(void *argument)
{
    PyGILState_STATE state = PyGILState_Ensure();
    PyObject *result = PyObject_CallNoArgs(argument);
    if (result == NULL) {
        PyErr_WriteUnraisable(argument);
    }
    Py_XDECREF(result);
    PyGILState_Release(state);
    return NULL;
}

/* call_in_thread(function): in a thread of C's, until it returns. */
static PyObject *
call_in_thread(PyObject *module, PyObject *function)
{
    pthread_t thread;
    (void)module;
    if (pthread_create(&thread, NULL, call, function) != 0) {
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    Py_BEGIN_ALLOW_THREADS pthread_join(thread, NULL);
    Py_END_ALLOW_THREADS Py_RETURN_NONE;
}

/* sleep_holding(seconds): in C, with the GIL. */
static PyObject *
sleep_holding(PyObject *module, PyObject *seconds)
{
    (void)module;
    ext_sleep(PyFloat_AsDouble(seconds));
    Py_RETURN_NONE;
}

/* hold_lock(take), wait_for_lock(): a lock of C's. */
static PyObject *
hold_lock(PyObject *module, PyObject *take)
{
    (void)module;
    if (take == Py_True) {
        pthread_mutex_lock(&all.held);
    }
    else {
        pthread_mutex_unlock(&all.held);
    }
    Py_RETURN_NONE;
}

static PyObject *
wait_for_lock(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    Py_BEGIN_ALLOW_THREADS ext_take_lock();
    Py_END_ALLOW_THREADS Py_RETURN_NONE;
}

/* load(path, function): dlopen, and a call of that function where it is not "". */
static PyObject *
load(PyObject *module, PyObject *args)
{
    const char *path, *name;
    (void)module;
    if (!PyArg_ParseTuple(args, "ss", &path, &name)) {
        return NULL;
    }
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        return PyErr_Format(PyExc_OSError, "%s", dlerror());
    }
    if (name[0] != '\0') {
        int (*function)(void) = (int (*)(void))dlsym(library, name);
        return PyLong_FromLong(function());
    }
    Py_RETURN_NONE;
}

static const char *
state_of(void *context)
{
    return context != NULL ? "busy" : NULL;
}

/* connect(name, busy) -> handle; disconnect(handle): resources of the kind "connection". */
static PyObject *
connect_(PyObject *module, PyObject *args)
{
    const char *name;
    int busy;
    (void)module;
    if (!PyArg_ParseTuple(args, "sp", &name, &busy)) {
        return NULL;
    }
    leakguard_resource *resource =
        all.leakguard->born(all.connections, name, state_of, busy ? &all : NULL);
    return resource != NULL ? PyLong_FromVoidPtr(resource) : NULL;
}

static PyObject *
disconnect(PyObject *module, PyObject *handle)
{
    (void)module;
    all.leakguard->ended(PyLong_AsVoidPtr(handle));
    Py_RETURN_NONE;
}

/* add_kind(name) -> number */
static PyObject *
add_kind(PyObject *module, PyObject *name)
{
    (void)module;
    const char *text = PyUnicode_AsUTF8(name);
    int number = text != NULL ? all.leakguard->add_kind(text) : -1;
    return number < 0 ? NULL : PyLong_FromLong(number);
}

static PyMethodDef functions[] = {
    {"start", (PyCFunction)(void (*)(void))start, METH_VARARGS | METH_KEYWORDS, NULL},
    {"finish", finish, METH_VARARGS, NULL},
    {"batches", batches, METH_VARARGS, NULL},
    {"call_in_thread", call_in_thread, METH_O, NULL},
    {"sleep_holding", sleep_holding, METH_O, NULL},
    {"hold_lock", hold_lock, METH_O, NULL},
    {"wait_for_lock", wait_for_lock, METH_NOARGS, NULL},
    {"load", load, METH_VARARGS, NULL},
    {"connect", connect_, METH_VARARGS, NULL},
    {"disconnect", disconnect, METH_O, NULL},
    {"add_kind", add_kind, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "lg_native",
    .m_size = -1,
    .m_methods = functions,
};

PyMODINIT_FUNC
PyInit_lg_native(void)
{
    sem_init(&all.gate, 0, 0);
    sem_init(&all.ready, 0, 0);
    all.leakguard = PyCapsule_Import(LEAKGUARD_CAPSULE, 0);
    if (all.leakguard == NULL) {
        PyErr_Clear();
    }
    else {
        all.connections = all.leakguard->add_kind("connection");
    }
    return PyModule_Create(&definition);
}
