#define _GNU_SOURCE
#include "leakguard/threads.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "leakguard/clock.h"
#include "leakguard/interpose.h"
#include "leakguard/process.h"

/* Threads whose end was seen, while the kernel still has them. */
enum { DYING = 1024 };

/* Thread-specific: what runs here. The C library hands it to `ending` when the thread ends. */
typedef struct {
    lg_thread *thread; /* NULL where it was not created through us; then the struct is the heap's */
    bool creating;     /* a wrapper below ours comes back to us: the inner call passes through */
    bool own;          /* the thread that is created now is leakguard's: it gets no record */
} local_state;

struct lg_thread {
    local_state local;
    atomic_int holders; /* the list, the running thread, the binding's */
    _Atomic(pid_t) tid;
    void *(*start)(void *);
    void *argument;
    pthread_t handle;  /* there once `tid` is, but for a thread that was found */
    atomic_bool found; /* it does not run through us: only the kernel tells its end */
    bool listed, recorded;
    size_t stack_size;
    lg_stack_id native, caller; /* a use of each, while it is listed */
    lg_thread *newer, *older;
};

struct lg_threads {
    pthread_mutex_t lock;
    pthread_key_t local;
    atomic_bool on;
    lg_interposition interposition;
    lg_threads_config config;
    lg_tracker *tracker; /* borrowed; NULL while off */
    lg_depot *depot;     /* owned */
    lg_thread *newest, *oldest;
    size_t count; /* of the list */
    pid_t dying[DYING];
    size_t next_dying;
    lg_note *notes;
    pid_t forking;     /* the thread that forks now */
    lg_thread *doomed; /* in a child: what is not kept, linked by `older` */
};

void
lg_thread_hold(lg_thread *thread)
{
    atomic_fetch_add_explicit(&thread->holders, 1, memory_order_relaxed);
}

void
lg_thread_release(lg_thread *thread)
{
    if (atomic_fetch_sub_explicit(&thread->holders, 1, memory_order_acq_rel) == 1) {
        free(thread);
    }
}

static pid_t
own_tid(void)
{
    return (pid_t)syscall(SYS_gettid);
}

static local_state *
own_local(lg_threads *threads)
{
    local_state *local = pthread_getspecific(threads->local);
    if (local == NULL) {
        local = calloc(1, sizeof(*local));
        if (local != NULL && pthread_setspecific(threads->local, local) != 0) {
            free(local);
            local = NULL;
        }
    }
    return local;
}

static void
link_thread(lg_threads *threads, lg_thread *thread)
{
    thread->listed = true;
    thread->older = threads->newest;
    thread->newer = NULL;
    if (threads->newest != NULL) {
        threads->newest->newer = thread;
    }
    else {
        threads->oldest = thread;
    }
    threads->newest = thread;
    threads->count++;
}

static void
unlink_thread(lg_threads *threads, lg_thread *thread)
{
    *(thread->newer != NULL ? &thread->newer->older : &threads->newest) = thread->older;
    *(thread->older != NULL ? &thread->older->newer : &threads->oldest) = thread->newer;
    thread->newer = thread->older = NULL;
    thread->listed = false;
    threads->count--;
}

/* One use of a stack; LG_STACK_EMPTY where there is no room for it. Under the lock. */
static lg_stack_id
intern(lg_threads *threads, const lg_frame *frames, uint32_t count)
{
    lg_stack stack = {
        .frames = frames,
        .count = count,
        .inner = count,
        .truncated = count == LG_NATIVE_DEPTH,
        .hash = LG_STACK_HASH_SEED,
    };
    for (uint32_t i = 0; i < count; i++) {
        stack.hash = lg_stack_hash_step(stack.hash, frames[i]);
    }
    stack.hash = lg_stack_hash_end(&stack);
    lg_stack_id id = LG_STACK_EMPTY;
    lg_status status = lg_depot_intern(threads->depot, &stack, &id);
    if (status == LG_FULL) {
        lg_depot_evict(threads->depot, NULL, NULL);
        status = lg_depot_intern(threads->depot, &stack, &id);
    }
    if (status != LG_OK) {
        atomic_fetch_add(&threads->tracker->dropped, 1);
    }
    return id;
}

