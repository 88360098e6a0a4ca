/*
 * The timer tick interrupts code inside an enclave: a thread that waits for its own fifth AEX, and
 * that nothing else interrupts, comes out. Registers are as they were.
 *
 * The story: a sample that computed for a minute had counted none.
 *
 * enclave: ops
 */
#include "counting_aep.h"

int main(int argc, char **argv)
{
    struct enclave e;

    start(&e, argc, argv);
    /* The first call has the page faults. */
    SAME(counted(e.tcs[0], OP_COUNT, 1, 0), 0);
    aex_count = 0;
    aex_wanted = 5;
    SAME(counted(e.tcs[0], OP_WAIT, (uint64_t)&aex_told, 0), 0);
    CHECK(aex_count >= 5, "%lu", aex_count);
    ok("five timer interrupts inside");

    /* Short calls are interrupted as well, sooner or later. */
    aex_count = aex_told = 0;
    aex_wanted = 2;
    while (!aex_told)
        SAME(counted(e.tcs[0], OP_COUNT, 1000, 0), 0);
    ok("two in short calls");
    return 0;
}
