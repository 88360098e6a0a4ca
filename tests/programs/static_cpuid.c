/*
 * A static program that is not position-independent asks CPUID for SGX, then uses it.
 *
 * enclave: ops
 * cc: -static -no-pie -fno-pie
 */
#include "host.h"

#include <cpuid.h>

int main(int argc, char **argv)
{
    unsigned eax, ebx, ecx, edx;
    struct sgx_enclave_run run = {0};
    struct enclave e;

    __cpuid(0, eax, ebx, ecx, edx);
    CHECK(eax >= 0x12, "largest leaf %#x", eax);
    __cpuid_count(7, 0, eax, ebx, ecx, edx);
    CHECK(ebx & 1 << 2, "CPUID.7.EBX[2], SGX");
    CHECK(ecx & 1 << 30, "CPUID.7.ECX[30], SGX_LC");
    ok("CPUID.7: SGX and launch control");
    __cpuid_count(0x12, 0, eax, ebx, ecx, edx);
    CHECK((eax & 3) == 3, "CPUID.12H.0:EAX %#x", eax);
    SAME(ecx, 0);
    CHECK((edx >> 8 & 0xff) >= 36, "largest enclave 2^%u", edx >> 8 & 0xff);
    ok("CPUID.12H.0: SGX1 and SGX2");
    __cpuid_count(0x12, 1, eax, ebx, ecx, edx);
    CHECK((eax & 6) == 6, "ATTRIBUTES %#x", eax);
    CHECK((ecx & 3) == 3, "XFRM %#x", ecx);
    ok("CPUID.12H.1: attributes");

    uint64_t epc = 0;
    unsigned section;
    for (section = 2; section < 10; section++) {
        __cpuid_count(0x12, section, eax, ebx, ecx, edx);
        if ((eax & 0xf) == 0)
            break;
        SAME(eax & 0xf, 1);
        epc += (uint64_t)(edx & 0xfffff) << 32 | (ecx & 0xfffff000);
    }
    SAME(eax | ebx | ecx | edx, 0);
    CHECK(section > 2 && epc >= 1 << 20, "%u sections, %#lx bytes", section - 2,
          (unsigned long)epc);
    ok("CPUID.12H.2: an EPC section");

    start(&e, argc, argv);
    run.tcs = e.tcs[0];
    uint64_t buffer = ask(&run, OP_BUFFER, 0, 0, 0);
    ask(&run, OP_WRITE, buffer, M1, 0);
    SAME(ask(&run, OP_READ, buffer, 0, 0), M1);
    ok("an enclave in a static program");
    return 0;
}
