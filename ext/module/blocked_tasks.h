/* The tasks that wait for a future which is not done: what reach.c asks about. */
#ifndef LG_BLOCKED_TASKS_H
#define LG_BLOCKED_TASKS_H

#include <Python.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct {
    PyObject *task;      /* owned, as all three */
    PyObject *future;    /* what it waits for */
    PyObject *coroutine; /* or NULL */
    uint64_t serial;
    /* Of reach.c: */
    uint32_t task_node, future_node, coroutine_node; /* 0: not tracked */
    bool is_live;
} blocked_task;

typedef struct {
    blocked_task *tasks;
    size_t count, capacity;
} blocked_tasks;

/* Fills an empty list, from what has a record. Calls done() of futures, which may be the program's
 * own. False where memory ran out, without an exception; what was found until then is in the list. */
bool
blocked_tasks_find(blocked_tasks *list);

void
blocked_tasks_free(blocked_tasks *list);

#endif
