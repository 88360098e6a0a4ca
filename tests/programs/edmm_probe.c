/*
 * Runtimes probe for dynamic memory by an ioctl with zeros, some of them again and again:
 * EINVAL says yes; ENOTTY and ENODEV say no.
 *
 * enclave: ops
 */
#include "host.h"

#define TIMES 300

static void probe(int fd, unsigned long request)
{
    uint64_t zeros[8] = {0};

    for (int i = 0; i < TIMES; i++) {
        errno = 0;
        SAME(ioctl(fd, request, zeros), -1);
        SAME(errno, EINVAL);
    }
}

int main(int argc, char **argv)
{
    struct enclave e;
    int fd = DO(open("/dev/sgx_enclave", O_RDWR));

    probe(fd, SGX_IOC_ENCLAVE_RESTRICT_PERMISSIONS);
    probe(fd, SGX_IOC_ENCLAVE_MODIFY_TYPES);
    probe(fd, SGX_IOC_ENCLAVE_REMOVE_PAGES);
    ok("no enclave yet: EINVAL");
    start(&e, argc, argv);
    probe(e.fd, SGX_IOC_ENCLAVE_RESTRICT_PERMISSIONS);
    probe(e.fd, SGX_IOC_ENCLAVE_MODIFY_TYPES);
    probe(e.fd, SGX_IOC_ENCLAVE_REMOVE_PAGES);
    ok("an initialised enclave: EINVAL");
    return 0;
}
