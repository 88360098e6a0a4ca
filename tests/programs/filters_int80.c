/*
 * INT 80H of the program itself under its own filters: a system call of i386, which they judge, and
 * no CPUID and no ENCLU.
 */
#include "filters.h"

#include <pthread.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <ucontext.h>

enum {
    I386_EXIT = 1,
    I386_READ = 3,
    I386_GETPID = 20,
    I386_GETPPID = 64,
    I386_EXIT_GROUP = 252,
};
#define ONLY_I386 LOAD(arch), EQUAL(AUDIT_ARCH_I386, 1, 0), ALLOW, LOAD(nr)

static void *called_from;

__attribute__((noinline)) static long int80(long number, long first)
{
    long result;

    __asm__ volatile("lea 1f(%%rip), %%r8\n\tmov %%r8, %1\n\tint $0x80\n1:"
                     : "=a"(result), "=m"(called_from)
                     : "0"(number), "b"(first)
                     : "r8", "r9", "r10", "r11", "memory");
    return result;
}

static int there_is_one(void)
{
    return int80(I386_GETPID, 0) == getpid() ? 3 : 4;
}

static int killed_by_architecture(void)
{
    INSTALL(ONLY_X86_64, ALLOW);
    cpuid();
    HOLDS(getpid() > 0);
    int80(I386_GETPID, 0);
    return 4;
}

static int denied(void)
{
    INSTALL(ONLY_I386, EQUAL(I386_GETPID, 0, 1), FAILS(EXDEV), EQUAL(I386_GETPPID, 0, 1),
            RETURN(SECCOMP_RET_ERRNO | 0xffff), ALLOW);
    cpuid();
    HOLDS(int80(I386_GETPID, 0) == -EXDEV);
    HOLDS(int80(I386_GETPPID, 0) == -4095);
    return 3;
}

static int by_arguments(void)
{
    INSTALL(ONLY_I386, LOAD_AT(DATA(args)), EQUAL(5, 0, 1), FAILS(5), EQUAL(6, 0, 3),
            LOAD_AT(DATA(args) + 4), EQUAL(0, 1, 0), FAILS(7), ALLOW);
    HOLDS(int80(I386_GETPID, 5) == -5);
    HOLDS(int80(I386_GETPID, 6) == getpid());
    HOLDS(int80(I386_GETPID, 6 | 1L << 32) == -7); /* what is above is in seccomp_data, too */
    return 3;
}

static int by_instruction_pointer(void)
{
    INSTALL(ONLY_I386, EQUAL(I386_GETPID, 0, 3), LOAD_AT(DATA(instruction_pointer)),
            EQUAL((uint32_t)(uint64_t)called_from, 1, 0), FAILS(8), ALLOW);
    HOLDS(int80(I386_GETPID, 0) == getpid());
    return 3;
}

static volatile siginfo_t seen;
static volatile long number_seen, rip_seen;

static void trapped(int number, siginfo_t *info, void *context)
{
    ucontext_t *frame = context;

    (void)number;
    memcpy((void *)&seen, info, sizeof(seen));
    number_seen = frame->uc_mcontext.gregs[REG_RAX];
    rip_seen = frame->uc_mcontext.gregs[REG_RIP];
    frame->uc_mcontext.gregs[REG_RAX] = 77;
}

static int trap(void)
{
    struct sigaction action = {.sa_sigaction = trapped, .sa_flags = SA_SIGINFO};

    HOLDS(sigaction(SIGSYS, &action, NULL) == 0);
    INSTALL(ONLY_I386, RETURN(SECCOMP_RET_TRAP | 0x4321));
    cpuid();
    HOLDS(int80(I386_GETPID, 0) == 77);
    HOLDS(number_seen == I386_GETPID && rip_seen == (long)called_from);
    HOLDS(seen.si_signo == SIGSYS && seen.si_code == 1 && seen.si_errno == 0x4321);
    HOLDS(seen.si_call_addr == called_from && seen.si_syscall == I386_GETPID);
    HOLDS(seen.si_arch == AUDIT_ARCH_I386);
    return 3;
}

static int trap_without_handler(void)
{
    INSTALL(ONLY_I386, RETURN(SECCOMP_RET_TRAP));
    int80(I386_GETPID, 0);
    return 4;
}

static int trap_while_blocked(void)
{
    struct sigaction action = {.sa_sigaction = trapped, .sa_flags = SA_SIGINFO};
    sigset_t set;

    HOLDS(sigaction(SIGSYS, &action, NULL) == 0);
    sigfillset(&set);
    HOLDS(sigprocmask(SIG_BLOCK, &set, NULL) == 0);
    INSTALL(ONLY_I386, RETURN(SECCOMP_RET_TRAP));
    int80(I386_GETPID, 0);
    return 4;
}

static int killed_in_spite_of_a_handler(void)
{
    struct sigaction action = {.sa_sigaction = trapped, .sa_flags = SA_SIGINFO};

    HOLDS(sigaction(SIGSYS, &action, NULL) == 0);
    INSTALL(ONLY_I386, KILL);
    int80(I386_GETPID, 0);
    return 4;
}

