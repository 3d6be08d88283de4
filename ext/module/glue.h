/* The glue: what the hooks share. One struct for the process (hooks get no context argument),
 * one state for the module object.
 *
 * All of it is used with the GIL of the main interpreter held, except where a function says
 * otherwise. Hooks that are reached from another interpreter pass through.
 */
#ifndef LG_GLUE_H
#define LG_GLUE_H

#include <Python.h>
#include <pthread.h>
#include <stdbool.h>
#include <sys/types.h>

#include <signal.h>
#include <stdatomic.h>
#include <time.h>

#include "frames.h"
#include "leakguard/blocking.h"
#include "leakguard/interpose.h"
#include "leakguard/threads.h"
#include "leakguard/tracker.h"

#define LG_MAX_STACK_DEPTH 1024

typedef struct loop_watch loop_watch; /* hook_blocking.c */

/* What the glue knows of one thread; freed when the thread ends. */
typedef struct {
    const void *record;  /* key of the thread's own record: compared, never followed */
    uint64_t epoch;      /* the installation that `record` belongs to */
    frames_mark loop;    /* where the loop that runs here began */
    PyObject *running;   /* that loop, borrowed: _set_running_loop tells when it goes; or NULL */
    uint64_t loop_epoch; /* the installation in which _set_running_loop told `loop`, `running` */
    uint32_t scope;      /* the block that was entered here last and is open, 0 for none */
    PyObject *starting;  /* borrowed: the ThreadRun whose native thread is about to be created */
    uint32_t popened; /* the witness's session in which a Popen was announced here, and not begun */
    loop_watch *watch; /* owned: of that loop, while blocking is watched for; or NULL */
    uint64_t asked;    /* the generation of lg_blocking in which `watch` was decided */
} thread_local_state;

typedef struct {
    PyTypeObject *ThreadRun; /* owned, as all here */
    PyTypeObject *NativeThread;
    PyTypeObject *Resource;
    PyTypeObject *Child;
    PyTypeObject *TempDir;
    PyTypeObject *Hook;
    PyTypeObject *Record;
    PyTypeObject *Watermark;
    PyObject *watches;   /* dict: address -> weak reference of an object born through Python */
    PyObject *prepared;  /* dict: address -> what epitaph_prepare took down */
    PyObject *adopted;   /* dict: ident -> ThreadRun of a thread that was there before */
    PyObject *processes; /* dict: pid -> Child */
    PyObject *tempdirs;  /* dict: path -> TempDir */
} module_state;

/* What the hooks found where they sit now. Kept after unhook: somebody may have copied our
 * functions, which then pass through. */
typedef struct {
    initproc init;
    destructor dealloc;
    bool on;
    bool init_chained, dealloc_chained, clear_chained; /* left under another library's */
    inquiry clear;
    PyTypeObject *type;            /* owned */
    PyWrapperDescrObject *wrapper; /* owned: Task.__init__ */
    void *wrapped;
    PyObject *done; /* owned: the method descriptor Task.done */
} task_hook;

/* Where the end of a C task is seen while somebody counts tasks; see hook_task_end.c. */
typedef struct {
    bool on;
    PyTypeObject *type; /* owned: TaskStepMethWrapper */
    const void *module; /* the task type that it goes with: compared, never followed */
    ternaryfunc step;
    PyMethodDef *wakeup; /* static in _asyncio; NULL while not found */
    PyCFunction wake;
    PyGetSetDef *task_of; /* static, as the next two */
    PyGetSetDef *waits_for;
    PyGetSetDef *callbacks;
    bool step_chained, wake_chained; /* left under another library's */
    uint32_t wanted;                 /* open watermarks that count tasks */
} task_end_hook;

/* One entry of a C module's method table. */
typedef struct {
    PyMethodDef *entry; /* static in the module; NULL where it has no such function */
    PyCFunction original;
    bool on;
    bool chained; /* left under another library's entry, which still ends in ours */
} method_hook;

typedef struct {
    unaryfunc anext;
    bool anext_chained;            /* left under another library's */
    PyWrapperDescrObject *wrapper; /* owned: async_generator.__anext__ */
    void *wrapped;
    method_hook asend;
    bool on;
} asyncgen_hook;

