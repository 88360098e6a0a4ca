/*
 * What a host program sees of enclave calls, timed by itself: `name value` in microseconds. Without
 * arguments, the native side of it: the same loop, and a system call that is not supervised.
 *
 * enclave: ops
 */
#include "host.h"
#include "timing.h"

#include <sys/syscall.h>

enum { CALLS = 4000, LOOP = 200000000, COPIES = 200, IOCTLS = 1000, BLOCK = 200 };

static double took[CALLS];

/* In blocks that are too short to be interrupted often. */
static void time_syscalls(void)
{
    for (int block = 0; block < CALLS; block++) {
        double begin = now();
        for (int i = 0; i < BLOCK; i++)
            syscall(SYS_getppid);
        took[block] = (now() - begin) / BLOCK;
    }
    show_times("syscall", took, CALLS);
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
    show_times("call", took, CALLS);
    uint64_t buffer = ask(&run, OP_BUFFER, 0, 0, 0);
    for (int i = 0; i < COPIES; i++) {
        double begin = now();
        ask(&run, OP_COPY, buffer, (uint64_t)block, sizeof(block));
        took[i] = now() - begin;
    }
    show_times("copy", took, COPIES);
    for (int i = 0; i < COPIES; i++) {
        double begin = now();
        ask(&run, OP_COPY, (uint64_t)block, buffer, sizeof(block));
        took[i] = now() - begin;
    }
    show_times("copy_out", took, COPIES);
    for (int i = 0; i < IOCTLS; i++) {
        double begin = now();
        SAME(ioctl(e.fd, _IO(0xa4, 0xff)), -1); /* ENOTTY: the driver has nothing to do */
        took[i] = now() - begin;
    }
    show_times("ioctl", took, IOCTLS);
    double begin = now();
    ask(&run, OP_COUNT, LOOP, 0, 0);
    printf("loop %.4f\n", now() - begin);
    return 0;
}
