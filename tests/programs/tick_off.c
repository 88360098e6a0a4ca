/*
 * --tick 0: nothing interrupts a thread that computes; what happens does not depend on time.
 *
 * enclave: ops
 * run: --tick 0
 */
#include "counting_aep.h"

int main(int argc, char **argv)
{
    struct enclave e;

    start(&e, argc, argv);
    /* The first call has the page faults. */
    SAME(counted(e.tcs[0], OP_COUNT, 1, 0), 0);
    aex_count = 0;
    SAME(counted(e.tcs[0], OP_COUNT, 20000000, 0), 0);
    SAME(aex_count, 0);
    ok("no interrupt");
    return 0;
}
