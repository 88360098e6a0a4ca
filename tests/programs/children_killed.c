/*
 * A group of processes with an enclave is killed while it forks: nothing waits for a child
 * that ended before its parent's fork(2) was reported, and all of the EPC comes back.
 *
 * The story: when a child ended before the supervisor knew of it, the end was forgotten, and the
 * child was waited for; and when it could not be continued, its parent was not continued either.
 *
 * enclave: ops
 */
#include "host.h"

#include <sys/wait.h>

#define ROUNDS 25

static void fork_for_ever(void)
{
    for (;;) {
        pid_t pid = fork();

        if (pid == 0)
            _exit(0);
        if (pid > 0)
            waitpid(pid, NULL, 0);
    }
}

int main(int argc, char **argv)
{
    struct enclave e;
    struct sgx_enclave_run run = {0};
    int status;

    start(&e, argc, argv);
    run.tcs = e.tcs[0];
    for (int i = 0; i < ROUNDS; i++) {
        pid_t pid = DO(fork());

        if (pid == 0) {
            DO(setpgid(0, 0));
            fork_for_ever();
        }
        while (getpgid(pid) != pid)
            usleep(100);
        usleep(1000 + 700 * i);
        DO(kill(-pid, SIGKILL));
        SAME(DO(waitpid(pid, &status, 0)), pid);
        SAME(WTERMSIG(status), SIGKILL);
    }
    SAME(ask(&run, OP_TOTAL, 0, 0, 0), 0);
    ok("%d groups killed", ROUNDS);
    return 0;
}
