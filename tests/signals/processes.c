/*
 * Signals and processes: what fork, vfork, clone, posix_spawn and exec leave of handlers, masks and
 * pending signals; what a parent is told of its children; stops; ends.
 */
#include "cases.h"

#include <linux/sched.h>
#include <poll.h>
#include <pty.h>
#include <spawn.h>
#include <sys/ptrace.h>
#include <sys/socket.h>

static volatile int handled;
static uint8_t stack[65536] __attribute__((aligned(16)));

static void noted(int number, siginfo_t *info, void *context)
{
    (void)context;
    handled++;
    say("handler of %d, code %d, mask %#lx", number, info->si_code, (long)mask_now());
}

static void tell_state(const char *who)
{
    struct kaction action;
    uint64_t ignored = 0, caught = 0;
    stack_t alternate;

    for (int number = 1; number < 65; number++)
        if (!kaction(number, NULL, &action)) {
            if (action.handler == (void *)SIG_IGN)
                ignored |= BIT(number);
            else if (action.handler)
                caught |= BIT(number);
            if (action.flags || action.mask)
                say("%s: %d has flags %#lx mask %#lx", who, number, action.flags, (long)action.mask);
        }
    sigaltstack(NULL, &alternate);
    say("%s: mask %#lx pending %#lx ignored %#lx caught %#lx, alternate stack flags %#x", who,
        (long)mask_now(), (long)pending_now(), (long)ignored, (long)caught, alternate.ss_flags);
}

/* What /proc says of the same. */
static void tell_proc(const char *who)
{
    char text[4096], *at;
    static const char *const names[] = {"SigPnd:", "ShdPnd:", "SigBlk:", "SigIgn:", "SigCgt:"};

    read_text(text, sizeof(text), "/proc/self/status");
    for (size_t i = 0; i < COUNT(names); i++) {
        at = strstr(text, names[i]);
        if (at)
            say("%s: %.24s", who, at);
    }
}

static void state_changed(void)
{
    stack_t alternate = {malloc(65536), 0, 65536};

    sigaltstack(&alternate, NULL);
    for (size_t i = 0; i < COUNT(exceptions); i++)
        on_masking(exceptions[i], noted, SA_SIGINFO | SA_ONSTACK, BIT(SIGUSR2));
    on(SIGUSR1, noted, SA_RESTART);
    on(40, noted, SA_NODEFER);
    ignore(SIGTERM);
    ignore(SIGFPE);
    ignore(SIGCHLD);
    default_of(SIGCHLD);
    mask_set(BIT(SIGSEGV) | BIT(SIGSYS) | BIT(SIGUSR2) | BIT(SIGBUS) | BIT(41));
    send_thread(tid_now(), SIGSEGV);
    kill(getpid(), SIGSYS);
    send_thread(tid_now(), SIGUSR2);
    kill(getpid(), 41);
}

static void state(void)
{
    tell_state("here");
    state_changed();
    tell_state("here");
}

static void state_in_proc(void)
{
    tell_proc("here");
    state_changed();
    tell_proc("here");
}

static void forked(void)
{
    state_changed();
    pid_t pid = fork();
    if (!pid) {
        tell_state("child");
        raise(SIGSEGV);
        tell_state("child");
        on(SIGTERM, noted, 0);
        mask_set(0);
        raise(SIGTERM);
        _exit(0);
    }
    waitpid(pid, NULL, 0);
    tell_state("parent");
}

static void vforked(void)
{
    state_changed();
    pid_t pid = vfork();
    if (!pid) {
        tell_state("child");
        on(SIGTERM, noted, 0);
        ignore(SIGSEGV);
        mask_set(BIT(SIGTRAP));
        raise(SIGTERM);
        tell_state("child");
        _exit(0);
    }
    waitpid(pid, NULL, 0);
    tell_state("parent");
}

static int clone_changes(void *unused)
{
    (void)unused;
    tell_state("clone");
    on(SIGTERM, noted, 0);
    default_of(SIGILL);
    ignore(SIGTRAP);
    mask_set(BIT(SIGTRAP) | BIT(SIGSYS));
    raise(SIGTERM);
    tell_state("clone");
    return 7;
}

