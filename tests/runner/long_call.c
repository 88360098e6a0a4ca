/*
 * One ioctl that takes its time: ADD_PAGES of 128 MiB. Prints the pid, twice.
 */
#include "host.h"

#define BYTES (128UL << 20)

int main(void)
{
    static struct sgx_secs secs __attribute__((aligned(PAGE_SIZE)));
    struct sgx_enclave_create create = {.src = (uint64_t)&secs};
    struct sgx_secinfo secinfo = {.flags = SGX_PT_REG | RW};
    struct sgx_enclave_add_pages add = {.length = BYTES, .secinfo = (uint64_t)&secinfo, .flags = 1};
    int fd = DO(open("/dev/sgx_enclave", O_RDWR));
    char *source = DO(mmap(NULL, BYTES, PROT_RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));

    memset(source, 1, BYTES);
    secs.size = 2 * BYTES;
    secs.base = 1UL << 45;
    secs.ssaframesize = 1;
    secs.attributes = SGX_ATTR_MODE64BIT;
    secs.xfrm = SGX_XFRM_LEGACY;
    DO(ioctl(fd, SGX_IOC_ENCLAVE_CREATE, &create));
    add.src = (uint64_t)source;
    printf("%d %d\n", getpid(), getpid());
    fflush(stdout);
    while (add.length) {
        DO(ioctl(fd, SGX_IOC_ENCLAVE_ADD_PAGES, &add));
        add.src += add.count;
        add.offset += add.count;
        add.length -= add.count;
        add.count = 0;
    }
    FAIL("came to its end");
}
