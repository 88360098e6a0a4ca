/*
 * Filters as long as the kernel takes them: 4096 instructions, which leave no room for more. Every
 * call then stops, and all that a filter can return happens as if the kernel had judged.
 */
#include "filters.h"

#include <pthread.h>
#include <sys/time.h>
#include <ucontext.h>

#define LONG(length, ...)                                                                          \
    HOLDS(install_long(0, length, (struct sock_filter[]){__VA_ARGS__},                             \
                       sizeof((struct sock_filter[]){__VA_ARGS__}) / 8) == 0)

static int length;

static int denies(void)
{
    LONG(length, ONLY_X86_64, EQUAL(SYS_getppid, 0, 1), FAILS(EXDEV), ALLOW);
    cpuid();
    HOLDS(syscall(SYS_getppid) == -1 && errno == EXDEV);
    HOLDS(getpid() > 0);
    HOLDS(read(-1, NULL, 0) == -1 && errno == EBADF);
    return 3;
}

static int kills(void)
{
    LONG(length, ON(SYS_getppid, SECCOMP_RET_KILL_PROCESS));
    cpuid();
    HOLDS(getpid() > 0);
    syscall(SYS_getppid);
    return 4;
}

static int kills_the_thread(void)
{
    LONG(length, ON(SYS_getppid, SECCOMP_RET_KILL_THREAD));
    syscall(SYS_getppid);
    return 4;
}

static void *ends_by(void *number)
{
    syscall((long)number);
    _exit(4);
    return number;
}

/* One of several threads is killed, also by the call that would end the process. */
static int kills_one_of_several(void)
{
    pthread_t thread;

    LONG(length, LOAD(nr), EQUAL(SYS_getppid, 1, 0), EQUAL(SYS_exit_group, 0, 1),
         RETURN(SECCOMP_RET_KILL_THREAD), ALLOW);
    HOLDS(pthread_create(&thread, NULL, ends_by, (void *)SYS_getppid) == 0);
    HOLDS(pthread_join(thread, NULL) == 0);
    HOLDS(pthread_create(&thread, NULL, ends_by, (void *)SYS_exit_group) == 0);
    HOLDS(pthread_join(thread, NULL) == 0);
    cpuid();
    syscall(SYS_exit, 3);
    return 4;
}

static int executes(void)
{
    LONG(length, ON(SYS_getppid, SECCOMP_RET_ERRNO | EXDEV));
    execl("/proc/self/exe", "filters_long", "look", NULL);
    return 4;
}

static volatile int handled;

static void counts(int number)
{
    (void)number;
    handled++;
}

static int signals(void)
{
    LONG(length, ON(SYS_getppid, SECCOMP_RET_ERRNO | EXDEV));
    signal(SIGUSR1, counts);
    HOLDS(raise(SIGUSR1) == 0 && handled == 1);
    LONG(length, ON(SYS_rt_sigaction, SECCOMP_RET_ERRNO | EXDEV));
    HOLDS(signal(SIGUSR1, SIG_IGN) == SIG_ERR && errno == EXDEV);
    HOLDS(raise(SIGUSR1) == 0 && handled == 2);
    return 3;
}

/* A timer of the real clock, which is no business of softsgx's. */
static int timer(void)
{
    struct itimerval soon = {.it_value.tv_usec = 20000}, left;

    LONG(length, ON(SYS_getppid, SECCOMP_RET_ERRNO | EXDEV));
    signal(SIGALRM, counts);
    HOLDS(setitimer(ITIMER_REAL, &soon, NULL) == 0);
    HOLDS(getitimer(ITIMER_REAL, &left) == 0);
    while (!handled)
        usleep(1000);
    return 3;
}

static int traces(void)
{
    LONG(length, ON(SYS_getppid, SECCOMP_RET_TRACE));
    HOLDS(syscall(SYS_getppid) == -1 && errno == ENOSYS);
    return 3;
}

static volatile siginfo_t seen;
static volatile long number_seen;

static void trapped(int number, siginfo_t *info, void *context)
{
    ucontext_t *frame = context;

    (void)number;
    memcpy((void *)&seen, info, sizeof(seen));
    number_seen = frame->uc_mcontext.gregs[REG_RAX];
    HOLDS((void *)frame->uc_mcontext.gregs[REG_RIP] == info->si_call_addr);
    frame->uc_mcontext.gregs[REG_RAX] = 77;
}

static int traps(void)
{
    struct sigaction action = {.sa_sigaction = trapped, .sa_flags = SA_SIGINFO};

    HOLDS(sigaction(SIGSYS, &action, NULL) == 0);
    LONG(length, ON(SYS_getppid, SECCOMP_RET_TRAP | 5));
    HOLDS(syscall(SYS_getppid) == 77);
    HOLDS(seen.si_signo == SIGSYS && seen.si_code == 1 && seen.si_errno == 5);
    HOLDS(seen.si_syscall == SYS_getppid && seen.si_arch == AUDIT_ARCH_X86_64);
    HOLDS(number_seen == SYS_getppid);
    return 3;
}

static int two(void)
{
    LONG(length, ON(SYS_getppid, SECCOMP_RET_ERRNO | 1));
    LONG(length, ON(SYS_getppid, SECCOMP_RET_ERRNO | 2));
    HOLDS(syscall(SYS_getppid) == -1 && errno == 2);
    return 3;
}

static int inherited(void)
{
    int status;
    pid_t child;

    LONG(length, ON(SYS_getppid, SECCOMP_RET_ERRNO | EXDEV));
    child = fork();
    if (!child) {
        HOLDS(syscall(SYS_getppid) == -1 && errno == EXDEV);
        _exit(5);
    }
    HOLDS(waitpid(child, &status, 0) == child);
    return WEXITSTATUS(status);
}

static int bad(void)
{
    struct sock_filter end[] = {BPF_STMT(BPF_ALU | BPF_MOD | BPF_K, 3), ALLOW};
    struct sock_filter load[] = {BPF_STMT(BPF_LD | BPF_MEM, 3), ALLOW};

    HOLDS(install_long(0, length, end, 2) == -1 && errno == EINVAL);
    HOLDS(install_long(0, length, load, 2) == -1 && errno == EINVAL);
    HOLDS(install_long(1 << 20, length, end + 1, 1) == -1 && errno == EINVAL);
    return 3;
}

int main(int argc, char **argv)
{
    static const int lengths[] = {4000, 4096};

    if (argc > 1 && !strcmp(argv[1], "look"))
        return syscall(SYS_getppid) == -1 && errno == EXDEV ? 3 : 5;
    for (unsigned i = 0; i < 2; i++) {
        length = lengths[i];
        ENDS(denies, EXITED(3));
        ENDS(kills, KILLED(SIGSYS));
        ENDS(kills_the_thread, KILLED(SIGSYS));
        ENDS(kills_one_of_several, EXITED(3));
        ENDS(executes, EXITED(3));
        ENDS(signals, EXITED(3));
        ENDS(timer, EXITED(3));
        ENDS(traces, EXITED(3));
        ENDS(traps, EXITED(3));
        ENDS(two, EXITED(3));
        ENDS(inherited, EXITED(5));
        ENDS(bad, EXITED(3));
    }
    return 0;
}
