/*
 * Seccomp filters of the program's own: SIGSYS and its siginfo, refusals, also of calls that deal
 * with signals; what they end the program with; who inherits them.
 */
#include "cases.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>

static volatile int handled;
static int64_t answer;

extern const char raw_after[];
long raw(long number, long a, long b, long c, long d);
__asm__(".pushsection .text\n"
        ".globl raw, raw_after\n"
        "raw:\n"
        "mov %rdi, %rax\n\tmov %rsi, %rdi\n\tmov %rdx, %rsi\n\tmov %rcx, %rdx\n\tmov %r8, %r10\n\t"
        "syscall\n"
        "raw_after:\n"
        "ret\n"
        ".popsection\n");

static void trapped(int number, siginfo_t *info, void *context)
{
    greg_t *r = registers(context);

    handled++;
    say("handler of %d: code %d errno %d syscall %d arch %#x address %s, RAX %ld RIP %s, mask %#lx "
        "of the context %#lx",
        number, info->si_code, info->si_errno, info->si_syscall, info->si_arch,
        info->si_call_addr == raw_after ? "after the call" : "elsewhere", (long)r[REG_RAX],
        r[REG_RIP] == (long)raw_after ? "after the call" : "elsewhere", (long)mask_now(),
        (long)*context_mask(context));
    if (answer)
        r[REG_RAX] = answer;
}

/* One number is answered so; others are allowed. */
static long filtered(unsigned number, unsigned action, unsigned flags)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, action),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {COUNT(code), code};

    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
}

static void trap(void)
{
    on(SIGSYS, trapped, 0);
    TRY(filtered(SYS_getppid, SECCOMP_RET_TRAP | 0x1234, 0));
    TRY(raw(SYS_getppid, 0, 0, 0, 0));
    answer = 77;
    TRY(raw(SYS_getppid, 1, 2, 3, 4));
    TRY(filtered(SYS_getpgrp, SECCOMP_RET_TRAP, 0));
    TRY(raw(SYS_getpgrp, 1, 2, 3, 4));
    say("mask %#lx", (long)mask_now());
}

/* Calls that a supervisor may look at itself, refused by the program's filter. */
static void trap_of_signal_calls(void)
{
    static const unsigned numbers[] = {SYS_sigaltstack, SYS_rt_sigpending, SYS_rt_sigtimedwait,
                                       SYS_rt_sigqueueinfo, SYS_signalfd4, SYS_rt_sigsuspend,
                                       SYS_ppoll, SYS_mprotect, SYS_madvise, SYS_ioctl};

    on(SIGSYS, trapped, 0);
    answer = 5;
    for (size_t i = 0; i < COUNT(numbers); i++) {
        say("number %u", numbers[i]);
        TRY(filtered(numbers[i], SECCOMP_RET_TRAP | i, 0));
        TRY(raw(numbers[i], -1, 0, 0, 0));
    }
}

static void refused_signal_calls(void)
{
    static const unsigned numbers[] = {SYS_rt_sigaction, SYS_sigaltstack, SYS_rt_sigpending,
                                       SYS_rt_sigtimedwait, SYS_signalfd4, SYS_ppoll,
                                       SYS_epoll_pwait, SYS_mprotect, SYS_mmap, SYS_ioctl,
                                       SYS_futex, SYS_clone, SYS_fork, SYS_rt_sigprocmask};

    for (size_t i = 0; i < COUNT(numbers); i++) {
        TRY(filtered(numbers[i], SECCOMP_RET_ERRNO | (40 + i), 0));
        say("number %u: %ld", numbers[i], raw(numbers[i], -1, 0, 0, 0));
    }
}

/* Signals and exceptions still work under a filter that refuses all calls that deal with them. */
static void goes_on(int number, siginfo_t *info, void *context)
{
    say("handler of %d: code %d", number, info->si_code);
    registers(context)[REG_RIP] += 2;
}

static void refused_and_signalled(void)
{
    on(SIGSEGV, goes_on, 0);
    on(SIGILL, goes_on, 0);
    on(SIGUSR1, trapped, 0);
    TRY(filtered(SYS_rt_sigaction, SECCOMP_RET_ERRNO | EPERM, 0));
    TRY(filtered(SYS_rt_sigprocmask, SECCOMP_RET_ERRNO | EPERM, 0));
    TRY(filtered(SYS_futex, SECCOMP_RET_ERRNO | EPERM, 0));
    __asm__ volatile("ud2");
    __asm__ volatile("xor %%eax, %%eax\n\tmov (%%rax), %%eax" : : : "rax");
    __asm__ volatile("ud2");
    TRY(raw(SYS_getpid, 0, 0, 0, 0) > 0);
}

