/*
 * exec from a process with an enclave: the new program has none, and builds its own. Also by vfork.
 * The story: an argument more, and this program took itself for the new one and executed nothing.
 *
 * enclave: ops
 */
#include "host.h"

#include <sys/wait.h>

static void once(int argc, char **argv)
{
    struct sgx_enclave_run run = {0};
    struct enclave e;

    start(&e, argc, argv);
    run.tcs = e.tcs[0];
    uint64_t buffer = ask(&run, OP_BUFFER, 0, 0, 0);
    SAME(ask(&run, OP_READ, buffer, 0, 0), 0);
    ask(&run, OP_WRITE, buffer, M1, 0);
    SAME(ask(&run, OP_READ, buffer, 0, 0), M1);
}

static void run_child(char **argv)
{
    int status;
    pid_t child = DO(vfork());

    if (child == 0) {
        execv(argv[0], argv);
        _exit(127);
    }
    SAME(DO(waitpid(child, &status, 0)), child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%s ended with %#x", argv[0], status);
}

int main(int argc, char **argv)
{
    char *again[] = {"/proc/self/exe", argv[1], argv[2], "last", NULL};
    char *other[] = {"/bin/true", NULL};

    CHECK(argc >= 3, "arguments");
    once(argc, argv);
    if (!strcmp(argv[argc - 1], "last")) {
        ok("an enclave of its own after exec");
        return 0;
    }
    ok("an enclave before exec");
    run_child(other);
    ok("vfork and exec of a program without enclaves");
    execv(again[0], again);
    FAIL("exec: %s", strerror(errno));
}