/* Makes a living thread known. Under the lock, while on. */
static void
admit(lg_threads *threads, lg_thread *thread, const lg_thread_caller *caller, unsigned flags)
{
    lg_thread_hold(thread);
    link_thread(threads, thread);
    if (caller->claimed) {
        return;
    }
    uint64_t serial;
    lg_stack none = {0};
    lg_birth birth = {
        .object = thread,
        .creator = caller->creator,
        .born = lg_clock_now(),
        .scope = caller->scope,
        .kind = LG_NATIVE_THREAD,
        .flags = flags,
    };
    if (lg_tracker_birth(threads->tracker, &none, NULL, &birth, &serial) == LG_OK) {
        thread->recorded = true;
    }
    else {
        atomic_fetch_add(&threads->tracker->dropped, 1);
    }
}

/* The record goes, and the uses of the stacks. Under the lock. */
static void
dismiss(lg_threads *threads, lg_thread *thread, bool cancelled)
{
    if (!thread->listed) {
        return;
    }
    unlink_thread(threads, thread);
    lg_depot_drop(threads->depot, thread->native);
    lg_depot_drop(threads->depot, thread->caller);
    lg_removed removed;
    lg_status status = LG_NOT_FOUND;
    if (thread->recorded) {
        status = cancelled ? lg_tracker_cancel(threads->tracker, thread, &removed)
                           : lg_tracker_death(threads->tracker, thread, &removed);
    }
    if (status == LG_OK) {
        while (removed.notes != NULL) {
            lg_note *note = removed.notes;
            removed.notes = note->next;
            note->next = threads->notes;
            threads->notes = note;
        }
    }
    lg_thread_release(thread);
}

static void
end_thread(lg_threads *threads, lg_thread *thread, bool seen_dying)
{
    pthread_mutex_lock(&threads->lock);
    if (seen_dying) {
        threads->dying[threads->next_dying++ % DYING] = atomic_load(&thread->tid);
    }
    dismiss(threads, thread, false);
    pthread_mutex_unlock(&threads->lock);
}

/* The C library destroys a thread's specific data after its start routine, pthread_exit or
 * cancellation. */
static void
ending(void *specific)
{
    local_state *local = specific;
    lg_threads *threads = lg_process_threads();
    if (local->thread == NULL) {
        free(local);
        return;
    }
    end_thread(threads, local->thread, true);
    lg_thread_release(local->thread);
}

static void *
trampoline(void *passed)
{
    lg_thread *thread = passed;
    lg_threads *threads = lg_process_threads();
    thread->handle = pthread_self();
    atomic_store(&thread->tid, own_tid());
    if (pthread_setspecific(threads->local, &thread->local) != 0) {
        /* Its end would not be seen: it is left to the scan. */
        atomic_store(&thread->found, true);
    }
    return thread->start(thread->argument);
}

static lg_thread *
new_thread(void)
{
    lg_thread *thread = calloc(1, sizeof(*thread));
    if (thread != NULL) {
        thread->local.thread = thread;
        atomic_init(&thread->holders, 1);
    }
    return thread;
}

/* Takes down who creates this thread, where, and makes it known. */
static void
announce(lg_threads *threads, const local_state *local, lg_thread *thread, const void *from)
{
    lg_thread_caller caller = {0};
    uintptr_t addresses[LG_NATIVE_DEPTH];
    lg_frame native[LG_NATIVE_DEPTH];
    caller.claimed = local->own;
    if (!local->own) {
        threads->config.describe(threads->config.context, thread, &caller);
    }
    if (caller.creator == NULL && local->thread != NULL && local->thread->recorded) {
        caller.creator = local->thread;
    }
    pthread_mutex_lock(&threads->lock);
    if (atomic_load(&threads->on)) {
        uint32_t count = lg_unwind_here(from, addresses, LG_NATIVE_DEPTH);
        for (uint32_t i = 0; i < count; i++) {
            native[i] = (lg_frame){addresses[i], 0};
        }
        thread->native = intern(threads, native, count);
        thread->caller = intern(threads, caller.frames, caller.count);
        admit(threads, thread, &caller, 0);
    }
    pthread_mutex_unlock(&threads->lock);
}

static void
take_back(lg_threads *threads, lg_thread *thread)
{
    pthread_mutex_lock(&threads->lock);
    dismiss(threads, thread, true);
    pthread_mutex_unlock(&threads->lock);
    lg_thread_release(thread); /* the one that would have run */
}

typedef int
creator(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);

