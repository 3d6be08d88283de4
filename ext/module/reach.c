/* Which waiting tasks can never go on: the future that each waits for is reached from nothing that
 * can still run.
 *
 * Marking, with the collector's own means. A count above the references that tracked objects have
 * to an object comes from outside the collector's view (running frames, C, frozen and untracked
 * objects): that object is a root. From the roots everything is marked through tp_traverse, but not
 * through a blocked task or its coroutine: these only run once the task's future is reached, and
 * are followed then. A weak reference counts as one, since whoever has it can still call what it
 * gives, but not to a generator: the loop's list of async generators drives none.
 *
 * All of it happens in one call with the GIL held. While the list of all objects exists, no Python
 * object is made and no Python code runs (see objects.h). What tp_traverse may be
 * called on is what the collector may meet at any moment: every tracked object.
 */
#include "glue.h"

#include <stdlib.h>
#include <string.h>

#include "address_map.h"
#include "blocked_tasks.h"
#include "compat.h"
#include "frames.h"
#include "leakguard/clock.h"
#include "objects.h"

enum {
    ROOT = 1,        /* held from outside the collector's view */
    MARKED = 2,      /* something that can run leads here */
    BLOCKED = 4,     /* a blocked task; its `references` is its index from then on */
    BARRIER = 8,     /* not followed: a blocked task, its coroutine, an object of leakguard's own */
    OF_BLOCKED = 16, /* blocked tasks lead here */
};

/* References beyond count as many: an immortal object, a root. */
#define MANY_REFERENCES (1 << 28)

#define LOOK_AT_CLOCK 4096u

typedef struct {
    int32_t references;
    uint8_t flags;
} node;

typedef struct {
    blocked_task *blocked;
    size_t blocked_count;
    PyObject *own;        /* tuple of types, borrowed */
    PyObject *cancellers; /* tuple of types and code objects, borrowed */

    PyObject **objects; /* of the list: node i is objects[i - 1] */
    size_t count;
    node *nodes;
    uint32_t *stack; /* nodes to be followed; each at most once */
    size_t height;
    address_map map; /* of the objects to their nodes */

    bool follow_weak;
    uint8_t mark;   /* the flag that is set now */
    int32_t change; /* of count_reference */
    int64_t deadline;
    uint32_t steps;
    const char *given_up; /* static: "time", "memory" */
} reach;

static bool
is_over(reach *self)
{
    if (self->given_up == NULL && ++self->steps % LOOK_AT_CLOCK == 0
        && lg_clock_now() > self->deadline) {
        self->given_up = "time";
    }
    return self->given_up != NULL;
}

/* The node of an object, 0 for one that is not tracked. */
static uint32_t
node_of(const reach *self, const void *object)
{
    return address_map_find(&self->map, object);
}

static bool
index_objects(reach *self)
{
    self->nodes = calloc(self->count + 1, sizeof(*self->nodes));
    self->stack = malloc((self->count + 1) * sizeof(*self->stack));
    if (self->nodes == NULL || self->stack == NULL) {
        return false;
    }
    for (uint32_t i = 1; i <= self->count && !is_over(self); i++) {
        PyObject *object = self->objects[i - 1];
        Py_ssize_t references = Py_REFCNT(object);
        node *found = &self->nodes[i];
        found->references = references < MANY_REFERENCES ? (int32_t)references - 1 /* the list's */
                                                         : MANY_REFERENCES;
        if (!address_map_add(&self->map, object, i)) {
            return false;
        }
    }
    return true;
}

static int
count_reference(PyObject *object, void *context)
{
    reach *self = context;
    uint32_t number = node_of(self, object);
    if (number != 0) {
        self->nodes[number].references += self->change;
    }
    return 0;
}

static void
traverse(PyObject *object, visitproc visit, void *context)
{
    traverseproc function = Py_TYPE(object)->tp_traverse;
    if (function != NULL) {
        (void)function(object, visit, context);
    }
}

/* What is left of each count comes from outside. */
static void
find_roots(reach *self)
{
    self->change = -1;
    for (size_t i = 0; i < self->count && !is_over(self); i++) {
        traverse(self->objects[i], count_reference, self);
    }
    for (size_t i = 0; i < self->blocked_count; i++) {
        blocked_task *blocked = &self->blocked[i]; /* these references are ours */
        (void)count_reference(blocked->task, self);
        (void)count_reference(blocked->future, self);
        if (blocked->coroutine != NULL) {
            (void)count_reference(blocked->coroutine, self);
        }
    }
    self->change = 1;
    for (size_t i = 0; i < self->count && !is_over(self); i++) {
        frames_visit_borrowed(self->objects[i], count_reference, self);
    }
    for (size_t i = 1; i <= self->count; i++) {
        if (self->nodes[i].references > 0 || node_of(self, self->objects[i - 1]) != i) {
            self->nodes[i].flags |= ROOT;
        }
    }
}

static bool
is_in(const void *object, PyObject *tuple)
{
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(tuple); i++) {
        if (object == PyTuple_GET_ITEM(tuple, i)) {
            return true;
        }
    }
    return false;
}

