/*
 * The ioctls, what they check, and with which errno they refuse. Linux 6.12, sgx/ioctl.c. Rows come
 * in the states of an enclave: fresh, created, initialised.
 *
 * enclave: ops
 */
#include "host.h"

#define BAD ((void *)0x10)

static struct enclave e;
static struct sgx_secs secs __attribute__((aligned(PAGE_SIZE)));
static uint8_t page[2 * PAGE_SIZE] __attribute__((aligned(PAGE_SIZE)));
static const uint8_t *sig;

static void row(const char *name, int got, int error)
{
    int found = got < 0 ? errno : 0;

    CHECK(found == error, "%s: errno %d (%s), to be %d", name, found, strerror(found), error);
    ok("%s", name);
}

static int call(unsigned long request, const void *argument)
{
    return ioctl(e.fd, request, argument);
}

static int create(const void *src)
{
    struct sgx_enclave_create arg = {.src = (uint64_t)src};

    return call(SGX_IOC_ENCLAVE_CREATE, &arg);
}

static void good_secs(void)
{
    memset(&secs, 0, sizeof(secs));
    secs.size = e.size;
    secs.base = e.base;
    secs.ssaframesize = 1;
    secs.attributes = SGX_ATTR_MODE64BIT;
    secs.xfrm = SGX_XFRM_LEGACY;
}

#define SPOILED(name, change, error)                                                               \
    do {                                                                                           \
        good_secs();                                                                               \
        change;                                                                                    \
        row(name, create(&secs), error);                                                           \
    } while (0)

static void fresh(void)
{
    struct sgx_enclave_add_pages add = {0};
    struct sgx_enclave_init init = {.sigstruct = (uint64_t)sig};

    row("unknown request", call(0xA4FF, page), ENOTTY);
    row("a request of the vEPC", call(0xA404, NULL), ENOTTY);
    row("CREATE by another size", call(0x4010A400, page), ENOTTY);
    row("ADD_PAGES, fresh", call(SGX_IOC_ENCLAVE_ADD_PAGES, &add), EINVAL);
    row("INIT, fresh", call(SGX_IOC_ENCLAVE_INIT, &init), EINVAL);
    row("RESTRICT, fresh", call(SGX_IOC_ENCLAVE_RESTRICT_PERMISSIONS, page), EINVAL);
    row("MODIFY, fresh", call(SGX_IOC_ENCLAVE_MODIFY_TYPES, page), EINVAL);
    row("REMOVE, fresh", call(SGX_IOC_ENCLAVE_REMOVE_PAGES, page), EINVAL);
    row("CREATE: argument", call(SGX_IOC_ENCLAVE_CREATE, BAD), EFAULT);
    row("CREATE: src", create(BAD), EFAULT);
    SPOILED("CREATE: SIZE 0", secs.size = 0, EINVAL);
    SPOILED("CREATE: SIZE no power of two", secs.size = 3 * PAGE_SIZE, EINVAL);
    SPOILED("CREATE: SIZE 4096", secs.size = PAGE_SIZE, EIO);
    SPOILED("CREATE: BASEADDR", secs.base += PAGE_SIZE, EIO);
    SPOILED("CREATE: SSAFRAMESIZE 0", secs.ssaframesize = 0, EIO);
    SPOILED("CREATE: XFRM 0", secs.xfrm = 0, EIO);
    SPOILED("CREATE: XFRM without SSE", secs.xfrm = 1, EIO);
    SPOILED("CREATE: ATTRIBUTES bit 3", secs.attributes |= 8, EIO);
    SPOILED("CREATE: MISCSELECT bit 31", secs.miscselect = 1U << 31, EIO);
    SPOILED("CREATE: reserved bytes", secs.reserved2[1000] = 1, EIO);
    SPOILED("CREATE", (void)0, 0);
    SPOILED("CREATE, created", (void)0, EINVAL);
}

static int add(const void *src, uint64_t offset, uint64_t length, uint64_t flags)
{
    struct sgx_secinfo secinfo = {.flags = flags};
    struct sgx_enclave_add_pages arg = {
        (uint64_t)src, offset, length, (uint64_t)&secinfo, SGX_PAGE_MEASURE, 0};

    return call(SGX_IOC_ENCLAVE_ADD_PAGES, &arg);
}

static int add_good_to(uint64_t offset)
{
    return add(page, offset, PAGE_SIZE, SGX_PT_REG | SGX_R);
}

