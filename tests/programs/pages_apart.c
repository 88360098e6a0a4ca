/*
 * Every other page of an enclave is restricted and opened again, then all of it is used: more areas
 * than a thread changes one by one. The descriptor is closed; only the mappings hold the enclave.
 *
 * enclave: ops heap_pages=400
 */
#include "host.h"

#define PAGES 300

int main(int argc, char **argv)
{
    struct sgx_enclave_run run = {0};
    struct enclave e;

    start(&e, argc, argv);
    run.tcs = e.tcs[0];
    uint64_t heap = 0;
    for (int i = 0; i < e.run_count; i++)
        if (e.runs[i].length >= PAGES * PAGE_SIZE && e.runs[i].prot == PROT_RW)
            heap = e.base + e.runs[i].offset + e.runs[i].length - PAGES * PAGE_SIZE;
    CHECK(heap, "no heap");
    for (int i = 0; i < PAGES; i++)
        ask(&run, OP_WRITE, heap + i * PAGE_SIZE, i + 1, 0);
    for (int i = 0; i < PAGES; i += 2)
        DO(restrict_page(&e, heap + i * PAGE_SIZE, SGX_R));
    DO(close(e.fd));
    for (int i = 0; i < PAGES; i++)
        SAME(ask(&run, OP_READ, heap + i * PAGE_SIZE, 0, 0), i + 1);
    ok("%d pages, every other one restricted", PAGES);
    for (int i = 0; i < PAGES; i += 2) {
        SAME(ask(&run, OP_ACCEPT, heap + i * PAGE_SIZE, SGX_R | SGX_PT_REG | SGX_PR, 0), 0);
        ask(&run, OP_EXTEND, heap + i * PAGE_SIZE, RW, 0);
        ask(&run, OP_WRITE, heap + i * PAGE_SIZE, i + 2, 0);
    }
    for (int i = 0; i < PAGES; i++)
        SAME(ask(&run, OP_READ, heap + i * PAGE_SIZE, 0, 0), i + 2 - i % 2);
    ok("accepted, extended, written");
    return 0;
}
