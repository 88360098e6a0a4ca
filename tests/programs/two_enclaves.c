/*
 * Two enclaves in one process: each has its own memory, and what is the other's is outside: it
 * reads FF bytes, and writes are lost. SDM 3D, 38.3 "Access-control Requirements".
 *
 * enclave: ops
 * engines: unicorn
 */
#include "host.h"

int main(int argc, char **argv)
{
    struct sgx_enclave_run runs[2] = {{0}, {0}};
    static struct enclave e[2];
    uint64_t buffers[2];

    for (int i = 0; i < 2; i++) {
        start(&e[i], argc, argv);
        runs[i].tcs = e[i].tcs[0];
        buffers[i] = ask(&runs[i], OP_BUFFER, 0, 0, 0);
        ask(&runs[i], OP_WRITE, buffers[i], M1 + i, 0);
    }
    for (int i = 0; i < 2; i++)
        SAME(ask(&runs[i], OP_READ, buffers[i], 0, 0), M1 + i);
    ok("two enclaves of the same measurement, each with its own memory");
    SAME(ask(&runs[0], OP_READ, buffers[1], 0, 0), -1UL);
    ask(&runs[0], OP_WRITE, buffers[1], M2, 0);
    SAME(ask(&runs[1], OP_READ, buffers[1], 0, 0), M1 + 1);
    ok("one reads FF bytes from the other, and writes nothing");

    struct call call = {OP_ACCEPT, buffers[1], RW | SGX_PT_REG | SGX_PENDING, 0, 0};
    go(&runs[0], EENTER, &call);
    SAME(runs[0].function, ERESUME);
    SAME(runs[0].exception_vector, VECTOR_GP);
    ok("EACCEPT of a page of the other: #GP");
    DO(munmap((void *)e[1].base, e[1].size));
    DO(close(e[1].fd));
    call.op = OP_NOP;
    go(&runs[1], EENTER, &call);
    SAME(runs[1].function, EENTER);
    SAME(runs[1].exception_vector, VECTOR_PF);
    ok("one ends, the other stays");
    return 0;
}