static void secinfos(void)
{
    struct sgx_secinfo secinfo = {.flags = SGX_PT_REG | SGX_R, .reserved = {[6] = 1}};
    struct sgx_enclave_add_pages arg = {
        (uint64_t)page, 0, PAGE_SIZE, (uint64_t)&secinfo, SGX_PAGE_MEASURE, 0};

    row("ADD_PAGES: SECINFO, reserved bytes", call(SGX_IOC_ENCLAVE_ADD_PAGES, &arg), EINVAL);
    arg.secinfo = (uint64_t)BAD;
    row("ADD_PAGES: SECINFO", call(SGX_IOC_ENCLAVE_ADD_PAGES, &arg), EFAULT);
    row("ADD_PAGES: -w-", add(page, 0, PAGE_SIZE, SGX_PT_REG | SGX_W), EINVAL);
    row("ADD_PAGES: TCS r--", add(page, 0, PAGE_SIZE, SGX_PT_TCS | SGX_R), EINVAL);
    row("ADD_PAGES: SECS", add(page, 0, PAGE_SIZE, 0), EINVAL);
    row("ADD_PAGES: VA", add(page, 0, PAGE_SIZE, 0x300), EINVAL);
    row("ADD_PAGES: TRIM", add(page, 0, PAGE_SIZE, SGX_PT_TRIM), EINVAL);
    row("ADD_PAGES: PENDING", add(page, 0, PAGE_SIZE, SGX_PT_REG | SGX_R | SGX_PENDING), EINVAL);
    row("ADD_PAGES: FLAGS bit 16", add(page, 0, PAGE_SIZE, SGX_PT_REG | SGX_R | 1 << 16), EINVAL);
    memset(page, 0xff, PAGE_SIZE);
    row("ADD_PAGES: no TCS", add(page, 0, PAGE_SIZE, SGX_PT_TCS), EIO);
}

static void created(void)
{
    struct sgx_enclave_provision null = {.fd = DO(open("/dev/null", 0))};
    struct sgx_enclave_provision none = {.fd = (uint64_t)-1};
    struct sgx_enclave_init init = {.sigstruct = (uint64_t)BAD};

    row("ADD_PAGES: argument", call(SGX_IOC_ENCLAVE_ADD_PAGES, BAD), EFAULT);
    row("ADD_PAGES: src unaligned", add(page + 8, 0, PAGE_SIZE, SGX_PT_REG | SGX_R), EINVAL);
    row("ADD_PAGES: src unmapped", add((void *)PAGE_SIZE, 0, PAGE_SIZE, SGX_PT_REG | SGX_R),
        EFAULT);
    row("ADD_PAGES: offset unaligned", add_good_to(8), EINVAL);
    row("ADD_PAGES: no length", add(page, 0, 0, SGX_PT_REG | SGX_R), EINVAL);
    row("ADD_PAGES: length unaligned", add(page, 0, 100, SGX_PT_REG | SGX_R), EINVAL);
    row("ADD_PAGES: offset outside", add_good_to(e.size), EINVAL);
    row("ADD_PAGES: end outside", add(page, e.size - PAGE_SIZE, 2 * PAGE_SIZE, SGX_PT_REG | SGX_R),
        EINVAL);
    row("ADD_PAGES: wraps", add(page, -PAGE_SIZE, 2 * PAGE_SIZE, SGX_PT_REG | SGX_R), EINVAL);
    secinfos();
    row("RESTRICT, created", call(SGX_IOC_ENCLAVE_RESTRICT_PERMISSIONS, page), EINVAL);
    row("PROVISION: no descriptor", call(SGX_IOC_ENCLAVE_PROVISION, &none), EINVAL);
    row("PROVISION: /dev/null", call(SGX_IOC_ENCLAVE_PROVISION, &null), EINVAL);
    row("PROVISION: argument", call(SGX_IOC_ENCLAVE_PROVISION, BAD), EFAULT);
    row("INIT: argument", call(SGX_IOC_ENCLAVE_INIT, BAD), EFAULT);
    row("INIT: src", call(SGX_IOC_ENCLAVE_INIT, &init), EFAULT);
    memcpy(page, sig, SIGSTRUCT_SIZE);
    page[16] = 1;
    init.sigstruct = (uint64_t)page;
    row("INIT: VENDOR", call(SGX_IOC_ENCLAVE_INIT, &init), EINVAL);
    memcpy(page, sig, SIGSTRUCT_SIZE);
    row("INIT: too early", call(SGX_IOC_ENCLAVE_INIT, &init), EPERM);
    page[600] ^= 1;
    row("INIT: SIGNATURE", call(SGX_IOC_ENCLAVE_INIT, &init), EPERM);
    e.step = "ADD_PAGES";
    CHECK(!enclave_add(&e), "%s: %s", e.step, strerror(errno));
    row("ADD_PAGES: twice", add_good_to(0), EBUSY);
    init.sigstruct = (uint64_t)sig;
    row("INIT", call(SGX_IOC_ENCLAVE_INIT, &init), 0);
    row("INIT, initialised", call(SGX_IOC_ENCLAVE_INIT, &init), EINVAL);
    row("ADD_PAGES, initialised", add_good_to(e.end), EINVAL);
    SPOILED("CREATE, initialised", (void)0, EINVAL);
}

static void edmm(const char *name, unsigned long request, uint64_t offset, uint64_t length,
                 uint64_t what, uint64_t result, uint64_t count, int error)
{
    uint64_t arg[5] = {offset, length, what, result, count};

    if (request == SGX_IOC_ENCLAVE_REMOVE_PAGES)
        arg[2] = count;
    row(name, call(request, arg), error);
    if (error == EFAULT || error == EPERM)
        SAME(request == SGX_IOC_ENCLAVE_REMOVE_PAGES ? arg[2] : arg[4], 0);
}