static int traced(void)
{
    INSTALL(ONLY_I386, RETURN(SECCOMP_RET_TRACE));
    HOLDS(int80(I386_GETPID, 0) == -ENOSYS);
    return 3;
}

static int with_no_one_listening(void)
{
    INSTALL(ONLY_I386, RETURN(SECCOMP_RET_USER_NOTIF)); /* as with one listener that is not asked */
    HOLDS(int80(I386_GETPID, 0) == -ENOSYS);
    return 3;
}

static int strictest(void)
{
    INSTALL(ONLY_I386, EQUAL(I386_GETPID, 0, 1), FAILS(1), RETURN(SECCOMP_RET_LOG));
    INSTALL(ONLY_I386, EQUAL(I386_GETPID, 0, 1), FAILS(2), RETURN(SECCOMP_RET_TRACE));
    HOLDS(int80(I386_GETPID, 0) == -2);
    HOLDS(int80(I386_GETPPID, 0) == -ENOSYS);
    return 3;
}

static void *one_thread(void *unused)
{
    INSTALL(ONLY_I386, RETURN(SECCOMP_RET_KILL_THREAD));
    int80(I386_GETPID, 0);
    _exit(4);
    return unused;
}

static int one_thread_is_killed(void)
{
    pthread_t thread;

    HOLDS(pthread_create(&thread, NULL, one_thread, NULL) == 0);
    HOLDS(pthread_join(thread, NULL) == 0);
    HOLDS(int80(I386_GETPID, 0) == getpid());
    return 3;
}

static int the_only_thread_is_killed(void)
{
    one_thread(NULL);
    return 4;
}

static int strict(void)
{
    if (prctl(PR_GET_SECCOMP))
        _exit(SIGKILL); /* in a container */
    HOLDS(prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) == 0);
    int80(I386_GETPID, 0);
    return 4;
}

static int exit_under_strict(void)
{
    if (prctl(PR_GET_SECCOMP))
        return 3;
    HOLDS(prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) == 0);
    int80(I386_EXIT, 3);
    return 4;
}

/* RCX is an argument there, and comes back; SYSCALL puts the return address into it. */
static int registers_come_back(void)
{
    long number = I386_GETPID, third = 0x123456789a;

    __asm__ volatile("int $0x80" : "+a"(number), "+c"(third) : : "r8", "r9", "r10", "r11");
    HOLDS(number == getpid() && third == 0x123456789a);
    return 3;
}

static int pipe_ends[2];

static void writes(int number)
{
    (void)number;
    HOLDS(write(pipe_ends[1], "x", 1) == 1);
}

static void does_nothing(int number)
{
    (void)number;
}

static long reads(char *into)
{
    long result;

    __asm__ volatile("int $0x80"
                     : "=a"(result)
                     : "0"(I386_READ), "b"(pipe_ends[0]), "c"(into), "d"(1)
                     : "r8", "r9", "r10", "r11", "memory");
    return result;
}

/* A call that waits, and a handler comes: it is made again, or not. */
static int interrupted(void)
{
    struct itimerval soon = {.it_value.tv_usec = 50000};
    struct sigaction again = {.sa_handler = writes, .sa_flags = SA_RESTART};
    struct sigaction ends_it = {.sa_handler = does_nothing};
    char *byte = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);

    HOLDS(byte != MAP_FAILED && pipe(pipe_ends) == 0);
    HOLDS(sigaction(SIGALRM, &again, NULL) == 0);
    HOLDS(setitimer(ITIMER_REAL, &soon, NULL) == 0);
    HOLDS(reads(byte) == 1 && *byte == 'x');
    HOLDS(sigaction(SIGALRM, &ends_it, NULL) == 0);
    soon.it_interval = soon.it_value;
    HOLDS(setitimer(ITIMER_REAL, &soon, NULL) == 0);
    HOLDS(reads(byte) == -EINTR);
    return 3;
}

static int exit_group(void)
{
    int80(I386_EXIT_GROUP, 3);
    return 4;
}

int main(void)
{
    if (outcome(there_is_one) != EXITED(3)) {
        printf("ok no system calls of i386 here\n");
        return 0;
    }
    int80(I386_GETPID, 0);
    ENDS(registers_come_back, EXITED(3));
    ENDS(interrupted, EXITED(3));
    ENDS(exit_group, EXITED(3));
    ENDS(killed_by_architecture, KILLED(SIGSYS));
    ENDS(denied, EXITED(3));
    ENDS(by_arguments, EXITED(3));
    ENDS(by_instruction_pointer, EXITED(3));
    ENDS(trap, EXITED(3));
    ENDS(trap_without_handler, KILLED(SIGSYS));
    ENDS(trap_while_blocked, KILLED(SIGSYS));
    ENDS(killed_in_spite_of_a_handler, KILLED(SIGSYS));
    ENDS(traced, EXITED(3));
    ENDS(with_no_one_listening, EXITED(3));
    ENDS(strictest, EXITED(3));
    ENDS(one_thread_is_killed, EXITED(3));
    ENDS(the_only_thread_is_killed, KILLED(SIGSYS));
    ENDS(strict, KILLED(SIGKILL));
    ENDS(exit_under_strict, EXITED(3));
    return 0;
}
