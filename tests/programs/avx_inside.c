/*
 * An enclave with XFRM 7 that uses AVX2, on a processor that has it: what the native engine is for.
 *
 * enclave: avx xfrm=7
 * engines: native
 * run: --xfrm 0x7
 */
#include "host.h"

#include <cpuid.h>

int main(int argc, char **argv)
{
    uint64_t a[4] = {1, 2, 3, -1UL}, b[4] = {10, 20, 30, 2}, sums[4] = {11, 22, 33, 1};
    struct sgx_enclave_run run = {0};
    unsigned eax, ebx, ecx, edx;
    struct enclave e;
    size_t size;

    CHECK(argc >= 3, "arguments");
    if (!__builtin_cpu_supports("avx2")) {
        ok("no AVX2 on this processor");
        return 0;
    }
    __cpuid_count(0x12, 1, eax, ebx, ecx, edx);
    SAME(ecx & 7, 7);
    ok("XFRM 7 is announced");
    const void *sig = read_file(argv[2], &size);
    CHECK(sig && !enclave_open(&e, argv[1]) && !enclave_reserve(&e), "%s", strerror(errno));
    e.xfrm = 7;
    if (enclave_create(&e) || enclave_add(&e) || enclave_init(&e, sig) || enclave_map(&e))
        FAIL("%s: %s", e.step, strerror(errno));
    enter = vdso_enter();
    run.tcs = e.tcs[0];
    ask(&run, 0, (uint64_t)a, (uint64_t)b, 0);
    SAME(memcmp(a, sums, sizeof(sums)), 0);
    ok("AVX2 inside");
    return 0;
}
