/* leakguard._core: hands the hooks and the records to Python. */
#include "module.h"

#include "leakguard/interpose.h"
#include "leakguard/process.h"

bool
require_installed(void)
{
    if (!is_here() || glue->tracker == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "leakguard is not installed: call leakguard.install()");
        return false;
    }
    if (lg_process_forked()) {
        glue_after_fork();
    }
    return true;
}

static void
retain_frame(lg_frame frame)
{
    Py_INCREF((PyObject *)frame.code);
}

static PyObject *
core_install(PyObject *module, PyObject *args)
{
    unsigned int depth;
    Py_ssize_t max_bytes;
    if (!PyArg_ParseTuple(args, "In:install", &depth, &max_bytes)) {
        return NULL;
    }
    if (depth < 1 || depth > LG_MAX_STACK_DEPTH) {
        return PyErr_Format(PyExc_ValueError, "stack_depth must be 1 to %d, not %u",
                            LG_MAX_STACK_DEPTH, depth);
    }
    if (PyInterpreterState_Get() != PyInterpreterState_Main() || glue == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "leakguard tracks the main interpreter only");
        return NULL;
    }
    glue->state = state_of(module);
    glue->depth = depth;
    glue_forget_stacks();
    if (glue->tracker != NULL) {
        Py_RETURN_NONE;
    }
    lg_depot_config config = {
        .allocator = lg_allocator_system(),
        .max_bytes = (size_t)max_bytes,
        .retain = retain_frame,
    };
    lg_tracker *tracker;
    if (lg_tracker_new(&config, glue->next_serial, &tracker) != LG_OK
        || lg_process_set_tracker(tracker) != LG_OK) {
        return PyErr_NoMemory();
    }
    glue->epoch++;
    glue->tracker = tracker;
    Py_RETURN_NONE;
}

static void
uninstall(void)
{
    witness_stop();
    task_ends_stop();
    unhook_tasks();
    unhook_asyncgens();
    unhook_threads();
    unhook_loops();
    unhook_natives();
    unhook_processes();
    unhook_tempdirs();
    blocking_stop();
    terminate_disarm();
    lg_tracker *tracker = glue->tracker;
    if (tracker == NULL) {
        return;
    }
    lg_process_set_tracker(NULL);
    glue->next_serial = lg_registry_last_serial(tracker->registry) + 1;
    glue->tracker = NULL;
    glue->wants_destroyed = false;
    Py_CLEAR(glue->destroyed);
    Py_CLEAR(glue->unclosed);
    epitaph_free_all(lg_tracker_free(tracker, glue_release_frame, NULL));
    if (glue->state != NULL) {
        PyDict_Clear(glue->state->watches);
        PyDict_Clear(glue->state->adopted);
        PyDict_Clear(glue->state->prepared);
        PyDict_Clear(glue->state->processes);
        PyDict_Clear(glue->state->tempdirs);
    }
}

static PyObject *
core_uninstall(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    if (is_here()) {
        uninstall();
    }
    Py_RETURN_NONE;
}

static PyObject *
core_is_installed(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    return PyBool_FromLong(is_here() && glue->tracker != NULL);
}

static PyObject *
core_is_main_interpreter(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    return PyBool_FromLong(PyInterpreterState_Get() == PyInterpreterState_Main());
}

static PyObject *
core_untrack(PyObject *module, PyObject *object)
{
    (void)module;
    if (PyObject_IS_GC(object)) {
        PyObject_GC_UnTrack(object);
    }
    Py_RETURN_NONE;
}

static PyMethodDef own_functions[] = {
    {"install", core_install, METH_VARARGS, "install(depth, max_bytes)"},
    {"uninstall", core_uninstall, METH_NOARGS, NULL},
    {"is_installed", core_is_installed, METH_NOARGS, NULL},
    {"is_main_interpreter", core_is_main_interpreter, METH_NOARGS, NULL},
    {"untrack", core_untrack, METH_O, "the garbage collector need not look at this object"},
    {NULL, NULL, 0, NULL},
};

static PyMethodDef *const tables[] = {
    hook_functions,  birth_functions, record_functions,  scope_functions,
    limit_functions, exit_functions,  process_functions, tempdir_functions,
};

