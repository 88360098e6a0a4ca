/*
 * fork: the child has the enclave's mappings (VM_DONTCOPY is not set), enters the same enclave, and
 * both see the same memory; also at the same time.
 *
 * enclave: ops threads=2
 */
#include "host.h"

#include <sys/wait.h>

#define ROUNDS 50

static void wait_for(pid_t child)
{
    int status;

    SAME(DO(waitpid(child, &status, 0)), child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the child ended with %#x", status);
}

int main(int argc, char **argv)
{
    struct sgx_enclave_run run = {0};
    struct enclave e;
    pid_t child;

    start(&e, argc, argv);
    run.tcs = e.tcs[0];
    uint64_t buffer = ask(&run, OP_BUFFER, 0, 0, 0);
    ask(&run, OP_WRITE, buffer, 77, 0);
    child = DO(fork());
    if (child == 0) {
        SAME(ask(&run, OP_READ, buffer, 0, 0), 77);
        ask(&run, OP_WRITE, buffer, 78, 0);
        _exit(0);
    }
    wait_for(child);
    SAME(ask(&run, OP_READ, buffer, 0, 0), 78);
    ok("the child wrote, the parent reads");

    child = DO(fork());
    if (child == 0) {
        run.tcs = e.tcs[1];
        ask(&run, OP_MEET, 1, ROUNDS, 0);
        _exit(0);
    }
    SAME(ask(&run, OP_MEET, 0, ROUNDS, 0) > 0, 1);
    wait_for(child);
    ok("both were inside at the same time");

    child = DO(fork());
    if (child == 0) {
        /* A change of the child's mappings is its own. */
        DO(munmap((void *)e.base, e.size));
        close(e.fd);
        _exit(0);
    }
    wait_for(child);
    SAME(ask(&run, OP_READ, buffer, 0, 0), 78);
    ok("the child's munmap is its own");
    return 0;
}