static void cloned_with(const char *what, int flags)
{
    int status = 0;
    pid_t pid = clone(clone_changes, stack + sizeof(stack), flags, NULL);

    if (pid > 0)
        waitpid(pid, &status, __WALL);
    say("%s: %s", what, pid < 0 ? strerror(errno) : "cloned");
    ended(what, status);
    tell_state("parent");
}

static void cloned(void)
{
    state_changed();
    cloned_with("SIGHAND without VM", CLONE_SIGHAND | SIGCHLD);
    cloned_with("THREAD without SIGHAND", CLONE_THREAD | CLONE_VM | SIGCHLD);
    cloned_with("VM", CLONE_VM | SIGCHLD);
    cloned_with("VM and VFORK", CLONE_VM | CLONE_VFORK | SIGCHLD);
    cloned_with("nothing shared", SIGCHLD);
    cloned_with("VM and SIGHAND", CLONE_VM | CLONE_SIGHAND | SIGCHLD);
    cloned_with("VM and SIGHAND again", CLONE_VM | CLONE_SIGHAND);
}

static void exit_signals(void)
{
    static const int numbers[] = {0, SIGUSR1, SIGSEGV, SIGTRAP, SIGSYS, 40, 65};

    for (size_t i = 0; i < COUNT(numbers); i++) {
        int status = 0;
        uint64_t set = BIT(SIGUSR1) | EXCEPTIONS | BIT(40);
        struct timespec none = {0, 0};
        siginfo_t info;

        mask_set(~0UL);
        struct clone_args args = {.exit_signal = numbers[i]};
        pid_t pid = syscall(SYS_clone3, &args, sizeof(args));
        if (!pid)
            _exit(3);
        say("exit signal %d: %s", numbers[i], pid < 0 ? strerror(errno) : "cloned");
        if (pid < 0)
            continue;
        TRY(waitpid(pid, &status, WNOHANG) >= 0);
        TRY(waitpid(pid, &status, __WALL) > 0);
        ended("child", status);
        memset(&info, 0, sizeof(info));
        TRY(syscall(SYS_rt_sigtimedwait, &set, &info, &none, 8UL));
        say("code %d status %d pid %s", info.si_code, info.si_status,
            info.si_pid == pid ? "the child's" : "-");
    }
}

static void cleared(void)
{
    struct clone_args args = {.flags = CLONE_CLEAR_SIGHAND, .exit_signal = SIGCHLD};
    int status = 0;

    state_changed();
    pid_t pid = syscall(SYS_clone3, &args, sizeof(args));
    if (!pid) {
        tell_state("child");
        _exit(0);
    }
    waitpid(pid, &status, 0);
    ended("child", status);
    args.flags |= CLONE_SIGHAND | CLONE_VM;
    args.stack = (uintptr_t)stack;
    args.stack_size = sizeof(stack);
    pid = syscall(SYS_clone3, &args, sizeof(args));
    say("with SIGHAND: %s", pid < 0 ? strerror(errno) : "cloned");
    tell_state("parent");
}

/* A program that tells its state: this one, by a case of its own. */
static char *const teller[] = {"/proc/self/exe", "--told", NULL};

static void told_after_exec(void)
{
    execv(teller[0], teller);
    _exit(98);
}

static void executed(void)
{
    state_changed();
    told_after_exec();
}

static void executed_by_child(void)
{
    state_changed();
    in_child("child", told_after_exec);
    tell_state("parent");
}

static void executed_by_vfork(void)
{
    int status;

    state_changed();
    pid_t pid = vfork();
    if (!pid)
        told_after_exec();
    waitpid(pid, &status, 0);
    ended("child", status);
    tell_state("parent");
}

static void *executes(void *unused)
{
    mask_set(mask_now() | BIT(SIGTRAP) | BIT(SIGHUP));
    send_thread(tid_now(), SIGTRAP);
    send_thread(tid_now(), SIGHUP);
    told_after_exec();
    return unused;
}

static void executed_by_a_thread(void)
{
    pthread_t thread;

    state_changed();
    pthread_create(&thread, NULL, executes, NULL);
    pthread_join(thread, NULL);
    say("not reached");
}

