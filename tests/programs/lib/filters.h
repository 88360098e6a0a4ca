/*
 * Seccomp filters of the programs that install their own. A case is a function that a child
 * executes; what it returns is the child's exit code.
 */
#ifndef FILTERS_H
#define FILTERS_H

#include <cpuid.h>
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define SAY_FAIL(format, ...)                                                                      \
    do {                                                                                           \
        fprintf(stderr, "FAIL %s:%d: " format "\n", __FILE__, __LINE__, ##__VA_ARGS__);            \
        _exit(99);                                                                                 \
    } while (0)
#define HOLDS(what)                                                                                \
    do {                                                                                           \
        if (!(what))                                                                               \
            SAY_FAIL("%s (errno %d)", #what, errno);                                               \
    } while (0)

#define DATA(field) offsetof(struct seccomp_data, field)
#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, DATA(field))
#define LOAD_AT(offset) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offset)
#define EQUAL(value, yes, no) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, yes, no)
#define AT_LEAST(value, yes, no) BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, value, yes, no)
#define RETURN(value) BPF_STMT(BPF_RET | BPF_K, value)
#define ALLOW RETURN(SECCOMP_RET_ALLOW)
#define KILL RETURN(SECCOMP_RET_KILL_PROCESS)
#define FAILS(number) RETURN(SECCOMP_RET_ERRNO | (number))
/* The usual beginning: another architecture is no business of this filter's. */
#define ONLY_X86_64 LOAD(arch), EQUAL(AUDIT_ARCH_X86_64, 1, 0), KILL, LOAD(nr)
/* A number that is allowed, in the middle of a list. */
#define PASSES(number) EQUAL(number, 0, 1), ALLOW

#define ON(number, action) LOAD(nr), EQUAL(number, 0, 1), RETURN(action), ALLOW

#define PROGRAM(filter) (&(struct sock_fprog){sizeof(filter) / sizeof((filter)[0]), filter})

__attribute__((unused)) static long install(unsigned flags, struct sock_fprog *program)
{
    HOLDS(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, program);
}

#define INSTALL(...)                                                                               \
    do {                                                                                           \
        struct sock_filter filter_[] = {__VA_ARGS__};                                              \
        HOLDS(install(0, PROGRAM(filter_)) == 0);                                                  \
    } while (0)

/* `length` instructions that do nothing, and then those of `end`. */
__attribute__((unused)) static long install_long(unsigned flags, int length,
                                                 const struct sock_filter *end, int count)
{
    static struct sock_filter filter[4096];

    for (int i = 0; i < length; i++)
        filter[i] = (struct sock_filter)BPF_STMT(BPF_LDX | BPF_IMM, i);
    memcpy(filter + length - count, end, count * sizeof(*end));
    return install(flags, &(struct sock_fprog){length, filter});
}

/* CPUID several times: as it may be replaced, its leaves are numbers of system calls. */
__attribute__((unused, noinline)) static void cpuid(void)
{
    unsigned a, b, c, d;

    for (unsigned leaf = 0; leaf < 8; leaf++)
        __cpuid_count(leaf, 0, a, b, c, d);
    __cpuid(0x80000000, a, b, c, d);
    HOLDS(a >> 31);
}

/* The wait status of a child that executes `what`. */
__attribute__((unused)) static int outcome(int (*what)(void))
{
    int status;
    pid_t child;

    fflush(stdout);
    child = fork();
    HOLDS(child >= 0);
    if (!child)
        _exit(what());
    HOLDS(waitpid(child, &status, 0) == child);
    return status;
}

__attribute__((unused)) static void ends(const char *name, int (*what)(void), int wanted)
{
    int status = outcome(what);

    if ((status & ~0x80) != wanted) /* a core dump or not */
        SAY_FAIL("%s ends with %#x, to be %#x", name, status, wanted);
    printf("ok %s\n", name);
    fflush(stdout);
}

#define ENDS(what, wanted) ends(#what, what, wanted)
#define EXITED(code) ((code) << 8)
#define KILLED(number) (number)

#endif
