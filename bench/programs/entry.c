/*
 * What a host program sees of enclave calls, timed by itself: `name value` in microseconds. Without
 * arguments, the native side of it: the same loop, and a system call that is not supervised.
 *
 * enclave: ops
 */
#include "host.h"

#include <sys/syscall.h>
#include <time.h>

enum { CALLS = 4000, LOOP = 200000000, COPIES = 200, IOCTLS = 1000, BLOCK = 200 };

static double took[CALLS];

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

static void show(const char *name, int count)
{
    qsort(took, count, sizeof(*took), by_value);
    printf("%s %.4f\n", name, took[count / 2]);
    printf("%s_best %.4f\n", name, took[0]);
}

/* In blocks that are too short to be interrupted often. */
static void time_syscalls(void)
{
    for (int block = 0; block < CALLS; block++) {
        double begin = now();
        for (int i = 0; i < BLOCK; i++)
            syscall(SYS_getppid);
        took[block] = (now() - begin) / BLOCK;
    }
    show("syscall", CALLS);
}

static void native_loop(uint64_t rounds)
{
    uint64_t up = 0, down = 0;
    double begin = now();

    while (up != rounds)
        __asm__ volatile("inc %0\n\tdec %1" : "+r"(up), "+r"(down) : : "cc");
    printf("loop %.4f\n", now() - begin);
}

int main(int argc, char **argv)
{
    static uint8_t block[4096] __attribute__((aligned(4096)));
    struct sgx_enclave_run run = {0};
    struct enclave e;

    time_syscalls();
    if (argc < 3) {
        native_loop(LOOP);
        return 0;
    }
    start(&e, argc, argv);
    run.tcs = e.tcs[0];
    for (int i = 0; i < 200; i++)
        ask(&run, OP_NOP, 0, 0, 0);
    for (int i = 0; i < CALLS; i++) {
        double begin = now();
        ask(&run, OP_NOP, 0, 0, 0);
        took[i] = now() - begin;
    }
    show("call", CALLS);
    uint64_t buffer = ask(&run, OP_BUFFER, 0, 0, 0);
    for (int i = 0; i < COPIES; i++) {
        double begin = now();
        ask(&run, OP_COPY, buffer, (uint64_t)block, sizeof(block));
        took[i] = now() - begin;
    }
    show("copy", COPIES);
    for (int i = 0; i < COPIES; i++) {
        double begin = now();
        ask(&run, OP_COPY, (uint64_t)block, buffer, sizeof(block));
        took[i] = now() - begin;
    }
    show("copy_out", COPIES);
    for (int i = 0; i < IOCTLS; i++) {
        double begin = now();
        SAME(ioctl(e.fd, _IO(0xa4, 0xff)), -1); /* ENOTTY: the driver has nothing to do */
        took[i] = now() - begin;
    }
    show("ioctl", IOCTLS);
    double begin = now();
    ask(&run, OP_COUNT, LOOP, 0, 0);
    printf("loop %.4f\n", now() - begin);
    return 0;
}
