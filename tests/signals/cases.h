/*
 * What the programs of this directory share. Each is a table of cases; a case prints what it sees
 * and judges nothing: the same program without softsgx, on the kernel of this machine, says what
 * is right. So nothing is printed that may differ between two runs (addresses, pids, times).
 *
 *   program                        every case
 *   program CASE...                some
 *   program --enclave SGXS SIG ... each case in a process that has entered an enclave before
 *
 * Each case runs in a process and a process group of its own, with every signal at its default.
 * A line is "case: what was seen"; the last of a case tells how its process ended.
 */
#ifndef CASES_H
#define CASES_H

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "host.h"

struct kase {
    const char *name;
    void (*run)(void);
};

/* A case that takes so long hangs. */
#define HUNG_S 40

#define UNUSED __attribute__((unused))
#define BIT(number) (1UL << ((number) - 1))
/* The signals that stand for exceptions of the processor, and of seccomp. */
#define EXCEPTIONS                                                                                 \
    (BIT(SIGSEGV) | BIT(SIGBUS) | BIT(SIGILL) | BIT(SIGFPE) | BIT(SIGTRAP) | BIT(SIGSYS))

static const char *case_name = "";
static const char *enclave_files[2];
static char **program_argv;
/* The enclave of the process, if it has one. */
static struct enclave the_enclave UNUSED;

static const int exceptions[] UNUSED = {SIGILL, SIGTRAP, SIGBUS, SIGFPE, SIGSEGV, SIGSYS};
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

__attribute__((format(printf, 1, 2), unused)) static void say(const char *format, ...)
{
    int kept = errno;
    char line[1024];
    va_list args;
    int length = snprintf(line, sizeof(line), "%s: ", case_name);

    va_start(args, format);
    length += vsnprintf(line + length, sizeof(line) - length - 1, format, args);
    va_end(args);
    line[length++] = '\n';
    if (write(1, line, length) != length)
        _exit(99);
    errno = kept;
}

/* The result of a call: a number, or the errno. */
#define TRY(call)                                                                                  \
    do {                                                                                           \
        long tried_ = (long)(call);                                                                \
        if (tried_ == -1)                                                                          \
            say("%s: errno %d", #call, errno);                                                     \
        else                                                                                       \
            say("%s: %ld", #call, tried_);                                                         \
    } while (0)

/* The kernel's struct sigaction. */
struct kaction {
    void *handler;
    unsigned long flags;
    void (*restorer)(void);
    uint64_t mask;
};

#define KSA_RESTORER 0x04000000UL

void restorer(void);
__asm__(".pushsection .text\n"
        ".globl restorer\n"
        "nop\n"
        "restorer:\n"
        "mov $15, %eax\n"
        "syscall\n"
        ".popsection\n");

UNUSED static long kaction(int number, const struct kaction *new, struct kaction *old)
{
    return syscall(SYS_rt_sigaction, number, new, old, 8UL);
}

UNUSED static uint64_t mask_now(void)
{
    uint64_t mask = 0;

    syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &mask, 8UL);
    return mask;
}

UNUSED static void mask_set(uint64_t mask)
{
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, 8UL);
}

UNUSED static uint64_t pending_now(void)
{
    uint64_t mask = 0;

    syscall(SYS_rt_sigpending, &mask, 8UL);
    return mask;
}

UNUSED static uint64_t *context_mask(void *context)
{
    return (uint64_t *)&((ucontext_t *)context)->uc_sigmask;
}

UNUSED static greg_t *registers(void *context)
{
    return ((ucontext_t *)context)->uc_mcontext.gregs;
}

UNUSED static void on_masking(int number, void *handler, unsigned long flags, uint64_t mask)
{
    struct kaction action = {handler, flags | KSA_RESTORER, restorer, mask};

    if (kaction(number, &action, NULL))
        say("rt_sigaction of %d: errno %d", number, errno);
}

UNUSED static void on(int number, void *handler, unsigned long flags)
{
    on_masking(number, handler, flags | SA_SIGINFO, 0);
}

UNUSED static void default_of(int number)
{
    struct kaction action = {NULL, 0, NULL, 0};

    kaction(number, &action, NULL);
}

UNUSED static void ignore(int number)
{
    struct kaction action = {(void *)SIG_IGN, 0, NULL, 0};

    kaction(number, &action, NULL);
}

UNUSED static int tid_now(void)
{
    return syscall(SYS_gettid);
}

UNUSED static long send_thread(int tid, int number)
{
    return syscall(SYS_tgkill, getpid(), tid, number);
}

UNUSED static const char *whose(int pid)
{
    return pid == getpid() ? "self" : pid == 0 ? "none" : pid == getppid() ? "parent" : "other";
}

/* What a signal that was sent says. */
UNUSED static void tell_info(const char *where, const siginfo_t *info)
{
    say("%s: signal %d errno %d code %d pid %s uid %s value %#lx", where, info->si_signo,
        info->si_errno, info->si_code, whose(info->si_pid), info->si_uid == getuid() ? "own" : "-",
        info->si_code == SI_QUEUE || info->si_code < SI_ASYNCIO || info->si_code == SI_MESGQ
            ? (unsigned long)info->si_value.sival_ptr
            : 0);
}

