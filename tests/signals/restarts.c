/*
 * System calls that wait, and a handler that runs meanwhile: with SA_RESTART and without, how often
 * the handler runs, what the call returns, and where the handler finds the program.
 */
#include "cases.h"

#include <linux/futex.h>
#include <setjmp.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/stat.h>
#include <sys/un.h>

static volatile int handled;
static int ends[2], pair[2], event, epoll, queue, semaphore, lock_a, listener, notify, timer, sigfd;
static volatile uint32_t word;
static char big[1 << 20];
static volatile int child_pid;
static const char *fifo = "restart-fifo";
static char directory[64];

extern const char call_after[];

/* A system call whose place is known: the handler compares RIP with it. */
long called(long number, long a, long b, long c, long d, long e, long f);
__asm__(".pushsection .text\n"
        ".globl called, call_after\n"
        "called:\n"
        "mov %rdi, %rax\n\tmov %rsi, %rdi\n\tmov %rdx, %rsi\n\tmov %rcx, %rdx\n\t"
        "mov %r8, %r10\n\tmov %r9, %r8\n\tmov 8(%rsp), %r9\n\t"
        "syscall\n"
        "call_after:\n"
        "ret\n"
        ".popsection\n");

#define CALL0(n) called(n, 0, 0, 0, 0, 0, 0)
#define CALL(n, a, b, c, d, e, f)                                                                  \
    called(n, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))

static long current_number;

static void noted(int number, siginfo_t *info, void *context)
{
    greg_t *r = registers(context);
    long away = (long)(r[REG_RIP] - (long)call_after);

    (void)info;
    say("handler of %d: %s, RAX %s%ld, R11 %s RCX %s", number,
        away == 0    ? "after the call"
        : away == -2 ? "at the call"
                     : "elsewhere",
        r[REG_RAX] == current_number ? "the number, -" : "", r[REG_RAX] < 0 ? (long)r[REG_RAX] : 0,
        r[REG_R11] == (r[REG_EFL] & ~0x10000) ? "flags" : "other",
        r[REG_RCX] == (long)call_after ? "after the call" : "other");
    handled = handled + 1;
}

