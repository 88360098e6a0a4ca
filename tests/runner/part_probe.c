/*
 * What a program can see of the part: one line "name value" each. Arguments: the files of the
 * enclaves `faults` and `report`, three each.
 *
 * enclave: faults
 */
#include "host.h"

#include <cpuid.h>
#include <setjmp.h>

static sigjmp_buf back;

static void said(const char *name, long value)
{
    printf("%s %#lx\n", name, value);
    fflush(stdout);
}

static void on_fault(int number)
{
    siglongjmp(back, number);
}

static void features(void)
{
    unsigned a, b, c, d;

    __cpuid_count(7, 0, a, b, c, d);
    said("SGX", b >> 2 & 1);
    said("SGX_LC", c >> 30 & 1);
    __cpuid_count(0x12, 0, a, b, c, d);
    said("features", a);
    said("MISCSELECT", b);
    said("sizes", d);
    __cpuid_count(0x12, 1, a, b, c, d);
    said("ATTRIBUTES", a);
    said("XFRM", c);
}

/* errno of CREATE for an enclave without pages. */
static long create(uint64_t size, uint64_t attributes, uint32_t miscselect, uint64_t xfrm)
{
    static struct sgx_secs secs __attribute__((aligned(PAGE_SIZE)));
    struct sgx_enclave_create argument = {.src = (uint64_t)&secs};
    int fd = open("/dev/sgx_enclave", O_RDWR);

    if (fd < 0)
        return -errno;
    memset(&secs, 0, sizeof(secs));
    secs.size = size;
    secs.base = 1UL << 45;
    secs.ssaframesize = 1;
    secs.attributes = attributes | SGX_ATTR_MODE64BIT;
    secs.miscselect = miscselect;
    secs.xfrm = xfrm;
    long error = ioctl(fd, SGX_IOC_ENCLAVE_CREATE, &argument) ? -errno : 0;

    close(fd);
    return error;
}

static void driver(void)
{
    struct stat status;

    said("stat", stat("/dev/sgx_enclave", &status) ? errno : 0);
    said("access", access("/dev/sgx_provision", R_OK) ? errno : 0);
    int fd = open("/dev/sgx_enclave", O_RDWR);

    said("open", fd < 0 ? errno : 0);
    said("CREATE", -create(1 << 20, 0, 0, 3));
    said("CREATE: KSS", -create(1 << 20, 1 << 7, 0, 3));
    said("CREATE: AEXNOTIFY", -create(1 << 20, 1 << 10, 0, 3));
    said("CREATE: EXINFO", -create(1 << 20, 0, 1, 3));
    said("CREATE: CET", -create(1 << 20, 1 << 6, 0, 3));
    said("CREATE: CPINFO", -create(1 << 20, 0, 2, 3));
    said("CREATE: AVX", -create(1 << 20, 0, 0, 7));
    said("CREATE: 2 GiB", -create(1UL << 31, 0, 0, 3));
}

static void inside(char **files)
{
    struct sgx_enclave_run run = {0};
    struct call call = {TRY_RDTSC, 0, 0, 0, 0};
    static struct answer answer;
    static struct enclave e, r;
    uint64_t zeros[8] = {0};

    if (enclave_load(&e, files[0], files[1]) || enclave_load(&r, files[3], files[4])) {
        said("load", errno);
        return;
    }
    enter = vdso_enter();
    said("RESTRICT", ioctl(e.fd, SGX_IOC_ENCLAVE_RESTRICT_PERMISSIONS, zeros) ? errno : 0);
    run.tcs = e.tcs[0];
    go(&run, EENTER, &call);
    said("RDTSC", run.function == EEXIT ? 0 : (long)run.exception_vector);
    run.tcs = r.tcs[0];
    ask(&run, 0, (uint64_t)&answer, 0, 0);
    said("CPUSVN", answer.report[0]);
}

int main(int argc, char **argv)
{
    struct sigaction action = {.sa_handler = on_fault};

    CHECK(argc == 7, "the files of two enclaves");
    features();
    driver();
    inside(argv + 1);
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGILL, &action, NULL);
    int number = sigsetjmp(back, 1);

    if (!number)
        __asm__ volatile(".byte 0x0f, 0x01, 0xd7" : : "a"(8), "b"(0), "c"(0), "d"(0) : "memory");
    said("EVERIFYREPORT2", number);
    return 0;
}
