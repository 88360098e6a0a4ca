/*
 * The TCS is an operand that is written: with an area that lacks W neither EENTER nor ERESUME gets
 * in, and the fault is at the last byte of the page.
 *
 * The story: a loader that mapped its TCS pages read-only worked here, and died on hardware.
 *
 * enclave: ops
 */
#include "host.h"

static struct enclave e;

static void refused(struct sgx_enclave_run *run, unsigned leaf, unsigned code)
{
    struct call call = {OP_READ, 0, 0, 0, 0};

    go(run, leaf, &call);
    SAME(run->function, leaf);
    SAME(run->exception_vector, VECTOR_PF);
    SAME(run->exception_error_code, code);
    SAME(run->exception_addr, run->tcs + PAGE_SIZE - 1);
}

static void protect(uint64_t page, int prot)
{
    DO(mprotect((void *)page, PAGE_SIZE, prot));
}

int main(int argc, char **argv)
{
    struct sgx_enclave_run run = {0};

    start(&e, argc, argv);
    uint64_t tcs = run.tcs = e.tcs[0];

    DO(mmap((void *)tcs, PAGE_SIZE, PROT_READ, MAP_SHARED | MAP_FIXED, e.fd, 0));
    refused(&run, EENTER, PFEC_W | PFEC_U);
    ok("a TCS mapped read-only cannot be entered");
    protect(tcs, PROT_RW);
    uint64_t buffer = ask(&run, OP_BUFFER, 0, 0, 0);
    ask(&run, OP_WRITE, buffer, M1, 0);
    SAME(ask(&run, OP_READ, buffer, 0, 0), M1);
    for (int i = 0; i < 500; i++) /* so often that a real entry is repeated without a question */
        ask(&run, OP_NOP, 0, 0, 0);
    ok("with W it is");
    protect(tcs, PROT_READ);
    refused(&run, EENTER, PFEC_P | PFEC_W | PFEC_U);
    protect(tcs, PROT_NONE);
    refused(&run, EENTER, PFEC_W | PFEC_U);
    protect(tcs, PROT_RW);
    SAME(ask(&run, OP_READ, buffer, 0, 0), M1);
    ok("W may be taken away and given back");

    struct call call = {OP_WRITE, buffer, M2, 0, 0};

    protect(buffer, PROT_READ);
    go(&run, EENTER, &call);
    FAULTED(&run, VECTOR_PF, PFEC_P | PFEC_W | PFEC_U, buffer);
    protect(tcs, PROT_READ);
    refused(&run, ERESUME, PFEC_P | PFEC_W | PFEC_U);
    protect(tcs, PROT_RW);
    protect(buffer, PROT_RW);
    go(&run, ERESUME, &call);
    LEFT(&run);
    SAME(ask(&run, OP_READ, buffer, 0, 0), M2);
    ok("ERESUME needs it as well");

    run.tcs = buffer;
    refused(&run, EENTER, PFEC_P | PFEC_W | PFEC_U | PFEC_SGX);
    run.tcs = tcs;
    DO(munmap((void *)tcs, PAGE_SIZE));
    refused(&run, EENTER, PFEC_W | PFEC_U);
    ok("a page that is no TCS, and none");
    return 0;
}
