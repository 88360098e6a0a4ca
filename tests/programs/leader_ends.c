/*
 * The first thread of a process ends; another one goes on, builds an enclave and enters it.
 *
 * The story: the memory of the process was looked up by the tid of its first thread.
 *
 * enclave: ops
 */
#include "host.h"

#include <pthread.h>

static int count;
static char **arguments;
static pthread_t first;

static void *second(void *unused)
{
    struct enclave e;
    struct sgx_enclave_run run = {0};

    (void)unused;
    SAME(pthread_join(first, NULL), 0);
    start(&e, count, arguments);
    run.tcs = e.tcs[0];
    SAME(ask(&run, OP_TOTAL, 0, 0, 0), 0);
    ok("an enclave in a process without its first thread");
    exit(0);
}

int main(int argc, char **argv)
{
    pthread_t thread;

    count = argc, arguments = argv, first = pthread_self();
    SAME(pthread_create(&thread, NULL, second, NULL), 0);
    pthread_exit(NULL);
}