static void in_handler(int number, siginfo_t *info, void *context)
{
    noted(number, info, context);
    told_after_exec();
}

static void executed_in_a_handler(void)
{
    stack_t alternate = {malloc(65536), 0, 65536};

    sigaltstack(&alternate, NULL);
    on(SIGSEGV, in_handler, SA_ONSTACK);
    touch(8);
}

static void exec_fails(void)
{
    char *const arguments[] = {"/nowhere", NULL};

    state_changed();
    TRY(execv(arguments[0], arguments));
    tell_state("here");
    mask_set(0);
}

static void spawned(void)
{
    posix_spawnattr_t attributes;
    sigset_t set;
    int status;
    pid_t pid;

    state_changed();
    posix_spawnattr_init(&attributes);
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGFPE);
    for (int flags = 0; flags < 4; flags++) {
        posix_spawnattr_setflags(&attributes, (flags & 1 ? POSIX_SPAWN_SETSIGDEF : 0) |
                                                  (flags & 2 ? POSIX_SPAWN_SETSIGMASK : 0));
        posix_spawnattr_setsigdefault(&attributes, &set);
        posix_spawnattr_setsigmask(&attributes, &set);
        int got = posix_spawn(&pid, teller[0], NULL, &attributes, teller, environ);
        waitpid(pid, &status, 0);
        say("spawn %d", got);
        ended("spawned", status);
    }
    tell_state("parent");
    mask_set(0);
    say("system %d", system("kill -SEGV $$"));
}

static void child_told(int number, siginfo_t *info, void *context)
{
    static const char *const codes[] = {"?", "EXITED", "KILLED", "DUMPED", "TRAPPED", "STOPPED",
                                        "CONTINUED"};

    (void)context;
    say("handler of %d: CLD_%s status %d uid %s pid %s", number,
        info->si_code > 0 && info->si_code < 7 ? codes[info->si_code] : "?", info->si_status,
        info->si_uid == getuid() ? "own" : "-", info->si_pid > 1 ? "some" : "-");
    handled++;
}

static void until_handled(int count)
{
    while (handled < count)
        nap(300);
}

/* SIGCHLD is open only here. */
static void let_in(int count)
{
    mask_set(0);
    until_handled(count);
    mask_set(BIT(SIGCHLD));
}

static void lives(int way)
{
    mask_set(0);
    if (way == 0)
        _exit(5);
    if (way == 1)
        kill(getpid(), SIGKILL);
    if (way == 2)
        touch(8);
    for (;;)
        pause();
}

static void children_told(unsigned long flags)
{
    int status = 0, expected = 0, stops = !(flags & SA_NOCLDSTOP);

    on(SIGCHLD, child_told, flags | SA_RESTART);
    mask_set(BIT(SIGCHLD));
    for (int i = 0; i < 4; i++) {
        pid_t pid = fork();

        if (!pid)
            lives(i);
        if (i == 3) {
            until_waits(pid, pid, SYS_pause);
            kill(pid, SIGSTOP);
            /* Whoever waits before SIGCHLD is sent may take the status from it (Linux 6.12,
             * kernel/exit.c, wait_task_stopped). */
            while (stops && !(pending_now() & BIT(SIGCHLD)))
                nap(100);
            waitpid(pid, &status, WUNTRACED);
            ended("child", status);
            let_in(expected += stops);
            kill(pid, SIGCONT);
            waitpid(pid, &status, WCONTINUED);
            ended("child", status);
            until_waits(pid, pid, SYS_pause);
            let_in(expected += stops);
            kill(pid, SIGTERM);
        }
        long got = waitpid(pid, &status, 0);
        say("waited: %d errno %d", got > 0, got > 0 ? 0 : errno);
        if (got > 0)
            ended("child", status);
        let_in(++expected);
    }
    say("handled %d", handled);
}

static void children(void)
{
    children_told(0);
}

static void children_no_stop(void)
{
    children_told(SA_NOCLDSTOP);
}

static void children_no_wait(void)
{
    children_told(SA_NOCLDWAIT);
}