static long do_read(void) { char b; return CALL(SYS_read, ends[0], &b, 1, 0, 0, 0); }
static long do_write(void) { return CALL(SYS_write, ends[1], big, 4096, 0, 0, 0); }
static long do_recv(void) { char b; return CALL(SYS_recvfrom, pair[0], &b, 1, 0, 0, 0); }
static long do_accept(void)
{
    long fd = CALL(SYS_accept, listener, 0, 0, 0, 0, 0);
    if (fd >= 0)
        close(fd);
    return fd >= 0 ? 0 : fd;
}
static long do_event(void) { uint64_t v; return CALL(SYS_read, event, &v, 8, 0, 0, 0); }
static long do_timer(void) { uint64_t v; return CALL(SYS_read, timer, &v, 8, 0, 0, 0); }
static long do_notify(void) { return CALL(SYS_read, notify, big, 4096, 0, 0, 0); }
static long do_sigfd(void) { return CALL(SYS_read, sigfd, big, 128, 0, 0, 0); }
static long do_futex(void) { return CALL(SYS_futex, &word, FUTEX_WAIT, 0, 0, 0, 0); }
static long do_futex_time(void)
{
    struct timespec t = {1000, 0};
    return CALL(SYS_futex, &word, FUTEX_WAIT, 0, &t, 0, 0);
}
static long do_futex_bitset(void)
{
    return CALL(SYS_futex, &word, FUTEX_WAIT_BITSET, 0, 0, 0, -1);
}
static long do_poll(void)
{
    struct pollfd p = {ends[0], POLLIN, 0};
    return CALL(SYS_poll, &p, 1, 1000000, 0, 0, 0);
}
static long do_poll_forever(void)
{
    struct pollfd p = {ends[0], POLLIN, 0};
    return CALL(SYS_poll, &p, 1, -1, 0, 0, 0);
}
static long do_ppoll(void)
{
    struct pollfd p = {ends[0], POLLIN, 0};
    struct timespec t = {1000, 0};
    return CALL(SYS_ppoll, &p, 1, &t, 0, 8, 0);
}
static long do_select(void)
{
    fd_set set;
    struct timeval t = {1000, 0};
    FD_ZERO(&set);
    FD_SET(ends[0], &set);
    return CALL(SYS_select, ends[0] + 1, &set, 0, 0, &t, 0);
}
static long do_pselect(void)
{
    fd_set set;
    FD_ZERO(&set);
    FD_SET(ends[0], &set);
    return CALL(SYS_pselect6, ends[0] + 1, &set, 0, 0, 0, 0);
}
static long do_epoll(void)
{
    struct epoll_event e;
    return CALL(SYS_epoll_wait, epoll, &e, 1, -1, 0, 0);
}
static long do_epoll_pwait(void)
{
    struct epoll_event e;
    return CALL(SYS_epoll_pwait, epoll, &e, 1, 1000000, 0, 8);
}
static long do_nanosleep(void)
{
    struct timespec t = {1, 0}, rest = {0, 0};
    long got = CALL(SYS_nanosleep, &t, &rest, 0, 0, 0, 0);
    say("rest %s", rest.tv_nsec ? "some" : "none");
    return got;
}
static long do_clock_nanosleep(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_sec++;
    return CALL(SYS_clock_nanosleep, CLOCK_MONOTONIC, TIMER_ABSTIME, &t, 0, 0, 0);
}
static long do_wait4(void)
{
    long got = CALL(SYS_wait4, child_pid, 0, 0, 0, 0, 0);
    return got > 0 ? 1 : got;
}
static long do_waitid(void)
{
    siginfo_t info;
    return CALL(SYS_waitid, P_PID, child_pid, &info, WEXITED, 0, 0);
}
static long do_pause(void) { return CALL0(SYS_pause); }
static long do_sigsuspend(void)
{
    uint64_t none = 0;
    return CALL(SYS_rt_sigsuspend, &none, 8, 0, 0, 0, 0);
}
static long do_sigtimedwait(void)
{
    uint64_t set = BIT(SIGUSR2);
    return CALL(SYS_rt_sigtimedwait, &set, 0, 0, 8, 0, 0);
}
static long do_msgrcv(void)
{
    struct { long type; char text[8]; } m;
    return CALL(SYS_msgrcv, queue, &m, 8, 0, 0, 0);
}
static long do_semop(void)
{
    struct sembuf b = {0, -1, 0};
    return CALL(SYS_semop, semaphore, &b, 1, 0, 0, 0);
}
static long do_semtimedop(void)
{
    struct sembuf b = {0, -1, 0};
    struct timespec t = {1000, 0};
    return CALL(SYS_semtimedop, semaphore, &b, 1, &t, 0, 0);
}
static long do_flock(void)
{
    int fd = open(directory, O_RDONLY | O_DIRECTORY);
    long got = CALL(SYS_flock, fd, LOCK_EX, 0, 0, 0, 0);
    close(fd);
    return got;
}
static long do_open_fifo(void)
{
    long fd = CALL(SYS_open, fifo, O_RDONLY, 0, 0, 0, 0);
    if (fd >= 0)
        close(fd);
    return fd >= 0 ? 0 : fd;
}

static void free_write(void)
{
    while (read(ends[0], big, sizeof(big)) == sizeof(big))
        ;
}
static void free_pipe(void) { if (write(ends[1], "x", 1) != 1) say("write"); }
static void free_pair(void) { if (write(pair[1], "x", 1) != 1) say("write"); }
static void free_event(void) { eventfd_write(event, 1); }
static void free_timer(void)
{
    struct itimerspec t = {{0, 0}, {0, 1}};
    timerfd_settime(timer, 0, &t, NULL);
}
static void free_accept(void)
{
    struct sockaddr_un name;
    socklen_t length = sizeof(name);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    getsockname(listener, (struct sockaddr *)&name, &length);
    if (connect(fd, (struct sockaddr *)&name, length))
        say("connect %d", errno);
    close(fd);
}
static void free_notify(void)
{
    char path[100];
    snprintf(path, sizeof(path), "%s/new", directory);
    close(open(path, O_CREAT | O_RDWR, 0600));
    unlink(path);
}
static void free_sigfd(void) { kill(getpid(), SIGUSR2); }
static void free_futex(void)
{
    word = 1;
    syscall(SYS_futex, &word, FUTEX_WAKE, 1, 0, 0, 0);
}
static void free_child(void) { kill(child_pid, SIGKILL); }
static void free_queue(void)
{
    struct { long type; char text[8]; } m = {1, "x"};
    msgsnd(queue, &m, 8, 0);
}
static void free_semaphore(void)
{
    struct sembuf b = {0, 1, 0};
    semop(semaphore, &b, 1);
}
static void free_lock(void) { flock(lock_a, LOCK_UN); }
static void free_fifo(void) { close(open(fifo, O_RDWR)); }
static void free_nothing(void) {}
static void free_usr2(void) { kill(getpid(), SIGUSR2); }

