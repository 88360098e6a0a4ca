/*
 * What softsgx does not do for a program, and how the program learns of it: rows of the tables in
 * docs/run.md that promise an answer. Nothing here may succeed in silence.
 *
 * enclave: ops
 * supervisors: ptrace
 */
#include "host.h"

#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/xattr.h>

static void refused(const char *what, long result, int wanted)
{
    CHECK(result == -1 && errno == wanted, "%s: %ld, %s", what, result, strerror(errno));
    ok("%s: %s", what, strerror(wanted));
}

int main(int argc, char **argv)
{
    struct sgx_enclave_run run = {0};
    struct enclave e;

    start(&e, argc, argv);
    run.tcs = e.tcs[0];
    uint8_t *at = (uint8_t *)(ask(&run, OP_BUFFER, 0, 0, 0) + PAGE_SIZE); /* not touched yet */
    struct iovec part = {at, 8};

    refused("PTRACE_TRACEME", ptrace(PTRACE_TRACEME, 0, NULL, NULL), EPERM);
    pid_t child = DO(fork());
    if (!child)
        for (;;)
            pause();
    refused("PTRACE_ATTACH to a process of the run", ptrace(PTRACE_ATTACH, child, NULL, NULL),
            EPERM);
    DO(kill(child, SIGKILL));
    char status[8192] = {0};
    DO(read(DO(open("/proc/self/status", O_RDONLY)), status, sizeof(status) - 1));
    CHECK(strstr(status, "NoNewPrivs:\t1"), "no NoNewPrivs in /proc/self/status");
    SAME(DO(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)), 0);
    ok("NO_NEW_PRIVS is set, and prctl answers as without softsgx");
    refused("getrandom into enclave memory", getrandom(at, 8, 0), EFAULT);
    refused("writev from enclave memory", writev(DO(open("/dev/zero", O_RDWR)), &part, 1) == -1
                                              ? -1
                                              : writev(DO(memfd_create("f", 0)), &part, 1),
            EFAULT);
    refused("chmod of the node", chmod("/dev/sgx_enclave", 0600), ENOENT);
    refused("chown of the node", chown("/dev/sgx_enclave", 0, 0), ENOENT);
    refused("truncate of the node", truncate("/dev/sgx_enclave", 0), ENOENT);
    refused("unlink of the node", unlink("/dev/sgx_enclave"), ENOENT);
    refused("setxattr of the node", setxattr("/dev/sgx_enclave", "user.a", "b", 1, 0), ENOENT);
    DO(fchmod(e.fd, 0600));
    ok("fchmod of an open node succeeds");
    return 0;
}
