#include "leakguard/alloc.h"

#include <stdlib.h>

static void *
system_allocate(void *context, size_t size)
{
    (void)context;
    return malloc(size);
}

static void
system_release(void *context, void *block, size_t size)
{
    (void)context;
    (void)size;
    free(block);
}

lg_allocator
lg_allocator_system(void)
{
    return (lg_allocator){system_allocate, system_release, NULL};
}
