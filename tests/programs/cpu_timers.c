/*
 * Timers that count processor time count the time inside an enclave, and their signals look like
 * the kernel's: profilers and time limits depend on them.
 *
 * enclave: ops threads=2
 * engines: unicorn
 */
#include "host.h"

#include <pthread.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <time.h>

#define LOOP 1000000UL
#define LIMIT 20000 /* entries */

static struct enclave e;
static struct sgx_enclave_run run;
static struct {
    volatile int count, code, value;
} seen;

static void caught(int number, siginfo_t *info, void *context)
{
    (void)number;
    (void)context;
    seen.code = info->si_code;
    seen.value = info->si_value.sival_int;
    seen.count++;
}

/* Computes inside until a handler was called so many times. */
static void until(const char *name, int count)
{
    int entries = 0;

    while (seen.count < count) {
        CHECK(++entries < LIMIT, "%s: %d of %d signals in %d entries", name, seen.count, count, entries);
        SAME(ask(&run, OP_COUNT, LOOP, 0, 0), 0);
    }
    seen.count = 0;
}

static double now(clockid_t clock)
{
    struct timespec ts;

    DO(clock_gettime(clock, &ts));
    return ts.tv_sec + ts.tv_nsec * 1e-9;
}

static void interval(const char *name, int which, int number)
{
    struct itimerval old, off = {0}, every = {{0, 20000}, {0, 50000}};
    double begin = now(CLOCK_PROCESS_CPUTIME_ID);

    handle(number, caught);
    DO(setitimer(which, &every, NULL));
    until(name, 3);
    CHECK(now(CLOCK_PROCESS_CPUTIME_ID) - begin > 0.09 - 0.02, "%s: too early", name);
    SAME(seen.code, SI_KERNEL);
    DO(setitimer(which, &off, &old));
    SAME(old.it_interval.tv_usec, 20000);
    DO(getitimer(which, &old));
    SAME(old.it_value.tv_sec + old.it_value.tv_usec, 0);
    seen.count = 0;
    ok("%s", name);
}

static void left(void)
{
    struct itimerval got, off = {0}, late = {{0, 0}, {1000, 0}};
    double begin = now(CLOCK_PROCESS_CPUTIME_ID);

    DO(setitimer(ITIMER_PROF, &late, NULL));
    while (now(CLOCK_PROCESS_CPUTIME_ID) < begin + 0.1)
        SAME(ask(&run, OP_COUNT, LOOP, 0, 0), 0);
    DO(getitimer(ITIMER_PROF, &got));
    CHECK(got.it_value.tv_sec == 999, "%ld s left", (long)got.it_value.tv_sec);
    DO(setitimer(ITIMER_PROF, &off, NULL));
    late.it_value.tv_usec = 1000000;
    SAME(setitimer(ITIMER_PROF, &late, NULL), -1);
    SAME(errno, EINVAL);
    ok("getitimer, and what is not valid");
}

static void posix(const char *name, clockid_t clock)
{
    struct sigevent event = {
        .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1, .sigev_value.sival_int = 4711};
    struct itimerspec every = {{0, 20000000}, {0, 20000000}}, got;
    timer_t timer;

    handle(SIGUSR1, caught);
    DO(timer_create(clock, &event, &timer));
    DO(timer_settime(timer, 0, &every, NULL));
    until(name, 3);
    SAME(seen.code, SI_TIMER);
    SAME(seen.value, 4711);
    DO(timer_gettime(timer, &got));
    SAME(got.it_interval.tv_nsec, 20000000);
    CHECK(got.it_value.tv_sec == 0 && got.it_value.tv_nsec > 0, "%ld", got.it_value.tv_nsec);
    DO(timer_delete(timer));
    SAME(timer_gettime(timer, &got), -1);
    SAME(errno, EINVAL);
    seen.count = 0;
    ok("timer_create of %s", name);
}

static volatile int slept = -1;

static void *sleeper(void *clock)
{
    struct timespec time = {0, 50000000};

    slept = clock_nanosleep(*(clockid_t *)clock, 0, &time, NULL);
    return NULL;
}

static void sleeping(void)
{
    clockid_t clock = CLOCK_PROCESS_CPUTIME_ID;
    pthread_t thread;
    int entries = 0;

    SAME(pthread_create(&thread, NULL, sleeper, &clock), 0);
    while (slept < 0) {
        CHECK(++entries < LIMIT, "still sleeping");
        SAME(ask(&run, OP_COUNT, LOOP, 0, 0), 0);
    }
    SAME(pthread_join(thread, NULL), 0);
    SAME(slept, 0);
    ok("clock_nanosleep until others have computed");
}

int main(int argc, char **argv)
{
    clockid_t clock;

    start(&e, argc, argv);
    run.tcs = e.tcs[0];
    interval("ITIMER_PROF", ITIMER_PROF, SIGPROF);
    interval("ITIMER_VIRTUAL", ITIMER_VIRTUAL, SIGVTALRM);
    left();
    posix("CLOCK_PROCESS_CPUTIME_ID", CLOCK_PROCESS_CPUTIME_ID);
    posix("CLOCK_THREAD_CPUTIME_ID", CLOCK_THREAD_CPUTIME_ID);
    SAME(pthread_getcpuclockid(pthread_self(), &clock), 0);
    posix("the clock of a thread", clock);
    CHECK(now(clock) > 0.1, "%f s", now(clock));
    SAME(clock_getcpuclockid(getpid(), &clock), 0);
    posix("the clock of a process", clock);
    sleeping();
    return 0;
}
