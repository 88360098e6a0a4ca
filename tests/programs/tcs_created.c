/*
 * A thread made at run time: three pages are added and accepted, one is filled as a TCS and becomes
 * one by EMODT; also by EACCEPTCOPY.
 *
 * enclave: ops
 */
#include "host.h"

#define ACCEPTED(run, address, flags) SAME(ask(run, OP_ACCEPT, address, flags, 0), 0)
#define NEW (RW | SGX_PT_REG | SGX_PENDING)

int main(int argc, char **argv)
{
    static uint64_t block[PAGE_SIZE / 8];
    struct sgx_enclave_run run = {0}, added = {0};
    struct enclave e;

    start(&e, argc, argv);
    run.tcs = e.tcs[0];
    uint64_t buffer = ask(&run, OP_BUFFER, 0, 0, 0), stack = e.base + e.end;
    uint64_t tcs = stack + PAGE_SIZE, ssa = tcs + PAGE_SIZE;

    CHECK(ssa + 2 * PAGE_SIZE <= e.base + e.size, "no room");
    DO(enclave_map_range(&e, e.end, 4 * PAGE_SIZE, PROT_RW));
    ACCEPTED(&run, stack, NEW);
    ACCEPTED(&run, ssa, NEW);
    ACCEPTED(&run, ssa + PAGE_SIZE, NEW);

    /* Through a page of the enclave's own, for EACCEPTCOPY; the entry is that of the first TCS. */
    const struct sgxs_block *at = (const struct sgxs_block *)e.sgxs;
    for (size_t i = 0; i + 5 < e.sgxs_size / 64; i++)
        if (is_block(&at[i], "EADD") && at[i].eadd.flags == SGX_PT_TCS) {
            memcpy(block, &at[i + 2], CHUNK_SIZE);
            break;
        }
    CHECK(block[4], "no OENTRY");
    block[2] = ssa - e.base;
    ask(&run, OP_COPY, buffer, (uint64_t)block, PAGE_SIZE);
    SAME(ask(&run, OP_ACCEPTCOPY, tcs, RW | SGX_PT_REG, buffer), 0);
    SAME(ask(&run, OP_READ, tcs + 32, 0, 0), block[4]);
    ok("EACCEPTCOPY of a page with a TCS in it");

    DO(modify_page(&e, tcs, PT_TCS));
    ACCEPTED(&run, tcs, SGX_PT_TCS | SGX_MODIFIED);
    added.tcs = tcs;
    SAME(ask(&added, OP_BUFFER, 0, 0, 0), buffer);
    ask(&added, OP_WRITE, buffer + 8, M1, 0);
    SAME(ask(&run, OP_READ, buffer + 8, 0, 0), M1);
    ok("entered by the new thread");

    DO(modify_page(&e, tcs, PT_TRIM));
    ACCEPTED(&run, tcs, SGX_PT_TRIM | SGX_MODIFIED);
    DO(remove_page(&e, tcs));
    struct call call = {OP_NOP, 0, 0, 0, 0};
    go(&added, EENTER, &call);
    SAME(added.function, EENTER);
    SAME(added.exception_vector, VECTOR_PF);
    ok("removed, and not entered any more");

    /* As the tests of Intel's memory manager do it: EACCEPT leaves NSSA to EENTER. */
    ACCEPTED(&run, tcs, NEW);
    DO(modify_page(&e, tcs, PT_TCS));
    ACCEPTED(&run, tcs, SGX_PT_TCS | SGX_MODIFIED);
    go(&added, EENTER, &call);
    SAME(added.function, EENTER);
    SAME(added.exception_vector, VECTOR_GP);
    ok("a page of zeroes is accepted as a TCS, and cannot be entered");
    return 0;
}