static void children_ignored(void)
{
    int status;

    ignore(SIGCHLD);
    pid_t pid = fork();
    if (!pid)
        _exit(3);
    TRY(waitpid(pid, &status, 0));
    struct kaction action = {NULL, SA_NOCLDWAIT, NULL, 0};
    kaction(SIGCHLD, &action, NULL);
    pid = fork();
    if (!pid)
        _exit(3);
    TRY(waitpid(pid, &status, 0));
}

static void waited_by_id(void)
{
    static const int numbers[] = {SIGTERM, SIGSEGV, SIGSYS, SIGKILL, SIGABRT, 50};

    for (size_t i = 0; i < COUNT(numbers); i++) {
        siginfo_t info = {0};
        pid_t pid = fork();

        if (!pid)
            for (;;)
                pause();
        TRY(waitid(P_PID, pid, &info, WEXITED | WNOHANG));
        say("si_pid %s", info.si_pid ? "set" : "0");
        kill(pid, numbers[i]);
        for (int j = 0; j < 2; j++) {
            memset(&info, 0, sizeof(info));
            TRY(waitid(P_PID, pid, &info, WEXITED | (j ? 0 : WNOWAIT)));
            say("signal %d code %d status %d", info.si_signo, info.si_code, info.si_status);
        }
        TRY(waitid(P_PID, pid, &info, WEXITED));
    }
}

/* Cores are written where the limit allows it; the status says so. */
static void cores(void)
{
    static const int numbers[] = {SIGQUIT, SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGSEGV,
                                  SIGXCPU, SIGXFSZ, SIGSYS, SIGTERM, SIGKILL, 40};
    struct rlimit all = {1 << 24, RLIM_INFINITY};
    char directory[] = "/tmp/cores-XXXXXX";
    int fd = open("/proc/self/coredump_filter", O_WRONLY);

    if (write(fd, "0", 1) != 1 || !mkdtemp(directory) || chdir(directory))
        return;
    setrlimit(RLIMIT_CORE, &all);
    for (size_t i = 0; i < COUNT(numbers); i++) {
        int status;
        pid_t pid = fork();

        if (!pid) {
            send_thread(tid_now(), numbers[i]);
            for (;;)
                pause();
        }
        waitpid(pid, &status, 0);
        ended("child", status);
    }
    int status;
    pid_t pid = fork();
    if (!pid)
        touch(8);
    waitpid(pid, &status, 0);
    ended("by a fault", status);
    if (system("rm -rf core* && rmdir $PWD"))
        say("files are left");
}

static volatile int *shared_tids;

static void *sleeps(void *index)
{
    if (index)
        mask_set(~0UL);
    if (shared_tids)
        shared_tids[(long)index] = tid_now();
    for (;;)
        pause();
    return NULL;
}

/* Until all three threads are in the state T. */
static void until_all_stopped(pid_t pid, const volatile int *tids)
{
    for (int i = 0; i < 3; i++)
        until_state(pid, tids[i] ? tids[i] : pid, "Tt");
}

/* Every thread stops, and goes on; what is sent meanwhile waits. */
static void stopped_threads(void)
{
    static const int numbers[] = {SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU};
    volatile int *tids =
        mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    shared_tids = tids;
    for (size_t i = 0; i < COUNT(numbers); i++) {
        int status;

        tids[0] = tids[1] = tids[2] = 0;
        pid_t pid = fork();
        if (!pid) {
            pthread_t threads[2];

            on(SIGUSR1, noted, 0);
            on(SIGCONT, noted, 0);
            for (long j = 1; j < 3; j++)
                pthread_create(&threads[j - 1], NULL, sleeps, (void *)j);
            sleeps(NULL);
        }
        for (int j = 0; j < 3; j++) {
            while (!tids[j])
                nap(300);
            until_waits(pid, tids[j], SYS_pause);
        }
        kill(pid, numbers[i]);
        waitpid(pid, &status, WUNTRACED);
        ended("child", status);
        until_all_stopped(pid, tids);
        TRY(waitpid(pid, &status, WUNTRACED | WNOHANG));
        kill(pid, SIGUSR1);
        kill(pid, SIGTSTP);
        TRY(waitpid(pid, &status, WUNTRACED | WNOHANG));
        until_all_stopped(pid, tids);
        kill(pid, SIGCONT);
        waitpid(pid, &status, WCONTINUED);
        until_waits(pid, pid, SYS_pause);
        ended("child", status);
        kill(pid, SIGSTOP);
        waitpid(pid, &status, WUNTRACED);
        ended("child", status);
        kill(pid, SIGKILL);
        waitpid(pid, &status, 0);
        ended("child", status);
    }
}

