/* Masks: of threads, of handlers and their contexts, of the calls that take one; what is pending. */
#include "cases.h"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/signalfd.h>

static volatile int handled;
static uint64_t to_set, to_clear;

static void noted(int number, siginfo_t *info, void *context)
{
    handled++;
    say("handler of %d, code %d, mask %#lx, of the context %#lx", number, info->si_code,
        (long)mask_now(), (long)*context_mask(context));
}

static void handlers(void)
{
    for (size_t i = 0; i < COUNT(exceptions); i++)
        on(exceptions[i], noted, 0);
    on(SIGUSR1, noted, 0);
    on(SIGUSR2, noted, 0);
    on(SIGTERM, noted, 0);
    for (int number = 34; number < 38; number++)
        on(number, noted, 0);
}

static void set_and_ask(void)
{
    static const int hows[] = {-1, SIG_BLOCK, SIG_UNBLOCK, SIG_SETMASK, 3, 1 << 20};
    uint64_t old = 0;

    for (int number = 1; number < 65; number++) {
        uint64_t mask = BIT(number);

        for (size_t i = 0; i < COUNT(hows); i++) {
            long got = syscall(SYS_rt_sigprocmask, hows[i], &mask, &old, 8UL);

            say("how %d, signal %d: %ld errno %d, old %#lx, now %#lx", hows[i], number, got,
                got ? errno : 0, (long)old, (long)mask_now());
        }
    }
    mask_set(~0UL);
    say("all: %#lx", (long)mask_now());
    mask_set(0);
    say("none: %#lx", (long)mask_now());
}

static void refused(void)
{
    uint64_t mask = EXCEPTIONS, old = 0;
    void *bad = (void *)8;

    TRY(syscall(SYS_rt_sigprocmask, 77, NULL, &old, 8UL));
    TRY(syscall(SYS_rt_sigprocmask, 77, NULL, NULL, 8UL));
    TRY(syscall(SYS_rt_sigprocmask, SIG_BLOCK, &mask, NULL, 16UL));
    TRY(syscall(SYS_rt_sigprocmask, SIG_BLOCK, &mask, NULL, 0UL));
    TRY(syscall(SYS_rt_sigprocmask, SIG_BLOCK, bad, NULL, 8UL));
    TRY(syscall(SYS_rt_sigprocmask, SIG_BLOCK, (void *)-8L, NULL, 8UL));
    TRY(syscall(SYS_rt_sigprocmask, SIG_BLOCK, &mask, bad, 8UL));
    say("set before EFAULT: %#lx", (long)mask_now());
    TRY(syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, bad, 8UL));
    TRY(syscall(SYS_rt_sigprocmask, SIG_SETMASK | 1UL << 40, &old, NULL, 8UL));
    say("upper half of how: %#lx", (long)mask_now());
    TRY(syscall(SYS_rt_sigpending, bad, 8UL));
    TRY(syscall(SYS_rt_sigpending, &old, 16UL));
    TRY(syscall(SYS_rt_sigpending, &old, 4UL));
    TRY(syscall(SYS_rt_sigpending, &old, 0UL));
    TRY(syscall(SYS_rt_sigsuspend, &mask, 4UL));
    TRY(syscall(SYS_rt_sigsuspend, bad, 8UL));
}

/* All are pending at once: which come first, how they nest. */
static void order_of_delivery(void)
{
    handlers();
    mask_set(~0UL);
    for (int number = 37; number; number--)
        if (BIT(number) & (EXCEPTIONS | BIT(SIGUSR1) | BIT(SIGUSR2) | BIT(SIGTERM) | 0xfUL << 33)) {
            kill(getpid(), number);
            send_thread(tid_now(), number);
        }
    say("pending %#lx", (long)pending_now());
    mask_set(0);
    say("pending %#lx, mask %#lx", (long)pending_now(), (long)mask_now());
}

/* One after the other, each when it is unblocked. */
static void one_by_one(void)
{
    handlers();
    mask_set(~0UL);
    for (size_t i = 0; i < COUNT(exceptions); i++)
        kill(getpid(), exceptions[i]);
    for (size_t i = 0; i < COUNT(exceptions); i++) {
        uint64_t mask = BIT(exceptions[i]);

        say("pending %#lx", (long)pending_now());
        syscall(SYS_rt_sigprocmask, SIG_UNBLOCK, &mask, NULL, 8UL);
        syscall(SYS_rt_sigprocmask, SIG_BLOCK, &mask, NULL, 8UL);
    }
    say("pending %#lx, handled %d", (long)pending_now(), handled);
}

