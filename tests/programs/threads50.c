/*
 * 50 host threads in 50 TCS at a time, and a spin lock in enclave memory between them.
 *
 * enclave: ops threads=50 stack_pages=1
 */
#include "host.h"

#include <pthread.h>

#define THREADS 50
#define ROUNDS 4
#define TIMES 50

static struct enclave e;
static pthread_barrier_t all;

static void *work(void *number)
{
    struct sgx_enclave_run run = {.tcs = e.tcs[(intptr_t)number]};

    pthread_barrier_wait(&all);
    for (int i = 0; i < ROUNDS; i++)
        ask(&run, OP_LOCKED, TIMES, 0, 0);
    return NULL;
}

int main(int argc, char **argv)
{
    struct sgx_enclave_run run = {0};
    pthread_t threads[THREADS];

    start(&e, argc, argv);
    SAME(e.threads, THREADS);
    DO(-pthread_barrier_init(&all, NULL, THREADS));
    for (intptr_t i = 0; i < THREADS; i++)
        SAME(pthread_create(&threads[i], NULL, work, (void *)i), 0);
    for (int i = 0; i < THREADS; i++)
        SAME(pthread_join(threads[i], NULL), 0);
    run.tcs = e.tcs[0];
    SAME(ask(&run, OP_TOTAL, 0, 0, 0), THREADS * ROUNDS * TIMES);
    ok("%d threads added %d each, none was lost", THREADS, ROUNDS * TIMES);
    return 0;
}
