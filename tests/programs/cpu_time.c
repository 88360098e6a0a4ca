/*
 * CPU time that a process reads includes the time spent in its enclaves, by whatever call it reads
 * it: without that, programs that calibrate themselves by it would never end.
 *
 * enclave: ops
 */
#include "host.h"

#include <sys/resource.h>
#include <sys/times.h>
#include <time.h>

#define LOOP 2000000UL
#define LIMIT 2000 /* entries; 4 thousand million rounds */

static struct sgx_enclave_run run;

static double of_clock(void)
{
    return (double)clock() / CLOCKS_PER_SEC;
}

static double of_process(void)
{
    struct timespec ts;

    DO(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts));
    return ts.tv_sec + ts.tv_nsec * 1e-9;
}

static double of_thread(void)
{
    struct timespec ts;

    DO(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts));
    return ts.tv_sec + ts.tv_nsec * 1e-9;
}

static double of_rusage(void)
{
    struct rusage r;

    DO(getrusage(RUSAGE_SELF, &r));
    return r.ru_utime.tv_sec + r.ru_stime.tv_sec +
           (r.ru_utime.tv_usec + r.ru_stime.tv_usec) * 1e-6;
}

static double of_times(void)
{
    struct tms t;

    times(&t);
    return (double)(t.tms_utime + t.tms_stime) / sysconf(_SC_CLK_TCK);
}

/* Computes until 0.1 s of it have passed by this clock. */
static void passes(const char *name, double (*now)(void))
{
    double begin = now();
    int entries = 0;

    while (now() < begin + 0.1) {
        CHECK(++entries < LIMIT, "%s: %.6f s passed in %d entries", name, now() - begin, entries);
        SAME(ask(&run, OP_COUNT, LOOP, 0, 0), 0);
    }
    CHECK(entries > 0, "%s: 0.1 s passed without an entry", name);
    ok("%s passes inside", name);
}

int main(int argc, char **argv)
{
    struct enclave e;

    start(&e, argc, argv);
    run.tcs = e.tcs[0];
    passes("clock", of_clock);
    passes("CLOCK_PROCESS_CPUTIME_ID", of_process);
    passes("CLOCK_THREAD_CPUTIME_ID", of_thread);
    passes("getrusage", of_rusage);
    passes("times", of_times);
    return 0;
}