static void restrictions(uint64_t data, uint64_t tcs)
{
    const unsigned long request = SGX_IOC_ENCLAVE_RESTRICT_PERMISSIONS;

    row("RESTRICT: argument", call(request, BAD), EFAULT);
    edmm("RESTRICT: offset unaligned", request, data + 1, PAGE_SIZE, SGX_R, 0, 0, EINVAL);
    edmm("RESTRICT: no length", request, data, 0, SGX_R, 0, 0, EINVAL);
    edmm("RESTRICT: outside", request, e.size, PAGE_SIZE, SGX_R, 0, 0, EINVAL);
    edmm("RESTRICT: bit 3", request, data, PAGE_SIZE, 8, 0, 0, EINVAL);
    edmm("RESTRICT: -w-", request, data, PAGE_SIZE, SGX_W, 0, 0, EINVAL);
    edmm("RESTRICT: -wx", request, data, PAGE_SIZE, SGX_W | SGX_X, 0, 0, EINVAL);
    edmm("RESTRICT: result set", request, data, PAGE_SIZE, SGX_R, 1, 0, EINVAL);
    edmm("RESTRICT: count set", request, data, PAGE_SIZE, SGX_R, 0, 1, EINVAL);
    edmm("RESTRICT: TCS", request, tcs, PAGE_SIZE, SGX_R, 0, 0, EINVAL);
    edmm("RESTRICT: hole", request, e.end, PAGE_SIZE, SGX_R, 0, 0, EFAULT);
    edmm("RESTRICT: rwx relaxes nothing, is no error", request, data, PAGE_SIZE, RWX, 0, 0, 0);
    edmm("RESTRICT: ---", request, data, PAGE_SIZE, 0, 0, 0, 0);
}

static void types(uint64_t data, uint64_t tcs)
{
    const unsigned long request = SGX_IOC_ENCLAVE_MODIFY_TYPES;

    row("MODIFY: argument", call(request, BAD), EFAULT);
    edmm("MODIFY: type 100H", request, data, PAGE_SIZE, 0x100, 0, 0, EINVAL);
    edmm("MODIFY: to REG", request, data, PAGE_SIZE, 2, 0, 0, EINVAL);
    edmm("MODIFY: to SECS", request, data, PAGE_SIZE, 0, 0, 0, EINVAL);
    edmm("MODIFY: result set", request, data, PAGE_SIZE, PT_TRIM, 1, 0, EINVAL);
    edmm("MODIFY: TCS to TCS", request, tcs, PAGE_SIZE, PT_TCS, 0, 0, EINVAL);
    edmm("MODIFY: r-- to TCS", request, 0, PAGE_SIZE, PT_TCS, 0, 0, EPERM);
    edmm("MODIFY: hole", request, e.end, PAGE_SIZE, PT_TRIM, 0, 0, EFAULT);
    edmm("MODIFY: to TRIM", request, data + PAGE_SIZE, PAGE_SIZE, PT_TRIM, 0, 0, 0);
    edmm("MODIFY: TRIM to TCS", request, data + PAGE_SIZE, PAGE_SIZE, PT_TCS, 0, 0, EINVAL);
    edmm("RESTRICT: TRIM", SGX_IOC_ENCLAVE_RESTRICT_PERMISSIONS, data + PAGE_SIZE, PAGE_SIZE, SGX_R,
         0, 0, EINVAL);
}

static void removals(uint64_t data)
{
    const unsigned long request = SGX_IOC_ENCLAVE_REMOVE_PAGES;

    row("REMOVE: argument", call(request, BAD), EFAULT);
    edmm("REMOVE: count set", request, data, PAGE_SIZE, 0, 0, 1, EINVAL);
    edmm("REMOVE: no length", request, data, 0, 0, 0, 0, EINVAL);
    edmm("REMOVE: hole", request, e.end, PAGE_SIZE, 0, 0, 0, EFAULT);
    edmm("REMOVE: REG", request, data, PAGE_SIZE, 0, 0, 0, EPERM);
    edmm("REMOVE: TRIM, not accepted", request, data + PAGE_SIZE, PAGE_SIZE, 0, 0, 0, EPERM);
}

int main(int argc, char **argv)
{
    struct sgx_enclave_run run = {0};
    size_t size;

    CHECK(argc >= 3, "arguments");
    sig = read_file(argv[2], &size);
    CHECK(sig && !enclave_open(&e, argv[1]) && !enclave_reserve(&e), "%s", strerror(errno));
    fresh();
    created();
    CHECK(!enclave_map(&e), "%s", strerror(errno));
    enter = vdso_enter();
    run.tcs = e.tcs[0];
    uint64_t data = ask(&run, OP_BUFFER, 0, 0, 0) - e.base;
    restrictions(data, e.tcs[0] - e.base);
    types(data, e.tcs[0] - e.base);
    removals(data);
    return 0;
}
