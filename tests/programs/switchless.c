/*
 * Calls without exits: both sides poll one word of host memory, and neither pauses.
 *
 * enclave: ops
 */
#include "hand.h"

#define CALLS 2000

static volatile uint64_t word __attribute__((aligned(64)));

int main(int argc, char **argv)
{
    static struct hand hand;
    struct enclave e;

    start(&e, argc, argv);
    hand_start(&hand, e.tcs[0]);
    hand_enter(&hand, OP_ANSWER, (uint64_t)&word, CALLS);
    for (uint64_t i = 0; i < 2 * CALLS; i += 2) {
        word = i + 1;
        while (word != i + 2)
            ;
    }
    hand_wait(&hand);
    LEFT(&hand.run);
    SAME(word, 2 * CALLS);
    ok("%d calls were answered", CALLS);
    return 0;
}
