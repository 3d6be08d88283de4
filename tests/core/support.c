#include "support.h"

#include <stdlib.h>
#include <sys/wait.h>

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

lg_tracker *
new_tracker(counting *counts, size_t max_bytes)
{
    lg_depot_config config = {
        .allocator = counts != NULL ? counting_allocator(counts) : lg_allocator_system(),
        .max_bytes = max_bytes,
    };
    lg_tracker *tracker = NULL;
    ck_assert_int_eq(lg_tracker_new(&config, 1, &tracker), LG_OK);
    return tracker;
}

const void *
address(size_t number)
{
    return (const void *)(uintptr_t)(0x7f0000000000u + number * 176u);
}

int
status_of(pid_t child)
{
    int status = -1;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(WIFEXITED(status));
    return WEXITSTATUS(status);
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