static void changes_context(int number, siginfo_t *info, void *context)
{
    noted(number, info, context);
    *context_mask(context) = (*context_mask(context) | to_set) & ~to_clear;
}

static void through_the_context(void)
{
    static const uint64_t pairs[][2] = {
        {EXCEPTIONS, 0}, {0, EXCEPTIONS}, {BIT(SIGUSR2), BIT(SIGSEGV)}, {~0UL, 0}, {0, ~0UL},
        {BIT(SIGSYS) | BIT(64), BIT(SIGUSR1)}};

    handlers();
    on(SIGUSR1, changes_context, 0);
    on(SIGTRAP, changes_context, 0);
    for (size_t i = 0; i < COUNT(pairs); i++) {
        to_set = pairs[i][0];
        to_clear = pairs[i][1];
        mask_set(BIT(SIGSEGV));
        raise(SIGUSR1);
        say("after SIGUSR1 %#lx", (long)mask_now());
        mask_set(BIT(SIGBUS));
        send_thread(tid_now(), SIGTRAP);
        say("after SIGTRAP %#lx", (long)mask_now());
    }
    mask_set(0);
}

/* The handler unblocks in the context what is pending: it comes when the handler returns. */
static void pending_at_return(void)
{
    handlers();
    on(SIGUSR1, changes_context, 0);
    mask_set(EXCEPTIONS | BIT(SIGUSR2));
    for (size_t i = 0; i < COUNT(exceptions); i++)
        kill(getpid(), exceptions[i]);
    kill(getpid(), SIGUSR2);
    to_clear = ~0UL;
    raise(SIGUSR1);
    say("pending %#lx, mask %#lx, handled %d", (long)pending_now(), (long)mask_now(), handled);
}

static void mask_in_handler(int number, siginfo_t *info, void *context)
{
    uint64_t mask = EXCEPTIONS | BIT(SIGUSR2);

    noted(number, info, context);
    syscall(SYS_rt_sigprocmask, SIG_BLOCK, &mask, NULL, 8UL);
    kill(getpid(), SIGSEGV);
    kill(getpid(), SIGUSR2);
    say("blocked in the handler: mask %#lx pending %#lx", (long)mask_now(), (long)pending_now());
}

static void not_kept_from_handler(void)
{
    handlers();
    on(SIGUSR1, mask_in_handler, 0);
    raise(SIGUSR1);
    say("afterwards %#lx, handled %d", (long)mask_now(), handled);
}

struct late {
    int tid, number;
    long call;
};

static void *sends_late(void *argument)
{
    struct late *late = argument;

    mask_set(~0UL);
    until_waits(getpid(), late->tid, late->call);
    send_thread(late->tid, late->number);
    return NULL;
}

static pthread_t later(struct late *late, int number, long call)
{
    pthread_t thread;

    *late = (struct late){tid_now(), number, call};
    pthread_create(&thread, NULL, sends_late, late);
    return thread;
}

static void suspended(void)
{
    static const int numbers[] = {SIGUSR1, SIGSEGV, SIGSYS, SIGTRAP, 35};
    uint64_t masks[] = {0, BIT(SIGBUS) | BIT(SIGWINCH), ~0UL & ~(EXCEPTIONS | BIT(SIGUSR1) | BIT(35))};
    struct late late;

    handlers();
    for (size_t i = 0; i < COUNT(numbers); i++)
        for (size_t j = 0; j < COUNT(masks); j++) {
            mask_set(EXCEPTIONS | BIT(SIGUSR1) | BIT(35) | BIT(SIGTERM));
            kill(getpid(), numbers[i]);
            TRY(syscall(SYS_rt_sigsuspend, &masks[j], 8UL));
            say("it was pending: mask %#lx", (long)mask_now());
            pthread_t thread = later(&late, numbers[i], SYS_rt_sigsuspend);
            TRY(syscall(SYS_rt_sigsuspend, &masks[j], 8UL));
            say("it came: mask %#lx", (long)mask_now());
            pthread_join(thread, NULL);
        }
}

enum { PPOLL, PSELECT, EPOLL, EPOLL2, WAYS };
static const long numbers_of[] = {SYS_ppoll, SYS_pselect6, SYS_epoll_pwait, SYS_epoll_pwait2};

