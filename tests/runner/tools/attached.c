/*
 * A program for debuggers to attach to: argv[4] says where its thread is until SIGUSR1 comes. It
 * prints its pid when it is there, and one line about what it then did.
 *
 * enclave: ops
 */
#include "host.h"

#include <pthread.h>

static volatile uint32_t inside, leave;

static void release(int number)
{
    (void)number;
    leave = 1;
}

static uint64_t step(uint64_t x)
{
    x ^= x << 13;
    x ^= x >> 7;
    return x ^ x << 17;
}

static void say_ready(void)
{
    printf("%d\n", getpid());
    fflush(stdout);
}

/* Every step counts: a register that a debugger left wrong shows. */
static void compute(void)
{
    uint64_t x = M1, y = M1, steps = 0;

    say_ready();
    for (; !leave; steps++)
        x = step(x);
    while (steps--)
        y = step(y);
    SAME(x, y);
}

static void *say_inside(void *unused)
{
    while (!inside)
        usleep(1000);
    say_ready();
    return unused;
}

static void stay(struct enclave *e)
{
    struct sgx_enclave_run run = {.tcs = e->tcs[0]};
    pthread_t thread;

    SAME(pthread_create(&thread, NULL, say_inside, NULL), 0);
    SAME(ask(&run, OP_TELL, (uint64_t)&inside, (uint64_t)&leave, 0), 0);
    SAME(pthread_join(thread, NULL), 0);
}

static void wait_in_a_call(void)
{
    char byte;
    int ends[2];

    DO(pipe(ends));
    say_ready();
    /* No SA_RESTART: only the signal's handler may end it. */
    SAME(read(ends[0], &byte, 1), -1);
    SAME(errno, EINTR);
    SAME(leave, 1);
}

int main(int argc, char **argv)
{
    struct enclave e;
    struct sigaction action = {.sa_handler = release};

    start(&e, argc, argv);
    DO(sigaction(SIGUSR1, &action, NULL));
    if (!strcmp(argv[4], "outside"))
        compute();
    else if (!strcmp(argv[4], "inside"))
        stay(&e);
    else
        wait_in_a_call();
    struct sgx_enclave_run run = {.tcs = e.tcs[0]};
    SAME(ask(&run, OP_COUNT, 1000, 0, 0), 0);
    ok("%s", argv[4]);
    return 0;
}