UNUSED static void ended(const char *who, int status)
{
    if (WIFEXITED(status))
        say("%s: exit %d", who, WEXITSTATUS(status));
    else if (WIFSIGNALED(status))
        say("%s: killed by %d, core %d", who, WTERMSIG(status), !!WCOREDUMP(status));
    else if (WIFSTOPPED(status))
        say("%s: stopped by %d", who, WSTOPSIG(status));
    else if (WIFCONTINUED(status))
        say("%s: continued", who);
    else
        say("%s: status %#x", who, status);
}

/* A child that does something and ends; how it ended. */
UNUSED static void in_child(const char *who, void (*work)(void))
{
    int status = 0;
    pid_t pid = fork();

    if (!pid) {
        work();
        _exit(0);
    }
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    ended(who, status);
}

/* A store that faults. */
__attribute__((noinline, unused)) static void touch(uintptr_t address)
{
    __asm__ volatile("movl $1, (%0)" : : "r"(address) : "memory");
}

UNUSED static void nap(long microseconds)
{
    struct timespec time = {microseconds / 1000000, microseconds % 1000000 * 1000};

    clock_nanosleep(CLOCK_MONOTONIC, 0, &time, NULL);
}

static int64_t seconds_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec;
}

UNUSED static void read_text(char *text, size_t size, const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? 0 : read(fd, text, size - 1);

    text[length < 0 ? 0 : length] = 0;
    if (fd >= 0)
        close(fd);
}

/* The state of a task, as /proc has it: S, R, T, Z; 0 if there is none. */
UNUSED static char task_state(int pid, int tid)
{
    char path[64], text[512], *end;

    snprintf(path, sizeof(path), "/proc/%d/task/%d/stat", pid, tid);
    read_text(text, sizeof(text), path);
    end = strrchr(text, ')');
    return end ? end[2] : 0;
}

UNUSED static void until_state(int pid, int tid, const char *states)
{
    char state;

    do {
        nap(500);
        state = task_state(pid, tid);
    } while (!state || !strchr(states, state));
}

/* Nobody needs to wait for it any more. */
static volatile int call_over UNUSED;

/* Until a task waits in this system call, or in its restart. */
UNUSED static void until_waits(int pid, int tid, long number)
{
    char path[64], text[256], *end;

    snprintf(path, sizeof(path), "/proc/%d/task/%d/syscall", pid, tid);
    while (!call_over) {
        nap(500);
        read_text(text, sizeof(text), path);
        long found = strtol(text, &end, 10);
        if (end != text && (found == number || found == SYS_restart_syscall) &&
            task_state(pid, tid) == 'S')
            return;
    }
}

static void set_back(void)
{
    stack_t none = {.ss_flags = SS_DISABLE};

    for (int number = 1; number < 65; number++)
        default_of(number);
    mask_set(0);
    sigaltstack(&none, NULL);
}

/* An enclave is in the process, and was entered. */
static void enter_before(void)
{
    static char *argv[3];
    struct sgx_enclave_run run = {0};

    argv[0] = program_argv[0];
    argv[1] = (char *)enclave_files[0];
    argv[2] = (char *)enclave_files[1];
    start(&the_enclave, 3, argv);
    run.tcs = the_enclave.tcs[0];
    SAME(ask(&run, OP_COUNT, 10, 0, 0), 0);
}

static void run_case(const struct kase *kase)
{
    int64_t limit = seconds_now() + HUNG_S;
    int status;
    pid_t pid;

    case_name = kase->name;
    setenv("CASE_NAME", case_name, 1);
    say("begins");
    pid = fork();
    if (!pid) {
        setpgid(0, 0);
        set_back();
        if (enclave_files[0])
            enter_before();
        kase->run();
        _exit(0);
    }
    while (waitpid(pid, &status, WNOHANG) != pid) {
        if (seconds_now() > limit) {
            say("hangs");
            kill(-pid, SIGKILL);
            kill(pid, SIGKILL);
            waitpid(pid, &status, 0);
            return;
        }
        usleep(500);
    }
    kill(-pid, SIGKILL);
    ended("ends", status);
}

static bool wanted(const struct kase *kase, char **names)
{
    if (!*names)
        return true;
    for (; *names; names++)
        if (!strcmp(*names, kase->name))
            return true;
    return false;
}

UNUSED static int run_cases(char **argv, const struct kase *kases, size_t count)
{
    struct rlimit none = {0, RLIM_INFINITY};
    char **names = argv + 1;

    program_argv = argv;
    setrlimit(RLIMIT_CORE, &none);
    if (*names && !strcmp(*names, "--enclave")) {
        enclave_files[0] = names[1];
        enclave_files[1] = names[2];
        names += 3;
    }
    if (*names && !strcmp(*names, "--list")) {
        for (size_t i = 0; i < count; i++)
            printf("%s\n", kases[i].name);
        return 0;
    }
    for (size_t i = 0; i < count; i++)
        if (wanted(&kases[i], names))
            run_case(&kases[i]);
    return 0;
}

#define CASE(function) {#function, function}
/* For cases that need an enclave. */
#define INSIDE_MAIN(...) CASES_OF(__VA_ARGS__)
#define CASES_MAIN(...) CASES_OF(__VA_ARGS__)
#define CASES_OF(...)                                                                              \
    int main(int argc, char **argv)                                                                \
    {                                                                                              \
        static const struct kase kases[] = {__VA_ARGS__};                                          \
                                                                                                   \
        (void)argc;                                                                                \
        return run_cases(argv, kases, COUNT(kases));                                               \
    }

#endif