/* A stack of the depot's, found again without a walk that hashes it. */
typedef struct {
    lg_stack stack;       /* its frames are the depot's */
    lg_stack_id id;       /* LG_STACK_EMPTY where this is none */
    frames_inside inside; /* where it was seen last */
} recent_stack;

enum { RECENT_STACKS = 128 };

/* What asyncio's loops wait in. */
enum { SELECT_EPOLL, SELECT_POLL, SELECT_DEVPOLL, SELECT_KQUEUE, SELECT_SELECT, SELECTORS };

enum { START_NEW_THREAD, START_NEW, START_JOINABLE_THREAD, THREAD_STARTS };

typedef enum {
    START_FORK,
    START_FORKPTY,
    START_POSIX_SPAWN,
    START_POSIX_SPAWNP,
    START_FORK_EXEC,
    PROCESS_STARTS
} process_start;

typedef struct {
    /* What each birth and death asks for stands first, side by side: a program that does other work
     * in between waits for each cache line anew. */
    lg_tracker *tracker;        /* owned; NULL when not installed */
    PyInterpreterState *interp; /* the main interpreter, the only one that is tracked */
    uint64_t epoch;             /* counts installations */
    pthread_key_t local;        /* -> thread_local_state */
    uint32_t scopes_active;     /* guards with scope="descendants" that are entered now */
    PyObject *current_tasks;    /* owned: asyncio.tasks._current_tasks; or NULL */
    struct {
        uint64_t version; /* of that dict; 0 where nothing is known */
        PyObject *loop;   /* borrowed, as the next: compared, and held by the dict */
        PyObject *task;
    } last_task;
    module_state *state;  /* of the module in that interpreter; NULL once it is cleared */
    bool wants_destroyed; /* somebody may ask for what is destroyed, or collected unclosed */
    task_hook tasks;
    task_end_hook task_ends;
    uint64_t seen[LG_KIND_LIMIT]; /* births that hooks saw, failed creations included */

    _Atomic(thread_local_state *) spare_locals[4]; /* owned: of threads that have ended; or NULL */
    uint64_t next_serial;                          /* where the next installation's serials begin */
    uint64_t loop_runs;                            /* counts the runs of loops */
    uint32_t depth;                                /* frames kept of a stack */
    struct {
        pid_t pid; /* the process that armed it: a forked child's status is never touched */
        int code;
        bool leaked;
    } exit;
    struct {
        pid_t pid; /* the process that armed it, 0 where it is not armed */
        int ask;   /* the signal whose Python-level handler writes the snapshot */
        volatile sig_atomic_t asked;
        volatile sig_atomic_t shots; /* of the timer, until the grace is over */
        pthread_t main;              /* where Python runs its signal handlers */
        timer_t timer;
        struct itimerspec pace;
    } terminate;
    struct {
        bool on;
        bool audited;                       /* the audit hook is in, for good */
        void *chained;                      /* the PyRefTracer that was found, or NULL */
        void *chained_context;              /* borrowed */
        uint64_t threads, tasks, processes; /* counted by the witness */
        uint64_t seen_threads, seen_tasks;  /* `seen` when it began */
        uint64_t seen_processes;            /* starts since, of those that CPython announces */
        uint64_t popened;                   /* announced by Popen, and not begun yet */
        uint32_t session;
    } witness;
    struct {
        PyObject *listener; /* owned; NULL while nobody asks */
        method_hook selectors[SELECTORS];
        lg_object_slots slots; /* of uvloop */
        _Atomic(void *) epoll_pwait;
    } blocking;
    struct native_texts *texts; /* owned: of frames that created native threads; never freed */
    uint64_t failures;          /* hooks that could not do their work, whatever the reason */

    PyObject *own_kinds;   /* owned: list of the names of kinds that other extensions added */
    PyObject *eager_start; /* owned: interned names, all five */
    PyObject *qualname;
    PyObject *func;
    PyObject *run;
    PyObject *target;              /* "_target" */
    struct foreign_roots *foreign; /* owned, never freed: of fanout.c */
    asyncgen_hook asyncgens;
    method_hook threads[THREAD_STARTS];
    struct thread_run *spare_runs; /* owned: memory, no objects; see hook_thread.c */
    uint32_t spare_run_count;
    PyObject *spare_arguments; /* owned: a tuple of NULLs; or NULL */
    method_hook processes[PROCESS_STARTS];
    method_hook set_running_loop;
    method_hook set_signal;

    bool tempdirs_on;
    bool tempdirs_audited;      /* its audit hook is in, for good */
    PyObject *describe_process; /* owned: see hook_process.c; or NULL */

    PyObject *scope_var;        /* owned: the context variable of scope="descendants"; or NULL */
    PyObject *pure_task;        /* owned: asyncio.tasks._PyTask; or NULL */
    PyObject *get_running_loop; /* owned: _asyncio._get_running_loop; or NULL */
    PyObject *pool_marks;       /* owned: dict whose keys are targets and classes of pool threads */
    PyObject *pool_owner;       /* owned: callable, Thread -> its executor or None */
    PyObject *destroyed;        /* owned: callable, told of tasks freed while pending; or NULL */
    PyObject *unclosed;         /* owned: callable, given what is collected unclosed; or NULL */
    unsigned unclosed_kinds;    /* bits of the kinds that it is given */
    PyObject *run_forever; /* owned: the code of BaseEventLoop.run_forever; NULL while unknown */
    PyObject *thread_type; /* owned: threading.Thread; or NULL while that is not loaded */
    PyObject *thread_run;  /* owned: its `run` */
    recent_stack recent[RECENT_STACKS]; /* by frames_key; what is never used has no memory */
} glue_context;

