/*
 * Filters of the program's own, of many shapes: what they forbid is forbidden, and CPUID, which may
 * be an `int 0x80` here, is not their business.
 *
 * The story: the usual first instructions, which kill whatever is not x86-64, killed every program
 * with such a filter at its next CPUID.
 */
#include "filters.h"

#include <sys/mman.h>
#include <ucontext.h>

static int architecture_then_kill(void)
{
    INSTALL(ONLY_X86_64, EQUAL(SYS_getppid, 0, 1), FAILS(EXDEV), ALLOW);
    cpuid();
    HOLDS(syscall(SYS_getppid) == -1 && errno == EXDEV);
    HOLDS(getpid() > 0);
    return 3;
}

static int killed_by_number(void)
{
    INSTALL(ONLY_X86_64, EQUAL(SYS_getppid, 0, 1), KILL, ALLOW);
    cpuid();
    syscall(SYS_getppid);
    return 3;
}

static int allow_list(void)
{
    INSTALL(ONLY_X86_64, PASSES(SYS_write), PASSES(SYS_exit_group), KILL);
    cpuid();
    return 3;
}

static int allow_list_without_architecture(void)
{
    INSTALL(LOAD(nr), PASSES(SYS_write), PASSES(SYS_exit_group), KILL);
    cpuid();
    return 3;
}

static int outside_allow_list(void)
{
    INSTALL(ONLY_X86_64, PASSES(SYS_write), PASSES(SYS_exit_group), KILL);
    cpuid();
    syscall(SYS_gettid);
    return 3;
}

static int thread_killed_alone_is_the_process(void)
{
    INSTALL(LOAD(nr), PASSES(SYS_exit_group), RETURN(SECCOMP_RET_KILL_THREAD));
    cpuid();
    syscall(SYS_gettid);
    return 3;
}

static int unknown_actions_kill(void)
{
    INSTALL(LOAD(nr), PASSES(SYS_exit_group), RETURN(0x00010000));
    syscall(SYS_gettid);
    return 3;
}

static int numbers_of_cpuid_leaves_denied(void)
{
    INSTALL(LOAD(nr), AT_LEAST(8, 1, 0), FAILS(EPERM), ALLOW);
    cpuid();
    HOLDS(read(0, NULL, 0) == -1 && errno == EPERM);
    return 3;
}

/* SECCOMP_RET_TRAP */

static volatile siginfo_t seen;
static volatile long number_seen, rip_seen;
static void *called_from;

static void trapped(int number, siginfo_t *info, void *context)
{
    ucontext_t *frame = context;

    HOLDS(number == SIGSYS);
    memcpy((void *)&seen, info, sizeof(seen));
    number_seen = frame->uc_mcontext.gregs[REG_RAX];
    rip_seen = frame->uc_mcontext.gregs[REG_RIP];
    frame->uc_mcontext.gregs[REG_RAX] = 77;
}

__attribute__((noinline)) static long trapping_call(long number)
{
    long result;

    __asm__ volatile("lea 1f(%%rip), %%r8\n\tmov %%r8, %1\n\tsyscall\n1:"
                     : "=a"(result), "=m"(called_from)
                     : "0"(number)
                     : "rcx", "r11", "r8", "memory");
    return result;
}

static int trap(void)
{
    struct sigaction action = {.sa_sigaction = trapped, .sa_flags = SA_SIGINFO};

    HOLDS(sigaction(SIGSYS, &action, NULL) == 0);
    INSTALL(ONLY_X86_64, EQUAL(SYS_getppid, 0, 1), RETURN(SECCOMP_RET_TRAP | 0x1234), ALLOW);
    cpuid();
    HOLDS(trapping_call(SYS_getppid) == 77);
    HOLDS(number_seen == SYS_getppid && rip_seen == (long)called_from);
    HOLDS(seen.si_signo == SIGSYS && seen.si_code == 1 && seen.si_errno == 0x1234);
    HOLDS(seen.si_call_addr == called_from && seen.si_syscall == SYS_getppid);
    HOLDS(seen.si_arch == AUDIT_ARCH_X86_64);
    return 3;
}

