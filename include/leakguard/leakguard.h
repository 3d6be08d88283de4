/* For other C extensions: resources of a kind of their own, in leakguard's checks and reports.
 *
 * No link to leakguard is needed, and none to be installed:
 *
 *     static leakguard_api *leakguard;                 // NULL where leakguard is not there
 *     static int connections = -1;
 *
 *     leakguard = PyCapsule_Import(LEAKGUARD_CAPSULE, 0);
 *     if (leakguard == NULL) { PyErr_Clear(); }
 *     else { connections = leakguard->add_kind("connection"); }
 *     ...
 *     self->resource = leakguard->born(connections, "db:5432", state_of, self);
 *     ...
 *     leakguard->ended(self->resource);
 *
 * All functions need the GIL of the main interpreter. What was born while leakguard tracked, and has
 * not ended, is live: `leakguard.guard(kinds="connection")` reports it, with the Python stack of its
 * birth. Resources born while leakguard does not track cost an allocation and are not known.
 */
#ifndef LEAKGUARD_LEAKGUARD_H
#define LEAKGUARD_LEAKGUARD_H

#define LEAKGUARD_CAPSULE "leakguard._core.C_API"
#define LEAKGUARD_API_VERSION 1

typedef struct leakguard_resource leakguard_resource;

typedef struct {
    unsigned version; /* LEAKGUARD_API_VERSION, or newer: members are only ever added */

    /* Makes a kind known; asked for again, the same number. `name`: a Python identifier in lower
     * case that is no kind of leakguard's. Returns -1 with ValueError for another name, or where
     * there are five such kinds in the process already. */
    int (*add_kind)(const char *name);

    /* A resource begins. `name` (UTF-8, copied) is what a report calls it. `state`, which may be NULL,
     * is asked at a report, with `context`: UTF-8 that stays valid until the GIL is given away, or
     * NULL; it must not run Python code. Returns NULL with an exception for a wrong kind, or where
     * memory ran out. */
    leakguard_resource *(*born)(int kind, const char *name, const char *(*state)(void *context),
                                void *context);

    /* It has ended; exactly once for each. NULL is allowed. Keeps a pending exception. */
    void (*ended)(leakguard_resource *resource);
} leakguard_api;

#endif
