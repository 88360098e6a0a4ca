/*
 * Threads that do nothing but call: one alone, then all at once, for a second each. `name value`,
 * microseconds of that second for each call, whichever thread made it.
 *
 * enclave: ops threads=50 stack_pages=1
 */
#include "host.h"
#include "timing.h"

#include <pthread.h>

enum { THREADS = 50 };

static struct enclave e;
static pthread_barrier_t all;
static volatile int stop;
static uint64_t calls[THREADS];

static void *work(void *number)
{
    uint64_t thread = (uint64_t)number;
    struct sgx_enclave_run run = {.tcs = e.tcs[thread]};

    for (int i = 0; i < 20; i++)
        ask(&run, OP_NOP, 0, 0, 0);
    pthread_barrier_wait(&all);
    for (calls[thread] = 0; !stop; calls[thread]++)
        ask(&run, OP_NOP, 0, 0, 0);
    return NULL;
}

static void storm(const char *name, int count)
{
    const struct timespec second = {.tv_sec = 1};
    pthread_t threads[THREADS];
    uint64_t sum = 0;

    stop = 0;
    SAME(pthread_barrier_init(&all, NULL, count + 1), 0);
    for (intptr_t i = 0; i < count; i++)
        SAME(pthread_create(&threads[i], NULL, work, (void *)i), 0);
    pthread_barrier_wait(&all);
    double begin = now();
    DO(nanosleep(&second, NULL));
    stop = 1;
    double took = now() - begin;
    for (int i = 0; i < count; i++) {
        SAME(pthread_join(threads[i], NULL), 0);
        sum += calls[i];
    }
    printf("%s %.4f\n", name, took / sum);
}

int main(int argc, char **argv)
{
    start(&e, argc, argv);
    SAME(e.threads, THREADS);
    storm("one", 1);
    storm("all", THREADS);
    return 0;
}
