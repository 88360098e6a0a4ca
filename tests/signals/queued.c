/* Signals that are sent: how they wait, in which order they come, and what their siginfo says. */
#include "cases.h"

#include <sys/syscall.h>

static volatile int handled;
static const int numbers[] = {SIGILL, SIGTRAP, SIGBUS, SIGFPE, SIGSEGV, SIGSYS,
                              SIGUSR1, SIGTERM, SIGCHLD, 34, 64};

static void noted(int number, siginfo_t *info, void *context)
{
    (void)context;
    handled++;
    if (number != info->si_signo)
        say("another number");
    tell_info("handler", info);
}

static void handlers(void)
{
    for (size_t i = 0; i < COUNT(numbers); i++)
        on(numbers[i], noted, SA_RESTART);
}

static long queue_info(int pid, int tid, int number, int code, unsigned long value)
{
    siginfo_t info;

    memset(&info, 0, sizeof(info));
    info.si_signo = 77;
    info.si_errno = 13;
    info.si_code = code;
    info.si_pid = getpid();
    info.si_uid = getuid();
    info.si_value.sival_ptr = (void *)value;
    if (tid)
        return syscall(SYS_rt_tgsigqueueinfo, pid, tid, number, &info);
    return syscall(SYS_rt_sigqueueinfo, pid, number, &info);
}

static void every_way(int number)
{
    kill(getpid(), number);
    send_thread(tid_now(), number);
    syscall(SYS_tkill, tid_now(), number);
    queue_info(getpid(), 0, number, SI_QUEUE, 0x1111222233334444UL);
    queue_info(getpid(), tid_now(), number, SI_QUEUE, 0x5555666677778888UL);
    queue_info(getpid(), 0, number, -20, 3);
}

static void handled_at_once(void)
{
    handlers();
    for (size_t i = 0; i < COUNT(numbers); i++)
        every_way(numbers[i]);
    say("handled %d", handled);
}

static void blocked_then_handled(void)
{
    handlers();
    for (size_t i = 0; i < COUNT(numbers); i++) {
        mask_set(~0UL);
        every_way(numbers[i]);
        every_way(numbers[i]);
        say("pending %#lx", (long)pending_now());
        mask_set(0);
    }
    say("handled %d", handled);
}

static void blocked_then_taken(void)
{
    struct timespec none = {0, 0};

    mask_set(~0UL);
    for (size_t i = 0; i < COUNT(numbers); i++) {
        uint64_t set = BIT(numbers[i]);
        siginfo_t info;
        int got;

        every_way(numbers[i]);
        do {
            memset(&info, 0, sizeof(info));
            got = syscall(SYS_rt_sigtimedwait, &set, &info, &none, 8UL);
            if (got > 0)
                tell_info("taken", &info);
        } while (got > 0);
        say("pending %#lx", (long)pending_now());
    }
}

/* All at once, many of each; those of real time in the order they were sent. */
static void order(void)
{
    handlers();
    for (int number = 34; number < 40; number++)
        on(number, noted, 0);
    mask_set(~0UL);
    for (unsigned long value = 1; value < 6; value++) {
        for (int number = 39; number >= 34; number--)
            queue_info(getpid(), value & 1 ? tid_now() : 0, number, SI_QUEUE, value);
        for (size_t i = 0; i < COUNT(exceptions); i++)
            queue_info(getpid(), value & 1 ? 0 : tid_now(), exceptions[i], SI_QUEUE, value);
    }
    mask_set(0);
    say("handled %d", handled);
}

static void not_nested(void)
{
    for (int number = 34; number < 40; number++)
        on_masking(number, noted, SA_SIGINFO, ~0UL);
    for (size_t i = 0; i < COUNT(exceptions); i++)
        on_masking(exceptions[i], noted, SA_SIGINFO, ~0UL);
    mask_set(~0UL);
    for (unsigned long value = 1; value < 4; value++) {
        for (int number = 39; number >= 34; number--)
            queue_info(getpid(), 0, number, SI_QUEUE, value);
        for (size_t i = 0; i < COUNT(exceptions); i++)
            queue_info(getpid(), 0, exceptions[i], SI_QUEUE, value);
    }
    mask_set(0);
    say("handled %d", handled);
}

