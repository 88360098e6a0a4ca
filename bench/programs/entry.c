/*
 * Round trips of enclave calls, timed by the program itself.
 *
 * enclave: ops
 */
#include "host.h"

#include <time.h>

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    enum { CALLS = 4000 };
    static double took[CALLS];
    struct sgx_enclave_run run = {0};
    struct enclave e;

    start(&e, argc, argv);
    run.tcs = e.tcs[0];
    for (int i = 0; i < 200; i++)
        ask(&run, OP_COUNT, 0, 0, 0);
    for (int i = 0; i < CALLS; i++) {
        double begin = now();
        ask(&run, OP_COUNT, 0, 0, 0);
        took[i] = now() - begin;
    }
    qsort(took, CALLS, sizeof(*took), by_value);
    printf("call_us %.2f best %.2f\n", took[CALLS / 2], took[0]);
    double begin = now();
    ask(&run, OP_COUNT, 20000000, 0, 0);
    printf("loop_ms %.2f\n", (now() - begin) / 1e3);
    return 0;
}
