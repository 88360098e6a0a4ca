/*
 * A process and its child, each with a thread inside that never comes out by itself: argv[4] says
 * what it does there. Prints both pids.
 *
 * enclave: ops threads=2
 */
#include "host.h"

static volatile uint32_t never;
static volatile uint64_t word;

int main(int argc, char **argv)
{
    struct sgx_enclave_run run = {0};
    struct enclave e;

    start(&e, argc, argv);
    pid_t child = DO(fork());
    run.tcs = e.tcs[child == 0];
    if (child)
        printf("%d %d\n", getpid(), child);
    fflush(stdout);
    if (!strcmp(argv[4], "computes"))
        ask(&run, OP_COUNT, 1UL << 62, 0, 0);
    else if (!strcmp(argv[4], "stores"))
        ask(&run, OP_SPIN_WRITE, (uint64_t)&word, (uint64_t)&never, 0);
    else
        ask(&run, OP_WAIT, (uint64_t)&never, 0, 0);
    FAIL("came out");
}
