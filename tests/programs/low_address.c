/*
 * How low an enclave may be mapped is vm.mmap_min_addr, and nothing is too low with CAP_SYS_RAWIO.
 * rune's skeleton puts enclaves with base 0 at the limit, where a limit of our own refused them
 * with EPERM and even took the reservation away: the real refusal comes before anything changes.
 *
 * enclave: ops
 * cc: -fno-delete-null-pointer-checks
 */
#include <linux/capability.h>
#include <sys/syscall.h>

#include "host.h"

static unsigned long mmap_min_addr(void)
{
    unsigned long limit = 0;
    FILE *file = fopen("/proc/sys/vm/mmap_min_addr", "r");

    CHECK(file && fscanf(file, "%lu", &limit) == 1, "vm.mmap_min_addr");
    fclose(file);
    return (limit + PAGE_SIZE - 1) & -PAGE_SIZE;
}

static void map_at(int fd, unsigned long low, int flags)
{
    void *at = mmap((void *)low, PAGE_SIZE, PROT_RW, MAP_SHARED | flags, fd, 0);

    CHECK(at == (void *)low, "mmap at %#lx: %s", low, strerror(errno));
    DO(munmap(at, PAGE_SIZE));
}

/* Gives up CAP_SYS_RAWIO; false if the process never had it. */
static int drop_rawio(void)
{
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2];
    unsigned bit = 1U << CAP_SYS_RAWIO;

    DO(syscall(SYS_capget, &header, data));
    if (!(data[0].effective & bit))
        return 0;
    data[0].effective &= ~bit;
    DO(syscall(SYS_capset, &header, data));
    return 1;
}

int main(int argc, char **argv)
{
    unsigned long limit = mmap_min_addr();
    struct enclave e;

    CHECK(argc >= 3 && !enclave_open(&e, argv[1]), "%s", strerror(errno));
    map_at(e.fd, limit, MAP_FIXED_NOREPLACE);
    map_at(e.fd, limit, MAP_FIXED);
    ok("mapped at vm.mmap_min_addr");

    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE;
    char *zero = mmap(NULL, PAGE_SIZE, PROT_RW, flags, -1, 0);
    if (zero == NULL) { /* privileged, or there is no limit */
        zero[5] = 7;
        if (limit && drop_rawio()) {
            void *at = mmap(NULL, PAGE_SIZE, PROT_RW, MAP_SHARED | MAP_FIXED, e.fd, 0);
            CHECK(at == MAP_FAILED && errno == EPERM, "mmap at 0: %p, %s", at, strerror(errno));
            SAME(zero[5], 7);
        }
        DO(munmap(zero, PAGE_SIZE));
    }
    ok("a refusal below it leaves what was there");
    return 0;
}
