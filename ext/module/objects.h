/* What the collector tracks.
 *
 * Nothing here gives the GIL away: while the list of all objects exists, a tuple that another thread
 * is still filling has one reference too many, and growing it would fail there.
 */
#ifndef LG_OBJECTS_H
#define LG_OBJECTS_H

#include <Python.h>

/* All objects that the collector tracks: a list, new reference. NULL with an exception, TypeError
 * where the program replaced gc.get_objects by something that gives no list. */
PyObject *
tracked_objects(void);

/* A list of all live objects of these types (a tuple). NULL with an exception. */
PyObject *
live_instances(PyObject *types);

#endif