static int
create(int number, const void *from, pthread_t *handle, const pthread_attr_t *attributes,
       void *(*start)(void *), void *argument)
{
    lg_threads *threads = lg_process_threads();
    creator *original = (creator *)atomic_load(&threads->interposition.originals[number]);
    int saved = errno;
    local_state *local = atomic_load(&threads->on) ? own_local(threads) : NULL;
    lg_thread *thread = local != NULL && !local->creating ? new_thread() : NULL;
    if (thread == NULL) {
        errno = saved;
        return original(handle, attributes, start, argument);
    }
    local->creating = true;
    thread->start = start;
    thread->argument = argument;
    if (attributes == NULL || pthread_attr_getstacksize(attributes, &thread->stack_size) != 0) {
        thread->stack_size = 0;
    }
    announce(threads, local, thread, from);
    lg_thread_hold(thread);
    errno = saved;
    int result = original(handle, attributes, trampoline, thread);
    saved = errno;
    if (result != 0) {
        take_back(threads, thread);
    }
    lg_thread_release(thread);
    local->creating = false;
    errno = saved;
    return result;
}

#define ENTRY(number)                                                                              \
    static int create_##number(pthread_t *handle, const pthread_attr_t *attributes,                \
                               void *(*start)(void *), void *argument)                             \
    {                                                                                              \
        return create(number, __builtin_return_address(0), handle, attributes, start, argument);   \
    }

ENTRY(0)
ENTRY(1)
ENTRY(2)
ENTRY(3)
ENTRY(4)
ENTRY(5)
ENTRY(6)
ENTRY(7)

int
lg_threads_create_own(pthread_t *handle, void *(*start)(void *), void *argument)
{
    lg_threads *threads = lg_process_threads();
    local_state *local = threads != NULL && atomic_load(&threads->on) ? own_local(threads) : NULL;
    if (local != NULL) {
        local->own = true;
    }
    int result = pthread_create(handle, NULL, start, argument);
    if (local != NULL) {
        local->own = false;
    }
    return result;
}

static lg_threads *
new_threads(void)
{
    lg_threads *threads = calloc(1, sizeof(*threads));
    if (threads == NULL || pthread_key_create(&threads->local, ending) != 0) {
        free(threads);
        return NULL;
    }
    pthread_mutex_init(&threads->lock, NULL);
    threads->interposition.name = "pthread_create";
    creator *entries[LG_INTERPOSE_ENTRIES] = {create_0, create_1, create_2, create_3,
                                              create_4, create_5, create_6, create_7};
    for (int i = 0; i < LG_INTERPOSE_ENTRIES; i++) {
        threads->interposition.replacements[i] = (void (*)(void))entries[i];
    }
    return threads;
}

lg_status
lg_threads_start(const lg_threads_config *config, lg_tracker *tracker)
{
    lg_threads *threads = lg_process_threads();
    if (threads == NULL) {
        threads = new_threads();
        if (threads == NULL) {
            return LG_NO_MEMORY;
        }
        lg_process_set_threads(threads);
    }
    if (!atomic_load(&threads->on)) {
        lg_depot *depot;
        lg_status status = lg_depot_new(config->depot, &depot);
        if (status != LG_OK) {
            return status;
        }
        uintptr_t warm[2];
        lg_unwind_here(NULL, warm, 2); /* libunwind makes itself ready: not in a signal handler */
        pthread_mutex_lock(&threads->lock);
        threads->config = *config;
        threads->tracker = tracker;
        threads->depot = depot;
        atomic_store(&threads->on, true);
        pthread_mutex_unlock(&threads->lock);
    }
    lg_status status = lg_interpose_begin(&threads->interposition);
    if (status != LG_OK) {
        lg_threads_stop();
    }
    return status;
}

void
lg_threads_stop(void)
{
    lg_threads *threads = lg_process_threads();
    if (threads == NULL || !atomic_load(&threads->on)) {
        return;
    }
    lg_interpose_end(&threads->interposition);
    pthread_mutex_lock(&threads->lock);
    atomic_store(&threads->on, false);
    while (threads->oldest != NULL) {
        lg_thread *thread = threads->oldest;
        unlink_thread(threads, thread);
        thread->recorded = false;
        lg_thread_release(thread);
    }
    lg_depot_free(threads->depot, NULL, NULL);
    threads->depot = NULL;
    threads->tracker = NULL;
    lg_threads_after_records(threads);
    pthread_mutex_unlock(&threads->lock);
}

bool
lg_threads_is_on(void)
{
    lg_threads *threads = lg_process_threads();
    return threads != NULL && atomic_load(&threads->on);
}

void
lg_threads_slots(size_t *ret_changed, size_t *ret_left_alone)
{
    lg_threads *threads = lg_process_threads();
    *ret_changed = threads != NULL ? threads->interposition.slots : 0;
    *ret_left_alone = threads != NULL ? threads->interposition.left_alone : 0;
}

