/*
 * A lock without PAUSE, without turns: 50 threads take it for each page that they add, as the
 * memory manager of the SDK does. The thread that holds it needs the kernel; all others only spin.
 *
 * enclave: ops threads=50 stack_pages=1 size=0x2000000
 * engines: unicorn
 */
#include "host.h"

#include <pthread.h>

#ifndef THREADS
#define THREADS 50
#define PAGES 20
#endif

static struct enclave e;
static pthread_barrier_t all;

static void *work(void *number)
{
    uint64_t thread = (uint64_t)number;
    struct sgx_enclave_run run = {.tcs = e.tcs[thread]};
    uint64_t first = e.base + e.end + thread * PAGES * PAGE_SIZE;

    pthread_barrier_wait(&all);
    SAME(ask(&run, OP_GROW, first, RW | SGX_PT_REG | SGX_PENDING, PAGES), 0);
    return NULL;
}

int main(int argc, char **argv)
{
    struct sgx_enclave_run run = {0};
    pthread_t threads[THREADS];

    start(&e, argc, argv);
    SAME(e.threads, THREADS);
    DO(enclave_map_range(&e, e.end, THREADS * PAGES * PAGE_SIZE, PROT_RW));
    DO(-pthread_barrier_init(&all, NULL, THREADS));
    for (intptr_t i = 0; i < THREADS; i++)
        SAME(pthread_create(&threads[i], NULL, work, (void *)i), 0);
    for (int i = 0; i < THREADS; i++)
        SAME(pthread_join(threads[i], NULL), 0);
    run.tcs = e.tcs[0];
    SAME(ask(&run, OP_TOTAL, 0, 0, 0), THREADS * PAGES);
    ok("%d threads added %d pages each under one lock", THREADS, PAGES);
    return 0;
}
