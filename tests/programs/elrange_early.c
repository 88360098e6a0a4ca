/*
 * A loader that maps the whole ELRANGE first, RWX, with MAP_FIXED_NOREPLACE, and creates the
 * enclave in it afterwards. Rights of the mapping are compared with those of the pages only when
 * they are touched: this one is too wide for all pages except those added later.
 *
 * enclave: ops
 */
#include "host.h"

int main(int argc, char **argv)
{
    struct sgx_enclave_run run = {0};
    struct enclave e;
    size_t size;

    CHECK(argc >= 3, "arguments");
    const void *sig = read_file(argv[2], &size);
    CHECK(sig && !enclave_open(&e, argv[1]) && !enclave_reserve(&e), "%s", strerror(errno));
    DO(munmap((void *)e.base, e.size));
    void *at = mmap((void *)e.base, e.size, PROT_RWX, MAP_SHARED | MAP_FIXED_NOREPLACE, e.fd, 0);
    SAME((uint64_t)at, e.base);
    SAME((uint64_t)mmap((void *)e.base, PAGE_SIZE, PROT_RWX, MAP_SHARED | MAP_FIXED_NOREPLACE,
                        e.fd, 0),
         (uint64_t)MAP_FAILED);
    SAME(errno, EEXIST);
    ok("mapped before CREATE");
    if (enclave_create(&e) || enclave_add(&e) || enclave_init(&e, sig))
        FAIL("%s: %s", e.step, strerror(errno));
    enter = vdso_enter();
    run.tcs = e.tcs[0];

    struct call call = {OP_BUFFER, 0, 0, 0, 0};
    go(&run, EENTER, &call);
    SAME(run.function, EENTER);
    SAME(run.exception_vector, VECTOR_PF);
    ok("RWX over a TCS page: refused when touched");
    for (int i = 0; i < e.run_count; i++)
        DO(mprotect((void *)(e.base + e.runs[i].offset), e.runs[i].length, e.runs[i].prot));
    uint64_t buffer = ask(&run, OP_BUFFER, 0, 0, 0);
    ask(&run, OP_WRITE, buffer, M1, 0);
    SAME(ask(&run, OP_READ, buffer, 0, 0), M1);
    ok("entered after mprotect of each part");
    SAME(ask(&run, OP_ACCEPT, e.base + e.end, RW | SGX_PT_REG | SGX_PENDING, 0), 0);
    ask(&run, OP_WRITE, e.base + e.end, M2, 0);
    SAME(ask(&run, OP_READ, e.base + e.end, 0, 0), M2);
    ok("a page is added in the first mapping");
    return 0;
}
