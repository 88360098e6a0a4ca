/*
 * A write that the EPCM refuses, after entering by an ENCLU of the host's own: the process gets a
 * signal, for which it has no handler.
 *
 * enclave: ops
 * exit: -11
 */
#include "own_stub.h"

int main(int argc, char **argv)
{
    struct enclave e;
    struct sgx_enclave_run run = {0};
    struct call call = {OP_WRITE, 0, M1, 0, 0};

    start(&e, argc, argv);
    run.tcs = e.tcs[0];
    call.a = ask(&run, OP_BUFFER, 0, 0, 0);
    DO(restrict_page(&e, call.a, SGX_R));
    SAME(ask(&run, OP_ACCEPT, call.a, SGX_R | SGX_PT_REG | SGX_PR, 0), 0);
    ok("the page is r--");
    own_enter(&call, e.tcs[0], EENTER);
    FAIL("the write went through");
}