/* Set once, at the module's first execution in the main interpreter; never freed, since another
 * library may have kept a hook of ours and call it after uninstall. */
extern glue_context *glue;

/* False with an exception where tracking is off, or this is another interpreter. (module.c) */
bool
require_installed(void);

/* 0, or -1 with an exception. */
int
glue_init(module_state *state);

/* Lets go of every Python object, once all hooks are put back: the interpreter ends. What was found
 * in the slots stays known. */
void
glue_clear(void);

/* True where this call is to be tracked: hooks are on, and this is the tracked interpreter. */
static inline bool
glue_tracks(PyThreadState *tstate)
{
    return glue->tracker != NULL && tstate->interp == glue->interp;
}

/* This thread's state, made at the first call; NULL where memory ran out. */
thread_local_state *
glue_local(void);

/* Records a birth at the present Python stack. A NULL creator means the running task, else the
 * current thread. Returns the serial, 0 where nothing was recorded: because the object has a
 * record already (*ret_known is true), or memory ran out (counted as dropped). Sets no exception
 * and keeps a pending one. */
uint64_t
glue_birth(PyThreadState *tstate, lg_kind kind, const void *object, const void *creator,
           bool *ret_known);

/* The loop that runs in this thread, borrowed, or NULL. */
PyObject *
glue_running_loop(void);

/* Who creates here, and for which scope: the running task, else the current thread; borrowed, NULL
 * and 0 for none. */
void
glue_birthplace(PyThreadState *tstate, const void **ret_creator, uint32_t *ret_scope);

/* Records something that was there before tracking began: no stack, no creator, LG_FOUND. */
uint64_t
glue_adopt(lg_kind kind, const void *object);

/* Ends the record of `key`, if it has one. `describe` (may be NULL: then nothing is known) makes
 * the note for a creator whose children live on, with `subject`; see epitaph.h. Keeps a pending
 * exception. */
typedef struct epitaph epitaph;
void
glue_death(const void *key, epitaph *(*describe)(void *subject), void *subject);

/* Takes a birth back: the creation failed. Keeps the pending exception. */
void
glue_cancel(const void *key);

/* The keys of the running task and of the thread that are current here; NULL where there is none
 * or no record. */
const void *
glue_current_task(PyThreadState *tstate);
const void *
glue_current_thread(void);

/* In a forked child, removes what other threads left behind, and what is not the child's: its
 * parent's children and temporary directories. */
void
glue_after_fork(void);

/* Ends the record of each value of a dict for which `is_gone` is true (NULL: of all), and takes it
 * out. Sets no exception. */
void
glue_end_where(PyObject *dict, bool (*is_gone)(PyObject *object, const void *context),
               const void *context);

/* The depot is about to evict stacks, or is another one, or the depth has changed. */
void
glue_forget_stacks(void);

/* Releases one frame that has left the depot. */
void
glue_release_frame(void *context, lg_frame frame);

