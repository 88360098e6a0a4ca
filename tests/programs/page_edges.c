/*
 * Host buffers that end where a page ends, with nothing after it: an enclave reads and writes up
 * to the last byte, and not one byte more; the fault is delivered, can be repaired, and the same
 * instruction goes on. CR2 has its low 12 bits clear for faults inside. SDM 3D, 40.3
 * "Synthetic State on Asynchronous Enclave Exit".
 *
 * enclave: ops
 */
#include "host.h"

#define LENGTH 100

static struct sgx_enclave_run run;
static uint8_t *pages;

static uint8_t *fresh(void)
{
    pages = DO(mmap(NULL, 3 * PAGE_SIZE, PROT_RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    for (unsigned i = 0; i < 2 * PAGE_SIZE; i++)
        pages[i] = i * 3 + 1;
    DO(munmap(pages + 2 * PAGE_SIZE, PAGE_SIZE));
    return pages + 2 * PAGE_SIZE;
}

static void appear(uint8_t *edge)
{
    void *at = mmap(edge, PAGE_SIZE, PROT_RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);

    SAME((uint64_t)at, (uint64_t)edge);
}

static void reads(uint64_t buffer)
{
    uint8_t *edge = fresh();

    ask(&run, OP_COPY, buffer, (uint64_t)edge - LENGTH, LENGTH);
    SAME(ask(&run, OP_READ, buffer + LENGTH - 8, 0, 0), *(uint64_t *)(edge - 8));
    ok("read up to the edge");

    struct call beyond = {OP_COPY, buffer, (uint64_t)edge - LENGTH, LENGTH + 8, 0};
    go(&run, EENTER, &beyond);
    FAULTED(&run, VECTOR_PF, PFEC_U, (uint64_t)edge);
    appear(edge);
    go(&run, ERESUME, NULL);
    LEFT(&run);
    SAME(ask(&run, OP_READ, buffer + LENGTH, 0, 0), 0);
    ok("read beyond it: #PF, repaired, continued");

    edge = fresh();
    struct call across = {OP_READ, (uint64_t)edge - 4, 0, 0, 0};
    go(&run, EENTER, &across);
    FAULTED(&run, VECTOR_PF, PFEC_U, (uint64_t)edge);
    appear(edge);
    go(&run, ERESUME, NULL);
    LEFT(&run);
    SAME(across.result, *(uint32_t *)(edge - 4));
    ok("8 bytes across the edge: #PF of the page after it");
}

static void writes(uint64_t buffer)
{
    uint8_t *edge = fresh();

    ask(&run, OP_WRITE, buffer, M1, 0);
    ask(&run, OP_COPY, (uint64_t)edge - 8, buffer, 8);
    SAME(*(uint64_t *)(edge - 8), M1);
    ok("write up to the edge");

    struct call beyond = {OP_COPY, (uint64_t)edge - 8, buffer, 16, 0};
    memset(edge - 8, 0, 8);
    go(&run, EENTER, &beyond);
    FAULTED(&run, VECTOR_PF, PFEC_U | PFEC_W, (uint64_t)edge);
    SAME(*(uint64_t *)(edge - 8), M1);
    appear(edge);
    go(&run, ERESUME, NULL);
    LEFT(&run);
    ok("write beyond it: #PF, what went before has arrived");

    edge = fresh();
    struct call across = {OP_WRITE, (uint64_t)edge - 4, M2, 0, 0};
    memset(edge - 4, 0, 4);
    go(&run, EENTER, &across);
    FAULTED(&run, VECTOR_PF, PFEC_U | PFEC_W, (uint64_t)edge);
    SAME(*(uint32_t *)(edge - 4), 0);
    appear(edge);
    go(&run, ERESUME, NULL);
    LEFT(&run);
    SAME(*(uint64_t *)(edge - 4), M2);
    ok("8 bytes across the edge are written together or not at all");

    fresh();
    DO(mprotect(pages, PAGE_SIZE, PROT_READ));
    struct call refused = {OP_WRITE, (uint64_t)pages + 16, M2, 0, 0};
    go(&run, EENTER, &refused);
    FAULTED(&run, VECTOR_PF, PFEC_P | PFEC_U | PFEC_W, (uint64_t)pages);
    DO(mprotect(pages, PAGE_SIZE, PROT_RW));
    go(&run, ERESUME, NULL);
    LEFT(&run);
    SAME(*(uint64_t *)(pages + 16), M2);
    ok("a read-only page of the host");
}

int main(int argc, char **argv)
{
    struct enclave e;

    start(&e, argc, argv);
    run.tcs = e.tcs[0];
    uint64_t buffer = ask(&run, OP_BUFFER, 0, 0, 0);
    reads(buffer);
    writes(buffer);
    return 0;
}
