/*
 * madvise, mlock and its kin, msync and pkey_mprotect on enclave memory: who refuses what, with
 * which errno. Linux 6.12, mm/madvise.c, mm/mlock.c, mm/msync.c, mm/mprotect.c.
 *
 * enclave: ops
 */
#include "host.h"

#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static struct enclave e;
static uint64_t data, plain;

/* A call that has to fail with `error`, or to succeed if that is 0. */
static void row(const char *name, long got, int error)
{
    int found = got == -1 ? errno : 0;

    CHECK(found == error, "%s: errno %d (%s), to be %d", name, found, strerror(found), error);
    ok("%s", name);
}

static long advise(uint64_t at, uint64_t length, int advice)
{
    return syscall(SYS_madvise, at, length, advice);
}

static const struct {
    int advice, error;
} TABLE[] = {
    {0, 0},        {1, 0},        {2, 0},        {3, 0},        {4, EINVAL},   {5, EINVAL},
    {8, EINVAL},   {9, ENODEV},   {10, 0},       {11, EINVAL},  {12, 0},       {13, 0},
    {14, 0},       {15, 0},       {16, 0},       {17, EINVAL},  {18, EINVAL},  {19, 0},
    {20, EINVAL},  {21, EINVAL},  {22, EINVAL},  {23, EINVAL},  {24, EINVAL},  {25, EINVAL},
    {26, EINVAL},  {102, EINVAL}, {103, EINVAL}, {255, EINVAL},
};

static void advice(struct sgx_enclave_run *run)
{
    char name[64];

    ask(run, OP_WRITE, data, M1, 0);
    for (unsigned i = 0; i < sizeof(TABLE) / sizeof(*TABLE); i++) {
        snprintf(name, sizeof(name), "madvise %d", TABLE[i].advice);
        row(name, advise(data, PAGE_SIZE, TABLE[i].advice), TABLE[i].error);
        SAME(ask(run, OP_READ, data, 0, 0), M1);
    }
    row("madvise: unaligned", advise(data + 1, PAGE_SIZE, MADV_NORMAL), EINVAL);
    row("madvise: no length", advise(data, 0, MADV_DONTNEED), 0);
    row("madvise: unknown, no length", advise(data, 0, 26), EINVAL);
}

/* `plain` is a page right below an enclave area, and the page below that is missing. */
static void both(void)
{
    uint64_t area = plain + PAGE_SIZE;
    char *bytes = (char *)plain;

    bytes[0] = 1;
    row("both: DONTNEED", advise(plain, 2 * PAGE_SIZE, MADV_DONTNEED), EINVAL);
    SAME(bytes[0], 0);
    ok("both: what lies before is discarded");
    row("both: RANDOM", advise(plain, 2 * PAGE_SIZE, MADV_RANDOM), 0);
    row("both: a hole, then RANDOM", advise(plain - PAGE_SIZE, 3 * PAGE_SIZE, MADV_RANDOM), ENOMEM);
    bytes[0] = 1;
    row("both: a hole, then DONTNEED", advise(plain - PAGE_SIZE, 3 * PAGE_SIZE, MADV_DONTNEED),
        EINVAL);
    SAME(bytes[0], 0);
    row("both: populate", advise(plain, 2 * PAGE_SIZE, 22), EINVAL);
    row("both: a hole, then populate", advise(plain - PAGE_SIZE, 3 * PAGE_SIZE, 22), ENOMEM);
    row("both: mlock", mlock((void *)plain, 2 * PAGE_SIZE), 0);
    row("both: DONTNEED of what is locked", advise(plain, PAGE_SIZE, MADV_DONTNEED), EINVAL);
    row("both: munlock", munlock((void *)plain, 2 * PAGE_SIZE), 0);
    row("both: mlock of a hole", mlock((void *)(plain - PAGE_SIZE), 3 * PAGE_SIZE), ENOMEM);
    row("both: msync", msync((void *)plain, 2 * PAGE_SIZE, MS_ASYNC), 0);
    row("both: MS_SYNC", msync((void *)plain, 2 * PAGE_SIZE, MS_SYNC), EINVAL);
    row("both: mprotect", mprotect((void *)plain, 2 * PAGE_SIZE, PROT_READ), 0);
    row("both: mprotect back", mprotect((void *)plain, PAGE_SIZE, PROT_RW), 0);
    DO(munmap((void *)area, PAGE_SIZE));
}

static void locks(struct sgx_enclave_run *run)
{
    row("mlock", mlock((void *)data, PAGE_SIZE), 0);
    row("mlock: the start is rounded", mlock((void *)(data + 9), 1), 0);
    row("mlock2: ONFAULT", syscall(SYS_mlock2, data, PAGE_SIZE, 1), 0);
    row("mlock2: unknown flag", syscall(SYS_mlock2, data, PAGE_SIZE, 2), EINVAL);
    row("munlock", munlock((void *)data, PAGE_SIZE), 0);
    row("mlock: beyond the enclave", mlock((void *)(e.base + e.size), PAGE_SIZE), ENOMEM);
    row("MADV_COLD of what is not locked", advise(data, PAGE_SIZE, MADV_COLD), EINVAL);
    row("msync", msync((void *)data, PAGE_SIZE, MS_ASYNC), 0);
    row("msync: MS_SYNC", msync((void *)data, PAGE_SIZE, MS_SYNC), EINVAL);
    row("msync: MS_INVALIDATE", msync((void *)data, PAGE_SIZE, MS_INVALIDATE), 0);
    row("msync: both", msync((void *)data, PAGE_SIZE, MS_SYNC | MS_ASYNC), EINVAL);
    SAME(ask(run, OP_READ, data, 0, 0), M1);
    ok("the page is still there");
}

