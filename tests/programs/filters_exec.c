/*
 * Filters that a program inherits from who executed it. They may forbid what must be done for it
 * before it runs: the mailboxes are opened and mapped under its filters.
 *
 * enclave: ops
 */
#include "filters.h"
#include "host.h"

#include <pthread.h>

static char **arguments;

static int execute(const char *last)
{
    char *again[] = {"/proc/self/exe", arguments[1], arguments[2], (char *)last, NULL};

    execv(again[0], again);
    return 9;
}

/* What a dynamic program needs to start, with files denied but for its libraries' by openat. */
static int without_open(void)
{
    INSTALL(ONLY_X86_64, EQUAL(SYS_open, 0, 1), KILL, EQUAL(SYS_memfd_create, 0, 1), KILL,
            EQUAL(SYS_getpid, 0, 1), KILL, EQUAL(SYS_gettid, 0, 1), KILL,
            EQUAL(SYS_futex, 0, 1), KILL, ALLOW);
    return execute("look");
}

/* Shared mappings, of descriptor 5 and above, are forbidden: those of ld.so are private. */
static int without_shared_memory(void)
{
    INSTALL(ONLY_X86_64, EQUAL(SYS_mmap, 0, 3), LOAD_AT(DATA(args) + 8 * 3),
            BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, 1, 0, 1), KILL, ALLOW);
    return execute("look");
}

static int twice(void)
{
    INSTALL(ONLY_X86_64, EQUAL(SYS_getppid, 0, 1), FAILS(EXDEV), ALLOW);
    return execute("once more");
}

static int enters(void)
{
    INSTALL(ONLY_X86_64, EQUAL(SYS_getpid, 0, 1), KILL, EQUAL(SYS_gettid, 0, 1), KILL,
            EQUAL(SYS_futex, 0, 1), KILL, EQUAL(SYS_getppid, 0, 1), FAILS(EXDEV), ALLOW);
    return execute("enclave");
}

/* The thread that executes, not the first one, is confined. */
static void *from_thread(void *unused)
{
    INSTALL(ONLY_X86_64, EQUAL(SYS_getppid, 0, 1), FAILS(EXDEV), ALLOW);
    execute("mode");
    return unused;
}

static int by_another_thread(void)
{
    pthread_t thread;

    HOLDS(pthread_create(&thread, NULL, from_thread, NULL) == 0);
    pthread_join(thread, NULL);
    return 9;
}

static int with_enclave(int argc, char **argv)
{
    struct sgx_enclave_run run = {0};
    struct enclave e;

    start(&e, argc, argv);
    run.tcs = e.tcs[0];
    for (int i = 0; i < 3; i++)
        SAME(ask(&run, OP_COUNT, 10, 0, 0), 0);
    SAME(syscall(SYS_getppid), -1);
    SAME(errno, EXDEV);
    return 3;
}

int main(int argc, char **argv)
{
    const char *last = argv[argc - 1];

    arguments = argv;
    cpuid();
    if (!strcmp(last, "look"))
        return 3;
    if (!strcmp(last, "once more"))
        return syscall(SYS_getppid) == -1 && errno == EXDEV ? execute("look") : 8;
    if (!strcmp(last, "mode"))
        return prctl(PR_GET_SECCOMP) == 2 && syscall(SYS_getppid) == -1 ? 3 : 7;
    if (!strcmp(last, "enclave"))
        return with_enclave(argc, argv);
    CHECK(argc >= 3, "arguments");
    ENDS(without_open, EXITED(3));
    ENDS(without_shared_memory, EXITED(3));
    ENDS(twice, EXITED(3));
    ENDS(by_another_thread, EXITED(3));
    ENDS(enters, EXITED(3));
    return 0;
}
