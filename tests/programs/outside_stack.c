/*
 * EENTER stores RSP and RBP of the outside in the SSA frame, where trusted runtimes read them for
 * calls to the outside: each time, whatever the enclave has written there, and wherever the host's
 * stack has gone meanwhile.
 *
 * enclave: ops
 */
#include "host.h"

#define CALLS 5
#define DEEP 65536

static struct sgx_enclave_run run;

static uint64_t stack(void)
{
    return ask(&run, OP_STACK, run.tcs, 0, 0);
}

__attribute__((noinline)) static uint64_t deep_stack(void)
{
    volatile char room[DEEP];

    room[0] = room[DEEP - 1] = 1;
    return stack() + room[0] - 1;
}

int main(int argc, char **argv)
{
    uint64_t here = (uint64_t)__builtin_frame_address(0), shallow, deep;
    struct enclave e;

    start(&e, argc, argv);
    run.tcs = e.tcs[0];
    shallow = stack();
    CHECK(here - shallow < DEEP, "URSP %#lx, stack at %#lx", shallow, here);
    for (int i = 0; i < CALLS; i++)
        SAME(stack(), shallow);
    ok("the same stack, %d times", CALLS);
    deep = deep_stack();
    CHECK(shallow - deep >= DEEP, "URSP %#lx, then %#lx", shallow, deep);
    for (int i = 0; i < CALLS; i++) {
        SAME(deep_stack(), deep);
        SAME(deep_stack(), deep);
        SAME(stack(), shallow);
    }
    ok("deeper and back");
    return 0;
}