static int trap_without_handler(void)
{
    INSTALL(LOAD(nr), EQUAL(SYS_getppid, 0, 1), RETURN(SECCOMP_RET_TRAP), ALLOW);
    syscall(SYS_getppid);
    return 3;
}

static int trap_while_blocked(void)
{
    struct sigaction action = {.sa_sigaction = trapped, .sa_flags = SA_SIGINFO};
    sigset_t set;

    HOLDS(sigaction(SIGSYS, &action, NULL) == 0);
    sigemptyset(&set);
    sigaddset(&set, SIGSYS);
    HOLDS(sigprocmask(SIG_BLOCK, &set, NULL) == 0);
    INSTALL(LOAD(nr), EQUAL(SYS_getppid, 0, 1), RETURN(SECCOMP_RET_TRAP), ALLOW);
    syscall(SYS_getppid);
    return 3;
}

/* Other filters */

static int trace_without_tracer(void)
{
    INSTALL(LOAD(nr), EQUAL(SYS_getppid, 1, 0), EQUAL(SYS_openat, 0, 1),
            RETURN(SECCOMP_RET_TRACE | 9), ALLOW);
    cpuid();
    HOLDS(syscall(SYS_getppid) == -1 && errno == ENOSYS);
    HOLDS(syscall(SYS_openat, -100, "/dev/null", 0) == -1 && errno == ENOSYS);
    HOLDS(syscall(SYS_close, -1) == -1 && errno == EBADF);
    return 3;
}

/* Only code of this page may make system calls, but for exit_group. */
static int instruction_pointer(void)
{
    static const unsigned char code[] = {0x48, 0x89, 0xf8, 0x0f, 0x05, 0xc3}; /* mov, syscall, ret */
    long (*call)(long) = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
                              MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint64_t at = (uint64_t)call;

    HOLDS(call != MAP_FAILED);
    memcpy((void *)call, code, sizeof(code));
    INSTALL(LOAD(nr), PASSES(SYS_exit_group), PASSES(SYS_write), LOAD_AT(DATA(instruction_pointer)),
            EQUAL((uint32_t)(at + 5), 1, 0), FAILS(EPERM),
            LOAD_AT(DATA(instruction_pointer) + 4), EQUAL((uint32_t)(at >> 32), 1, 0), FAILS(EPERM),
            ALLOW);
    cpuid();
    HOLDS(call(SYS_getpid) > 0);
    HOLDS(syscall(SYS_getpid) == -1 && errno == EPERM);
    return 3;
}

/* The action is computed: RET A, words of memory, X, arithmetic. */
static int computed(void)
{
    INSTALL(LOAD(nr), BPF_STMT(BPF_ST, 3), BPF_STMT(BPF_LDX | BPF_MEM, 3),
            EQUAL(SYS_getppid, 2, 0), EQUAL(SYS_getuid, 5, 0), ALLOW,
            BPF_STMT(BPF_LD | BPF_IMM, SECCOMP_RET_ERRNO >> 4),
            BPF_STMT(BPF_ALU | BPF_LSH | BPF_K, 4), BPF_STMT(BPF_ALU | BPF_ADD | BPF_X, 0),
            BPF_STMT(BPF_RET | BPF_A, 0),
            BPF_STMT(BPF_LD | BPF_IMM, SECCOMP_RET_ALLOW), BPF_STMT(BPF_RET | BPF_A, 0));
    cpuid();
    HOLDS(syscall(SYS_getppid) == -1 && errno == SYS_getppid);
    HOLDS(syscall(SYS_getuid) == getuid());
    return 3;
}

/* A filter may rely on A and X being 0 at its start. */
static int zero_at_the_start(void)
{
    INSTALL(EQUAL(0, 0, 3), BPF_STMT(BPF_MISC | BPF_TXA, 0), EQUAL(0, 0, 1), ALLOW, KILL);
    cpuid();
    return 3;
}

