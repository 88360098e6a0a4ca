/*
 * Threads: the C library's own signals, ends of threads and processes with handlers running, and
 * what is made and ended while signals come all the time, wherever the program is just then.
 */
#include "cases.h"

#include <setjmp.h>
#include <spawn.h>
#include <sys/time.h>

static volatile int handled, running;
static volatile bool over;
static int ends[2];

static void counted(int number, siginfo_t *info, void *context)
{
    (void)number;
    (void)info;
    (void)context;
    __atomic_fetch_add(&handled, 1, __ATOMIC_RELAXED);
}

static void cleaned(void *text)
{
    say("%s", (const char *)text);
}

static void *cancelled(void *argument)
{
    char byte;

    pthread_cleanup_push(cleaned, "cleaned up");
    if (argument)
        pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL);
    running = tid_now();
    if (argument)
        for (;;)
            ;
    say("read %zd", read(ends[0], &byte, 1));
    pthread_cleanup_pop(0);
    return NULL;
}

/* pthread_cancel sends signal 32. */
static void cancelling(void)
{
    if (pipe(ends))
        return;
    for (long asynchronous = 0; asynchronous < 2; asynchronous++) {
        pthread_t thread;
        void *result;

        running = 0;
        pthread_create(&thread, NULL, cancelled, (void *)asynchronous);
        while (!running)
            nap(200);
        if (!asynchronous)
            until_waits(getpid(), running, SYS_read);
        pthread_cancel(thread);
        pthread_join(thread, &result);
        say("%s", result == PTHREAD_CANCELED ? "cancelled" : "ended");
    }
}

static void *waits(void *unused)
{
    __atomic_fetch_add(&running, 1, __ATOMIC_RELAXED);
    while (!over)
        nap(500);
    TRY(getgid());
    return unused;
}

/* setgid tells every thread by signal 33. */
static void identities(void)
{
    pthread_t threads[3];

    for (int i = 0; i < 3; i++)
        pthread_create(&threads[i], NULL, waits, NULL);
    while (running < 3)
        nap(200);
    for (int i = 0; i < 20; i++)
        if (setresgid(i, i, -1))
            say("setresgid: errno %d", errno);
    over = true;
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    TRY(getgid());
}

static void leaves(int number, siginfo_t *info, void *context)
{
    (void)info;
    (void)context;
    say("handler of %d: the thread ends", number);
    pthread_exit(NULL);
}

static void *pauses(void *unused)
{
    running = tid_now();
    for (;;)
        pause();
    return unused;
}

static void ends_in_a_handler(void)
{
    static const int numbers[] = {SIGUSR1, SIGSEGV, SIGSYS};

    for (size_t i = 0; i < COUNT(numbers); i++) {
        pthread_t thread;

        on(numbers[i], leaves, 0);
        running = 0;
        pthread_create(&thread, NULL, pauses, NULL);
        while (!running)
            nap(200);
        until_waits(getpid(), running, SYS_pause);
        pthread_kill(thread, numbers[i]);
        pthread_join(thread, NULL);
        say("joined");
    }
}

static void exits(int number, siginfo_t *info, void *context)
{
    (void)number;
    (void)info;
    (void)context;
    _exit(21);
}

static void exits_in_a_handler(void)
{
    pthread_t thread;

    on(SIGSEGV, exits, 0);
    pthread_create(&thread, NULL, pauses, NULL);
    while (!running)
        nap(200);
    send_thread(running, SIGSEGV);
    for (;;)
        pause();
}

static void *after_main(void *unused)
{
    until_state(getpid(), getpid(), "Z");
    on(SIGUSR1, counted, 0);
    on(SIGSEGV, counted, 0);
    kill(getpid(), SIGUSR1);
    kill(getpid(), SIGSEGV);
    send_thread(tid_now(), SIGSEGV);
    say("handled %d", handled);
    _exit(6);
    return unused;
}

/* The first thread has ended; the process has not. */
static void without_the_first(void)
{
    pthread_t thread;

    pthread_create(&thread, NULL, after_main, NULL);
    pthread_exit(NULL);
}

static void every(int number, long nanoseconds)
{
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = number};
    struct itimerspec time = {{0, nanoseconds}, {0, nanoseconds}};
    timer_t timer;

    on(number, counted, SA_RESTART);
    timer_create(CLOCK_MONOTONIC, &event, &timer);
    timer_settime(timer, 0, &time, NULL);
}