struct call_case {
    const char *name;
    long number;
    long (*run)(void);
    void (*set_free)(void);
    bool forever; /* nothing but a signal ends it */
};

static const struct call_case calls[] = {
    {"read", SYS_read, do_read, free_pipe, false},
    {"write", SYS_write, do_write, free_write, false},
    {"recv", SYS_recvfrom, do_recv, free_pair, false},
    {"accept", SYS_accept, do_accept, free_accept, false},
    {"read of an eventfd", SYS_read, do_event, free_event, false},
    {"read of a timerfd", SYS_read, do_timer, free_timer, false},
    {"read of an inotify", SYS_read, do_notify, free_notify, false},
    {"read of a signalfd", SYS_read, do_sigfd, free_sigfd, false},
    {"futex", SYS_futex, do_futex, free_futex, false},
    {"futex with a time", SYS_futex, do_futex_time, free_futex, false},
    {"futex bitset", SYS_futex, do_futex_bitset, free_futex, false},
    {"poll", SYS_poll, do_poll, free_pipe, false},
    {"poll forever", SYS_poll, do_poll_forever, free_pipe, false},
    {"ppoll", SYS_ppoll, do_ppoll, free_pipe, false},
    {"select", SYS_select, do_select, free_pipe, false},
    {"pselect6", SYS_pselect6, do_pselect, free_pipe, false},
    {"epoll_wait", SYS_epoll_wait, do_epoll, free_pipe, false},
    {"epoll_pwait", SYS_epoll_pwait, do_epoll_pwait, free_pipe, false},
    {"nanosleep", SYS_nanosleep, do_nanosleep, free_nothing, false},
    {"clock_nanosleep", SYS_clock_nanosleep, do_clock_nanosleep, free_nothing, false},
    {"wait4", SYS_wait4, do_wait4, free_child, false},
    {"waitid", SYS_waitid, do_waitid, free_child, false},
    {"pause", SYS_pause, do_pause, free_nothing, true},
    {"rt_sigsuspend", SYS_rt_sigsuspend, do_sigsuspend, free_nothing, true},
    {"rt_sigtimedwait", SYS_rt_sigtimedwait, do_sigtimedwait, free_usr2, false},
    {"msgrcv", SYS_msgrcv, do_msgrcv, free_queue, false},
    {"semop", SYS_semop, do_semop, free_semaphore, false},
    {"semtimedop", SYS_semtimedop, do_semtimedop, free_semaphore, false},
    {"flock", SYS_flock, do_flock, free_lock, false},
    {"open of a FIFO", SYS_open, do_open_fifo, free_fifo, false},
};

static void objects(void)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    uint64_t usr2 = BIT(SIGUSR2);
    struct epoll_event wanted = {.events = EPOLLIN};

    strcpy(directory, "/tmp/restarts-XXXXXX");
    if (!mkdtemp(directory) || chdir(directory) || mkfifo(fifo, 0600) || pipe(ends) ||
        socketpair(AF_UNIX, SOCK_STREAM, 0, pair))
        say("objects: errno %d", errno);
    event = eventfd(0, EFD_CLOEXEC);
    timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    epoll_ctl(epoll, EPOLL_CTL_ADD, ends[0], &wanted);
    queue = msgget(IPC_PRIVATE, 0600);
    semaphore = semget(IPC_PRIVATE, 1, 0600);
    listener = socket(AF_UNIX, SOCK_STREAM, 0);
    if (bind(listener, (struct sockaddr *)&name, sizeof(sa_family_t)) || listen(listener, 1))
        say("listen: errno %d", errno);
    notify = inotify_init1(IN_CLOEXEC);
    inotify_add_watch(notify, directory, IN_CREATE);
    sigfd = syscall(SYS_signalfd4, -1, &usr2, 8UL, SFD_CLOEXEC);
    lock_a = open(directory, O_RDONLY | O_DIRECTORY);
    mask_set(usr2);
}

