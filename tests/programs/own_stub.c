/*
 * A host with its own ENCLU instead of the vDSO function: exceptions of the enclave come as signals
 * at the AEP. Its handler repairs one with mprotect and returns, which is ERESUME.
 *
 * enclave: ops threads=2
 */
#include "own_stub.h"

static struct enclave e;
static struct {
    volatile int number, code, times;
    volatile uint64_t address, trap, error;
} seen;
static uint64_t tcs;
static void (*repair)(uint64_t page);

static void caught(int number, siginfo_t *info, void *context)
{
    greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;

    seen.number = number;
    seen.code = info->si_code;
    seen.address = (uint64_t)info->si_addr;
    seen.trap = r[REG_TRAPNO];
    seen.error = r[REG_ERR];
    SAME(r[REG_RIP], (uint64_t)own_aep);
    SAME(r[REG_RAX], ERESUME);
    SAME(r[REG_RBX], tcs);
    SAME(r[REG_RCX], (uint64_t)own_aep);
    CHECK(++seen.times < 10, "the same fault again and again");
    repair(seen.address);
}

static uint64_t own(unsigned thread, uint64_t op, uint64_t a, uint64_t b)
{
    struct call call = {op, a, b, 0, 0};

    tcs = e.tcs[thread];
    seen.times = seen.number = 0;
    own_enter(&call, tcs, EENTER);
    return call.result;
}

static void writable(uint64_t page)
{
    DO(mprotect((void *)page, PAGE_SIZE, PROT_RW));
}

/* From inside a signal handler: another thread of the enclave accepts the page. */
static void accepted(uint64_t page)
{
    struct call call = {OP_ACCEPT, page, RW | SGX_PT_REG | SGX_PENDING, 0, 99};
    uint64_t interrupted = tcs;

    tcs = e.tcs[1];
    own_enter(&call, tcs, EENTER);
    tcs = interrupted;
    SAME(call.result, 0);
}

static void saw(int number, int code, uint64_t address, uint64_t error)
{
    SAME(seen.times, 1);
    SAME(seen.number, number);
    SAME(seen.code, code);
    SAME(seen.address, address);
    SAME(seen.trap, VECTOR_PF);
    SAME(seen.error, error);
}

int main(int argc, char **argv)
{
    start(&e, argc, argv);
    handle(SIGSEGV, caught);
    handle(SIGBUS, caught);
    uint64_t buffer = own(0, OP_BUFFER, 0, 0);
    own(0, OP_WRITE, buffer, M1);
    SAME(own(0, OP_READ, buffer, 0), M1);
    SAME(seen.times, 0);
    ok("entries by a stub of one's own");

    repair = writable;
    DO(mprotect((void *)buffer, PAGE_SIZE, PROT_READ));
    own(0, OP_WRITE, buffer, M2);
    saw(SIGSEGV, SEGV_ACCERR, buffer, PFEC_P | PFEC_W | PFEC_U);
    SAME(own(0, OP_READ, buffer, 0), M2);
    ok("SIGSEGV at the AEP, repaired by mprotect");

    repair = accepted;
    DO(enclave_map_range(&e, e.end, PAGE_SIZE, PROT_RW));
    own(0, OP_WRITE, e.base + e.end, M1);
    saw(SIGSEGV, SEGV_ACCERR, e.base + e.end, PFEC_P | PFEC_W | PFEC_U | PFEC_SGX);
    SAME(own(0, OP_READ, e.base + e.end, 0), M1);
    ok("SIGSEGV of a pending page, repaired by an entry from the handler");
    return 0;
}