/* One of the calls, with a mask, on a descriptor that is ready or not. */
static long waits(int way, int fd, uint64_t *mask, size_t size, struct timespec *time)
{
    struct pollfd poll = {.fd = fd, .events = POLLIN};
    struct {
        uint64_t *mask;
        size_t size;
    } both = {mask, size};
    struct epoll_event event;
    fd_set set;
    long got = -1;
    int epoll;

    if (way == PPOLL)
        return syscall(SYS_ppoll, &poll, 1, time, mask, size);
    if (way == PSELECT) {
        FD_ZERO(&set);
        FD_SET(fd, &set);
        return syscall(SYS_pselect6, fd + 1, &set, NULL, NULL, time, &both);
    }
    epoll = epoll_create1(EPOLL_CLOEXEC);
    event = (struct epoll_event){.events = EPOLLIN, .data = {.u64 = 7}};
    epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
    if (way == EPOLL)
        got = syscall(SYS_epoll_pwait, epoll, &event, 1,
                      time ? (int)(time->tv_sec * 1000 + time->tv_nsec / 1000000) : -1, mask, size);
    else
        got = syscall(SYS_epoll_pwait2, epoll, &event, 1, time, mask, size);
    int kept = errno;
    close(epoll);
    errno = kept;
    return got;
}

#define WAIT(...)                                                                                  \
    do {                                                                                           \
        long got_ = waits(way, __VA_ARGS__);                                                       \
        say("way %d: %ld errno %d, mask %#lx, pending %#lx", way, got_, got_ < 0 ? errno : 0,      \
            (long)mask_now(), (long)pending_now());                                                \
    } while (0)

static void with_a_mask(int number)
{
    uint64_t open = 0, some = BIT(SIGBUS) | BIT(SIGWINCH), all = ~0UL;
    struct timespec none = {0, 0}, short_ = {0, 1000000};
    struct late late;
    int ends[2];

    if (pipe(ends))
        return;
    handlers();
    for (int way = 0; way < WAYS; way++) {
        mask_set(EXCEPTIONS | BIT(SIGUSR1) | BIT(35));
        WAIT(ends[0], &open, 8, &none);
        WAIT(ends[0], &open, 8, &short_);
        WAIT(ends[0], &all, 8, &none);
        WAIT(ends[0], NULL, 8, &none);
        WAIT(ends[0], NULL, 77, &none);
        WAIT(ends[0], &open, 77, &none);
        WAIT(ends[0], (void *)8, 8, &none);
        say("pending before");
        kill(getpid(), number);
        WAIT(ends[0], &all, 8, &none);
        WAIT(ends[0], NULL, 8, &none);
        WAIT(ends[0], &some, 8, NULL);
        say("pending before, no time");
        kill(getpid(), number);
        WAIT(ends[0], &open, 8, &none);
        say("pending before, and ready");
        kill(getpid(), number);
        if (write(ends[1], "x", 1) != 1)
            return;
        WAIT(ends[0], &some, 8, NULL);
        mask_set(0);
        mask_set(EXCEPTIONS | BIT(SIGUSR1) | BIT(35));
        char byte;
        if (read(ends[0], &byte, 1) != 1)
            return;
        say("while it waits");
        pthread_t thread = later(&late, number, numbers_of[way]);
        WAIT(ends[0], &some, 8, NULL);
        pthread_join(thread, NULL);
    }
}

static void with_a_mask_usr1(void)
{
    with_a_mask(SIGUSR1);
}

static void with_a_mask_segv(void)
{
    with_a_mask(SIGSEGV);
}

static void with_a_mask_sys(void)
{
    with_a_mask(SIGSYS);
}

static void with_a_mask_trap(void)
{
    with_a_mask(SIGTRAP);
}

static void with_a_mask_realtime(void)
{
    with_a_mask(35);
}

/* The mask of the call blocks a signal, which is sent in vain; another ends the call. */
static void blocked_by_the_call(void)
{
    struct late late;
    uint64_t mask = EXCEPTIONS;
    int ends[2];

    if (pipe(ends))
        return;
    handlers();
    for (int way = 0; way < WAYS; way++) {
        for (size_t i = 0; i < COUNT(exceptions); i++) {
            on_masking(SIGUSR1, noted, SA_SIGINFO, BIT(SIGUSR2));
            mask_set(BIT(exceptions[i]));
            kill(getpid(), exceptions[i]);
            pthread_t thread = later(&late, SIGUSR1, numbers_of[way]);
            WAIT(ends[0], &mask, 8, NULL);
            pthread_join(thread, NULL);
            mask_set(0);
        }
    }
}

