/*
 * The parent of the program is the supervisor, and cannot be traced: EPERM, as Linux with Yama
 * answers for a shell. Other processes can, as far as the kernel allows it.
 *
 * The story: PTRACE_ATTACH stopped the supervisor, and the program with it, forever.
 *
 * enclave: ops threads=1
 */
#include "host.h"

#include <sys/ptrace.h>

static int refusal(int request, pid_t pid)
{
    return ptrace(request, pid, NULL, NULL) ? errno : 0;
}

int main(int argc, char **argv)
{
    struct sgx_enclave_run run = {0};
    struct enclave e;

    start(&e, argc, argv);
    SAME(refusal(PTRACE_ATTACH, getppid()), EPERM);
    SAME(refusal(PTRACE_SEIZE, getppid()), EPERM);
    SAME(refusal(PTRACE_CONT, getppid()), ESRCH);
    SAME(refusal(PTRACE_ATTACH, 0x7ffffffe), ESRCH);
    run.tcs = e.tcs[0];
    ask(&run, OP_NOP, 0, 0, 0);
    ok("the parent goes on");
    return 0;
}
