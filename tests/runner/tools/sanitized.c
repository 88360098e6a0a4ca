/*
 * A host with a bug that a sanitizer reports, and a call of its enclave: argv[4] names the bug.
 *
 * enclave: ops
 */
#include "host.h"

#include <limits.h>
#include <pthread.h>

static int counter;

static void *count(void *unused)
{
    counter++;
    return unused;
}

static void race(void)
{
    pthread_t thread;

    SAME(pthread_create(&thread, NULL, count, NULL), 0);
    counter++;
    SAME(pthread_join(thread, NULL), 0);
}

static __attribute__((noinline)) void leak(void)
{
    void *volatile lost = malloc(123);

    lost = NULL;
    (void)lost;
}

static __attribute__((noinline)) void overflow(void)
{
    volatile int big = INT_MAX;

    big = big + 1;
}

int main(int argc, char **argv)
{
    struct enclave e;

    start(&e, argc, argv);
    struct sgx_enclave_run run = {.tcs = e.tcs[0]};
    SAME(ask(&run, OP_COUNT, 1000, 0, 0), 0);
    if (!strcmp(argv[4], "race"))
        race();
    else if (!strcmp(argv[4], "leak"))
        leak();
    else if (!strcmp(argv[4], "overflow"))
        overflow();
    SAME(ask(&run, OP_COUNT, 1000, 0, 0), 0);
    ok("%s", argv[4]);
    return 0;
}