static void
set_barriers(reach *self)
{
    for (size_t i = 0; i < self->count && !is_over(self); i++) {
        PyObject *object = self->objects[i];
        if (Py_IS_TYPE(object, glue->state->Record) || is_in(Py_TYPE(object), self->own)) {
            self->nodes[i + 1].flags |= BARRIER;
        }
    }
    for (size_t i = 0; i < self->blocked_count; i++) {
        blocked_task *blocked = &self->blocked[i];
        blocked->task_node = node_of(self, blocked->task);
        blocked->future_node = node_of(self, blocked->future);
        if (blocked->coroutine != NULL) {
            blocked->coroutine_node = node_of(self, blocked->coroutine);
        }
        node *task = &self->nodes[blocked->task_node];
        task->flags |= BARRIER | BLOCKED;
        task->references = (int32_t)i;
        self->nodes[blocked->coroutine_node].flags |= BARRIER;
    }
    self->nodes[0] = (node){0};
}

static void
mark(reach *self, uint32_t number)
{
    node *found = &self->nodes[number];
    if (number == 0 || (found->flags & self->mark)) {
        return;
    }
    found->flags |= self->mark;
    if (!(found->flags & BARRIER)) {
        self->stack[self->height++] = number;
    }
}

static int
mark_reference(PyObject *object, void *context)
{
    reach *self = context;
    mark(self, node_of(self, object));
    return 0;
}

/* A blocked task that goes on. Followed also where it is marked already. */
static void
set_live(reach *self, blocked_task *blocked)
{
    blocked->is_live = true;
    uint32_t numbers[] = {blocked->task_node, blocked->coroutine_node};
    for (size_t i = 0; i < Py_ARRAY_LENGTH(numbers); i++) {
        node *found = &self->nodes[numbers[i]];
        if (found->flags & BARRIER) {
            found->flags = (uint8_t)((found->flags & ~BARRIER) | self->mark);
            self->stack[self->height++] = numbers[i];
        }
    }
}

static int
cancel_blocked(PyObject *object, void *context)
{
    reach *self = context;
    node *found = &self->nodes[node_of(self, object)];
    if ((found->flags & (BLOCKED | BARRIER)) == (BLOCKED | BARRIER)) {
        set_live(self, &self->blocked[found->references]);
    }
    return 0;
}

static bool
is_generator(PyObject *object)
{
    return PyGen_CheckExact(object) || PyCoro_CheckExact(object) || PyAsyncGen_CheckExact(object);
}

/* Of a bound method that can be called: a task's own (cancel) wakes it, and so does a timeout's. */
static void
follow_method(reach *self, PyObject *bound)
{
    if (bound != NULL) {
        (void)cancel_blocked(bound, self);
        if (is_in(Py_TYPE(bound), self->cancellers)) {
            traverse(bound, cancel_blocked, self);
        }
    }
}

static void
follow(reach *self, PyObject *object)
{
    traverse(object, mark_reference, self);
    if (!self->follow_weak) {
        return;
    }
    if (PyWeakref_Check(object)) {
        PyObject *target = ((PyWeakReference *)object)->wr_object;
        if (target != NULL && !is_generator(target)) {
            (void)mark_reference(target, self);
        }
    }
#ifdef LG_COROUTINE_CODE
    else if (PyCoro_CheckExact(object) && is_in(LG_COROUTINE_CODE(object), self->cancellers)) {
        traverse(object, cancel_blocked, self);
    }
#endif
    else if (PyMethod_Check(object)) {
        follow_method(self, PyMethod_GET_SELF(object));
    }
    else if (PyCFunction_Check(object)) {
        follow_method(self, PyCFunction_GET_SELF(object));
    }
}

/* Whether the future of a blocked task is reached. One that is itself a blocked task ends only
 * where that one goes on, whoever has it. */
static bool
can_go_on(reach *self, const blocked_task *blocked)
{
    const node *future = &self->nodes[blocked->future_node];
    if (blocked->future_node == 0 || blocked->task_node == 0) {
        return true; /* frozen, or odd: nothing can be said */
    }
    if (future->flags & BLOCKED) {
        return self->blocked[future->references].is_live;
    }
    return (future->flags & MARKED) != 0;
}

/* Follows what is on the stack, with the tasks that go on by it, until nothing is left. */
static void
drain(reach *self)
{
    bool has_changed = true;
    while (has_changed && self->given_up == NULL) {
        while (self->height > 0 && !is_over(self)) {
            follow(self, self->objects[self->stack[--self->height] - 1]);
        }
        has_changed = false;
        for (size_t i = 0; i < self->blocked_count && self->follow_weak; i++) {
            if (!self->blocked[i].is_live && can_go_on(self, &self->blocked[i])) {
                set_live(self, &self->blocked[i]);
                has_changed = true;
            }
        }
    }
}

