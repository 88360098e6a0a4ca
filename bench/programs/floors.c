/*
 * What no supervisor can go below on this machine: round trips of the kernel and the processor,
 * without softsgx. `name value` in microseconds, medians of blocks that are too short to be
 * interrupted often; `enclu_signal` is the signal that ENCLU ends in outside of an enclave. Where
 * two processes take turns: `_same` with both on one CPU, `_other` on two; the latter are missing
 * if there is only one.
 */
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include "timing.h"

enum { BLOCKS = 201, TURNS = 20, TRAPPED = SYS_getppid, ANSWER = 4242, XSAVE_BYTES = 16384 };

static int first, other;

#define DO(call)                                                                                   \
    ({                                                                                             \
        long did_ = (long)(call);                                                                  \
        if (did_ == -1) {                                                                          \
            fprintf(stderr, "FAIL floors: %s: %s\n", #call, strerror(errno));                      \
            exit(1);                                                                               \
        }                                                                                          \
        did_;                                                                                      \
    })

/* The median block, per turn. */
#define SHOW(name, turns, statement)                                                               \
    do {                                                                                           \
        double took_[BLOCKS];                                                                      \
        for (int block_ = -1; block_ < BLOCKS; block_++) {                                         \
            double begin_ = now();                                                                 \
            for (int i_ = 0; i_ < (turns); i_++)                                                   \
                statement;                                                                         \
            if (block_ >= 0)                                                                       \
                took_[block_] = (now() - begin_) / (turns);                                        \
        }                                                                                          \
        qsort(took_, BLOCKS, sizeof(*took_), by_value);                                            \
        printf("%s %.4f\n", name, took_[BLOCKS / 2]);                                              \
    } while (0)

static void on_cpu(int cpu)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    DO(sched_setaffinity(0, sizeof(set), &set));
}

static void choose_cpus(void)
{
    cpu_set_t set;

    DO(sched_getaffinity(0, sizeof(set), &set));
    first = other = -1;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &set)) {
            other = first;
            first = cpu;
        }
}

/* Exceptions and system calls that a handler in the process answers. */

static volatile int signal_seen;
static int skip;

static void step_over(int number, siginfo_t *info, void *context)
{
    ucontext_t *frame = context;

    (void)info;
    signal_seen = number;
    frame->uc_mcontext.gregs[REG_RIP] += skip;
}

static void answer(int number, siginfo_t *info, void *context)
{
    ucontext_t *frame = context;

    (void)number;
    (void)info;
    frame->uc_mcontext.gregs[REG_RAX] = ANSWER;
}

static void handle(int number, void (*handler)(int, siginfo_t *, void *))
{
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};

    DO(sigaction(number, &action, NULL));
}

static void exceptions(void)
{
    handle(SIGILL, step_over);
    handle(SIGSEGV, step_over);
    skip = 2;
    SHOW("ud2", TURNS, __asm__ volatile("ud2" ::: "memory"));
    skip = 3;
    /* EEXIT: #GP outside of an enclave, where ENCLU is not #UD. */
    SHOW("enclu", TURNS, __asm__ volatile("enclu" : : "a"(4), "b"(0), "c"(0) : "memory"));
    printf("enclu_signal %d\n", signal_seen);
}

static void trapped(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, TRAPPED, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof(code) / sizeof(*code), .filter = code};

    handle(SIGSYS, answer);
    DO(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    DO(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program));
    if (syscall(TRAPPED) != ANSWER)
        exit(1);
    SHOW("trap", TURNS, syscall(TRAPPED));
}

/* Two processes that take turns. */

static void stops(const char *name, int cpu)
{
    struct user_regs_struct regs;
    int status;
    pid_t child = DO(fork());

    if (!child) {
        on_cpu(cpu);
        raise(SIGSTOP);
        for (;;)
            __asm__ volatile("ud2");
    }
    DO(waitpid(child, &status, WUNTRACED));
    DO(ptrace(PTRACE_SEIZE, child, 0, PTRACE_O_EXITKILL));
    DO(kill(child, SIGCONT));
    do {
        DO(waitpid(child, &status, __WALL));
        if (WSTOPSIG(status) != SIGILL)
            DO(ptrace(PTRACE_CONT, child, 0, 0));
    } while (WSTOPSIG(status) != SIGILL);
    SHOW(name, TURNS, {
        DO(ptrace(PTRACE_GETREGS, child, 0, &regs));

        DO(ptrace(PTRACE_SETREGS, child, 0, &regs));
        DO(ptrace(PTRACE_CONT, child, 0, 0));
        DO(waitpid(child, &status, __WALL));
    });
    DO(kill(child, SIGKILL));
    while (waitpid(child, &status, __WALL) == child && WIFSTOPPED(status))
        ;
}

static void turn(uint32_t *word, uint32_t from, uint32_t to)
{
    while (__atomic_load_n(word, __ATOMIC_ACQUIRE) != from)
        syscall(SYS_futex, word, FUTEX_WAIT, to, NULL, NULL, 0);
    __atomic_store_n(word, to, __ATOMIC_RELEASE);
    syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

static void ping_pong(const char *name, int cpu)
{
    uint32_t *word =
        (void *)DO(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    pid_t child = DO(fork());

    if (!child) {
        on_cpu(cpu);
        DO(prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0));
        for (;;)
            turn(word, 1, 0);
    }
    SHOW(name, TURNS, turn(word, 0, 1));
    DO(kill(child, SIGKILL));
    DO(waitpid(child, NULL, 0));
    DO(munmap(word, 4096));
}

static void save_and_restore(void)
{
    static char area[XSAVE_BYTES] __attribute__((aligned(64)));

    SHOW("xsave", 20 * TURNS, {
        __asm__ volatile("xsave64 %0" : "+m"(area) : "a"(-1), "d"(-1) : "memory");
        __asm__ volatile("xrstor64 %0" : "+m"(area) : "a"(-1), "d"(-1) : "memory");
    });
}

int main(void)
{
    choose_cpus();
    on_cpu(first);
    stops("stop_same", first);
    ping_pong("pingpong_same", first);
    if (other >= 0) {
        stops("stop_other", other);
        ping_pong("pingpong_other", other);
    }
    exceptions();
    save_and_restore();
    SHOW("syscall", 20 * TURNS, syscall(SYS_getppid));
    trapped();
    return 0;
}