static void timed(uint64_t set, struct timespec *time)
{
    siginfo_t info;
    long got;

    memset(&info, 0, sizeof(info));
    got = syscall(SYS_rt_sigtimedwait, &set, &info, time, 8UL);
    if (got > 0)
        tell_info("taken", &info);
    say("sigtimedwait of %#lx: %ld errno %d, pending %#lx, mask %#lx", (long)set, got,
        got < 0 ? errno : 0, (long)pending_now(), (long)mask_now());
}

static void taken(void)
{
    struct timespec none = {0, 0}, bad = {0, -1}, short_ = {0, 2000000};
    static const int numbers[] = {SIGUSR1, SIGSEGV, SIGBUS, SIGSYS, SIGTRAP, SIGFPE, SIGILL, 36};
    union sigval value = {.sival_int = 4711};
    struct late late;

    handlers();
    mask_set(~0UL);
    timed(~0UL, &none);
    timed(EXCEPTIONS, &short_);
    timed(EXCEPTIONS, &bad);
    for (size_t i = 0; i < COUNT(numbers); i++) {
        kill(getpid(), numbers[i]);
        send_thread(tid_now(), numbers[i]);
        sigqueue(getpid(), numbers[i], value);
        timed(BIT(SIGWINCH), &none);
        timed(BIT(numbers[i]), NULL);
        timed(BIT(numbers[i]), &none);
        timed(BIT(numbers[i]), &none);
        timed(BIT(numbers[i]), &none);
        pthread_t thread = later(&late, numbers[i], SYS_rt_sigtimedwait);
        timed(BIT(numbers[i]) | BIT(SIGURG), NULL);
        pthread_join(thread, NULL);
    }
    for (size_t i = 0; i < COUNT(numbers); i++)
        kill(getpid(), numbers[i]);
    for (size_t i = 0; i <= COUNT(numbers); i++)
        timed(~0UL, &none);
    TRY(syscall(SYS_rt_sigtimedwait, (void *)8, NULL, &none, 8UL));
    TRY(syscall(SYS_rt_sigtimedwait, NULL, NULL, &none, 8UL));
    TRY(syscall(SYS_rt_sigtimedwait, &(uint64_t){1}, NULL, &none, 4UL));
    kill(getpid(), SIGSEGV);
    TRY(syscall(SYS_rt_sigtimedwait, &(uint64_t){BIT(SIGSEGV)}, (void *)8, &none, 8UL));
    say("pending %#lx", (long)pending_now());
}

/* Signals in the set of sigtimedwait that are not blocked: the wait takes them as well. */
static void taken_unblocked(void)
{
    struct late late;

    handlers();
    for (size_t i = 0; i < COUNT(exceptions); i++) {
        pthread_t thread = later(&late, exceptions[i], SYS_rt_sigtimedwait);

        timed(BIT(exceptions[i]), NULL);
        pthread_join(thread, NULL);
        thread = later(&late, SIGUSR2, SYS_rt_sigtimedwait);
        timed(BIT(exceptions[i]), NULL);
        pthread_join(thread, NULL);
    }
    say("handled %d", handled);
}

static void read_all(int fd)
{
    struct signalfd_siginfo info[4];
    ssize_t got;

    while ((got = read(fd, info, sizeof(info))) > 0)
        for (int i = 0; i < (int)(got / sizeof(info[0])); i++)
            say("read: signal %u errno %d code %d pid %s uid %s value %#x %#lx", info[i].ssi_signo,
                info[i].ssi_errno, info[i].ssi_code, whose(info[i].ssi_pid),
                info[i].ssi_uid == getuid() ? "own" : "-", info[i].ssi_int,
                (unsigned long)(info[i].ssi_code == SI_QUEUE ? info[i].ssi_ptr : 0));
    say("read: %zd errno %d", got, got < 0 ? errno : 0);
}

