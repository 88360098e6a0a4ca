/*
 * An enclave that is larger than the EPC: its pages are written out and come back as they were.
 *
 * enclave: ops heap_pages=1500
 * run: --epc 4M
 */
#include "host.h"

#define HEAP_PAGES 1500UL

int main(int argc, char **argv)
{
    struct sgx_enclave_run run = {0};
    uint64_t heap = 0;
    struct enclave e;

    start(&e, argc, argv);
    run.tcs = e.tcs[0];
    for (int i = 0; i < e.run_count; i++)
        if (e.runs[i].length >= HEAP_PAGES * PAGE_SIZE && e.runs[i].prot == PROT_RW)
            heap = e.base + e.runs[i].offset + e.runs[i].length - HEAP_PAGES * PAGE_SIZE;
    CHECK(heap, "no heap");
    ok("built: %lu pages", (unsigned long)e.pages);
    for (uint64_t i = 0; i < HEAP_PAGES; i++)
        ask(&run, OP_WRITE, heap + i * PAGE_SIZE + i % 500 * 8, M1 + i, 0);
    for (uint64_t i = 0; i < HEAP_PAGES; i++)
        SAME(ask(&run, OP_READ, heap + i * PAGE_SIZE + i % 500 * 8, 0, 0), M1 + i);
    ok("%lu pages hold what was written", HEAP_PAGES);
    return 0;
}