static bool
knows(const lg_threads *threads, pid_t tid)
{
    for (const lg_thread *thread = threads->newest; thread != NULL; thread = thread->older) {
        if (atomic_load(&thread->tid) == tid) {
            return true;
        }
    }
    return false;
}

/* Under the lock. */
static lg_status
admit_found(lg_threads *threads, pid_t tid, bool claimed, unsigned flags)
{
    lg_thread *thread = new_thread();
    if (thread == NULL) {
        atomic_fetch_add(&threads->tracker->dropped, 1);
        return LG_NO_MEMORY;
    }
    lg_thread_caller caller = {.claimed = claimed};
    atomic_store(&thread->found, true);
    atomic_store(&thread->tid, tid);
    admit(threads, thread, &caller, flags);
    lg_thread_release(thread); /* it does not run through us: the list holds it */
    return LG_OK;
}

lg_status
lg_threads_know(pid_t tid)
{
    lg_threads *threads = lg_process_threads();
    lg_status status = LG_OK;
    pthread_mutex_lock(&threads->lock);
    if (atomic_load(&threads->on) && !knows(threads, tid)) {
        status = admit_found(threads, tid, true, 0);
    }
    pthread_mutex_unlock(&threads->lock);
    return status;
}

static bool
is_gone(pid_t tid)
{
    return syscall(SYS_tgkill, getpid(), tid, 0) != 0 && errno == ESRCH;
}

/* Under the lock: ends what was found and has gone. */
static void
end_found(lg_threads *threads)
{
    lg_thread *next;
    for (lg_thread *thread = threads->oldest; thread != NULL; thread = next) {
        next = thread->newer;
        if (atomic_load(&thread->found) && is_gone(atomic_load(&thread->tid))) {
            dismiss(threads, thread, false);
        }
    }
}

typedef struct {
    pid_t *ids;
    size_t count;
    size_t room;
} tid_list;

static bool
add_tid(tid_list *list, pid_t tid)
{
    if (list->count == list->room) {
        size_t room = list->room != 0 ? list->room * 2 : 64;
        pid_t *larger = realloc(list->ids, room * sizeof(*larger));
        if (larger == NULL) {
            return false;
        }
        list->ids = larger;
        list->room = room;
    }
    list->ids[list->count++] = tid;
    return true;
}

static int
compare_tids(const void *left, const void *right)
{
    pid_t a = *(const pid_t *)left, b = *(const pid_t *)right;
    return (a > b) - (a < b);
}

static bool
has_tid(const tid_list *list, pid_t tid)
{
    return list->count != 0
           && bsearch(&tid, list->ids, list->count, sizeof(tid), compare_tids) != NULL;
}

/* The kernel's threads of this process, sorted. */
static bool
read_tasks(tid_list *list)
{
    DIR *folder = opendir("/proc/self/task");
    if (folder == NULL) {
        return false;
    }
    bool complete = true;
    struct dirent *entry;
    while (complete && (entry = readdir(folder)) != NULL) {
        long tid = strtol(entry->d_name, NULL, 10);
        complete = tid <= 0 || add_tid(list, (pid_t)tid);
    }
    closedir(folder);
    if (list->count != 0) {
        qsort(list->ids, list->count, sizeof(*list->ids), compare_tids);
    }
    return complete;
}

/* Under the lock: the threads in `tasks` that nobody knows. False where one is starting that may be
 * among them. */
static bool
admit_unknown(lg_threads *threads, const tid_list *tasks, unsigned flags)
{
    tid_list known = {0};
    bool complete = true;
    for (const lg_thread *thread = threads->oldest; thread != NULL; thread = thread->newer) {
        pid_t tid = atomic_load(&thread->tid);
        complete = complete && tid != 0 && add_tid(&known, tid);
    }
    for (size_t i = 0; i < DYING; i++) {
        if (threads->dying[i] != 0 && !has_tid(tasks, threads->dying[i])) {
            threads->dying[i] = 0;
        }
        complete = complete && (threads->dying[i] == 0 || add_tid(&known, threads->dying[i]));
    }
    if (complete) {
        if (known.count != 0) {
            qsort(known.ids, known.count, sizeof(*known.ids), compare_tids);
        }
        for (size_t i = 0; i < tasks->count; i++) {
            if (!has_tid(&known, tasks->ids[i]) && !is_gone(tasks->ids[i])) {
                admit_found(threads, tasks->ids[i], false, flags);
            }
        }
    }
    free(known.ids);
    return complete;
}