static void stops_itself(void)
{
    int status;
    pid_t pid = fork();

    if (!pid) {
        on(SIGCONT, noted, 0);
        raise(SIGSTOP);
        say("went on");
        raise(SIGTSTP);
        say("went on");
        mask_set(BIT(SIGCONT) | BIT(SIGTSTP));
        raise(SIGTSTP);
        say("pending %#lx", (long)pending_now());
        raise(SIGSTOP);
        say("went on, pending %#lx", (long)pending_now());
        mask_set(0);
        on(SIGTSTP, noted, 0);
        raise(SIGTSTP);
        ignore(SIGTSTP);
        raise(SIGTSTP);
        _exit(4);
    }
    for (int i = 0; i < 3; i++) {
        waitpid(pid, &status, WUNTRACED);
        ended("child", status);
        kill(pid, SIGCONT);
    }
    waitpid(pid, &status, 0);
    ended("child", status);
}

/* The default of SIGTSTP is nothing in a process group of which nobody is the parent. */
static void orphaned(void)
{
    int status;
    pid_t pid = fork();

    if (!pid) {
        setsid();
        raise(SIGTSTP);
        say("went on");
        _exit(0);
    }
    waitpid(pid, &status, WUNTRACED);
    ended("child", status);
}

static void pipes(void)
{
    int ends[2];

    if (pipe(ends))
        return;
    close(ends[0]);
    on(SIGPIPE, noted, 0);
    TRY(write(ends[1], "x", 1));
    ignore(SIGPIPE);
    TRY(write(ends[1], "x", 1));
    default_of(SIGPIPE);
    mask_set(BIT(SIGPIPE));
    TRY(write(ends[1], "x", 1));
    say("pending %#lx", (long)pending_now());
    mask_set(0);
}

static struct rlimit no_limit = {RLIM_INFINITY, RLIM_INFINITY};

static void over_limit(int number, siginfo_t *info, void *context)
{
    setrlimit(RLIMIT_FSIZE, &no_limit);
    noted(number, info, context);
}

static void write_limited(int fd)
{
    struct rlimit limit = {10, RLIM_INFINITY};
    ssize_t got;
    int error;

    setrlimit(RLIMIT_FSIZE, &limit);
    got = write(fd, "0123456789abcdef", 16);
    error = errno;
    setrlimit(RLIMIT_FSIZE, &no_limit);
    say("%zd errno %d", got, got < 0 ? error : 0);
}

static void file_size(void)
{
    int fd = memfd_create("file", 0);

    on(SIGXFSZ, over_limit, 0);
    write_limited(fd);
    write_limited(fd);
    ignore(SIGXFSZ);
    write_limited(fd);
    default_of(SIGXFSZ);
    write_limited(fd);
}

static void io_told(int number, siginfo_t *info, void *context)
{
    (void)context;
    say("handler of %d: code %d band %#lx", number, info->si_code, info->si_band);
    handled++;
}

/* Signals of descriptors, with numbers of exceptions as well. */
static void of_descriptors(void)
{
    static const int numbers[] = {0, SIGUSR1, SIGSEGV, SIGSYS, 40};
    int ends[2];

    if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends))
        return;
    fcntl(ends[0], F_SETOWN, getpid());
    fcntl(ends[0], F_SETFL, O_ASYNC | O_NONBLOCK);
    for (size_t i = 0; i < COUNT(numbers); i++) {
        char byte;
        int before = handled;

        on(numbers[i] ? numbers[i] : SIGIO, io_told, 0);
        fcntl(ends[0], F_SETSIG, numbers[i]);
        if (write(ends[1], "x", 1) != 1)
            return;
        until_handled(before + 1);
        if (read(ends[0], &byte, 1) != 1)
            return;
        nap(1000);
    }
    say("some %d", handled >= 5);
}

