/* Where a task waits, as a key. */
#ifndef LG_WAITING_PLACE_H
#define LG_WAITING_PLACE_H

#include <Python.h>

/* A bytes that is equal for two coroutines just where they, and the coroutines that they await in
 * turn, are suspended in the same code at the same instruction. It has the addresses of the code
 * objects: worth something only as long as these live. None where another kind of object is in the
 * chain, or one that is not suspended; NULL with an exception. */
PyObject *
waiting_place(PyObject *coroutine);

#endif
