/*
 * Workers inside wait for a word of host memory, as exitless calls do, while another thread comes
 * and goes many times: neither may starve the other.
 *
 * enclave: ops threads=8
 */
#include "hand.h"

#define WORKERS 7
#define CALLS 100

static struct hand workers[WORKERS];
static volatile uint32_t inside[WORKERS], work[WORKERS];

int main(int argc, char **argv)
{
    struct sgx_enclave_run run = {0};
    struct enclave e;

    start(&e, argc, argv);
    for (int i = 0; i < WORKERS; i++) {
        hand_start(&workers[i], e.tcs[i]);
        hand_enter(&workers[i], OP_TELL, (uint64_t)&inside[i], (uint64_t)&work[i]);
    }
    for (int i = 0; i < WORKERS; i++)
        while (!inside[i])
            usleep(1000);
    ok("%d workers are inside and wait", WORKERS);
    run.tcs = e.tcs[WORKERS];
    for (int i = 0; i < CALLS; i++)
        SAME(ask(&run, OP_COUNT, 1000, 0, 0), 0);
    ok("%d calls of another thread", CALLS);
    for (int i = WORKERS - 1; i >= 0; i--) {
        work[i] = 1;
        hand_wait(&workers[i]);
        LEFT(&workers[i].run);
        SAME(workers[i].call.result, 0);
    }
    ok("each worker has seen its work");
    return 0;
}
