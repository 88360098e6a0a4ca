/*
 * What the emulator lacks is not announced: no AVX in CPUID, none in the XFRM an enclave may have,
 * and ECREATE refuses XFRM 7.
 *
 * enclave: ops
 * engines: unicorn
 */
#include "host.h"

#include <cpuid.h>

int main(int argc, char **argv)
{
    unsigned eax, ebx, ecx, edx;
    struct enclave e;

    CHECK(argc >= 3, "arguments");
    __cpuid(1, eax, ebx, ecx, edx);
    CHECK(!(ecx & 1 << 28), "CPUID.1:ECX[28], AVX");
    CHECK(!(ecx & 1 << 12), "CPUID.1:ECX[12], FMA");
    __cpuid_count(7, 0, eax, ebx, ecx, edx);
    CHECK(!(ebx & 1 << 5), "CPUID.7:EBX[5], AVX2");
    CHECK(!(ebx & 1 << 16), "CPUID.7:EBX[16], AVX-512");
    ok("no AVX in CPUID");
    __cpuid_count(0x12, 1, eax, ebx, ecx, edx);
    SAME(ecx, 3);
    SAME(edx, 0);
    ok("XFRM 3");
    CHECK(!enclave_open(&e, argv[1]) && !enclave_reserve(&e), "%s: %s", e.step, strerror(errno));
    e.xfrm = 7;
    SAME(enclave_create(&e), -1);
    SAME(errno, EIO);
    e.xfrm = 3;
    DO(enclave_create(&e));
    ok("ECREATE refuses XFRM 7");
    return 0;
}
