/*
 * An enclave of 1 TiB whose ELRANGE begins at address 0: no mapping can begin below
 * vm.mmap_min_addr, so it is mapped from 10000H on, where its first page is.
 *
 * enclave: ops size=0x10000000000 text=0x10000
 */
#include "host.h"

#define FIRST 0x10000UL

int main(int argc, char **argv)
{
    struct sgx_enclave_run run = {0};
    struct enclave e;
    size_t size;

    CHECK(argc >= 3, "arguments");
    const void *sig = read_file(argv[2], &size);
    CHECK(sig && !enclave_open(&e, argv[1]), "%s", strerror(errno));
    SAME(e.size, 1UL << 40);
    e.base = 0;
    void *at = mmap((void *)FIRST, e.size - FIRST, PROT_RWX, MAP_SHARED | MAP_FIXED_NOREPLACE,
                    e.fd, 0);
    CHECK(at == (void *)FIRST, "mmap of 1 TiB at 64 KiB: %s", strerror(errno));
    ok("mapped 1 TiB from 64 KiB on");
    if (enclave_create(&e) || enclave_add(&e) || enclave_init(&e, sig))
        FAIL("%s: %s", e.step, strerror(errno));
    ok("built %lu pages", (unsigned long)e.pages);
    for (int i = 0; i < e.run_count; i++)
        DO(mprotect((void *)e.runs[i].offset, e.runs[i].length, e.runs[i].prot));
    enter = vdso_enter();
    CHECK(enter, "no vDSO function");
    run.tcs = e.tcs[0];
    uint64_t buffer = ask(&run, OP_BUFFER, 0, 0, 0), far = e.size - PAGE_SIZE;
    CHECK(buffer > FIRST && buffer < e.end, "buffer at %#lx", (unsigned long)buffer);
    ask(&run, OP_WRITE, buffer, M1, 0);
    SAME(ask(&run, OP_READ, buffer, 0, 0), M1);
    ok("entered, read and written");
    SAME(ask(&run, OP_ACCEPT, far, RW | SGX_PT_REG | SGX_PENDING, 0), 0);
    ask(&run, OP_WRITE, far, M2, 0);
    SAME(ask(&run, OP_READ, far, 0, 0), M2);
    ok("a page at the far end");
    DO(munmap((void *)FIRST, e.size - FIRST));
    ok("unmapped");
    return 0;
}