static void objects_gone(void)
{
    msgctl(queue, IPC_RMID, NULL);
    semctl(semaphore, 0, IPC_RMID);
    unlink(fifo);
    rmdir(directory);
}

/* All there is in a descriptor. */
static void drained(int fd)
{
    int flags = fcntl(fd, F_GETFL);

    fcntl(fd, F_SETFL, flags | O_NONBLOCK);
    while (read(fd, big, sizeof(big)) > 0)
        ;
    fcntl(fd, F_SETFL, flags);
}

/* Before each call: whatever it waits for is not there. */
static void emptied(const struct call_case *at)
{
    int with_data[] = {ends[0], pair[0], event, timer, notify};
    struct timespec none = {0, 0};
    uint64_t usr2 = BIT(SIGUSR2);
    int fd;

    for (size_t i = 0; i < COUNT(with_data); i++)
        drained(with_data[i]);
    if (at->run == do_write) {
        fcntl(ends[1], F_SETFL, O_WRONLY | O_NONBLOCK);
        while (write(ends[1], big, 4096) > 0)
            ;
        fcntl(ends[1], F_SETFL, O_WRONLY);
    }
    word = 0;
    fcntl(listener, F_SETFL, O_NONBLOCK);
    while ((fd = accept(listener, NULL, NULL)) >= 0)
        close(fd);
    fcntl(listener, F_SETFL, 0);
    while (msgrcv(queue, big, 8, 0, IPC_NOWAIT) >= 0)
        ;
    semctl(semaphore, 0, SETVAL, 0);
    while (syscall(SYS_rt_sigtimedwait, &usr2, NULL, &none, 8UL) > 0)
        ;
    flock(lock_a, LOCK_EX);
    if (at->set_free == free_child) {
        child_pid = fork();
        if (!child_pid)
            for (;;)
                pause();
    }
}

struct order {
    const struct call_case *at;
    int tid, number, times;
};

static void *disturbs(void *argument)
{
    struct order *order = argument;

    mask_set(~0UL);
    for (int i = 1; i <= order->times && !call_over; i++) {
        until_waits(getpid(), order->tid, order->at->number);
        send_thread(order->tid, order->number);
        while (handled < i && !call_over)
            nap(200);
    }
    if (!call_over && !order->at->forever) {
        /* It was restarted: it waits again until it is set free. */
        while (task_state(getpid(), order->tid) != 'S' && !call_over)
            nap(200);
        nap(2000);
        if (!call_over)
            order->at->set_free();
    }
    return NULL;
}

static void disturbed(int number, unsigned long flags, int times)
{
    objects();
    for (size_t i = 0; i < COUNT(calls); i++) {
        struct order order = {&calls[i], tid_now(), number, times};
        pthread_t thread;

        say("%s", calls[i].name);
        emptied(&calls[i]);
        handled = call_over = 0;
        on(number, noted, flags);
        current_number = calls[i].number;
        pthread_create(&thread, NULL, disturbs, &order);
        long got = calls[i].run();
        call_over = 1;
        pthread_join(thread, NULL);
        say("%s: %ld, handled %d", calls[i].name, got, handled);
        calls[i].set_free == free_child ? kill(child_pid, SIGKILL) : 0;
        while (waitpid(-1, NULL, WNOHANG) > 0)
            ;
    }
    objects_gone();
}

static void restarted(void) { disturbed(SIGUSR1, SA_RESTART, 1); }
static void restarted_twice(void) { disturbed(SIGUSR1, SA_RESTART, 3); }
static void interrupted(void) { disturbed(SIGUSR1, 0, 1); }
static void restarted_segv(void) { disturbed(SIGSEGV, SA_RESTART, 1); }
static void interrupted_segv(void) { disturbed(SIGSEGV, 0, 1); }
static void restarted_sys(void) { disturbed(SIGSYS, SA_RESTART | SA_ONSTACK, 2); }
static void interrupted_trap(void) { disturbed(SIGTRAP, 0, 1); }
static void interrupted_realtime(void) { disturbed(40, 0, 1); }