static void trap_blocked(void)
{
    on(SIGSYS, trapped, 0);
    mask_set(BIT(SIGSYS));
    TRY(filtered(SYS_getppid, SECCOMP_RET_TRAP, 0));
    raw(SYS_getppid, 0, 0, 0, 0);
    say("not reached");
}

static void trap_ignored(void)
{
    ignore(SIGSYS);
    TRY(filtered(SYS_getppid, SECCOMP_RET_TRAP, 0));
    raw(SYS_getppid, 0, 0, 0, 0);
    say("not reached");
}

static void trap_by_default(void)
{
    TRY(filtered(SYS_getppid, SECCOMP_RET_TRAP, 0));
    raw(SYS_getppid, 0, 0, 0, 0);
    say("not reached");
}

static void trap_reset(void)
{
    on(SIGSYS, trapped, SA_RESETHAND);
    TRY(filtered(SYS_getppid, SECCOMP_RET_TRAP, 0));
    TRY(raw(SYS_getppid, 0, 0, 0, 0));
    raw(SYS_getppid, 0, 0, 0, 0);
    say("not reached");
}

static void trap_in_its_handler(int number, siginfo_t *info, void *context)
{
    trapped(number, info, context);
    if (handled < 3)
        raw(SYS_getppid, 0, 0, 0, 0);
}

static void trap_nested(void)
{
    on(SIGSYS, trap_in_its_handler, SA_NODEFER);
    TRY(filtered(SYS_getppid, SECCOMP_RET_TRAP, 0));
    TRY(raw(SYS_getppid, 0, 0, 0, 0));
    on(SIGSYS, trap_in_its_handler, 0);
    handled = 0;
    TRY(raw(SYS_getppid, 0, 0, 0, 0));
}

static void trap_and_sent(void)
{
    on(SIGSYS, trapped, 0);
    TRY(filtered(SYS_getppid, SECCOMP_RET_TRAP, 0));
    kill(getpid(), SIGSYS);
    raw(SYS_getppid, 0, 0, 0, 0);
    send_thread(tid_now(), SIGSYS);
}

static void killed_with(unsigned action)
{
    on(SIGSYS, trapped, 0);
    TRY(filtered(SYS_getppid, action, 0));
    raw(SYS_getppid, 0, 0, 0, 0);
    say("not reached");
}

static void kills_process(void)
{
    killed_with(SECCOMP_RET_KILL_PROCESS);
}

static void kills_thread(void)
{
    killed_with(SECCOMP_RET_KILL_THREAD);
}

static void *killed_thread(void *unused)
{
    raw(SYS_getppid, 0, 0, 0, 0);
    say("not reached");
    return unused;
}

static void kills_one_thread(void)
{
    pthread_t thread;

    TRY(filtered(SYS_getppid, SECCOMP_RET_KILL_THREAD, 0));
    pthread_create(&thread, NULL, killed_thread, NULL);
    pthread_join(thread, NULL);
    say("it is gone, the rest is here");
}

static void traces(void)
{
    TRY(filtered(SYS_getppid, SECCOMP_RET_TRACE, 0));
    TRY(raw(SYS_getppid, 0, 0, 0, 0));
    TRY(filtered(SYS_getpgrp, SECCOMP_RET_LOG, 0));
    TRY(raw(SYS_getpgrp, 0, 0, 0, 0) > 0);
}

/* The usual beginning: another architecture kills; and an allow-list of what a program needs. */
static void allow_list(void)
{
    static const unsigned numbers[] = {SYS_write, SYS_exit_group, SYS_getpid, SYS_getppid,
                                       SYS_rt_sigreturn};
    struct sock_filter code[32] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
    };
    unsigned short n = 4;

    on(SIGILL, goes_on, 0);
    on(SIGSYS, trapped, 0);
    for (size_t i = 0; i < COUNT(numbers); i++) {
        code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, numbers[i], 0, 1);
        code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    }
    code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | 71);
    struct sock_fprog program = {n, code};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    TRY(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program));
    TRY(raw(SYS_getppid, 0, 0, 0, 0) > 0);
    TRY(raw(SYS_getuid, 0, 0, 0, 0));
    TRY(raw(SYS_rt_sigprocmask, 0, 0, 0, 0));
    TRY(raw(SYS_futex, 0, 0, 0, 0));
    __asm__ volatile("ud2");
    unsigned eax = 0, ebx, ecx = 0, edx;
    __asm__ volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
    say("CPUID %s", eax ? "answers" : "does not");
}

static void strict(void)
{
    TRY(prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT));
    say("still here");
    raw(SYS_exit, 3, 0, 0, 0);
}

static void strict_breaks(void)
{
    TRY(prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT));
    raw(SYS_getppid, 0, 0, 0, 0);
    say("not reached");
}

static void tell_mode(void)
{
    char text[4096], *at;

    read_text(text, sizeof(text), "/proc/self/status");
    at = strstr(text, "\nSeccomp:");
    say("/proc says %.10s", at ? at + 1 : "nothing");
    say("PR_GET_SECCOMP %d", prctl(PR_GET_SECCOMP));
}

