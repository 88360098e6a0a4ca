/*
 * Two threads inside one enclave at the same time: they take turns by a word of enclave memory, so
 * neither can come out unless the other is inside.
 *
 * enclave: ops threads=2
 */
#include "host.h"

#include <pthread.h>

#define ROUNDS 200

static struct enclave e;

static void *second(void *unused)
{
    struct sgx_enclave_run run = {.tcs = e.tcs[1]};

    ask(&run, OP_MEET, 1, ROUNDS, 0);
    return unused;
}

int main(int argc, char **argv)
{
    struct sgx_enclave_run run = {0};
    pthread_t thread;

    start(&e, argc, argv);
    SAME(pthread_create(&thread, NULL, second, NULL), 0);
    run.tcs = e.tcs[0];
    ask(&run, OP_MEET, 0, ROUNDS, 0);
    SAME(pthread_join(thread, NULL), 0);
    SAME(ask(&run, OP_MEET, 0, 0, 0), 2 * ROUNDS);
    ok("%d turns inside, taken by two threads", 2 * ROUNDS);
    return 0;
}
