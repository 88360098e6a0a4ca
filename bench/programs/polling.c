/*
 * Calls without exits: a thread inside and one outside poll one word of host memory.
 *
 * enclave: ops
 */
#include "hand.h"

#include "timing.h"

#define CALLS 5000

static volatile uint64_t word __attribute__((aligned(64)));

int main(int argc, char **argv)
{
    static struct hand hand;
    struct enclave e;

    start(&e, argc, argv);
    hand_start(&hand, e.tcs[0]);
    hand_enter(&hand, OP_ANSWER, (uint64_t)&word, CALLS);
    double begin = now();
    for (uint64_t i = 0; i < 2 * CALLS; i += 2) {
        word = i + 1;
        while (word != i + 2)
            ;
    }
    printf("polled %.3f\n", (now() - begin) / CALLS);
    hand_wait(&hand);
    return 0;
}
