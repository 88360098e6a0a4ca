/* Calls that wait with a mask of their own, and what interrupts them. Prints facts, no times. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BIT(sig) (1ul << ((sig) - 1))
#define SHOW(value) printf("%s = %lld\n", #value, (long long)(value))

static int parent, pipes[2];
static volatile int seen;

static uint64_t now(void)
{
    uint64_t m;
    syscall(SYS_rt_sigprocmask, SIG_BLOCK, 0, &m, 8);
    return m;
}

static void handle(int sig, siginfo_t *in, void *context)
{
    ucontext_t *u = context;
    (void)in;
    printf(" handler %d: mask %lx, interrupted %lx\n", sig, now(), *(uint64_t *)&u->uc_sigmask);
    seen++;
}

/* A child sends `sig` once the parent sleeps in a call. */
static int sender(int sig)
{
    fflush(stdout);
    int pid = fork();
    if (pid)
        return pid;
    char path[64], text[256];
    sprintf(path, "/proc/%d/stat", parent);
    for (;;) {
        FILE *f = fopen(path, "r");
        int got = f ? fread(text, 1, 255, f) : 0;
        if (f)
            fclose(f);
        text[got > 0 ? got : 0] = 0;
        char *state = strrchr(text, ')');
        if (state && state[2] == 'S')
            break;
        usleep(500);
    }
    usleep(20000); /* under the stub it may have slept until the supervisor knew this child */
    kill(parent, sig);
    _exit(0);
}

static long registers_kept;

/* All argument registers come back as they were. */
static long call6(long nr, long a, long b, long c, long d, long e, long f)
{
    long result = nr, ra = a, rb = b, rc = c;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    __asm__ volatile("syscall"
                     : "+a"(result), "+D"(ra), "+S"(rb), "+d"(rc), "+r"(r10), "+r"(r8),
                       "+r"(r9)::"rcx", "r11", "memory");
    registers_kept = ra == a && rb == b && rc == c && r10 == d && r8 == e && r9 == f;
    return result;
}

enum { SUSPEND, PPOLL, PSELECT, EPOLL, EPOLL2, WAYS };
static const char *names[] = {"sigsuspend", "ppoll", "pselect6", "epoll_pwait", "epoll_pwait2"};
static int epoll;

static long wait_by(int way, uint64_t *mask, int ms, int readable)
{
    struct timespec ts = {ms / 1000, ms % 1000 * 1000000};
    struct pollfd p = {pipes[0], readable ? POLLIN : 0, 0};
    struct epoll_event event;
    struct {
        uint64_t *mask;
        long size;
    } pair = {mask, 8};
    fd_set set;
    FD_ZERO(&set);
    if (readable)
        FD_SET(pipes[0], &set);
    switch (way) {
    case SUSPEND:
        return call6(SYS_rt_sigsuspend, (long)mask, 8, 0, 0, 0, 0);
    case PPOLL:
        return call6(SYS_ppoll, (long)&p, 1, (long)&ts, (long)mask, 8, 0);
    case PSELECT:
        return call6(SYS_pselect6, pipes[0] + 1, (long)&set, 0, 0, (long)&ts, (long)&pair);
    case EPOLL:
        return call6(SYS_epoll_pwait, epoll, (long)&event, 1, ms, (long)mask, 8);
    default:
        return call6(SYS_epoll_pwait2, epoll, (long)&event, 1, (long)&ts, (long)mask, 8);
    }
}

static void interrupted(int way, uint64_t outside, uint64_t inside, int sig)
{
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &outside, 0, 8);
    seen = 0;
    int pid = sender(sig);
    long result = wait_by(way, &inside, 30000, 0);
    printf("%s %lx %lx %d: %ld kept %ld seen %d mask %lx\n", names[way], outside, inside, sig,
           result, registers_kept, seen, now());
    while (waitpid(pid, 0, 0) < 0 && errno == EINTR)
        ;
}

static void pending(int way, uint64_t outside, uint64_t inside, int sig)
{
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &outside, 0, 8);
    seen = 0;
    raise(sig);
    uint64_t set = 0;
    syscall(SYS_rt_sigpending, &set, 8);
    printf("pending %lx seen %d\n", set, seen);
    long result = wait_by(way, &inside, 30000, 0);
    printf("%s %lx %lx pending %d: %ld seen %d mask %lx\n", names[way], outside, inside, sig,
           result, seen, now());
}

static void quiet(int way, uint64_t outside, uint64_t inside)
{
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &outside, 0, 8);
    long result = wait_by(way, &inside, 5, 0);
    printf("%s %lx %lx: %ld kept %ld mask %lx\n", names[way], outside, inside, result,
           registers_kept, now());
    (void)!write(pipes[1], "x", 1);
    result = wait_by(way, &inside, 30000, 1);
    char c;
    (void)!read(pipes[0], &c, 1);
    printf("%s %lx %lx: %ld kept %ld mask %lx\n", names[way], outside, inside, result,
           registers_kept, now());
}

