#define _GNU_SOURCE
#include "leakguard/alloc.h"

#include <stdlib.h>
#include <sys/mman.h>

/* A block of this size or more is mapped by itself. From malloc, the blocks of many records would
 * lie between the program's own: glibc gives memory back from the top of its heap only, and one
 * block of the program's above them keeps all of it resident once they are free. */
enum { LEAST_MAPPED = 32 * 1024 };

static void *
system_allocate(void *context, size_t size)
{
    (void)context;
    if (size < LEAST_MAPPED) {
        return malloc(size);
    }
    void *block =
        mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, (off_t)0);
    return block != MAP_FAILED ? block : NULL;
}

static void
system_release(void *context, void *block, size_t size)
{
    (void)context;
    if (size < LEAST_MAPPED) {
        free(block);
    }
    else if (block != NULL) {
        (void)munmap(block, size);
    }
}

lg_allocator
lg_allocator_system(void)
{
    return (lg_allocator){system_allocate, system_release, NULL};
}
