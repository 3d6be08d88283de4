#include "address_map.h"

#include <stdlib.h>

#define PAGE_BITS 12
#define GRANULE_BITS 4 /* objects begin at multiples of 16 */
#define GRANULES (1u << (PAGE_BITS - GRANULE_BITS))
#define PAGE_LIMIT 300000u /* 1 KiB each */
#define FIRST_SIZE 1024u

static address_page *
find_page(const address_map *map, uintptr_t number)
{
    size_t place = (size_t)((uint64_t)number * UINT64_C(0x9E3779B97F4A7C15) >> 24);
    for (;; place++) {
        address_page *found = &map->pages[place & map->mask];
        if (found->number == number || found->number == 0) {
            return found;
        }
    }
}

/* Room for twice as many pages. */
static bool
grow(address_map *map)
{
    size_t size = map->pages != NULL ? map->mask + 1 : 0;
    size_t larger = size != 0 ? size * 2 : FIRST_SIZE;
    address_page *pages = calloc(larger, sizeof(*pages));
    if (pages == NULL) {
        return false;
    }
    address_map grown = {.pages = pages, .mask = larger - 1, .count = map->count};
    for (size_t i = 0; i < size; i++) {
        if (map->pages[i].number != 0) {
            *find_page(&grown, map->pages[i].number) = map->pages[i];
        }
    }
    free(map->pages);
    *map = grown;
    return true;
}

static bool
is_aligned(uintptr_t address)
{
    return (address & ((1u << GRANULE_BITS) - 1)) == 0;
}

bool
address_map_add(address_map *map, const void *object, uint32_t number)
{
    uintptr_t address = (uintptr_t)object;
    if (!is_aligned(address)) {
        return true;
    }
    if ((map->pages == NULL || map->count * 2 > map->mask) && !grow(map)) {
        return false;
    }
    address_page *found = find_page(map, address >> PAGE_BITS);
    if (found->number == 0) {
        if (map->count >= PAGE_LIMIT) {
            return false;
        }
        found->numbers = calloc(GRANULES, sizeof(*found->numbers));
        if (found->numbers == NULL) {
            return false;
        }
        found->number = address >> PAGE_BITS;
        map->count++;
    }
    found->numbers[address >> GRANULE_BITS & (GRANULES - 1)] = number;
    return true;
}

uint32_t
address_map_find(const address_map *map, const void *object)
{
    uintptr_t address = (uintptr_t)object;
    if (!is_aligned(address) || map->pages == NULL) {
        return 0;
    }
    const address_page *found = find_page(map, address >> PAGE_BITS);
    return found->number != 0 ? found->numbers[address >> GRANULE_BITS & (GRANULES - 1)] : 0;
}

void
address_map_free(address_map *map)
{
    for (size_t i = 0; map->pages != NULL && i <= map->mask; i++) {
        free(map->pages[i].numbers);
    }
    free(map->pages);
    *map = (address_map){0};
}
