/* Signals of timers: with the numbers of exceptions as well, for one thread, overrun, taken away. */
#include "cases.h"

#include <sys/time.h>

static const int numbers[] = {SIGALRM, SIGSEGV, SIGSYS, SIGTRAP, SIGBUS, 36};
static volatile int handled, last_tid;

static void noted(int number, siginfo_t *info, void *context)
{
    (void)context;
    say("handler of %d: code %d, value %#lx, overrun %s, timer %s", number, info->si_code,
        info->si_code == SI_TIMER ? (unsigned long)info->si_value.sival_ptr : 0,
        info->si_code != SI_TIMER ? "-" : info->si_overrun ? "some" : "none",
        info->si_code != SI_TIMER ? "-" : info->si_timerid >= 0 ? "its number" : "?");
    last_tid = tid_now();
    handled++;
}

static void handlers(void)
{
    for (size_t i = 0; i < COUNT(numbers); i++)
        on(numbers[i], noted, SA_RESTART);
}

static void until_handled(int count)
{
    while (handled < count)
        nap(300);
}

static timer_t made(int number, int notify, int tid)
{
    struct sigevent event = {.sigev_notify = notify, .sigev_signo = number};
    timer_t timer = NULL;

    event.sigev_value.sival_ptr = (void *)0x123456789UL;
    event._sigev_un._tid = tid;
    TRY(timer_create(CLOCK_MONOTONIC, &event, &timer));
    return timer;
}

static void started(timer_t timer, long first, long period)
{
    struct itimerspec time = {{0, period}, {0, first}};

    timer_settime(timer, 0, &time, NULL);
}

static void once(void)
{
    handlers();
    for (size_t i = 0; i < COUNT(numbers); i++) {
        timer_t timer = made(numbers[i], SIGEV_SIGNAL, 0);

        started(timer, 1000, 0);
        until_handled(i + 1);
        TRY(timer_getoverrun(timer));
        TRY(timer_delete(timer));
    }
}

/* While the signal is blocked a timer goes on: one signal, and the others are counted. */
static void overrun(void)
{
    handlers();
    for (size_t i = 0; i < COUNT(numbers); i++) {
        timer_t timer = made(numbers[i], SIGEV_SIGNAL, 0);
        uint64_t mask = BIT(numbers[i]);

        mask_set(mask);
        started(timer, 100000, 100000);
        while (!(pending_now() & mask))
            nap(300);
        nap(2000);
        struct itimerspec none = {{0, 0}, {0, 0}};
        timer_settime(timer, 0, &none, NULL);
        say("pending %#lx", (long)pending_now());
        mask_set(0);
        timer_delete(timer);
    }
    say("handled %d", handled);
}

static void taken(void)
{
    for (size_t i = 0; i < COUNT(numbers); i++) {
        timer_t timer = made(numbers[i], SIGEV_SIGNAL, 0);
        uint64_t set = BIT(numbers[i]);
        siginfo_t info;

        mask_set(set);
        started(timer, 1000000, 0);
        TRY(syscall(SYS_rt_sigtimedwait, &set, &info, NULL, 8UL));
        say("code %d value %#lx", info.si_code, (long)info.si_value.sival_ptr);
        timer_delete(timer);
    }
}

static volatile int thread_tid;
static volatile bool leave;

static void *waits(void *unused)
{
    thread_tid = tid_now();
    while (!leave)
        nap(300);
    return unused;
}

static void of_a_thread(void)
{
    pthread_t thread;

    handlers();
    pthread_create(&thread, NULL, waits, NULL);
    while (!thread_tid)
        nap(300);
    for (size_t i = 0; i < COUNT(numbers); i++) {
        timer_t timer = made(numbers[i], SIGEV_THREAD_ID, i & 1 ? tid_now() : thread_tid);

        started(timer, 1000, 0);
        until_handled(i + 1);
        say("in the %s", last_tid == thread_tid ? "thread" : "main thread");
        timer_delete(timer);
    }
    leave = true;
    pthread_join(thread, NULL);
}

