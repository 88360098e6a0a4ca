/*
 * Arguments of ioctl(2) that are half in enclave memory and half outside: the first half reads as
 * ones, from either side; a whole one outside works.
 *
 * The story: they ended the supervisor.
 *
 * enclave: ops
 */
#include "host.h"

int main(int argc, char **argv)
{
    struct enclave e;
    struct sgx_enclave_run run = {0};

    start(&e, argc, argv);
    run.tcs = e.tcs[0];

    uint64_t page = ask(&run, OP_BUFFER, 0, 0, 0), outside = page + PAGE_SIZE;

    SAME(DO(mmap((void *)outside, PAGE_SIZE, PROT_RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
                 0)),
         outside);
    for (uint64_t inside = 8; inside < 40; inside += 8) {
        SAME(ioctl(e.fd, SGX_IOC_ENCLAVE_RESTRICT_PERMISSIONS, outside - inside), -1);
        SAME(errno, EINVAL);
        SAME(ioctl(e.fd, SGX_IOC_ENCLAVE_RESTRICT_PERMISSIONS, outside + 2 * PAGE_SIZE - inside), -1);
        SAME(errno, EINVAL);
    }
    *(struct sgx_enclave_restrict_permissions *)outside = (struct sgx_enclave_restrict_permissions){
        .offset = page - e.base, .length = PAGE_SIZE, .permissions = SGX_R};
    SAME(ioctl(e.fd, SGX_IOC_ENCLAVE_RESTRICT_PERMISSIONS, outside), 0);
    ok("arguments half inside, half outside");
    return 0;
}
