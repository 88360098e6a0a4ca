/*
 * The host touches enclave memory: reads give FF bytes, writes change nothing, for every width of
 * access. SDM 3D, 38.5.1 "Access-control for Accesses that Originate from non-SGX
 * Instructions". Linux 6.12 maps the page for the host as for the enclave.
 *
 * enclave: ops
 * engines: unicorn
 */
#include "host.h"

#define READS(type)                                                                                \
    do {                                                                                           \
        SAME(*(volatile type *)at, (type)-1);                                                      \
        SAME(*(volatile type *)(at + 1), (type)-1);                                                \
        ok("read of %zu bytes", sizeof(type));                                                     \
    } while (0)
#define WRITES(type)                                                                               \
    do {                                                                                           \
        *(volatile type *)at = 0;                                                                  \
        ok("write of %zu bytes", sizeof(type));                                                    \
    } while (0)

static uint8_t copy[2 * PAGE_SIZE], ones[2 * PAGE_SIZE];

__attribute__((target("avx"))) static void wide(uint8_t *at)
{
    uint8_t got[32];

    __asm__ volatile("vmovdqu (%0), %%ymm0\n\tvmovdqu %%ymm0, (%1)\n\t"
                     "vpxor %%xmm0, %%xmm0, %%xmm0\n\tvmovdqu %%ymm0, (%0)\n\tvzeroupper"
                     : : "r"(at), "r"(got) : "memory", "xmm0");
    SAME(memcmp(got, ones, 32), 0);
    ok("32 bytes by AVX");
}

static void sse(uint8_t *at)
{
    uint8_t got[16];

    __asm__ volatile("movdqu (%0), %%xmm0\n\tmovdqu %%xmm0, (%1)\n\t"
                     "pxor %%xmm0, %%xmm0\n\tmovdqu %%xmm0, (%0)"
                     : : "r"(at), "r"(got) : "memory", "xmm0");
    SAME(memcmp(got, ones, 16), 0);
    ok("16 bytes by SSE");
}

static void strings(uint8_t *at)
{
    uint8_t *to = copy, *from = at;
    size_t count = 64;

    memset(copy, 0, sizeof(copy));
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
    SAME(memcmp(copy, ones, 64), 0);
    to = at;
    count = 8;
    __asm__ volatile("rep stosq" : "+D"(to), "+c"(count) : "a"(0L) : "memory");
    ok("string instructions");
    memcpy(copy, at, PAGE_SIZE + 100);
    SAME(memcmp(copy, ones, PAGE_SIZE + 100), 0);
    memset(at, 0, 256);
    ok("memcpy and memset of the library");
}

int main(int argc, char **argv)
{
    struct sgx_enclave_run run = {0};
    struct enclave e;

    start(&e, argc, argv);
    memset(ones, 0xff, sizeof(ones));
    run.tcs = e.tcs[0];
    uint8_t *at = (uint8_t *)ask(&run, OP_BUFFER, 0, 0, 0), *edge = at + PAGE_SIZE - 4;

    ask(&run, OP_WRITE, (uint64_t)at, M1, 0);
    ask(&run, OP_WRITE, (uint64_t)edge, M2, 0);
    READS(uint8_t);
    READS(uint16_t);
    READS(uint32_t);
    READS(uint64_t);
    WRITES(uint8_t);
    WRITES(uint16_t);
    WRITES(uint32_t);
    WRITES(uint64_t);
    sse(at);
    if (__builtin_cpu_supports("avx"))
        wide(at);
    strings(at);
    SAME(__atomic_fetch_add((uint32_t *)at, 5, __ATOMIC_SEQ_CST), 0xffffffff);
    ok("locked addition");
    SAME(*(volatile uint64_t *)edge, -1UL);
    *(volatile uint64_t *)edge = 0;
    ok("across two pages");
    SAME(*(volatile uint64_t *)e.tcs[0], -1UL);
    ok("TCS page");
    SAME(ask(&run, OP_READ, (uint64_t)at, 0, 0), M1);
    SAME(ask(&run, OP_READ, (uint64_t)edge, 0, 0), M2);
    ok("the enclave reads what it wrote");

    DO(enclave_map_range(&e, e.end, PAGE_SIZE, PROT_RW));
    SAME(*(volatile uint8_t *)(e.base + e.end), 0xff);
    SAME(ask(&run, OP_ACCEPT, e.base + e.end, RW | SGX_PT_REG | SGX_PENDING, 0), 0);
    ok("a touch by the host adds a page (EAUG)");
    return 0;
}