static void deleted_while_pending(void)
{
    handlers();
    for (size_t i = 0; i < COUNT(numbers); i++) {
        timer_t timer = made(numbers[i], SIGEV_SIGNAL, 0);

        mask_set(BIT(numbers[i]));
        started(timer, 1000, 0);
        while (!pending_now())
            nap(300);
        timer_delete(timer);
        say("pending %#lx", (long)pending_now());
        mask_set(0);
    }
}

static void intervals(void)
{
    static const struct {
        int which, number;
    } all[] = {{ITIMER_REAL, SIGALRM}, {ITIMER_VIRTUAL, SIGVTALRM}, {ITIMER_PROF, SIGPROF}};
    struct itimerval soon = {{0, 0}, {0, 1000}}, left;

    for (size_t i = 0; i < COUNT(all); i++) {
        on(all[i].number, noted, 0);
        mask_set(BIT(all[i].number)); /* On a busy machine it expires before the line is written. */
        TRY(setitimer(all[i].which, &soon, NULL));
        mask_set(0);
        while (handled <= (int)i)
            ;
        TRY(getitimer(all[i].which, &left));
        say("left %ld", left.it_value.tv_sec + left.it_value.tv_usec);
    }
    alarm(1000);
    TRY(alarm(0));
}

static void interval_kills(void)
{
    struct itimerval soon = {{0, 0}, {0, 1000}};

    setitimer(ITIMER_PROF, &soon, NULL);
    for (;;)
        ;
}

static void not_inherited(void)
{
    struct itimerval late = {{1000, 0}, {1000, 0}}, left;

    setitimer(ITIMER_REAL, &late, NULL);
    timer_t timer = made(SIGSEGV, SIGEV_SIGNAL, 0);
    pid_t pid = fork();
    if (!pid) {
        struct itimerspec time;

        getitimer(ITIMER_REAL, &left);
        say("in the child %s", left.it_value.tv_sec ? "left" : "none");
        TRY(timer_gettime(timer, &time));
        _exit(0);
    }
    waitpid(pid, NULL, 0);
}

static void refused(void)
{
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = 0};
    timer_t timer;

    TRY(timer_create(CLOCK_MONOTONIC, &event, &timer));
    event.sigev_signo = 65;
    TRY(timer_create(CLOCK_MONOTONIC, &event, &timer));
    event.sigev_signo = SIGSEGV;
    event.sigev_notify = SIGEV_THREAD_ID;
    event._sigev_un._tid = 1;
    TRY(timer_create(CLOCK_MONOTONIC, &event, &timer));
    event.sigev_notify = 99;
    TRY(timer_create(CLOCK_MONOTONIC, &event, &timer));
}

/* Many of a fast timer with handlers that interrupt each other and system calls. */
static void fast(void)
{
    timer_t timers[COUNT(numbers)];
    volatile uint64_t sum = 0;

    for (size_t i = 0; i < COUNT(numbers); i++)
        on_masking(numbers[i], noted, SA_SIGINFO | SA_RESTART, 0);
    int out = open("/dev/null", O_WRONLY), kept = dup(1);
    dup2(out, 1);
    for (size_t i = 0; i < COUNT(numbers); i++)
        started(timers[i] = made(numbers[i], SIGEV_SIGNAL, 0), 1000000, 1000000 + 10000 * i);
    while (handled < 1000) {
        sum += getppid();
        mask_set(BIT(SIGSEGV));
        mask_set(0);
    }
    for (size_t i = 0; i < COUNT(numbers); i++)
        timer_delete(timers[i]);
    dup2(kept, 1);
    say("1000 handled");
}

CASES_MAIN(CASE(once), CASE(overrun), CASE(taken), CASE(of_a_thread), CASE(deleted_while_pending),
           CASE(intervals), CASE(interval_kills), CASE(not_inherited), CASE(refused), CASE(fast))