static void parent_death(void)
{
    int ends[2];
    char byte;

    if (pipe(ends))
        return;
    pid_t pid = fork();
    if (!pid) {
        if (!fork()) {
            on(SIGSEGV, noted, 0);
            mask_set(BIT(SIGSEGV));
            prctl(PR_SET_PDEATHSIG, SIGSEGV);
            if (write(ends[1], "x", 1) != 1)
                _exit(1);
            siginfo_t info;
            uint64_t set = BIT(SIGSEGV);
            TRY(syscall(SYS_rt_sigtimedwait, &set, &info, NULL, 8UL));
            say("code %d", info.si_code);
            _exit(0);
        }
        if (read(ends[0], &byte, 1) != 1)
            _exit(1);
        _exit(0);
    }
    close(ends[1]);
    waitpid(pid, NULL, 0);
    say("rest %zd", read(ends[0], &byte, 1));
}

static void hangup(int number, siginfo_t *info, void *context)
{
    noted(number, info, context);
}

/* A terminal: the signals of its keys and of its end. */
static void terminal(void)
{
    static const char keys[] = {3, 28, 26};
    int master, status;
    char byte;
    int ends[2];

    if (pipe(ends))
        return;
    int out = dup(1);
    pid_t pid = forkpty(&master, NULL, NULL, NULL);
    if (!pid) {
        dup2(out, 1);
        on(SIGINT, hangup, 0);
        on(SIGQUIT, hangup, 0);
        on(SIGTSTP, hangup, 0);
        on(SIGHUP, hangup, 0);
        for (int i = 0; i < 4; i++) {
            if (write(ends[1], "x", 1) != 1)
                _exit(1);
            while (handled == i)
                nap(300);
        }
        _exit(0);
    }
    for (int i = 0; i < 3; i++) {
        if (read(ends[0], &byte, 1) != 1 || write(master, &keys[i], 1) != 1)
            return;
    }
    if (read(ends[0], &byte, 1) != 1)
        return;
    close(master);
    waitpid(pid, &status, 0);
    ended("child", status);
}

/* A program may be a debugger of its child. */
static void debugger(void)
{
    int status;
    pid_t pid = fork();

    if (!pid) {
        TRY(ptrace(PTRACE_TRACEME, 0, 0, 0));
        on(SIGUSR1, noted, 0);
        raise(SIGUSR1);
        raise(SIGSEGV);
        _exit(4);
    }
    for (;;) {
        waitpid(pid, &status, 0);
        ended("child", status);
        if (!WIFSTOPPED(status))
            break;
        ptrace(PTRACE_CONT, pid, 0, WSTOPSIG(status) == SIGSEGV ? 0 : WSTOPSIG(status));
    }
}

static void exits(void)
{
    in_child("by a fault", executed_in_a_handler);
    abort();
}

static int told(void)
{
    case_name = getenv("CASE_NAME") ? getenv("CASE_NAME") : "";
    tell_state("after exec");
    on(SIGUSR2, noted, 0);
    on(SIGSEGV, noted, 0);
    on(SIGTRAP, noted, 0);
    on(SIGHUP, noted, 0);
    on(41, noted, 0);
    on(SIGSYS, noted, 0);
    mask_set(0);
    tell_state("after exec");
    return 0;
}

static int tell_or_run(char **argv, const struct kase *kases, size_t count)
{
    if (argv[1] && !strcmp(argv[1], "--told"))
        return told();
    return run_cases(argv, kases, count);
}
#define run_cases tell_or_run

CASES_MAIN(CASE(state), CASE(state_in_proc), CASE(forked), CASE(vforked), CASE(cloned),
           CASE(exit_signals), CASE(cleared), CASE(executed), CASE(executed_by_child),
           CASE(executed_by_vfork), CASE(executed_by_a_thread), CASE(executed_in_a_handler),
           CASE(exec_fails), CASE(spawned), CASE(children), CASE(children_no_stop),
           CASE(children_no_wait), CASE(children_ignored), CASE(waited_by_id), CASE(cores),
           CASE(stopped_threads), CASE(stops_itself), CASE(orphaned), CASE(pipes),
           CASE(file_size), CASE(of_descriptors), CASE(parent_death), CASE(terminal),
           CASE(debugger), CASE(exits))
