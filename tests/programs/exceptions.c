/*
 * An enclave that handles its exceptions: after the asynchronous exit the host enters the same
 * thread again (CSSA = 1), the handler reads the SSA frame and changes RIP and RAX in it, and
 * ERESUME goes on after the instruction. The same thread, many times.
 *
 * enclave: faults
 */
#include "host.h"

static void once(struct sgx_enclave_run *run, uint64_t what, unsigned vector)
{
    struct call call = {what, 0, 0, 0, 0}, handler = {HANDLE, 0, 0, 0, 0};

    go(run, EENTER, &call);
    FAULTED(run, vector, 0, 0);
    go(run, EENTER, &handler);
    LEFT(run);
    SAME(handler.a, 0x80000300UL | vector);
    go(run, ERESUME, NULL);
    LEFT(run);
    SAME(call.result, SKIPPED);
}

int main(int argc, char **argv)
{
    struct sgx_enclave_run run = {0};
    struct enclave e;

    start(&e, argc, argv);
    run.tcs = e.tcs[0];
    for (int i = 0; i < 10; i++)
        once(&run, TRY_DIV, VECTOR_DE);
    ok("#DE, ten times");
    for (int i = 0; i < 10; i++)
        once(&run, TRY_UD2, VECTOR_UD);
    ok("#UD, ten times");
    for (int i = 0; i < 4; i++)
        once(&run, i % 2 ? TRY_DIV : TRY_UD2, i % 2 ? VECTOR_DE : VECTOR_UD);
    ok("one and the other");
    once(&run, TRY_X87, 16);
    ok("#MF by the vDSO, before any signal");
    return 0;
}
