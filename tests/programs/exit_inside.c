/*
 * The process ends, with the exit code that one thread gives, while another is inside and will
 * never come out.
 *
 * enclave: ops
 * exit: 7
 */
#include "host.h"

#include <pthread.h>

static volatile uint32_t inside, never;
static struct enclave e;

static void *stay(void *unused)
{
    struct sgx_enclave_run run = {.tcs = e.tcs[0]};

    ask(&run, OP_TELL, (uint64_t)&inside, (uint64_t)&never, 0);
    return unused;
}

int main(int argc, char **argv)
{
    pthread_t thread;

    start(&e, argc, argv);
    SAME(pthread_create(&thread, NULL, stay, NULL), 0);
    while (!inside)
        usleep(1000);
    ok("a thread is inside");
    exit(7);
}
