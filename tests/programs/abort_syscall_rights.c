/*
 * System calls with buffers in enclave memory obey the rights of the area, and add a page where an
 * access of the same kind would: Linux 6.12, arch/x86/mm/fault.c. What is refused is EFAULT.
 *
 * enclave: ops size=0x4000000
 */
#include "host.h"

static struct enclave e, young;
static uint64_t next_page;
static int ends[2];
static const uint8_t sixteen[16];

static bool has_page(uint8_t *at)
{
    struct sgx_enclave_restrict_permissions arg = {
        .offset = (uint64_t)at - e.base, .length = PAGE_SIZE, .permissions = RWX};

    return !ioctl(e.fd, SGX_IOC_ENCLAVE_RESTRICT_PERMISSIONS, &arg) || arg.result;
}

static void row(const char *name, uint8_t *at, bool into, int error)
{
    uint8_t got[16] = {0};
    ssize_t done;

    DO(write(ends[1], sixteen, 16));
    errno = 0;
    done = into ? read(ends[0], at, 16) : write(ends[1], at, 16);
    CHECK(errno == error, "%s: errno %d, to be %d", name, errno, error);
    SAME(done, error ? -1 : 16);
    if (!into || error)
        SAME(DO(read(ends[0], got, 16)), 16);
    if (!into && !error) {
        SAME(DO(read(ends[0], got, 16)), 16);
        for (int i = 0; i < 16; i++)
            SAME(got[i], 0xff);
    }
    ok("%s", name);
}

/* A hole of the enclave, or a page of it. */
static uint8_t *area(int prot, bool present)
{
    uint64_t offset = next_page;

    next_page += PAGE_SIZE;
    DO(enclave_map_range(&e, offset, PAGE_SIZE, PROT_RW));
    if (present)
        *(volatile uint8_t *)(e.base + offset) = 1;
    DO(mprotect((void *)(e.base + offset), PAGE_SIZE, prot));
    return (uint8_t *)(e.base + offset);
}

static void both(const char *name, int prot, bool present, bool into, int error)
{
    uint8_t *at = area(prot, present);

    row(name, at, into, error);
    SAME(has_page(at), present || !error);
}

int main(int argc, char **argv)
{
    start(&e, argc, argv);
    next_page = e.end;
    CHECK(!enclave_open(&young, argv[1]), "%s", strerror(errno));
    young.size = e.size;
    CHECK(!enclave_reserve(&young) && !enclave_create(&young), "%s", strerror(errno));
    DO(enclave_map_range(&young, 0, PAGE_SIZE, PROT_RW));
    DO(pipe(ends));
    for (int present = 0; present < 2; present++) {
        both(present ? "read(2) into ---" : "read(2) into ---, a hole", 0, present, true, EFAULT);
        both(present ? "write(2) from ---" : "write(2) from ---, a hole", 0, present, false, EFAULT);
        both(present ? "read(2) into r--" : "read(2) into r--, a hole", PROT_READ, present, true,
             EFAULT);
        both(present ? "write(2) from r--" : "write(2) from r--, a hole", PROT_READ, present,
             false, 0);
        both(present ? "read(2) into r-x" : "read(2) into r-x, a hole", PROT_READ | PROT_EXEC,
             present, true, EFAULT);
        both(present ? "read(2) into rw-" : "read(2) into rw-, a hole", PROT_RW, present, true, 0);
        both(present ? "write(2) from rw-" : "write(2) from rw-, a hole", PROT_RW, present, false,
             0);
        both(present ? "write(2) from -w-" : "write(2) from -w-, a hole", PROT_WRITE, present,
             false, 0);
    }
    row("read(2) into a hole before INIT", (uint8_t *)young.base, true, EFAULT);
    row("write(2) from a hole before INIT", (uint8_t *)young.base, false, EFAULT);
    return 0;
}
