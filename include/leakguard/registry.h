/* The registry: every live resource, in order of birth, with an index by object address.
 *
 * Serials are given out by the registry: they rise by birth and are never reused. Insertion and
 * removal are O(1); looking at what was born since a serial costs what was born since and lives.
 *
 * A record links to its creator's record. When a record is removed while others name it as their
 * creator, it stays as a *ghost*: out of the index, the order and every visit, but known by
 * serial, with a note that the binding hangs on it. A ghost goes when the last record that names
 * it goes. A record that becomes a ghost while its own creator is one links past it, so a chain
 * of resources that each create the next and end holds one ghost, not all of them. Only a thread
 * links past a thread: to which thread a record belongs stays known.
 *
 * Every function may be called from any thread; one lock serialises them, which a tracker's
 * registry and depot share. Under it are called the allocator and the visits only.
 */
#ifndef LEAKGUARD_REGISTRY_H
#define LEAKGUARD_REGISTRY_H

#include <stdbool.h>

#include "leakguard/alloc.h"
#include "leakguard/base.h"
#include "leakguard/depot.h"
#include "leakguard/lock.h"

typedef struct lg_registry lg_registry;

/* Record flags. */
#define LG_FOUND 1u /* was there before tracking began */

/* What the binding keeps of a creator that has ended; it embeds this as the first member of its
 * own struct. Owned by the registry while it hangs on a ghost, then by whom it is handed to. */
typedef struct lg_note {
    struct lg_note *next; /* links notes handed out together; the registry's while it owns them */
} lg_note;

typedef struct {
    const void *object;  /* the key: not NULL, unique among live records */
    const void *creator; /* key of the creator's live record; NULL or unknown: no creator */
    int64_t born;        /* lg_clock_now() */
    lg_stack_id stack;   /* the registry only keeps it; its use is the caller's business */
    uint32_t scope;      /* what the code says, or 0. The creator's counts where that is newer (a
                            larger number): the code may run in a context from before. */
    lg_kind kind;
    unsigned flags;
} lg_birth;

/* A copy of a record. */
typedef struct {
    const void *object; /* NULL for a ghost */
    uint64_t serial;
    uint64_t creator; /* serial, or 0 */
    int64_t born;
    lg_stack_id stack;
    uint32_t scope;
    lg_kind kind;
    unsigned flags;
    uint32_t children; /* how many records, ghosts included, name it as their creator */
} lg_record;

typedef struct {
    uint64_t serial;
    lg_stack_id stack;
    uint32_t slot;   /* the registry's own */
    bool is_creator; /* records name it: it has become a ghost, hang a note on it */
    lg_note *notes;  /* of ghosts that went with it, now the caller's; may be NULL */
} lg_removed;

typedef struct {
    uint64_t created;
    uint64_t ended;
} lg_kind_count; /* live is the difference */

typedef struct {
    lg_kind_count kinds[LG_KIND_LIMIT];
    size_t ghosts;
    size_t bytes; /* allocated by the registry, all told */
} lg_registry_stats;

/* Visits one record, under the registry's lock: no call back into the registry, no Python code.
 * Returning false ends the visit. */
typedef bool (*lg_visit)(void *context, const lg_record *record);

/* `first_serial` is the serial of the first birth (1, or what a former registry left off at). */
lg_status
lg_registry_new(const lg_allocator *allocator, uint64_t first_serial, lg_registry **ret_registry);

/* Frees the registry and all records; NULL is allowed. Returns the notes of all ghosts. */
lg_note *
lg_registry_free(lg_registry *registry);

/* LG_EXISTS where the object has a live record already (nothing changes); LG_NO_MEMORY, also where
 * 67 million records are kept. Once warm (as many live before) it allocates nothing. */
lg_status
lg_registry_insert(lg_registry *registry, const lg_birth *birth, uint64_t *ret_serial);

/* LG_NOT_FOUND where the object has no live record; cannot fail otherwise: the index may move into
 * a smaller block, and stays where it is if there is none. Counts the record as ended. */
lg_status
lg_registry_remove(lg_registry *registry, const void *object, lg_removed *ret_removed);

/* Like remove, but the birth is taken back: neither created nor ended counts it. */
lg_status
lg_registry_cancel(lg_registry *registry, const void *object, lg_removed *ret_removed);

/* The object's resource has ended, though the object lives and its record stays: it counts no more in
 * a watermark. Once; LG_NOT_FOUND, LG_EXISTS where it was said before. */
lg_status
lg_registry_end(lg_registry *registry, const void *object);

/* Hangs a note on the ghost that a removal left. LG_NOT_FOUND where it has gone since (the note
 * stays the caller's), LG_EXISTS where it has one. */
lg_status
lg_registry_annotate(lg_registry *registry, const lg_removed *removed, lg_note *note);

/* The record of a live object. */
lg_status
lg_registry_find(lg_registry *registry, const void *object, lg_record *ret_record);

/* The record of the creator of a live object, live or ghost; *ret_note is its note or NULL,
 * borrowed: valid until a removal (the binding's GIL keeps those away). LG_NOT_FOUND where there
 * is no record or no creator. */
lg_status
lg_registry_find_creator(lg_registry *registry, const void *object, lg_record *ret_creator,
                         const lg_note **ret_note);

/* Visits a live object's record (if there is one) and then its creators up the line, nearest
 * first, ghosts included. */
void
lg_registry_visit_line(lg_registry *registry, const void *object, lg_visit visit, void *context);

/* Visits live records born after `since` whose kind is in `kinds`, newest first. */
void
lg_registry_visit_since(lg_registry *registry, uint64_t since, unsigned kinds, lg_visit visit,
                        void *context);

/* The serial of the newest birth so far (first_serial - 1 where there was none). */
uint64_t
lg_registry_last_serial(lg_registry *registry);

/* The serial of the newest record that lives, 0 where none does. */
uint64_t
lg_registry_newest_live(lg_registry *registry);

lg_registry_stats
lg_registry_get_stats(lg_registry *registry);

/* For the tracker, whose lock this is from here on; the next two are called while it is held, and
 * do what lg_registry_insert (with that stack), lg_registry_remove and lg_registry_cancel do. */
void
lg__registry_share_lock(lg_registry *registry, lg_lock *lock);
lg_status
lg__registry_insert(lg_registry *registry, const lg_birth *birth, lg_stack_id stack,
                    uint64_t *ret_serial);
lg_status
lg__registry_remove(lg_registry *registry, const void *object, bool cancelled,
                    lg_removed *ret_removed);

/* For the watermarks (watermark.h): what they share, NULL where none is open, under the lock; and
 * takes the lock, and gives its place. */
typedef struct lg__marks lg__marks;
lg__marks *
lg__registry_marks(lg_registry *registry);
lg__marks **
lg__registry_lock_marks(lg_registry *registry);
void
lg__registry_unlock_marks(lg_registry *registry);

/* In a forked child: removes, as ended, every record born at or before `upto` that belongs to
 * another thread than the one whose record has the key `thread` (NULL: to any thread). A thread's
 * record belongs to itself; any other belongs to the first LG_THREAD up its line of creators
 * (ghosts included), and stays where that line shows no thread. `removed` sees each record that
 * went, under the lock. Returns the notes of the ghosts that went. */
lg_note *
lg_registry_keep_thread(lg_registry *registry, const void *thread, uint64_t upto, lg_visit removed,
                        void *context);

#endif