static long protect(uint64_t at, uint64_t length, int prot, int key)
{
    return syscall(SYS_pkey_mprotect, at, length, prot, key);
}

static void keys(struct sgx_enclave_run *run)
{
    row("pkey_mprotect: 15, not allocated", protect(data, PAGE_SIZE, PROT_READ, 15), EINVAL);
    row("pkey_mprotect: 16, never", protect(data, PAGE_SIZE, PROT_READ, 16), EINVAL);
    row("pkey_mprotect: -2", protect(data, PAGE_SIZE, PROT_READ, -2), EINVAL);
    row("pkey_mprotect: no length", protect(data, 0, PROT_READ, 15), 0);
    row("pkey_mprotect: both", protect(plain, 2 * PAGE_SIZE, PROT_READ, 15), EINVAL);
    SAME(ask(run, OP_WRITE, data, M1, 0), 0);
    ok("the page can be written as before");
    row("pkey_mprotect: -1", protect(data, PAGE_SIZE, PROT_RW, -1), 0);
    row("pkey_mprotect: -1, rwx", protect(data, PAGE_SIZE, PROT_RWX, -1), EACCES);
    row("pkey_mprotect: -1, unaligned", protect(data + 1, PAGE_SIZE, PROT_RW, -1), EINVAL);
}

/* In a child without rights of its own: limits, and what only the superuser may do. */
static int unprivileged(void)
{
    struct rlimit none = {0, 0}, some = {4 * PAGE_SIZE, 4 * PAGE_SIZE};

    if (!getuid())
        DO(setuid(65534));
    row("unprivileged: HWPOISON", advise(data, PAGE_SIZE, 100), EPERM);
    row("unprivileged: SOFT_OFFLINE", advise(data, PAGE_SIZE, 101), EPERM);
    DO(setrlimit(RLIMIT_MEMLOCK, &some));
    row("unprivileged: mlock within the limit", mlock((void *)data, PAGE_SIZE), 0);
    row("unprivileged: mlock beyond it", mlock((void *)e.base, e.size), ENOMEM);
    row("unprivileged: munlock", munlock((void *)data, PAGE_SIZE), 0);
    DO(setrlimit(RLIMIT_MEMLOCK, &none));
    row("unprivileged: mlock with no limit left", mlock((void *)data, PAGE_SIZE), EPERM);
    return 0;
}

/* Not copied to a child: its access is SIGSEGV, and the map of it has no such area. */
static int child_without(void)
{
    long found = syscall(SYS_madvise, data, PAGE_SIZE, 0);

    row("child: madvise of what it has not", found, ENOMEM);
    CHECK(mmap((void *)data, PAGE_SIZE, PROT_RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE,
               -1, 0) == (void *)data, "not free: %s", strerror(errno));
    ok("child: the range is free");
    return 0;
}

static void in_child(int (*body)(void))
{
    int status;

    fflush(stdout);
    pid_t child = DO(fork());

    if (!child)
        exit(body());
    DO(waitpid(child, &status, 0));
    SAME(status, 0);
}

static void all_locked(struct sgx_enclave_run *run)
{
    if (mlockall(MCL_CURRENT | MCL_FUTURE)) {
        ok("mlockall: refused, %s", strerror(errno));
        return;
    }
    ok("mlockall");
    SAME(ask(run, OP_READ, data, 0, 0), M1);
    row("mlockall: DONTNEED", advise(data, PAGE_SIZE, MADV_DONTNEED), EINVAL);
    int fd = DO(open("/dev/sgx_enclave", O_RDWR));
    void *at = mmap(NULL, PAGE_SIZE, PROT_READ, MAP_SHARED, fd, 0);

    row("mlockall: a device mapped then", (long)at, 0);
    row("mlockall: MADV_REMOVE of it", advise((uint64_t)at, PAGE_SIZE, 9), ENODEV);
    row("munlockall", munlockall(), 0);
}

int main(int argc, char **argv)
{
    struct sgx_enclave_run run = {0};

    start(&e, argc, argv);
    run.tcs = e.tcs[0];
    data = ask(&run, OP_BUFFER, 0, 0, 0);
    if (!getuid())
        row("HWPOISON", advise(data, PAGE_SIZE, 100), EFAULT);
    plain = (uint64_t)DO(mmap(NULL, 3 * PAGE_SIZE, PROT_RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    DO(munmap((void *)plain, PAGE_SIZE));
    plain += PAGE_SIZE;
    int fd = DO(open("/dev/sgx_enclave", O_RDWR));
    DO(mmap((void *)(plain + PAGE_SIZE), PAGE_SIZE, PROT_RW, MAP_SHARED | MAP_FIXED, fd, 0));
    advice(&run);
    in_child(child_without);
    keys(&run);
    both();
    locks(&run);
    all_locked(&run);
    DO(munmap((void *)data, PAGE_SIZE));
    DO(mmap((void *)data, PAGE_SIZE, PROT_RW, MAP_SHARED | MAP_FIXED, e.fd, 0));
    in_child(unprivileged);
    return 0;
}