/* hook_task.c. `hook` is idempotent; unhook puts back what is still ours. -1 with an exception. */
int
hook_tasks(PyTypeObject *task_type);
void
unhook_tasks(void);
bool
hook_tasks_is_on(void);
/* Whether a live object of the task type, or of the pure-Python one, is done; never runs Python
 * code for the former. */
bool
task_is_done(PyObject *task);
/* The same for the opposite, where a task that was emptied or never begun is neither. Sets no
 * exception; none may be pending. */
bool
task_is_pending(PyObject *task);
/* The class whose own methods are safe to call on a task: the hooked one where the task is one of
 * its instances, else the task's class. Borrowed. */
PyTypeObject *
task_base_type(PyObject *task);

/* The slot wrapper `name` in the type's own dict, owned; NULL with an exception. */
PyWrapperDescrObject *
slot_wrapper(PyTypeObject *type, const char *name);

/* hook_task_end.c. want and release: somebody counts tasks from here on, no longer; stop: nobody
 * does, tracking ends. hook: once asyncio's tasks are hooked, if somebody counts. look: says that a
 * task has ended, if it has. */
void
task_ends_want(void);
void
task_ends_release(void);
void
task_ends_hook(void);
void
task_ends_stop(void);
void
task_ends_look(PyObject *task);
bool
task_ends_is_on(void);

/* fanout.c: opens a watermark, for a scope or 0. own, library: tuples of str, where files lie that
 * are leakguard's and the standard library's; the first call's hold. NULL with an exception. */
PyObject *
fanout_open(module_state *state, unsigned kinds, uint32_t scope, PyObject *own, PyObject *library);
extern PyType_Spec Watermark_spec;

/* Replaces the entry `name` in the method table of a module or type; whatever the attribute of that
 * name is now, a wrapper of the program's calls the entry in the end. Names bound earlier see it too
 * (Objects/methodobject.c reads ml_meth at each call). 0 without effect where there is no such entry
 * and it is `optional`; -1 with an exception where there is none or its flags are others. put_back
 * leaves alone what is no longer ours. */
int
method_replace(method_hook *hook, PyObject *owner, const char *name, int flags,
               PyCFunction replacement, bool optional);
void
method_put_back(method_hook *hook, PyCFunction replacement);
bool
method_is_replaced(const method_hook *hook, PyCFunction replacement);

/* hook_asyncgen.c: as for tasks. */
int
hook_asyncgens(void);
void
unhook_asyncgens(void);

/* hook_thread.c */
int
hook_threads(void);
void
unhook_threads(void);
void
threads_free_spares(void);
PyObject *
hook_threads_names(void); /* tuple of the hooked function names */
PyObject *
thread_adopt(module_state *state, PyObject *thread, unsigned long ident);
/* (function or None, Thread or None, label or None, ident, state) of a ThreadRun. */
PyObject *
thread_info(module_state *state, PyObject *run);
/* The native thread of a ThreadRun, borrowed; NULL where it is not known. `link` takes it on; needs
 * no GIL. */
lg_thread *
thread_native(module_state *state, PyObject *run);
void
thread_link(PyObject *run, lg_thread *thread);
extern PyType_Spec ThreadRun_spec;

/* hook_native.c. `known`: a tuple, kernel ids of the threads that Python knows. -1 with an
 * exception. */
int
hook_natives(PyObject *known);
void
unhook_natives(void);
/* Takes over the hold; NULL with an exception. */
PyObject *
native_wrap(module_state *state, lg_thread *thread);
/* Of a NativeThread, borrowed; NULL for anything else. */
lg_thread *
native_of(PyObject *object);
/* (kernel id or 0, ident or 0, start routine or 0, native frames, Python frames, size of stack or 0);
 * frames outermost first, native ones as addresses inside the calls. */
PyObject *
native_info(lg_thread *thread);
/* (function or None, offset, module or None, offset in the module) of an address. */
PyObject *
native_symbol(PyObject *address);
/* kernel id -> native frames as above, or "gone", "blocked", "silent"; empty where nothing can be
 * asked. timeout: seconds. */
PyObject *
native_samples(PyObject *tids, double timeout);
extern PyType_Spec NativeThread_spec;

/* hook_process.c, hook_tempdir.c: their functions are part of the module. */
void
unhook_processes(void);
extern PyMethodDef process_functions[];
extern PyType_Spec Child_spec;
void
unhook_tempdirs(void);
extern PyMethodDef tempdir_functions[];
extern PyType_Spec TempDir_spec;

