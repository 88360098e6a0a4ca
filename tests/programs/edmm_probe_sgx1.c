/*
 * On a processor without SGX2 the three ioctls of dynamic memory answer ENODEV, and CPUID says so.
 *
 * enclave: ops
 * run: --sgx1
 */
#include "host.h"

#include <cpuid.h>

int main(int argc, char **argv)
{
    static const unsigned long requests[] = {SGX_IOC_ENCLAVE_RESTRICT_PERMISSIONS,
                                             SGX_IOC_ENCLAVE_MODIFY_TYPES,
                                             SGX_IOC_ENCLAVE_REMOVE_PAGES};
    unsigned eax, ebx, ecx, edx;
    struct enclave e;

    __cpuid_count(0x12, 0, eax, ebx, ecx, edx);
    SAME(eax & 3, 1);
    ok("CPUID.12H.0: SGX1 only");
    start(&e, argc, argv);
    for (int i = 0; i < 3; i++) {
        uint64_t zeros[8] = {0};

        SAME(ioctl(e.fd, requests[i], zeros), -1);
        SAME(errno, ENODEV);
    }
    ok("ENODEV");

    struct sgx_enclave_run run = {.tcs = e.tcs[0]};
    struct call call = {OP_WRITE, e.base + e.end, M1, 0, 0};
    DO(enclave_map_range(&e, e.end, PAGE_SIZE, PROT_RW));
    go(&run, EENTER, &call);
    FAULTED(&run, VECTOR_PF, PFEC_U | PFEC_W, e.base + e.end);
    ok("a hole stays a hole");
    return 0;
}
