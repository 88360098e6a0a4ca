/*
 * A thread inside is killed by a signal that its process does not handle.
 *
 * enclave: ops
 * exit: -15
 */
#include "host.h"

#include <sys/time.h>

static volatile uint32_t never;

int main(int argc, char **argv)
{
    struct sgx_enclave_run run = {0};
    struct enclave e;
    pid_t parent = getpid();

    start(&e, argc, argv);
    run.tcs = e.tcs[0];
    ok("about to enter");
    if (DO(fork()) == 0) {
        usleep(100000);
        DO(kill(parent, SIGTERM));
        _exit(0);
    }
    ask(&run, OP_WAIT, (uint64_t)&never, 0, 0);
    FAIL("came out");
}
