/*
 * A processor that knows ATTRIBUTES.CET, as current ones do: CPUID leaf 12H says so, an enclave
 * without CET runs as before, and one with CET gets no further than ECREATE: the driver has no
 * shadow stacks. Linux 6.12, sgx/ioctl.c, sgx_encl_init and sgx_validate_secinfo.
 *
 * enclave: ops
 * run: --cpu-option cet=1
 */
#include "host.h"

#include <cpuid.h>

#define ATTR_CET (1 << 6)
#define SS_FIRST_RW 0x503

static uint8_t page[PAGE_SIZE] __attribute__((aligned(PAGE_SIZE)));

int main(int argc, char **argv)
{
    unsigned eax, ebx, ecx, edx;
    struct enclave e, with_cet;
    struct sgx_enclave_run run = {0};
    const uint8_t *sig;
    size_t size;

    CHECK(argc >= 3, "arguments");
    __cpuid_count(0x12, 1, eax, ebx, ecx, edx);
    CHECK(eax & ATTR_CET, "CPUID.12H.1:EAX[6], ATTRIBUTES.CET");
    ok("CPUID names ATTRIBUTES.CET");

    sig = read_file(argv[2], &size);
    CHECK(sig && size == 1808, "%s: no SIGSTRUCT", argv[2]);
    CHECK(!enclave_open(&with_cet, argv[1]) && !enclave_reserve(&with_cet), "%s", with_cet.step);
    with_cet.attributes |= ATTR_CET;
    DO(enclave_create(&with_cet));
    ok("ECREATE accepts it");
    SAME(enclave_add_page(&with_cet, page, PAGE_SIZE, SS_FIRST_RW, true), -1);
    SAME(errno, EINVAL);
    ok("the driver adds no shadow-stack page");
    CHECK(!enclave_add(&with_cet), "%s: %s", with_cet.step, strerror(errno));
    SAME(enclave_init(&with_cet, sig), -1);
    SAME(errno, EACCES);
    ok("INIT gives no enclave CET");

    start(&e, argc, argv);
    run.tcs = e.tcs[0];
    CHECK(ask(&run, OP_BUFFER, 0, 0, 0), "no buffer");
    ok("an enclave without CET runs");
    return 0;
}