/* Stopped and continued while it waits: no handler, and for some calls EINTR nevertheless. */
static void stopped(void)
{
    objects();
    for (size_t i = 0; i < COUNT(calls); i++) {
        int status = 0, result[2];
        long got = 0;
        pid_t pid;

        if (calls[i].set_free == free_child || calls[i].forever || calls[i].run == do_flock ||
            calls[i].run == do_open_fifo || pipe(result))
            continue;
        emptied(&calls[i]);
        pid = fork();
        if (!pid) {
            got = calls[i].run();
            if (write(result[1], &got, sizeof(got)) != sizeof(got))
                _exit(1);
            for (;;)
                pause();
        }
        close(result[1]);
        until_waits(pid, pid, calls[i].number);
        kill(pid, SIGSTOP);
        waitpid(pid, &status, WUNTRACED);
        ended(calls[i].name, status);
        kill(pid, SIGCONT);
        waitpid(pid, &status, WCONTINUED);
        ended(calls[i].name, status);
        until_state(pid, pid, "S");
        if (calls[i].set_free == free_usr2 || calls[i].set_free == free_sigfd)
            kill(pid, SIGUSR2);
        else if (calls[i].set_free == free_futex)
            kill(pid, SIGTERM);
        else
            calls[i].set_free();
        if (read(result[0], &got, sizeof(got)) == sizeof(got))
            say("%s: %ld", calls[i].name, got);
        else
            say("%s: still waiting", calls[i].name);
        close(result[0]);
        kill(pid, SIGKILL);
        waitpid(pid, &status, 0);
    }
    objects_gone();
}

/* An ignored signal disturbs nothing. */
static void ignored(void)
{
    static const int numbers[] = {SIGUSR1, SIGSEGV, SIGSYS, SIGCHLD, SIGWINCH};

    objects();
    for (size_t n = 0; n < COUNT(numbers); n++) {
        ignore(numbers[n]);
        for (size_t i = 0; i < COUNT(calls); i += 4) {
            pid_t parent = getpid(), pid;
            int tid = tid_now();

            if (calls[i].set_free == free_child)
                continue;
            emptied(&calls[i]);
            pid = fork();
            if (!pid) {
                until_waits(parent, tid, calls[i].number);
                kill(parent, numbers[n]);
                nap(2000);
                if (calls[i].set_free == free_sigfd || calls[i].set_free == free_usr2)
                    kill(parent, SIGUSR2);
                else if (calls[i].set_free != free_futex)
                    calls[i].set_free();
                _exit(0);
            }
            current_number = calls[i].number;
            long got = calls[i].set_free == free_futex ? 0 : calls[i].run();
            say("%s: %ld", calls[i].name, got);
            kill(pid, SIGKILL);
            while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
                ;
        }
    }
    objects_gone();
}

static sigjmp_buf away;

static void leaves(int number, siginfo_t *info, void *context)
{
    noted(number, info, context);
    siglongjmp(away, 1);
}

/* Out of a call by a jump, and the next call is as if nothing had been. */
static void left_by_jump(void)
{
    objects();
    on(SIGUSR1, leaves, SA_RESTART);
    on(SIGSEGV, leaves, 0);
    for (size_t i = 0; i < COUNT(calls); i += 2) {
        struct order order = {&calls[i], tid_now(), i & 2 ? SIGUSR1 : SIGSEGV, 1};
        pthread_t thread;

        if (calls[i].set_free == free_child)
            continue;
        emptied(&calls[i]);
        handled = call_over = 0;
        current_number = calls[i].number;
        pthread_create(&thread, NULL, disturbs, &order);
        if (!sigsetjmp(away, 1))
            say("%s: %ld", calls[i].name, calls[i].run());
        else
            say("%s: left", calls[i].name);
        call_over = 1;
        pthread_join(thread, NULL);
        say("mask %#lx", (long)mask_now());
    }
    objects_gone();
}

CASES_MAIN(CASE(restarted), CASE(restarted_twice), CASE(interrupted), CASE(restarted_segv),
           CASE(interrupted_segv), CASE(restarted_sys), CASE(interrupted_trap),
           CASE(interrupted_realtime), CASE(stopped), CASE(ignored), CASE(left_by_jump))