static void refused(int way)
{
    uint64_t mask = 0;
    printf("%s: %ld", names[way], way == SUSPEND ? 0 : wait_by(way, 0, 1, 0));
    printf(" %ld\n", wait_by(way, (uint64_t *)8, 1, 0));
    if (way == SUSPEND)
        printf("%ld\n", call6(SYS_rt_sigsuspend, (long)&mask, 7, 0, 0, 0, 0));
    if (way == PPOLL)
        printf("%ld\n", call6(SYS_ppoll, 0, 0, 0, (long)&mask, 7, 0));
}

static long timed(uint64_t set, siginfo_t *in, int ms)
{
    struct timespec ts = {ms / 1000, ms % 1000 * 1000000};
    memset(in, 0, sizeof *in);
    return call6(SYS_rt_sigtimedwait, (long)&set, (long)in, (long)&ts, 8, 0, 0);
}

static void wanted(uint64_t outside, uint64_t set, int sig)
{
    siginfo_t in;
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &outside, 0, 8);
    seen = 0;
    printf("timedwait %lx: %ld\n", set, timed(set, &in, 1));
    if (outside & BIT(sig)) {
        raise(sig);
        printf(" %ld", timed(set, &in, 30000));
        printf(" kept %ld sig %d code %d pid %d seen %d\n", registers_kept, in.si_signo, in.si_code,
               in.si_pid == parent, seen);
    }
    int pid = sender(sig);
    printf(" %ld", timed(set, &in, 30000));
    printf(" kept %ld sig %d code %d pid %d seen %d mask %lx\n", registers_kept, in.si_signo,
           in.si_code, in.si_pid == pid, seen, now());
    while (waitpid(pid, 0, 0) < 0 && errno == EINTR)
        ;
}

/* A call that knows no mask: it begins again if every handler that ran says so. */
static void reads(int sig, int flags)
{
    struct sigaction a = {.sa_sigaction = handle, .sa_flags = SA_SIGINFO | flags};
    uint64_t none = 0;
    char c = 0;
    sigaction(sig, &a, 0);
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &none, 0, 8);
    fflush(stdout);
    int pid = sender(sig), writer = fork();
    if (!writer) {
        waitpid(-1, 0, 0);
        usleep(50000);
        (void)!write(pipes[1], "y", 1);
        _exit(0);
    }
    long result = call6(SYS_read, pipes[0], (long)&c, 1, 0, 0, 0);
    printf("read %d %x: %ld %d\n", sig, flags, result, c);
    if (result < 0)
        (void)!read(pipes[0], &c, 1);
    waitpid(pid, 0, 0);
    waitpid(writer, 0, 0);
}

int main(void)
{
    static const int signals[] = {SIGUSR1, SIGSEGV, SIGSYS};
    struct sigaction a = {.sa_sigaction = handle, .sa_flags = SA_SIGINFO};
    struct epoll_event event = {.events = EPOLLIN};
    sigaddset(&a.sa_mask, SIGUSR2);
    setvbuf(stdout, 0, _IOFBF, 1 << 16);
    parent = getpid();
    (void)!pipe(pipes);
    epoll = epoll_create1(0);
    epoll_ctl(epoll, EPOLL_CTL_ADD, pipes[0], &event);
    for (int i = 0; i < 3; i++)
        sigaction(signals[i], &a, 0);
    for (int way = 0; way < WAYS; way++) {
        refused(way);
        for (int i = 0; i < 3; i++) {
            interrupted(way, 0, 0, signals[i]);
            interrupted(way, BIT(SIGTRAP), BIT(SIGHUP), signals[i]);
            interrupted(way, 0, BIT(SIGBUS) | BIT(SIGHUP), signals[i]);
            interrupted(way, ~0ul, ~BIT(signals[i]), signals[i]);
            pending(way, ~0ul, ~BIT(signals[i]), signals[i]);
            pending(way, BIT(signals[i]), BIT(SIGFPE), signals[i]);
        }
        if (way != SUSPEND) {
            quiet(way, 0, 0);
            quiet(way, BIT(SIGSEGV), BIT(SIGTRAP) | BIT(SIGHUP));
            quiet(way, ~0ul, ~0ul);
        }
    }
    for (int i = 0; i < 3; i++) {
        wanted(~0ul, BIT(signals[i]), signals[i]);
        wanted(BIT(signals[i]), BIT(SIGUSR2) | BIT(SIGSEGV) | BIT(SIGSYS) | BIT(SIGUSR1),
               signals[i]);
        wanted(0, BIT(SIGUSR2), signals[i]);
        wanted(0, BIT(SIGFPE), signals[i]);
        wanted(0, BIT(signals[i]), signals[i]);
    }
    reads(SIGUSR1, 0);
    reads(SIGUSR1, SA_RESTART);
    reads(SIGSEGV, SA_RESTART);
    return 0;
}