/* As libseccomp sorts numbers into a tree, and compares halves of arguments. */
static int tree(void)
{
    INSTALL(LOAD(arch), EQUAL(AUDIT_ARCH_X86_64, 0, 15), LOAD(nr), AT_LEAST(0x40000000, 13, 0),
            AT_LEAST(SYS_getpid + 1, 6, 0),
            AT_LEAST(SYS_lseek, 2, 0), EQUAL(SYS_write, 11, 0), EQUAL(SYS_read, 10, 9),
            EQUAL(SYS_getpid, 9, 0), EQUAL(SYS_lseek, 8, 7),
            RETURN(SECCOMP_RET_LOG),
            EQUAL(SYS_exit_group, 6, 0), EQUAL(SYS_getppid, 0, 4),
            LOAD_AT(DATA(args) + 4), EQUAL(0x11223344, 0, 2),
            LOAD_AT(DATA(args)), EQUAL(0x55667788, 1, 0), FAILS(ENOTTY), ALLOW);
    cpuid();
    HOLDS(syscall(SYS_getppid, 0x1122334455667788) > 0);
    HOLDS(syscall(SYS_getppid, 0x55667788) == -1 && errno == ENOTTY);
    HOLDS(syscall(SYS_getuid) == -1 && errno == ENOTTY);
    HOLDS(syscall(SYS_getpid | 0x40000000) == -1 && errno == ENOTTY);
    return 3;
}

/* The strictest counts; among equals the newer one. */
static int two_filters(void)
{
    INSTALL(LOAD(nr), EQUAL(SYS_getppid, 0, 1), FAILS(1), EQUAL(SYS_getuid, 0, 1), FAILS(1),
            EQUAL(SYS_getgid, 0, 1), RETURN(SECCOMP_RET_TRACE), ALLOW);
    INSTALL(LOAD(arch), EQUAL(AUDIT_ARCH_X86_64, 1, 0), KILL, LOAD(nr),
            EQUAL(SYS_getppid, 0, 1), FAILS(2), EQUAL(SYS_getgid, 0, 1), FAILS(3),
            EQUAL(SYS_getuid, 0, 1), RETURN(SECCOMP_RET_TRACE), ALLOW);
    cpuid();
    HOLDS(syscall(SYS_getppid) == -1 && errno == 2);
    HOLDS(syscall(SYS_getuid) == -1 && errno == 1);
    HOLDS(syscall(SYS_getgid) == -1 && errno == 3);
    return 3;
}

/* A filter that forbids filters. */
static int the_last_filter(void)
{
    INSTALL(LOAD(nr), EQUAL(SYS_seccomp, 0, 1), FAILS(EPERM), ALLOW);
    struct sock_filter filter[] = {ALLOW};

    HOLDS(install(0, PROGRAM(filter)) == -1 && errno == EPERM);
    HOLDS(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, PROGRAM(filter)) == 0);
    return 3;
}

static int children_inherit(void)
{
    int status;

    INSTALL(ONLY_X86_64, EQUAL(SYS_getppid, 0, 1), FAILS(EXDEV), ALLOW);
    if (!fork()) {
        cpuid();
        HOLDS(syscall(SYS_getppid) == -1 && errno == EXDEV);
        _exit(4);
    }
    HOLDS(wait(&status) > 0);
    return WEXITSTATUS(status);
}

int main(void)
{
    ENDS(architecture_then_kill, EXITED(3));
    ENDS(killed_by_number, KILLED(SIGSYS));
    ENDS(allow_list, EXITED(3));
    ENDS(allow_list_without_architecture, EXITED(3));
    ENDS(outside_allow_list, KILLED(SIGSYS));
    ENDS(thread_killed_alone_is_the_process, KILLED(SIGSYS));
    ENDS(unknown_actions_kill, KILLED(SIGSYS));
    ENDS(numbers_of_cpuid_leaves_denied, EXITED(3));
    ENDS(trap, EXITED(3));
    ENDS(trap_without_handler, KILLED(SIGSYS));
    ENDS(trap_while_blocked, KILLED(SIGSYS));
    ENDS(trace_without_tracer, EXITED(3));
    ENDS(instruction_pointer, EXITED(3));
    ENDS(computed, EXITED(3));
    ENDS(zero_at_the_start, EXITED(3));
    ENDS(tree, EXITED(3));
    ENDS(two_filters, EXITED(3));
    ENDS(the_last_filter, EXITED(3));
    ENDS(children_inherit, EXITED(4));
    return 0;
}