/* hook_loop.c */
int
hook_loops(PyObject *asyncio_core);
void
unhook_loops(void);
bool
hook_loops_is_on(void);

/* hook_blocking.c. A loop begins or ends to run in this thread, told by hook_loop.c. */
void
blocking_loop_begin(thread_local_state *local, PyThreadState *tstate, PyObject *loop);
void
blocking_loop_end(thread_local_state *local);
/* Takes over where asyncio (`select`) or uvloop (`uvloop.loop`) waits, until the stop. -1 with an
 * exception. */
int
hook_select(PyObject *module);
int
hook_uvloop(PyObject *module);
/* Begins, or changes the bound (seconds) and the listener, which is called with each block as a
 * tuple. -1 with an exception. `stop` puts back all that is still ours. */
int
blocking_start(double bound, PyObject *listener);
void
blocking_stop(void);
/* What this thread's loop did until now counts by itself; the present moment, as blocks have it. */
int64_t
blocking_enter(void);
/* Whether what runs in this thread from here on is leakguard's own. */
void
blocking_exempt(bool exempt);
/* The names of what is hooked. */
PyObject *
blocking_hooks(void);

/* capi.c: what include/leakguard/leakguard.h declares. NULL with an exception. */
PyObject *
capi_capsule(void);
/* (name, state or None) */
PyObject *
capi_resource_info(PyObject *object);
extern PyType_Spec Resource_spec;

/* destroyed.c: what is to be told of a task that is about to be freed, or NULL where that is nothing;
 * `tell` hands it to `glue->destroyed`, and takes over the reference. Neither sets an exception. */
PyObject *
destroyed_take(PyObject *task);
void
destroyed_tell(PyObject *details);

/* reach.c: (serials of the tasks that wait for what nothing that can run reaches, serials of the
 * waiting tasks that nothing which can run holds), or why it gave up: "time" (after `timeout`
 * seconds), "memory". `own`: types whose instances are leakguard's and hold nothing for the program;
 * `cancellers`: types whose bound methods, and code objects of coroutines which, once they run, cancel
 * a task that they refer to. NULL with an exception. */
PyObject *
waiting_forever(PyObject *own, PyObject *cancellers, double timeout);

/* wrap.c */
extern PyType_Spec Hook_spec;

/* born.c: records an object whose birth was announced, or (`found`) that was there before; its
 * end is seen by a weak reference. -1 with an exception. */
int
born_register(module_state *state, lg_kind kind, PyObject *object, bool found);

/* records.c */
extern PyStructSequence_Desc Record_desc;
/* What lives; with `done` the tasks that have ended and are still alive as objects, instead. */
PyObject *
records_live(module_state *state, uint64_t since, unsigned kinds, bool done);
/* (kind, stack id) -> how many live of what was born since tracking began; native threads left out. */
PyObject *
records_count(unsigned kinds);
/* The record of an object, or None. */
PyObject *
records_find(module_state *state, PyObject *object);
PyObject *
records_creator(PyObject *object);
/* The serials of an object and its creators up the line, nearest first; for None those of the
 * running task and then of the current thread. */
PyObject *
records_line(PyObject *object);
PyObject *
records_stack(uint32_t id);
PyObject *
records_stats(void);

/* witness.c: -1 with an exception. */
int
witness_start(void);
void
witness_stop(void);
PyObject *
witness_counts(void);
/* A process is about to be started by a function that announces it itself; and that function has
 * refused its arguments. */
void
witness_announced(void);
void
witness_refused(void);
/* A process is about to be started by fork_exec, which subprocess.Popen has announced, if it is
 * Popen's. */
void
witness_popened(void);

/* exit_status.c. -1 with an exception where this system cannot. */
int
exit_status_arm(int code);
void
exit_status_set(bool leaked);

/* terminate.c: SIGTERM at its default disposition writes a snapshot first. */
/* A real-time signal that nobody uses, or 0. */
int
terminate_free_signal(void);
/* ask: that signal, whose Python-level handler ends in terminate_die; grace: seconds it has.
 * -1 with an exception. */
int
terminate_arm(int ask, double grace);
void
terminate_disarm(void);
/* Dies of SIGTERM by its default disposition. */
void
terminate_die(void);

#endif
