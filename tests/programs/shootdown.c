/*
 * A thread inside writes a page again and again while the host takes W away from it. When the ioctl
 * has returned no write may go through any more: the writer's translation is gone (ETRACK, IPI).
 *
 * enclave: ops threads=2
 */
#include "hand.h"

#define ROUNDS 10

static struct enclave e;
static volatile uint32_t stop;
static struct hand writer;

int main(int argc, char **argv)
{
    struct sgx_enclave_run manager = {0};
    uint64_t last = 0;

    start(&e, argc, argv);
    manager.tcs = e.tcs[1];
    uint64_t buffer = ask(&manager, OP_BUFFER, 0, 0, 0);
    hand_start(&writer, e.tcs[0]);
    hand_enter(&writer, OP_SPIN_WRITE, buffer, (uint64_t)&stop);
    for (int i = 0; i < ROUNDS; i++) {
        while (ask(&manager, OP_READ, buffer, 0, 0) == last)
            usleep(1000);
        DO(restrict_page(&e, buffer, SGX_R));
        last = ask(&manager, OP_READ, buffer, 0, 0);
        for (int j = 0; j < 5; j++)
            SAME(ask(&manager, OP_READ, buffer, 0, 0), last);
        hand_wait(&writer);
        FAULTED(&writer.run, VECTOR_PF, PFEC_P | PFEC_W | PFEC_U | PFEC_SGX, buffer);
        SAME(ask(&manager, OP_ACCEPT, buffer, SGX_R | SGX_PT_REG | SGX_PR, 0), 0);
        ask(&manager, OP_EXTEND, buffer, RW, 0);
        SAME(ask(&manager, OP_READ, buffer, 0, 0), last);
        stop = i == ROUNDS - 1;
        hand_resume(&writer);
    }
    ok("%d restrictions under a writer, no write after any of them", ROUNDS);
    hand_wait(&writer);
    LEFT(&writer.run);
    SAME(ask(&manager, OP_READ, buffer, 0, 0), writer.call.result);
    ok("the writer goes on and ends");
    return 0;
}