/* A process may send itself anything, with any code: it stays a signal that was sent. */
static void forged(void)
{
    static const int codes[] = {SI_USER, SEGV_MAPERR, SEGV_ACCERR, SI_KERNEL, TRAP_TRACE, SI_TKILL,
                                SI_TIMER, SI_ASYNCIO, -100, 1000};

    handlers();
    for (size_t i = 0; i < COUNT(exceptions); i++)
        for (size_t j = 0; j < COUNT(codes); j++) {
            long got = queue_info(getpid(), 0, exceptions[i], codes[j], 0);

            say("to the process, code %d: %ld errno %d", codes[j], got, got ? errno : 0);
            got = queue_info(getpid(), tid_now(), exceptions[i], codes[j], 0);
            say("to the thread, code %d: %ld errno %d", codes[j], got, got ? errno : 0);
        }
    mask_set(~0UL);
    say("blocked");
    for (size_t i = 0; i < COUNT(exceptions); i++)
        queue_info(getpid(), tid_now(), exceptions[i], SEGV_MAPERR, 0);
    say("pending %#lx", (long)pending_now());
    mask_set(0);
    say("handled %d", handled);
}

static void forged_default(void)
{
    queue_info(getpid(), tid_now(), SIGSEGV, SEGV_MAPERR, 0);
    say("not reached");
}

static void forged_ignored(void)
{
    for (size_t i = 0; i < COUNT(exceptions); i++) {
        ignore(exceptions[i]);
        queue_info(getpid(), tid_now(), exceptions[i], SEGV_MAPERR, 0);
        queue_info(getpid(), 0, exceptions[i], SI_KERNEL, 0);
        send_thread(tid_now(), exceptions[i]);
    }
    say("ignored");
}

static void refused(void)
{
    int parent = getppid();

    static const int bad[] = {-1, 0, 65, 66, 1 << 20};

    for (size_t i = 0; i < COUNT(bad); i++) {
        say("number %d", bad[i]);
        TRY(kill(getpid(), bad[i]));
        TRY(syscall(SYS_tgkill, getpid(), tid_now(), bad[i]));
        TRY(queue_info(getpid(), 0, bad[i], SI_QUEUE, 0));
    }
    TRY(syscall(SYS_tgkill, -1, tid_now(), 0));
    TRY(syscall(SYS_tgkill, getpid(), -1, 0));
    TRY(syscall(SYS_tgkill, getpid(), 0, 0));
    TRY(syscall(SYS_tgkill, parent, tid_now(), 0));
    TRY(syscall(SYS_tkill, 0, 0));
    TRY(kill(1 << 30, 0));
    TRY(queue_info(parent, 0, 0, SI_USER, 0));
    TRY(queue_info(parent, 0, 0, SI_TKILL, 0));
    TRY(queue_info(parent, 0, 0, SI_KERNEL, 0));
    TRY(queue_info(parent, 0, 0, SI_QUEUE, 0));
    TRY(queue_info(parent, 0, 0, 1, 0));
    TRY(syscall(SYS_rt_sigqueueinfo, getpid(), SIGSEGV, (void *)8));
}

/* Another process sends. */
static void from_the_child(void)
{
    handlers();
    mask_set(~0UL);
    pid_t pid = fork();
    if (!pid) {
        int parent = getppid();

        for (size_t i = 0; i < COUNT(numbers); i++) {
            kill(parent, numbers[i]);
            queue_info(parent, 0, numbers[i], SI_QUEUE, i);
        }
        _exit(0);
    }
    int status;
    waitpid(pid, &status, 0);
    ended("child", status);
    say("pending %#lx", (long)pending_now());
    mask_set(0);
    say("handled %d", handled);
}

static void by_pidfd(void)
{
    int fd = syscall(SYS_pidfd_open, getpid(), 0);

    handlers();
    for (size_t i = 0; i < COUNT(numbers); i++) {
        siginfo_t info;

        TRY(syscall(SYS_pidfd_send_signal, fd, numbers[i], NULL, 0));
        memset(&info, 0, sizeof(info));
        info.si_signo = numbers[i];
        info.si_code = SI_QUEUE;
        info.si_pid = getpid();
        info.si_uid = getuid();
        info.si_value.sival_int = 99;
        TRY(syscall(SYS_pidfd_send_signal, fd, numbers[i], &info, 0));
    }
}

/* Not more than the limit are queued; those that are not of real time come without siginfo. */
static void limited(void)
{
    struct rlimit none = {0, 0};

    handlers();
    mask_set(~0UL);
    setrlimit(RLIMIT_SIGPENDING, &none);
    for (size_t i = 0; i < COUNT(numbers); i++) {
        say("number %d", numbers[i]);
        TRY(queue_info(getpid(), 0, numbers[i], SI_QUEUE, 5));
        TRY(kill(getpid(), numbers[i]));
    }
    say("pending %#lx", (long)pending_now());
    for (size_t i = 0; i < COUNT(numbers); i++) {
        uint64_t open = ~BIT(numbers[i]);

        mask_set(open);
        mask_set(~0UL);
    }
    mask_set(0);
    say("handled %d", handled);
}

static void dies_of_fault(int number, siginfo_t *info, void *context)
{
    noted(number, info, context);
    if (info->si_code == SEGV_MAPERR)
        _exit(8);
}