/* Signals of three kinds, each some hundred times a second. */
static void storm(void)
{
    every(SIGALRM, 2000000);
    every(SIGSEGV, 1700000);
    every(50, 2300000);
}

static void until_some(void)
{
    while (handled < 20)
        nap(300);
}

static void *nothing(void *value)
{
    return value;
}

static void threads_in_a_storm(void)
{
    int wrong = 0;

    storm();
    for (long i = 0; i < 100; i++) {
        pthread_t threads[3];
        void *value;

        for (long j = 0; j < 3; j++)
            pthread_create(&threads[j], NULL, nothing, (void *)(i + j));
        for (long j = 0; j < 3; j++) {
            pthread_join(threads[j], &value);
            wrong += value != (void *)(i + j);
        }
    }
    until_some();
    say("%d wrong", wrong);
}

static void children_in_a_storm(void)
{
    volatile int wrong = 0;

    storm();
    for (int i = 0; i < 60; i++) {
        int status = -1;
        pid_t pid = i & 1 ? fork() : vfork();

        if (!pid)
            _exit(i & 31);
        while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
            ;
        wrong += status != (i & 31) << 8;
    }
    until_some();
    say("%d wrong", wrong);
}

static void programs_in_a_storm(void)
{
    char *const command[] = {"/bin/true", NULL};
    int wrong = 0;

    storm();
    for (int i = 0; i < 10; i++) {
        int status = -1;
        pid_t pid = 0;

        if (posix_spawn(&pid, command[0], NULL, NULL, command, environ))
            wrong++;
        while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
            ;
        wrong += status != 0;
    }
    until_some();
    say("%d wrong", wrong);
}

/* Masks, actions and stacks are what was set, whatever came between. */
static void state_in_a_storm(void)
{
    static uint8_t stacks[2][65536];
    int wrong = 0;

    storm();
    for (int i = 0; i < 3000; i++) {
        uint64_t mask = i & 1 ? EXCEPTIONS : BIT(SIGUSR1) | BIT(50);
        stack_t stack = {stacks[i & 1], 0, 65536 - 64 * (i & 7)}, now;
        struct kaction action;

        mask_set(mask);
        wrong += mask_now() != mask;
        sigaltstack(&stack, NULL);
        sigaltstack(NULL, &now);
        wrong += now.ss_sp != stack.ss_sp || now.ss_size != stack.ss_size;
        on_masking(SIGTRAP, counted, SA_SIGINFO, mask);
        kaction(SIGTRAP, NULL, &action);
        wrong += action.mask != mask;
        mask_set(0);
    }
    until_some();
    say("%d wrong, mask %#lx", wrong, (long)mask_now());
}

static sigjmp_buf back;
static volatile int faults;

static void fault(int number, siginfo_t *info, void *context)
{
    (void)number;
    (void)context;
    if (info->si_code > 0)
        siglongjmp(back, 1);
    counted(number, info, context);
}

/* Exceptions, and the same signal sent: each is known from the other. */
static void faults_in_a_storm(void)
{
    storm();
    on(SIGSEGV, fault, SA_RESTART);
    for (volatile int i = 0; i < 2000; i++)
        if (!sigsetjmp(back, 1))
            touch(8);
        else
            faults++;
    until_some();
    say("%d faults, mask %#lx", faults, (long)mask_now());
}

/* Each value that one side writes the other reads, once. */
static void *writes(void *unused)
{
    for (uint32_t i = 0; i < 3000; i++)
        if (write(ends[1], &i, sizeof(i)) != sizeof(i))
            say("write");
    return unused;
}

static void calls_in_a_storm(void)
{
    uint32_t value = 0, wrong = 0;
    pthread_t thread;

    if (pipe(ends))
        return;
    storm();
    pthread_create(&thread, NULL, writes, NULL);
    for (uint32_t i = 0; i < 3000; i++) {
        wrong += read(ends[0], &value, sizeof(value)) != sizeof(value);
        wrong += value != i;
    }
    pthread_join(thread, NULL);
    until_some();
    say("%u wrong", wrong);
}

CASES_MAIN(CASE(cancelling), CASE(identities), CASE(ends_in_a_handler), CASE(exits_in_a_handler),
           CASE(without_the_first), CASE(threads_in_a_storm), CASE(children_in_a_storm),
           CASE(programs_in_a_storm), CASE(state_in_a_storm), CASE(faults_in_a_storm),
           CASE(calls_in_a_storm))