void
lg_threads_scan(unsigned flags)
{
    enum { TRIES = 50 };
    lg_threads *threads = lg_process_threads();
    bool done = threads == NULL;
    for (int i = 0; !done && i < TRIES; i++) {
        struct stat status;
        tid_list tasks = {0};
        pthread_mutex_lock(&threads->lock);
        if (atomic_load(&threads->on)) {
            end_found(threads);
            /* A folder has as many links as threads, and two more. */
            done = (stat("/proc/self/task", &status) == 0 && status.st_nlink == threads->count + 2)
                   || !read_tasks(&tasks) || admit_unknown(threads, &tasks, flags);
        }
        else {
            done = true;
        }
        pthread_mutex_unlock(&threads->lock);
        free(tasks.ids);
        if (!done) {
            struct timespec pause = {.tv_nsec = 200000};
            nanosleep(&pause, NULL);
        }
    }
}

size_t
lg_threads_count(void)
{
    lg_threads *threads = lg_process_threads();
    if (threads == NULL) {
        return 0;
    }
    pthread_mutex_lock(&threads->lock);
    size_t count = threads->count;
    pthread_mutex_unlock(&threads->lock);
    return count;
}

lg_thread_info
lg_thread_get_info(const lg_thread *thread)
{
    pid_t tid = atomic_load(&thread->tid);
    return (lg_thread_info){
        .tid = tid,
        .handle = tid != 0 ? thread->handle : 0,
        .start = (uintptr_t)thread->start,
        .found = atomic_load(&thread->found),
        .native = thread->native,
        .caller = thread->caller,
        .stack_size = thread->stack_size,
    };
}

lg_status
lg_threads_stack(lg_stack_id id, lg_frame *frames, uint32_t capacity, uint32_t *ret_count)
{
    lg_threads *threads = lg_process_threads();
    lg_status status = LG_NOT_FOUND;
    if (threads == NULL) {
        return status;
    }
    pthread_mutex_lock(&threads->lock);
    lg_stack stack;
    if (threads->depot != NULL && lg_depot_get(threads->depot, id, &stack) == LG_OK) {
        *ret_count = stack.count < capacity ? stack.count : capacity;
        if (*ret_count != 0) {
            memcpy(frames, stack.frames, *ret_count * sizeof(*frames));
        }
        status = LG_OK;
    }
    pthread_mutex_unlock(&threads->lock);
    return status;
}

lg_note *
lg_threads_take_notes(void)
{
    lg_threads *threads = lg_process_threads();
    if (threads == NULL) {
        return NULL;
    }
    pthread_mutex_lock(&threads->lock);
    lg_note *notes = threads->notes;
    threads->notes = NULL;
    pthread_mutex_unlock(&threads->lock);
    return notes;
}

void
lg_threads_before_fork(lg_threads *threads)
{
    if (threads == NULL) {
        return;
    }
    pthread_mutex_lock(&threads->lock);
    threads->forking = own_tid();
    if (threads->depot != NULL) {
        lg_depot_lock(threads->depot);
    }
}

void
lg_threads_after_fork_in_parent(lg_threads *threads)
{
    if (threads == NULL) {
        return;
    }
    if (threads->depot != NULL) {
        lg_depot_unlock(threads->depot);
    }
    pthread_mutex_unlock(&threads->lock);
}

void
lg_threads_after_fork_in_child(lg_threads *threads)
{
    if (threads == NULL) {
        return;
    }
    pthread_mutex_init(&threads->lock, NULL);
    if (threads->depot != NULL) {
        lg_depot_reset_lock(threads->depot);
    }
    lg_thread *next;
    for (lg_thread *thread = threads->oldest; thread != NULL; thread = next) {
        next = thread->newer;
        if (atomic_load(&thread->tid) == threads->forking) {
            atomic_store(&thread->tid, own_tid());
            continue;
        }
        /* Its record goes later, when the binding can take notes: the key has to stay till then. */
        bool runs = !atomic_load(&thread->found);
        unlink_thread(threads, thread);
        if (runs) {
            lg_thread_release(thread); /* that thread is not here */
        }
        thread->older = threads->doomed;
        threads->doomed = thread;
    }
    memset(threads->dying, 0, sizeof(threads->dying));
}

void
lg_threads_after_records(lg_threads *threads)
{
    while (threads != NULL && threads->doomed != NULL) {
        lg_thread *thread = threads->doomed;
        threads->doomed = thread->older;
        if (threads->depot != NULL) {
            lg_depot_drop(threads->depot, thread->native);
            lg_depot_drop(threads->depot, thread->caller);
        }
        thread->recorded = false;
        lg_thread_release(thread);
    }
}
