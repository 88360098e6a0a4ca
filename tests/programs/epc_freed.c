/*
 * A process that is killed while it is inside gives its EPC back. The EPC of its enclaves, which
 * were only created, cannot be reclaimed in any other way.
 *
 * enclave: ops
 * run: --epc 2M
 */
#include "host.h"

#include <sys/wait.h>

#define CREATED 150 /* of about 250 that fit */
#define ROUNDS 4

static void child(int argc, char **argv, int tell)
{
    static struct enclave e[CREATED];
    static volatile uint32_t never;
    struct sgx_enclave_run run = {0};
    struct enclave loaded;

    for (int i = 0; i < CREATED; i++) {
        CHECK(!enclave_open(&e[i], argv[1]), "%s: %s", e[i].step, strerror(errno));
        e[i].base = e[i].size;
        DO(enclave_create(&e[i]));
    }
    start(&loaded, argc, argv);
    run.tcs = loaded.tcs[0];
    SAME(DO(write(tell, "x", 1)), 1);
    ask(&run, OP_WAIT, (uint64_t)&never, 0, 0);
}

int main(int argc, char **argv)
{
    CHECK(argc >= 3, "arguments");
    for (int i = 0; i < ROUNDS; i++) {
        int ends[2], status;
        char byte;

        DO(pipe(ends));
        pid_t pid = DO(fork());
        if (pid == 0) {
            child(argc, argv, ends[1]);
            _exit(3);
        }
        close(ends[1]);
        CHECK(read(ends[0], &byte, 1) == 1, "round %d: the child could not build", i);
        usleep(20000);
        DO(kill(pid, SIGKILL));
        SAME(DO(waitpid(pid, &status, 0)), pid);
        CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "ended with %#x", status);
        close(ends[0]);
        usleep(100000);
    }
    ok("%d processes killed inside, the EPC sufficed for each", ROUNDS);
    return 0;
}
