#include "support.h"

#include <stdlib.h>

static void *
counted_allocate(void *context, size_t size)
{
    counting *counts = context;
    counts->calls++;
    if (counts->calls == counts->fail_at) {
        return NULL;
    }
    void *block = malloc(size);
    if (block != NULL) {
        counts->blocks++;
        counts->bytes += size;
        if (counts->bytes > counts->peak) {
            counts->peak = counts->bytes;
        }
    }
    return block;
}

static void
counted_release(void *context, void *block, size_t size)
{
    counting *counts = context;
    if (block != NULL) {
        counts->blocks--;
        counts->bytes -= size;
        free(block);
    }
}

lg_allocator
counting_allocator(counting *counts)
{
    return (lg_allocator){counted_allocate, counted_release, counts};
}

int
run_suite(Suite *suite)
{
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
