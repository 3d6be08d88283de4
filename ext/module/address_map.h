/* From the addresses of objects to numbers, for as many objects as a process has: by page, so that
 * neighbours are found together, and one look-up costs one cache miss.
 */
#ifndef LG_ADDRESS_MAP_H
#define LG_ADDRESS_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    uintptr_t number;  /* of the page, counted from address 0; 0 for a free place */
    uint32_t *numbers; /* owned: by granule of the page */
} address_page;

/* All zero is an empty one. */
typedef struct {
    address_page *pages; /* owned, as what is in them */
    size_t mask;
    size_t count;
} address_map;

/* False where memory ran out, or the objects lie on more pages than it may have. An object that does
 * not begin at a multiple of 16 is not found again. */
bool
address_map_add(address_map *map, const void *object, uint32_t number);

/* 0 for an object that was not added. */
uint32_t
address_map_find(const address_map *map, const void *object);

void
address_map_free(address_map *map);

#endif
