/*
 * An enclave of argv[1] bytes of unmeasured zeros, added by one ioctl: seconds of ADD_PAGES.
 */
#include "host.h"

#include <sys/resource.h>
#include <time.h>

int main(int argc, char **argv)
{
    uint64_t length = argc > 1 ? strtoull(argv[1], NULL, 0) : 1UL << 30;
    static struct sgx_secs secs;
    secs = (struct sgx_secs){
        .size = 2 * length, .ssaframesize = 1, .attributes = SGX_ATTR_MODE64BIT,
                      .xfrm = SGX_XFRM_LEGACY};
    struct sgx_secinfo secinfo = {.flags = SGX_R | SGX_W | SGX_PT_REG};
    struct timespec begin, end;
    int fd = DO(open("/dev/sgx_enclave", O_RDWR));
    char *area = mmap(NULL, 4 * length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *source = mmap(NULL, length, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    CHECK(area != MAP_FAILED && source != MAP_FAILED, "mmap: %s", strerror(errno));
    secs.base = ((uint64_t)area + 2 * length - 1) & ~(2 * length - 1);
    struct sgx_enclave_create create = {.src = (uint64_t)&secs};
    struct sgx_enclave_add_pages add = {
        .src = (uint64_t)source, .length = length, .secinfo = (uint64_t)&secinfo};
    DO(ioctl(fd, SGX_IOC_ENCLAVE_CREATE, &create));
    clock_gettime(CLOCK_MONOTONIC, &begin);
    DO(ioctl(fd, SGX_IOC_ENCLAVE_ADD_PAGES, &add));
    clock_gettime(CLOCK_MONOTONIC, &end);
    printf("build %.4f\n", end.tv_sec - begin.tv_sec + (end.tv_nsec - begin.tv_nsec) / 1e9);
    return 0;
}
