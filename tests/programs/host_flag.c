/*
 * An enclave waits for a word of host memory that another host thread changes, and the other way
 * round, without leaving: calls without exits.
 *
 * enclave: ops
 */
#include "host.h"

#include <pthread.h>

static volatile uint32_t go_on, inside;

static void *late(void *unused)
{
    usleep(50000);
    go_on = 1;
    return unused;
}

static void *answer(void *unused)
{
    while (!inside)
        ;
    go_on = 1;
    return unused;
}

int main(int argc, char **argv)
{
    struct sgx_enclave_run run = {0};
    pthread_t thread;
    struct enclave e;

    start(&e, argc, argv);
    run.tcs = e.tcs[0];
    SAME(pthread_create(&thread, NULL, late, NULL), 0);
    SAME(ask(&run, OP_WAIT, (uint64_t)&go_on, 0, 0), 0);
    SAME(pthread_join(thread, NULL), 0);
    ok("the enclave sees the host's write");

    go_on = 0;
    SAME(pthread_create(&thread, NULL, answer, NULL), 0);
    SAME(ask(&run, OP_TELL, (uint64_t)&inside, (uint64_t)&go_on, 0), 0);
    SAME(pthread_join(thread, NULL), 0);
    ok("the host sees the enclave's write, while it is inside");
    return 0;
}