static void modes(void)
{
    tell_mode();
    filtered(SYS_getppid, SECCOMP_RET_ERRNO | 1, 0);
    tell_mode();
}

static void inherits(void)
{
    TRY(raw(SYS_getppid, 0, 0, 0, 0));
    execl("/bin/sh", "sh", "-c", "echo $((1 + 1)) > /dev/null; exit 6", NULL);
}

static void inherited(void)
{
    TRY(filtered(SYS_getppid, SECCOMP_RET_ERRNO | 44, 0));
    in_child("child", inherits);
    TRY(raw(SYS_getppid, 0, 0, 0, 0));
}

static volatile int step_of_test;

static void *other_thread(void *unused)
{
    while (step_of_test == 0)
        nap(200);
    TRY(raw(SYS_getppid, 0, 0, 0, 0) > 0 ? 0 : 1);
    step_of_test = 2;
    while (step_of_test == 2)
        nap(200);
    TRY(raw(SYS_getppid, 0, 0, 0, 0));
    return unused;
}

static void of_all_threads(void)
{
    pthread_t thread;

    pthread_create(&thread, NULL, other_thread, NULL);
    TRY(filtered(SYS_getpgrp, SECCOMP_RET_ERRNO | 33, 0));
    step_of_test = 1;
    while (step_of_test == 1)
        nap(200);
    TRY(filtered(SYS_getppid, SECCOMP_RET_ERRNO | 44, SECCOMP_FILTER_FLAG_TSYNC));
    step_of_test = 3;
    pthread_join(thread, NULL);
}

/* The newest of equal answers counts, the strictest of others. */
static void two_filters(void)
{
    on(SIGSYS, trapped, 0);
    filtered(SYS_getppid, SECCOMP_RET_ERRNO | 11, 0);
    TRY(raw(SYS_getppid, 0, 0, 0, 0));
    filtered(SYS_getppid, SECCOMP_RET_ERRNO | 12, 0);
    TRY(raw(SYS_getppid, 0, 0, 0, 0));
    filtered(SYS_getppid, SECCOMP_RET_TRAP | 13, 0);
    TRY(raw(SYS_getppid, 0, 0, 0, 0));
    filtered(SYS_getppid, SECCOMP_RET_TRAP | 14, 0);
    TRY(raw(SYS_getppid, 0, 0, 0, 0));
    filtered(SYS_getppid, SECCOMP_RET_ERRNO | 15, 0);
    TRY(raw(SYS_getppid, 0, 0, 0, 0));
}

static void bad_filters(void)
{
    struct sock_filter code[] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 4096)};
    struct sock_fprog program = {1, code}, none = {0, NULL};

    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    TRY(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program));
    TRY(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &none));
    TRY(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, NULL));
    TRY(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 1 << 20, &none));
    TRY(syscall(SYS_seccomp, 99, 0, NULL));
    TRY(prctl(PR_SET_SECCOMP, 99));
}

/* A filter that looks at the address of the instruction. */
static void by_address(void)
{
    uint64_t at = (uintptr_t)raw_after;
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, instruction_pointer)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)at, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_sigaltstack, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | 55),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {COUNT(code), code};

    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    TRY(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program));
    TRY(raw(SYS_sigaltstack, 0, 0, 0, 0));
    TRY(syscall(SYS_sigaltstack, NULL, NULL));
    TRY(raw(SYS_getppid, 0, 0, 0, 0) > 0);
}

/* A call that waits is trapped although it would not wait for long. */
static void trap_of_waiting_calls(void)
{
    static const unsigned numbers[] = {SYS_nanosleep, SYS_pause, SYS_read, SYS_poll, SYS_wait4,
                                       SYS_epoll_pwait};

    on(SIGSYS, trapped, 0);
    answer = -EINTR;
    for (size_t i = 0; i < COUNT(numbers); i++) {
        filtered(numbers[i], SECCOMP_RET_TRAP | i, 0);
        TRY(raw(numbers[i], 0, 0, 0, 0));
    }
}

CASES_MAIN(CASE(trap), CASE(trap_of_signal_calls), CASE(refused_signal_calls),
           CASE(refused_and_signalled), CASE(trap_blocked), CASE(trap_ignored),
           CASE(trap_by_default), CASE(trap_reset), CASE(trap_nested), CASE(trap_and_sent),
           CASE(kills_process), CASE(kills_thread), CASE(kills_one_thread), CASE(traces),
           CASE(allow_list), CASE(strict), CASE(strict_breaks), CASE(modes), CASE(inherited),
           CASE(of_all_threads), CASE(two_filters), CASE(bad_filters), CASE(by_address),
           CASE(trap_of_waiting_calls))
