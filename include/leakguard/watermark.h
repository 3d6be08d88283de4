/* Watermarks: the highest number alive at once of what was born since a moment, by kind and by
 * creation site.
 *
 * While a watermark is open, each birth and end is counted in it, under the registry's lock: the
 * numbers are exact, whatever threads do. Counted is what was born after it was opened, of its
 * kinds and in its scopes, and neither LG_FOUND nor taken back: a peak is taken down when it begins
 * to fall, so a birth that is cancelled before leaves no trace. A resource counts until its record
 * goes, or until lg_registry_end says that it has ended.
 *
 * A site is what the binding's `lg_site_of` makes of a stack, once for each stored stack. Counts of
 * kinds need no memory; those of sites need 16 bytes for each site, kind and watermark, and 8 for
 * each stack id. Of more than LG_MOST_SITES sites the rest has none, and where there is no memory
 * sites are given up; births without a site for such a reason are counted as `unplaced`.
 */
#ifndef LEAKGUARD_WATERMARK_H
#define LEAKGUARD_WATERMARK_H

#include <stdbool.h>

#include "leakguard/tracker.h"

#define LG_MOST_SITES 4096u

typedef struct lg_watermark lg_watermark; /* owned by the tracker until it is closed */

/* A number for the site of a stack, equal for stacks of one site; 0 where there is none. Called
 * under the registry's lock, from any thread: it may only look at the frames. */
typedef uint64_t (*lg_site_of)(const lg_stack *stack);

typedef struct {
    uint32_t peak;
    uint64_t unplaced; /* births that were counted without their site */
} lg_peak;

typedef struct {
    lg_stack_id stack; /* one of the site's; stays stored while a watermark is open */
    uint32_t share;    /* how many of the kind's peak it had */
    uint32_t peak;     /* the most that it had at once */
} lg_site_peak;

/* Opens a watermark for what is born from here on. kinds: a mask. scope: 0, or only what is born in
 * it, or in a scope that lg_watermark_add_scope said to lie in it. LG_NO_MEMORY. */
lg_status
lg_watermark_open(lg_tracker *tracker, unsigned kinds, uint32_t scope, lg_site_of site_of,
                  lg_watermark **ret_watermark);

/* Closes and frees it. lg_tracker_free does so for what is still open. */
void
lg_watermark_close(lg_tracker *tracker, lg_watermark *watermark);

/* The scope `number` begins, inside the scope `parent`. */
void
lg_watermark_add_scope(lg_tracker *tracker, uint32_t number, uint32_t parent);

/* The peak of a kind up to now, and the sites with the largest shares of it, largest first, at most
 * `room`; returns how many. */
size_t
lg_watermark_read(lg_tracker *tracker, lg_watermark *watermark, lg_kind kind, lg_peak *ret_peak,
                  lg_site_peak *ret_sites, size_t room);

/* Stacks without uses are about to be evicted: their ids may come to mean others. */
void
lg_watermark_before_evict(lg_tracker *tracker);

/* For the tracker, under its lock, before each birth while it is watched: finds out the site of a stored stack, once,
 * and has the stack of a new site stay stored. */
void
lg__watermark_meet(lg_tracker *tracker, lg_stack_id id, const lg_stack *stack);

/* For the registry, under its lock. */
void
lg__marks_born(lg__marks *marks, const lg_record *record);
/* Its record goes. counted: it had not ended before; cancelled: it never was. */
void
lg__marks_gone(lg__marks *marks, const lg_record *record, bool counted, bool cancelled);
/* It has ended, and its record stays. */
void
lg__marks_ended(lg__marks *marks, const lg_record *record);
void
lg__marks_free(lg__marks *marks);

#endif