static void limited_unblocked(void)
{
    struct rlimit none = {0, 0};

    handlers();
    on(SIGSEGV, dies_of_fault, 0);
    setrlimit(RLIMIT_SIGPENDING, &none);
    for (size_t i = 0; i < COUNT(numbers); i++) {
        say("number %d", numbers[i]);
        TRY(queue_info(getpid(), 0, numbers[i], SI_QUEUE, 5));
        TRY(kill(getpid(), numbers[i]));
    }
    touch(8);
}

static volatile int thread_tid;
static volatile bool leave;

static void *open_thread(void *argument)
{
    mask_set(*(uint64_t *)argument);
    thread_tid = tid_now();
    while (!leave)
        nap(200);
    return NULL;
}

static void in_thread(int number, siginfo_t *info, void *context)
{
    (void)context;
    say("signal %d code %d in the %s", number, info->si_code,
        tid_now() == thread_tid ? "other thread" : "main thread");
    handled = handled + 1;
}

/* A signal of the process goes to a thread that does not block it. */
static void to_the_open_thread(void)
{
    uint64_t mask = 0;
    pthread_t thread;

    for (size_t i = 0; i < COUNT(numbers); i++)
        on(numbers[i], in_thread, SA_RESTART);
    pthread_create(&thread, NULL, open_thread, &mask);
    mask_set(~0UL);
    while (!thread_tid)
        nap(100);
    for (size_t i = 0; i < COUNT(numbers); i++) {
        int before = handled;

        kill(getpid(), numbers[i]);
        while (handled == before)
            nap(100);
        queue_info(getpid(), 0, numbers[i], SI_QUEUE, 1);
        while (handled == before + 1)
            nap(100);
    }
    leave = true;
    pthread_join(thread, NULL);
    send_thread(tid_now(), SIGSEGV);
    mask_set(0);
}

/* What all block waits for the thread that unblocks first; a thread's own waits for it. */
static void to_the_first_that_opens(void)
{
    uint64_t mask = ~0UL;
    pthread_t thread;

    for (size_t i = 0; i < COUNT(numbers); i++)
        on(numbers[i], in_thread, SA_RESTART);
    pthread_create(&thread, NULL, open_thread, &mask);
    mask_set(~0UL);
    while (!thread_tid)
        nap(100);
    for (size_t i = 0; i < COUNT(numbers); i++) {
        kill(getpid(), numbers[i]);
        send_thread(thread_tid, numbers[i]);
    }
    say("pending here %#lx", (long)pending_now());
    mask_set(0);
    say("handled %d, pending %#lx", handled, (long)pending_now());
    leave = true;
    pthread_join(thread, NULL);
    say("handled %d", handled);
}

static void *exits_with_pending(void *unused)
{
    mask_set(~0UL);
    for (size_t i = 0; i < COUNT(numbers); i++)
        send_thread(tid_now(), numbers[i]);
    say("pending in the thread %#lx", (long)pending_now());
    return unused;
}

static void lost_with_the_thread(void)
{
    pthread_t thread;

    handlers();
    pthread_create(&thread, NULL, exits_with_pending, NULL);
    pthread_join(thread, NULL);
    say("pending %#lx, handled %d", (long)pending_now(), handled);
}

/* A signal with a default that kills, to the group, while threads block it. */
static void *waits_blocked(void *unused)
{
    mask_set(~0UL);
    for (;;)
        pause();
    return unused;
}

static void kills_all_threads(void)
{
    pthread_t threads[3];

    for (int i = 0; i < 3; i++)
        pthread_create(&threads[i], NULL, waits_blocked, NULL);
    kill(getpid(), SIGSEGV);
    say("not reached");
}

static void thousands(void)
{
    mask_set(BIT(34) | BIT(SIGSYS));
    on(34, in_thread, 0);
    on(SIGSYS, in_thread, 0);
    handled = 0;
    for (unsigned long i = 0; i < 40; i++) {
        queue_info(getpid(), 0, 34, SI_QUEUE, i);
        queue_info(getpid(), 0, SIGSYS, SI_QUEUE, i);
    }
    mask_set(0);
    say("handled %d", handled);
}

CASES_MAIN(CASE(handled_at_once), CASE(blocked_then_handled), CASE(blocked_then_taken),
           CASE(order), CASE(not_nested), CASE(forged), CASE(forged_default),
           CASE(forged_ignored), CASE(refused), CASE(from_the_child), CASE(by_pidfd),
           CASE(limited), CASE(limited_unblocked), CASE(to_the_open_thread),
           CASE(to_the_first_that_opens), CASE(lost_with_the_thread), CASE(kills_all_threads),
           CASE(thousands))
