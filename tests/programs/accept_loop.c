/*
 * Loops of EACCEPT, as memory managers have them: pages that come by a fault each, pages that are
 * there, pages that are trimmed. Every page has its fault and its status, whoever executes what is
 * between two EACCEPT; also if the AEP of the host counts before it resumes.
 *
 * The story: between two EACCEPT are a dozen instructions, and each was a stop of its own.
 *
 * enclave: ops size=0x4000000
 * run: --tick 0
 */
#include "counting_aep.h"

enum { PAGES = 150, MISMATCH = 19 };

static struct enclave e;

static struct call accepting(uint64_t at, uint64_t flags)
{
    return (struct call){OP_ACCEPT_EACH, at, flags, PAGES, 0};
}

static void accepted(struct call *call, uint64_t refused)
{
    SAME(call->c, refused);
    SAME(call->result, refused * MISMATCH);
}

static void trim(uint64_t at, struct sgx_enclave_run *run)
{
    struct sgx_enclave_modify_types types = {
        .offset = at - e.base, .length = PAGES * PAGE_SIZE, .page_type = SGX_PT_TRIM >> 8};
    struct sgx_enclave_remove_pages removal = {
        .offset = at - e.base, .length = PAGES * PAGE_SIZE};
    struct call call = accepting(at, SGX_PT_TRIM | SGX_MODIFIED);

    DO(ioctl(e.fd, SGX_IOC_ENCLAVE_MODIFY_TYPES, &types));
    SAME(types.count, PAGES * PAGE_SIZE);
    go(run, EENTER, &call);
    LEFT(run);
    accepted(&call, 0);
    DO(ioctl(e.fd, SGX_IOC_ENCLAVE_REMOVE_PAGES, &removal));
    SAME(removal.count, PAGES * PAGE_SIZE);
}

int main(int argc, char **argv)
{
    struct sgx_enclave_run run = {0};

    start(&e, argc, argv);
    run.tcs = e.tcs[0];
    uint64_t at = e.base + e.end, last = at + (PAGES - 1) * PAGE_SIZE;
    DO(enclave_map_range(&e, e.end, PAGES * PAGE_SIZE, PROT_RW));

    struct call call = accepting(at, RW | SGX_PT_REG | SGX_PENDING);
    go(&run, EENTER, &call);
    LEFT(&run);
    accepted(&call, 0);
    SAME(ask(&run, OP_READ, last, 0, 0), 0);
    ask(&run, OP_WRITE, last, 0x1234, 0);
    SAME(ask(&run, OP_READ, last, 0, 0), 0x1234);
    ok("pages that come by a fault");

    call = accepting(at, RW | SGX_PT_REG | SGX_PENDING);
    go(&run, EENTER, &call);
    LEFT(&run);
    accepted(&call, PAGES);
    ok("pages that are accepted already");

    trim(at, &run);
    ok("pages that go");

    aex_count = 0;
    call = accepting(at, RW | SGX_PT_REG | SGX_PENDING);
    counting_enter(&call, e.tcs[0]);
    accepted(&call, 0);
    SAME(aex_count, PAGES);
    SAME(ask(&run, OP_READ, last, 0, 0), 0);
    trim(at, &run);
    ok("one asynchronous exit for each, counted at the AEP");
    return 0;
}
