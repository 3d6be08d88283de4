/* instructions OPERATION: runs one of the core's hot operations OPERATIONS times, for callgrind.
 * Without OPERATION: prints what this was compiled for and by, and the operations.
 *
 * Only what runs inside `measured` is counted (--toggle-collect=measured): neither the set-up nor
 * the loop. The set-up is that of a busy process: OTHERS live records from SITES stacks of DEPTH
 * frames, all created by one thread. Each round works on another object and another stack.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "leakguard/tracker.h"

#if defined(__clang__)
#define COMPILER "clang"
#define COMPILER_VERSION __clang_major__
#else
#define COMPILER "gcc"
#define COMPILER_VERSION __GNUC__
#endif

#if defined(__x86_64__)
#define MACHINE "x86_64"
#elif defined(__aarch64__)
#define MACHINE "aarch64"
#else
#define MACHINE "other"
#endif

enum { DEPTH = 20, SITES = 50, OTHERS = 10000, OPERATIONS = 1000, OBJECT_SIZE = 256 };

/* Addresses as far apart as those of tasks; nothing looks behind them. */
static char objects[(OTHERS + OPERATIONS) * OBJECT_SIZE];
static char thread_object;

static lg_tracker *tracker;
static lg_frame frames[SITES][DEPTH];
static lg_stack stacks[SITES];
static lg_stack_id ids[SITES];
static volatile uint64_t sink;

static void
check(lg_status status)
{
    if (status != LG_OK) {
        fprintf(stderr, "instructions: the core returned %d\n", (int)status);
        exit(EXIT_FAILURE);
    }
}

static uint64_t
hash_frames(const lg_stack *stack)
{
    uint64_t hash = LG_STACK_HASH_SEED;
    for (uint32_t i = 0; i < stack->count; i++) {
        hash = lg_stack_hash_step(hash, stack->frames[i]);
    }
    return hash;
}

static lg_birth
birth_of(size_t number)
{
    return (lg_birth){
        .object = &objects[number * OBJECT_SIZE],
        .creator = &thread_object,
        .born = 1,
        .stack = ids[number % SITES],
        .kind = LG_TASK,
    };
}

static void
stack_hash(size_t number)
{
    sink = hash_frames(&stacks[number % SITES]);
}

static void
depot_hit(size_t number)
{
    lg_stack_id id;
    check(lg_depot_intern(tracker->depot, &stacks[number % SITES], &id));
}

static void
depot_drop(size_t number)
{
    lg_depot_drop(tracker->depot, ids[number % SITES]);
}

static void
registry_insert(size_t number)
{
    uint64_t serial;
    lg_birth birth = birth_of(number);
    check(lg_registry_insert(tracker->registry, &birth, &serial));
}

static void
registry_remove(size_t number)
{
    lg_removed removed;
    check(lg_registry_remove(tracker->registry, &objects[number * OBJECT_SIZE], &removed));
}

static void
tracker_birth(size_t number)
{
    uint64_t serial;
    lg_birth birth = birth_of(number);
    check(lg_tracker_birth(tracker, &stacks[number % SITES], NULL, &birth, &serial));
}

static void
tracker_birth_known(size_t number)
{
    uint64_t serial;
    lg_birth birth = birth_of(number);
    lg_stack_id id = ids[number % SITES];
    check(lg_tracker_birth(tracker, &stacks[number % SITES], &id, &birth, &serial));
}

static void
tracker_death(size_t number)
{
    lg_removed removed;
    check(lg_tracker_death(tracker, &objects[number * OBJECT_SIZE], &removed));
}

static void
nothing(size_t number)
{
    (void)number;
}

typedef void (*step)(size_t number);

/* `before` and `after` each round are not counted. */
static const struct {
    const char *name;
    step before, counted, after;
} operations[] = {
    {"stack_hash", nothing, stack_hash, nothing},
    {"depot_hit", nothing, depot_hit, depot_drop},
    {"depot_drop", depot_hit, depot_drop, nothing},
    {"registry_insert", nothing, registry_insert, registry_remove},
    {"registry_remove", registry_insert, registry_remove, nothing},
    {"birth", nothing, tracker_birth, tracker_death},
    {"birth_known", nothing, tracker_birth_known, tracker_death},
    {"death", tracker_birth, tracker_death, nothing},
};

/* Not static and not inlined: valgrind finds it by its name. */
void
measured(step operation, size_t number);

__attribute__((noinline)) void
measured(step operation, size_t number)
{
    operation(number);
    __asm__ volatile("" ::: "memory"); /* no tail call: the counting ends at our return */
}

static void
set_up(void)
{
    lg_depot_config config = {.allocator = lg_allocator_system(), .max_bytes = 1 << 24};
    check(lg_tracker_new(&config, 1, &tracker));
    for (uintptr_t site = 0; site < SITES; site++) {
        for (uintptr_t i = 0; i < DEPTH; i++) {
            /* As code objects lie; most outer frames are shared. */
            frames[site][i].code = 0x7f0000001000 + (i < 5 ? site * DEPTH + i : i) * 208;
            frames[site][i].place = frames[site][i].code + 2 * i;
        }
        stacks[site] = (lg_stack){.frames = frames[site], .count = DEPTH, .inner = 8};
        stacks[site].hash = hash_frames(&stacks[site]);
        stacks[site].hash = lg_stack_hash_end(&stacks[site]);
        check(lg_depot_intern(tracker->depot, &stacks[site], &ids[site]));
    }
    uint64_t serial;
    lg_birth thread = {.object = &thread_object, .kind = LG_THREAD};
    check(lg_registry_insert(tracker->registry, &thread, &serial));
    for (size_t i = 0; i < OTHERS; i++) {
        tracker_birth(OPERATIONS + i);
    }
}

int
main(int argc, char **argv)
{
    if (argc == 1) {
        printf("%s %s-%d\n", MACHINE, COMPILER, COMPILER_VERSION);
        for (size_t i = 0; i < sizeof(operations) / sizeof(*operations); i++) {
            printf("%s %d\n", operations[i].name, OPERATIONS);
        }
        return EXIT_SUCCESS;
    }
    for (size_t i = 0; i < sizeof(operations) / sizeof(*operations); i++) {
        if (strcmp(argv[1], operations[i].name) == 0) {
            set_up();
            /* The first round may allocate; it is like the others once warm. */
            for (size_t number = 0; number < OPERATIONS; number++) {
                operations[i].before(number);
                measured(operations[i].counted, number);
                operations[i].after(number);
            }
            lg_tracker_free(tracker, NULL, NULL);
            return EXIT_SUCCESS;
        }
    }
    fprintf(stderr, "instructions: no operation is called %s\n", argv[1]);
    return EXIT_FAILURE;
}
