/* A library that starts threads, to be loaded by the tests: one in its constructor, where
 * LIBRARY_STARTS is set, and one at each call. */
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>

sem_t library_gate;
pthread_t library_thread;

void *
library_worker(void *unused);

void *
library_worker(void *unused)
{
    while (sem_wait(&library_gate) != 0) {
        /* a signal */
    }
    return unused;
}

int __attribute__((noinline)) library_start(void);

int
library_start(void)
{
    /* No tail call: this function is to be seen on the stack. */
    volatile int result = pthread_create(&library_thread, NULL, library_worker, &library_gate);
    return result;
}

static void __attribute__((constructor)) begin(void)
{
    sem_init(&library_gate, 0, 0);
    if (getenv("LIBRARY_STARTS") != NULL) {
        library_start();
    }
}
