/* Thousands of queued signals in order while the program does everything else: none lost or
 * doubled. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { SIGNALS = 4000 };

static volatile long next, wrong, faults, nested;
static char *stack;

static void counted(int sig, siginfo_t *in, void *context)
{
    (void)sig, (void)context;
    if (in->si_value.sival_int != next)
        wrong++;
    next = in->si_value.sival_int + 1;
    if (next % 64 == 0) {
        nested++;
        raise(SIGUSR2);
    }
}

static void ignored(int sig)
{
    (void)sig;
}

static void skip(int sig, siginfo_t *in, void *context)
{
    ucontext_t *u = context;
    (void)sig;
    if (in->si_code > 0)
        u->uc_mcontext.gregs[REG_RIP] += 2;
    faults++;
}

static void set(int sig, void *handler, int flags)
{
    struct sigaction a = {.sa_sigaction = handler, .sa_flags = flags | SA_RESTART};
    sigaction(sig, &a, 0);
}

static void *other(void *value)
{
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, 0);
    for (int i = 0; i < 20; i++)
        (void)!write(-1, "", 1);
    return value;
}

int main(void)
{
    sigset_t set1, old;
    stack_t s = {.ss_size = 65536};
    int parent = getpid(), ends = 0, rounds = 0;
    s.ss_sp = stack = mmap(0, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    sigaltstack(&s, 0);
    set(SIGRTMIN, counted, SA_SIGINFO);
    set(SIGUSR2, ignored, SA_ONSTACK);
    set(SIGILL, skip, SA_SIGINFO | SA_ONSTACK);
    sigemptyset(&set1);
    sigaddset(&set1, SIGRTMIN);
    int sender = fork();
    if (!sender) {
        for (int i = 0; i < SIGNALS; i++) {
            while (sigqueue(parent, SIGRTMIN, (union sigval){.sival_int = i}) && errno == EAGAIN)
                usleep(100);
            if (i % 16 == 0)
                usleep(100);
        }
        _exit(0);
    }
    while (next < SIGNALS) {
        rounds++;
        sigprocmask(SIG_BLOCK, &set1, &old);
        (void)!write(-1, "", 1);
        if (rounds % 8 == 0)
            ppoll(0, 0, &(struct timespec){0, 100000}, &old);
        sigprocmask(SIG_SETMASK, &old, 0);
        __asm__ volatile("ud2");
        set(SIGUSR1, rounds % 2 ? (void *)ignored : (void *)SIG_IGN, 0);
        if (rounds % 16 == 0) {
            int pid = fork();
            if (!pid)
                _exit(3);
            int status;
            while (waitpid(pid, &status, 0) < 0)
                ;
            ends += WEXITSTATUS(status) != 3;
            pthread_t t;
            sigprocmask(SIG_BLOCK, &set1, &old); /* A new thread must not take one. */
            pthread_create(&t, 0, other, 0);
            sigprocmask(SIG_SETMASK, &old, 0);
            pthread_join(t, 0);
        }
    }
    printf("next %ld wrong %ld nested %ld ends %d faults %d\n", next, wrong, nested, ends,
           faults == rounds);
    return 0;
}
