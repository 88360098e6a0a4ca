/* Every way to make a thread or a process, and what it inherits. Prints facts, no addresses. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/sched.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#define SHOW(value) printf("%s = %lld\n", #value, (long long)(value))
#ifndef CLONE_CLEAR_SIGHAND
#define CLONE_CLEAR_SIGHAND 0x100000000ull
#endif

static volatile int shared, caught;
static char *stack;

static void handle(int sig)
{
    caught = sig;
}

static int handled(int sig)
{
    struct sigaction a;
    sigaction(sig, 0, &a);
    return a.sa_handler == handle ? 2 : a.sa_handler == SIG_IGN;
}

static int ended(int pid)
{
    int status = 0;
    while (waitpid(pid, &status, __WALL) < 0 && errno == EINTR)
        ;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static int child(void *value)
{
    shared = (int)(long)value;
    signal(SIGUSR2, handle);
    return handled(SIGUSR1) * 10 + (syscall(SYS_getpid) != syscall(SYS_getppid));
}

static long clone3(struct clone_args *a, unsigned long size)
{
    return syscall(SYS_clone3, a, size) < 0 ? -errno : 0;
}

static void plain(void)
{
    int tid = 0;
    SHOW(ended(clone(child, stack + 65536, SIGCHLD, (void *)1)));
    SHOW(shared);
    SHOW(handled(SIGUSR2));
    SHOW(ended(clone(child, stack + 65536, CLONE_VM | SIGCHLD, (void *)2)));
    SHOW(shared);
    SHOW(handled(SIGUSR2));
    SHOW(ended(clone(child, stack + 65536, CLONE_VM | CLONE_SIGHAND | SIGCHLD, (void *)3)));
    SHOW(shared);
    SHOW(handled(SIGUSR2));
    SHOW(ended(clone(child, stack + 65536, CLONE_VM | CLONE_VFORK, (void *)4)));
    int pid = clone(child, stack + 65536, CLONE_PARENT_SETTID | CLONE_CHILD_SETTID | SIGCHLD,
                    (void *)5, &tid, 0, &tid);
    SHOW(tid == pid);
    SHOW(ended(pid));
    SHOW(clone(child, stack + 65536, CLONE_SIGHAND, 0) < 0 ? errno : 0);
    SHOW(clone(child, stack + 65536, CLONE_THREAD, 0) < 0 ? errno : 0);
    SHOW(clone(child, stack + 65536, CLONE_NEWNS | CLONE_FS, 0) < 0 ? errno : 0);
    signal(SIGUSR2, SIG_DFL);
}

static void third(void)
{
    struct clone_args a = {.exit_signal = SIGCHLD};
    char big[8192] = {0};
    int fd = -1;
    SHOW(clone3(&a, 63));
    SHOW(clone3(&a, 5000));
    SHOW(clone3((void *)8, 64));
    a.flags = 1ull << 60;
    SHOW(clone3(&a, sizeof a));
    a.flags = CLONE_CLEAR_SIGHAND | CLONE_SIGHAND | CLONE_VM;
    SHOW(clone3(&a, sizeof a));
    a.flags = CLONE_SIGHAND;
    SHOW(clone3(&a, sizeof a));
    a.flags = 0, a.stack = 8;
    SHOW(clone3(&a, sizeof a));
    a.stack = 0;
    memcpy(big, &a, sizeof a);
    big[4000] = 1;
    SHOW(clone3((void *)big, 4096));
    big[300] = 1;
    SHOW(clone3((void *)big, 512));
    a.flags = CLONE_PIDFD, a.pidfd = (uint64_t)&fd;
    for (int way = 0; way < 3; way++) {
        if (way)
            a.flags = CLONE_CLEAR_SIGHAND;
        fflush(stdout);
        long pid = syscall(SYS_clone3, &a, sizeof a);
        if (!pid) {
            struct sigaction k;
            sigaction(SIGUSR1, 0, &k);
            printf("child %d: %d %d %d flags %x\n", way, handled(SIGUSR1), handled(SIGSEGV),
                   handled(SIGTERM), k.sa_flags & ~0x4000000);
            fflush(stdout);
            if (way == 2)
                raise(SIGUSR1);
            if (way == 1)
                raise(SIGSEGV);
            _exit(7);
        }
        SHOW(ended(pid));
    }
    SHOW(fd >= 0);
    SHOW(handled(SIGUSR1));
}

static void *thread(void *value)
{
    unsigned long gs = 1;
    syscall(SYS_arch_prctl, 0x1004, &gs);
    printf("thread: gs %lx\n", gs);
    fflush(stdout);
    int pid = fork();
    if (!pid) {
        gs = 1;
        syscall(SYS_arch_prctl, 0x1004, &gs);
        printf("child of thread: gs %lx\n", gs);
        fflush(stdout);
        _exit(fork() ? ended(-1) + 1 : 41);
    }
    SHOW(ended(pid));
    return value;
}

static void bases(void)
{
    unsigned long gs = 1, fs = 1;
    pthread_t t;
    SHOW(syscall(SYS_arch_prctl, 0x1004, &gs));
    SHOW(gs);
    SHOW(syscall(SYS_arch_prctl, 0x1004, 8) < 0 ? errno : 0);
    SHOW(syscall(SYS_arch_prctl, 0x1001, 1ul << 63) < 0 ? errno : 0);
    pthread_create(&t, 0, thread, 0);
    pthread_join(t, 0);
    SHOW(syscall(SYS_arch_prctl, 0x1001, 0x12340000));
    SHOW(syscall(SYS_arch_prctl, 0x1004, &gs));
    SHOW(gs);
    pthread_create(&t, 0, thread, 0);
    pthread_join(t, 0);
    raise(SIGUSR1);
    SHOW(syscall(SYS_arch_prctl, 0x1004, &gs));
    SHOW(gs);
    SHOW(syscall(SYS_arch_prctl, 0x1001, 0));
    SHOW(syscall(SYS_arch_prctl, 0x1004, &gs));
    SHOW(gs);
    SHOW(syscall(SYS_arch_prctl, 0x1003, &fs));
    SHOW(fs == (unsigned long)pthread_self());
}

static void *last(void *value)
{
    usleep(20000);
    printf("the last thread\n");
    fflush(stdout);
    syscall(SYS_exit, 9);
    return value;
}

/* A timer while processes and threads are made: all of them end as they should. */
static void busy(void)
{
    struct itimerval every = {{0, 1000}, {0, 1000}}, none = {{0, 0}, {0, 0}};
    int good = 0;
    pthread_t t;
    signal(SIGALRM, handle);
    setitimer(ITIMER_REAL, &every, 0);
    for (int i = 0; i < 200; i++) {
        int pid = i % 2 ? fork() : vfork();
        if (!pid)
            _exit(i % 100);
        good += ended(pid) == i % 100;
        pthread_create(&t, 0, (void *(*)(void *))handled, (void *)SIGUSR1);
        void *value;
        pthread_join(t, &value);
        good += (int)(long)value == 2;
    }
    setitimer(ITIMER_REAL, &none, 0);
    SHOW(good);
    signal(SIGALRM, SIG_DFL);
}

int main(void)
{
    pthread_t t;
    setvbuf(stdout, 0, _IOFBF, 1 << 16);
    stack = mmap(0, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    signal(SIGUSR1, handle);
    signal(SIGSEGV, handle);
    signal(SIGTERM, SIG_IGN);
    plain();
    third();
    bases();
    busy();
    fflush(stdout);
    if (!fork()) {
        pthread_create(&t, 0, last, 0);
        pthread_exit(0);
    }
    SHOW(ended(-1));
    fflush(stdout);
    return 0;
}