static int
module_exec(PyObject *module)
{
    module_state *state = state_of(module);
    state->watches = PyDict_New();
    state->adopted = PyDict_New();
    state->prepared = PyDict_New();
    state->processes = PyDict_New();
    state->tempdirs = PyDict_New();
    state->ThreadRun = (PyTypeObject *)PyType_FromModuleAndSpec(module, &ThreadRun_spec, NULL);
    state->NativeThread =
        (PyTypeObject *)PyType_FromModuleAndSpec(module, &NativeThread_spec, NULL);
    state->Resource = (PyTypeObject *)PyType_FromModuleAndSpec(module, &Resource_spec, NULL);
    state->Child = (PyTypeObject *)PyType_FromModuleAndSpec(module, &Child_spec, NULL);
    state->TempDir = (PyTypeObject *)PyType_FromModuleAndSpec(module, &TempDir_spec, NULL);
    state->Hook = (PyTypeObject *)PyType_FromModuleAndSpec(module, &Hook_spec, NULL);
    state->Record = PyStructSequence_NewType(&Record_desc);
    state->Watermark = (PyTypeObject *)PyType_FromModuleAndSpec(module, &Watermark_spec, NULL);
    if (state->watches == NULL || state->adopted == NULL || state->prepared == NULL
        || state->processes == NULL || state->tempdirs == NULL || state->ThreadRun == NULL
        || state->NativeThread == NULL || state->Resource == NULL || state->Child == NULL
        || state->TempDir == NULL || state->Hook == NULL || state->Record == NULL
        || state->Watermark == NULL) {
        return -1;
    }
    for (size_t i = 0; i < sizeof(tables) / sizeof(tables[0]); i++) {
        if (PyModule_AddFunctions(module, tables[i]) < 0) {
            return -1;
        }
    }
    const char *unwinder = lg_unwind_version();
    int added = unwinder != NULL ? PyModule_AddStringConstant(module, "LIBUNWIND", unwinder)
                                 : PyModule_AddObjectRef(module, "LIBUNWIND", Py_None);
    if (added < 0 || PyModule_AddType(module, state->Hook) < 0
        || PyModule_AddType(module, state->Record) < 0
        || PyModule_AddIntConstant(module, "MAX_STACK_DEPTH", LG_MAX_STACK_DEPTH) < 0
        || PyModule_AddIntConstant(module, "HAS_NATIVE_THREADS", LG_CAN_INTERPOSE) < 0) {
        return -1;
    }
    if (PyInterpreterState_Get() == PyInterpreterState_Main()) {
        if (glue_init(state) < 0) {
            return -1;
        }
        PyObject *capsule = capi_capsule();
        added = capsule != NULL ? PyModule_AddObjectRef(module, "C_API", capsule) : -1;
        Py_XDECREF(capsule);
        return added;
    }
    return 0;
}

static int
module_traverse(PyObject *module, visitproc visit, void *arg)
{
    module_state *state = state_of(module);
    Py_VISIT(state->ThreadRun);
    Py_VISIT(state->NativeThread);
    Py_VISIT(state->Resource);
    Py_VISIT(state->Child);
    Py_VISIT(state->TempDir);
    Py_VISIT(state->Hook);
    Py_VISIT(state->Record);
    Py_VISIT(state->Watermark);
    Py_VISIT(state->watches);
    Py_VISIT(state->adopted);
    Py_VISIT(state->prepared);
    Py_VISIT(state->processes);
    Py_VISIT(state->tempdirs);
    return 0;
}

static int
module_clear(PyObject *module)
{
    module_state *state = state_of(module);
    /* The hooks use this state: they go first. */
    if (glue != NULL && glue->state == state) {
        uninstall();
        glue->state = NULL;
        glue_clear();
    }
    Py_CLEAR(state->watches);
    Py_CLEAR(state->adopted);
    Py_CLEAR(state->prepared);
    Py_CLEAR(state->processes);
    Py_CLEAR(state->tempdirs);
    Py_CLEAR(state->ThreadRun);
    Py_CLEAR(state->NativeThread);
    Py_CLEAR(state->Resource);
    Py_CLEAR(state->Child);
    Py_CLEAR(state->TempDir);
    Py_CLEAR(state->Hook);
    Py_CLEAR(state->Record);
    Py_CLEAR(state->Watermark);
    return 0;
}

static void
module_free(void *module)
{
    (void)module_clear(module);
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, module_exec},
#ifdef Py_mod_multiple_interpreters
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
#ifdef Py_mod_gil
    /* Free-threaded builds: install() refuses, so nothing here runs; importing must not switch
     * the GIL on. */
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "leakguard._core",
    .m_doc = "Hooks and records; see the leakguard package for what people use.",
    .m_size = sizeof(module_state),
    .m_methods = own_functions,
    .m_slots = slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC
PyInit__core(void)
{
    return PyModuleDef_Init(&definition);
}