static void by_descriptor(void)
{
    static const int numbers[] = {SIGUSR1, SIGSEGV, SIGBUS, SIGSYS, SIGTRAP, SIGFPE, SIGILL, 36};
    union sigval value = {.sival_ptr = (void *)0x123456789aUL};
    uint64_t set = EXCEPTIONS | BIT(SIGUSR1) | BIT(36) | BIT(SIGKILL);
    int fd = syscall(SYS_signalfd4, -1, &set, 8UL, SFD_NONBLOCK | SFD_CLOEXEC);
    struct pollfd poll_ = {.fd = fd, .events = POLLIN};

    handlers();
    mask_set(~0UL);
    read_all(fd);
    for (size_t i = 0; i < COUNT(numbers); i++) {
        say("poll %d", poll(&poll_, 1, 0));
        kill(getpid(), numbers[i]);
        sigqueue(getpid(), numbers[i], value);
        send_thread(tid_now(), numbers[i]);
        say("poll %d, events %#x, pending %#lx", poll(&poll_, 1, 0), poll_.revents,
            (long)pending_now());
        read_all(fd);
    }
    for (size_t i = 0; i < COUNT(numbers); i++)
        sigqueue(getpid(), numbers[i], value);
    read_all(fd);
    set = BIT(SIGSEGV);
    TRY(syscall(SYS_signalfd4, fd, &set, 8UL, 0) == fd);
    kill(getpid(), SIGBUS);
    kill(getpid(), SIGSEGV);
    read_all(fd);
    say("pending %#lx", (long)pending_now());
    TRY(syscall(SYS_signalfd4, -1, &set, 4UL, 0));
    TRY(syscall(SYS_signalfd4, -1, &set, 8UL, 0x10));
    TRY(syscall(SYS_signalfd4, 0, &set, 8UL, 0));
    TRY(syscall(SYS_signalfd4, -1, (void *)8, 8UL, 0));
    TRY(syscall(SYS_signalfd, 999, &set, 8UL));
}

static void *reads_descriptor(void *argument)
{
    mask_set(~0UL);
    read_all(*(int *)argument);
    return NULL;
}

/* Another thread reads what was sent to the process; a thread's own stays its own. */
static void by_descriptor_elsewhere(void)
{
    uint64_t set = EXCEPTIONS;
    int fd = syscall(SYS_signalfd4, -1, &set, 8UL, SFD_NONBLOCK | SFD_CLOEXEC);
    pthread_t thread;

    mask_set(~0UL);
    for (size_t i = 0; i < COUNT(exceptions); i++) {
        send_thread(tid_now(), exceptions[i]);
        if (i % 2)
            kill(getpid(), exceptions[i]);
    }
    pthread_create(&thread, NULL, reads_descriptor, &fd);
    pthread_join(thread, NULL);
    say("here");
    read_all(fd);
}

static void *waits_for_descriptor(void *argument)
{
    struct signalfd_siginfo info;

    mask_set(~0UL);
    say("read %zd", read(*(int *)argument, &info, sizeof(info)));
    say("signal %u code %d", info.ssi_signo, info.ssi_code);
    return NULL;
}

static void descriptor_that_waits(void)
{
    uint64_t set = EXCEPTIONS;
    int fd = syscall(SYS_signalfd, -1, &set, 8UL);
    pthread_t thread;

    mask_set(~0UL);
    for (size_t i = 0; i < COUNT(exceptions); i++) {
        pthread_create(&thread, NULL, waits_for_descriptor, &fd);
        nap(1000);
        kill(getpid(), exceptions[i]);
        pthread_join(thread, NULL);
    }
}

static void *tells_mask(void *unused)
{
    say("the thread's mask %#lx pending %#lx", (long)mask_now(), (long)pending_now());
    return unused;
}

static void inherited(void)
{
    pthread_t thread;

    handlers();
    mask_set(EXCEPTIONS | BIT(SIGUSR1));
    send_thread(tid_now(), SIGSEGV);
    send_thread(tid_now(), SIGUSR1);
    kill(getpid(), SIGBUS);
    pthread_create(&thread, NULL, tells_mask, NULL);
    pthread_join(thread, NULL);
    pid_t pid = fork();
    if (!pid) {
        say("the child's mask %#lx pending %#lx", (long)mask_now(), (long)pending_now());
        mask_set(0);
        say("handled %d", handled);
        _exit(0);
    }
    waitpid(pid, NULL, 0);
    say("mask %#lx pending %#lx", (long)mask_now(), (long)pending_now());
    mask_set(0);
}

CASES_MAIN(CASE(set_and_ask), CASE(refused), CASE(order_of_delivery), CASE(one_by_one),
           CASE(through_the_context), CASE(pending_at_return), CASE(not_kept_from_handler),
           CASE(suspended), CASE(with_a_mask_usr1), CASE(with_a_mask_segv), CASE(with_a_mask_sys),
           CASE(with_a_mask_trap), CASE(with_a_mask_realtime), CASE(blocked_by_the_call),
           CASE(taken), CASE(taken_unblocked), CASE(by_descriptor), CASE(by_descriptor_elsewhere),
           CASE(descriptor_that_waits), CASE(inherited))
