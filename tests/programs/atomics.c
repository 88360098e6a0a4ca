/*
 * Locked instructions of several threads on one word of enclave memory: none is lost.
 *
 * enclave: ops threads=4
 */
#include "hand.h"

#define THREADS 4
#define TIMES 200000UL

static struct hand hands[THREADS];

int main(int argc, char **argv)
{
    struct sgx_enclave_run run = {0};
    struct enclave e;

    start(&e, argc, argv);
    for (int i = 0; i < THREADS; i++)
        hand_start(&hands[i], e.tcs[i]);
    for (int i = 0; i < THREADS; i++)
        hand_enter(&hands[i], OP_ATOMIC, TIMES, 0);
    for (int i = 0; i < THREADS; i++) {
        hand_wait(&hands[i]);
        LEFT(&hands[i].run);
    }
    run.tcs = e.tcs[0];
    SAME(ask(&run, OP_TOTAL, 0, 0, 0), THREADS * TIMES);
    ok("%d threads, %lu additions each", THREADS, TIMES);
    return 0;
}