static void
mark_from_roots(reach *self)
{
    for (uint32_t i = 1; i <= self->count; i++) {
        if (self->nodes[i].flags & ROOT) {
            mark(self, i);
        }
    }
    drain(self);
}

/* Garbage that has not been collected yet: its finalizer can still run anything. Futures only
 * log. */
static bool
has_finalizer(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    PyTypeObject *task = glue->tasks.type;
    if (task != NULL && task->tp_base != NULL && PyType_IsSubtype(type, task->tp_base)) {
        return false;
    }
    return type->tp_finalize != NULL || type->tp_del != NULL;
}

static void
mark_from_garbage(reach *self)
{
    self->mark = OF_BLOCKED;
    self->follow_weak = false;
    for (size_t i = 0; i < self->blocked_count; i++) {
        const blocked_task *blocked = &self->blocked[i];
        if (!blocked->is_live) {
            traverse(blocked->task, mark_reference, self);
            if (blocked->coroutine != NULL) {
                traverse(blocked->coroutine, mark_reference, self);
            }
        }
    }
    drain(self);
    if (self->given_up != NULL) {
        return; /* the stack is not empty */
    }
    self->mark = MARKED;
    self->follow_weak = true;
    for (uint32_t i = 1; i <= self->count && !is_over(self); i++) {
        if (!(self->nodes[i].flags & (MARKED | OF_BLOCKED | BARRIER))
            && has_finalizer(self->objects[i - 1])) {
            mark(self, i);
        }
    }
    drain(self);
}

/* A second time, over strong references only: what is not marked now is held by nobody but itself
 * and tasks that never go on. */
static void
mark_what_is_held(reach *self)
{
    for (size_t i = 1; i <= self->count; i++) {
        self->nodes[i].flags &= (uint8_t)~MARKED;
    }
    self->follow_weak = false;
    mark_from_roots(self);
}

/* Takes a copy of the records of live tasks, each with a reference of its task. */
static void
mark_all(reach *self, PyObject *all)
{
    self->objects = PySequence_Fast_ITEMS(all);
    self->count = (size_t)PyList_GET_SIZE(all);
    if (self->count >= UINT32_MAX || !index_objects(self)) {
        self->given_up = "memory";
        return;
    }
    self->mark = MARKED;
    self->follow_weak = true;
    static void (*const steps[])(reach *) = {
        find_roots, set_barriers, mark_from_roots, mark_from_garbage, mark_what_is_held,
    };
    for (size_t i = 0; i < Py_ARRAY_LENGTH(steps) && self->given_up == NULL; i++) {
        steps[i](self);
    }
}

/* Appends a serial; -1 with an exception. */
static int
append(PyObject *list, uint64_t serial)
{
    PyObject *number = PyLong_FromUnsignedLongLong(serial);
    int result = number != NULL ? PyList_Append(list, number) : -1;
    Py_XDECREF(number);
    return result;
}

static PyObject *
result_of(reach *self, const bool *is_held)
{
    if (self->given_up != NULL) {
        return PyUnicode_FromString(self->given_up);
    }
    PyObject *forever = PyList_New(0);
    PyObject *unheld = PyList_New(0);
    bool failed = forever == NULL || unheld == NULL;
    for (size_t i = 0; i < self->blocked_count && !failed; i++) {
        const blocked_task *blocked = &self->blocked[i];
        failed = (!blocked->is_live && append(forever, blocked->serial) < 0)
                 || (!is_held[i] && append(unheld, blocked->serial) < 0);
    }
    if (failed) {
        Py_XDECREF(forever);
        Py_XDECREF(unheld);
        return NULL;
    }
    return Py_BuildValue("NN", forever, unheld);
}

/* Marks over all objects that the collector tracks, and notes in `is_held` what is held. False with
 * an exception. */
static bool
mark_everything(reach *self, bool *is_held)
{
    PyObject *all = tracked_objects();
    if (all == NULL) {
        return false;
    }
    mark_all(self, all);
    for (size_t i = 0; i < self->blocked_count && self->given_up == NULL; i++) {
        uint32_t number = self->blocked[i].task_node;
        is_held[i] = number == 0 || (self->nodes[number].flags & MARKED) != 0;
    }
    Py_DECREF(all);
    return true;
}

PyObject *
waiting_forever(PyObject *own, PyObject *cancellers, double timeout)
{
    blocked_tasks list = {0};
    reach self = {
        .own = own,
        .cancellers = cancellers,
        .deadline = lg_clock_now() + (int64_t)(timeout * 1e9),
    };
    bool found = blocked_tasks_find(&list);
    self.blocked = list.tasks;
    self.blocked_count = list.count;
    bool *is_held = calloc(list.count + 1, sizeof(*is_held));
    PyObject *result = NULL;
    if (!found || is_held == NULL) {
        PyErr_NoMemory();
    }
    else if (list.count == 0 || mark_everything(&self, is_held)) {
        result = result_of(&self, is_held);
    }
    address_map_free(&self.map);
    free(self.nodes);
    free(self.stack);
    free(is_held);
    blocked_tasks_free(&list);
    return result;
}
