/*
 * RLIMIT_CPU counts the time inside an enclave: SIGXCPU at the soft limit, again a second later,
 * and the hard limit kills.
 *
 * enclave: ops
 * engines: unicorn
 * exit: -9
 */
#include "host.h"

#include <sys/resource.h>
#include <time.h>

static volatile int count, code;

static void caught(int number, siginfo_t *info, void *context)
{
    (void)number;
    (void)context;
    code = info->si_code;
    count++;
}

int main(int argc, char **argv)
{
    static struct sgx_enclave_run run;
    struct enclave e;
    struct timespec used;
    struct rlimit limit;

    start(&e, argc, argv);
    run.tcs = e.tcs[0];
    handle(SIGXCPU, caught);
    DO(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used));
    limit.rlim_cur = used.tv_sec + 1;
    limit.rlim_max = used.tv_sec + 3;
    DO(setrlimit(RLIMIT_CPU, &limit));
    while (count < 2)
        SAME(ask(&run, OP_COUNT, 1000000, 0, 0), 0);
    SAME(code, SI_KERNEL);
    DO(getrlimit(RLIMIT_CPU, &limit));
    SAME(limit.rlim_cur, used.tv_sec + 3);
    ok("SIGXCPU at the soft limit, and a second later");
    for (int i = 0; i < 20000; i++)
        SAME(ask(&run, OP_COUNT, 1000000, 0, 0), 0);
    FAIL("still alive");
}
