#include "leakguard/unwind.h"

#include <stddef.h>
#include <string.h>

#ifdef LG_WITH_LIBUNWIND

#define UNW_LOCAL_ONLY
#include <libunwind.h>

#define TEXT_OF(number) #number
#define TEXT(number) TEXT_OF(number)

const char *
lg_unwind_version(void)
{
    return TEXT(UNW_VERSION_MAJOR) "." TEXT(UNW_VERSION_MINOR);
}

uint32_t
lg_unwind_here(const void *from, uintptr_t *frames, uint32_t capacity)
{
    /* Room for our own frames between the caller and this one. */
    void *all[LG_NATIVE_DEPTH + 8];
    int count = unw_backtrace(all, LG_NATIVE_DEPTH + 8);
    int first = 0;
    while (first < count && all[first] != from) {
        first++;
    }
    if (first == count) {
        first = 0; /* rather our own frames too than none */
    }
    uint32_t kept = (uint32_t)(count - first);
    kept = kept < capacity ? kept : capacity;
    for (uint32_t i = 0; i < kept; i++) {
        frames[i] = (uintptr_t)all[(uint32_t)first + i];
    }
    return kept;
}

uint32_t
lg_unwind_signal(void *context, uintptr_t *frames, uint32_t capacity)
{
    unw_cursor_t cursor;
    uint32_t count = 0;
    if (unw_init_local2(&cursor, context, UNW_INIT_SIGNAL_FRAME) != 0) {
        return 0;
    }
    while (count < capacity) {
        unw_word_t address;
        if (unw_get_reg(&cursor, UNW_REG_IP, &address) != 0 || address == 0) {
            break;
        }
        frames[count++] = address;
        if (unw_step(&cursor) <= 0) {
            break;
        }
    }
    return count;
}

#else

const char *
lg_unwind_version(void)
{
    return NULL;
}

uint32_t
lg_unwind_here(const void *from, uintptr_t *frames, uint32_t capacity)
{
    (void)from;
    (void)frames;
    (void)capacity;
    return 0;
}

uint32_t
lg_unwind_signal(void *context, uintptr_t *frames, uint32_t capacity)
{
    (void)context;
    (void)frames;
    (void)capacity;
    return 0;
}

#endif
