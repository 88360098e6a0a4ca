/*
 * mmap, mprotect, munmap and mremap of enclave memory: who refuses what, with which errno. Linux
 * 6.12, mm/mmap.c, mm/mprotect.c, mm/mremap.c and the driver's hooks in sgx/encl.c.
 *
 * enclave: ops
 */
#include "host.h"

static struct enclave e;
static uint64_t code, data, tcs, hole, beyond;

#define SHARED_FIXED (MAP_SHARED | MAP_FIXED)

/* A call that has to fail with `error`, or to succeed if that is 0. */
static void row(const char *name, long got, int error)
{
    int found = got == -1 ? errno : 0;

    CHECK(found == error, "%s: errno %d (%s), to be %d", name, found, strerror(found), error);
    ok("%s", name);
}

static long map(uint64_t at, uint64_t length, int prot, int flags)
{
    return (long)mmap((void *)at, length, prot, flags, e.fd, 0);
}

static void fresh(void)
{
    int fd = DO(open("/dev/sgx_enclave", O_RDWR)), ro = DO(open("/dev/sgx_enclave", O_RDONLY));
    void *at = mmap(NULL, PAGE_SIZE, PROT_READ, MAP_SHARED, fd, 0);

    row("fresh: r--", (long)at, 0);
    DO(munmap(at, PAGE_SIZE));
    at = mmap(NULL, PAGE_SIZE, PROT_RWX, MAP_SHARED, fd, 4096 * 77);
    row("fresh: rwx, any offset", (long)at, 0);
    DO(munmap(at, PAGE_SIZE));
    row("fresh: MAP_PRIVATE", (long)mmap(NULL, PAGE_SIZE, PROT_READ, MAP_PRIVATE, fd, 0), EINVAL);
    row("fresh: no length", (long)mmap(NULL, 0, PROT_READ, MAP_SHARED, fd, 0), EINVAL);
    row("fresh: O_RDONLY, -w-",
        (long)mmap(NULL, PAGE_SIZE, PROT_RW, MAP_SHARED, ro, 0), EACCES);
    at = mmap(NULL, PAGE_SIZE, PROT_READ, MAP_SHARED, ro, 0);
    row("fresh: O_RDONLY, r--", (long)at, 0);
    DO(munmap(at, PAGE_SIZE));
    close(fd);
    close(ro);
}

static void mappings(void)
{
    row("mmap: code rwx", map(code, PAGE_SIZE, PROT_RWX, SHARED_FIXED), EACCES);
    /* What was there is gone, though the call was refused. */
    row("mprotect: the hole left by it", mprotect((void *)code, PAGE_SIZE, PROT_READ), ENOMEM);
    row("mmap: code r-x", map(code, PAGE_SIZE, PROT_READ | PROT_EXEC, SHARED_FIXED), 0);
    row("mmap: data r-x", map(data, PAGE_SIZE, PROT_READ | PROT_EXEC, SHARED_FIXED), EACCES);
    row("mmap: data rw-", map(data, PAGE_SIZE, PROT_RW, SHARED_FIXED), 0);
    row("mmap: data r--", map(data, PAGE_SIZE, PROT_READ, SHARED_FIXED), 0);
    row("mmap: data -w-", map(data, PAGE_SIZE, PROT_WRITE, SHARED_FIXED), 0);
    row("mmap: data ---", map(data, PAGE_SIZE, PROT_NONE, SHARED_FIXED), 0);
    row("mmap: TCS r-x", map(tcs, PAGE_SIZE, PROT_READ | PROT_EXEC, SHARED_FIXED), EACCES);
    row("mmap: TCS rw-", map(tcs, PAGE_SIZE, PROT_RW, SHARED_FIXED), 0);
    row("mmap: hole rwx", map(hole, PAGE_SIZE, PROT_RWX, SHARED_FIXED), 0);
    row("mmap: last page and one past it", map(beyond - PAGE_SIZE, 2 * PAGE_SIZE, 0, SHARED_FIXED),
        EACCES);
    row("mmap: outside, ---", map(0, PAGE_SIZE, PROT_NONE, MAP_SHARED), EACCES);
    row("mmap: NOREPLACE over something",
        map(data, PAGE_SIZE, PROT_READ, MAP_SHARED | MAP_FIXED_NOREPLACE), EEXIST);
    row("mmap: SHARED_VALIDATE", map(data, PAGE_SIZE, PROT_RW, MAP_SHARED_VALIDATE | MAP_FIXED), 0);
    row("mmap: private over enclave memory", map(hole, PAGE_SIZE, 0, MAP_PRIVATE | MAP_FIXED),
        EINVAL);
    row("mmap: unaligned", map(data + 8, PAGE_SIZE, PROT_READ, SHARED_FIXED), EINVAL);
    row("mmap: no length", map(data, 0, PROT_READ, SHARED_FIXED), EINVAL);
    /* Refused before anything is taken away: the page is still an enclave's. */
    row("mmap: HUGETLB", map(data, PAGE_SIZE, PROT_RW, SHARED_FIXED | MAP_HUGETLB), EINVAL);
    row("mmap: GROWSDOWN", map(data, PAGE_SIZE, PROT_RW, SHARED_FIXED | MAP_GROWSDOWN), EINVAL);
    row("mprotect: rwx of it", mprotect((void *)data, PAGE_SIZE, PROT_RWX), EACCES);
}

static long protect(uint64_t at, uint64_t length, int prot)
{
    return mprotect((void *)at, length, prot);
}

static void protections(void)
{
    DO(map(hole, 2 * PAGE_SIZE, PROT_RWX, SHARED_FIXED));
    row("mprotect: code rwx", protect(code, PAGE_SIZE, PROT_RWX), EACCES);
    row("mprotect: code r--", protect(code, PAGE_SIZE, PROT_READ), 0);
    row("mprotect: code r-x", protect(code, PAGE_SIZE, PROT_READ | PROT_EXEC), 0);
    row("mprotect: data --x", protect(data, PAGE_SIZE, PROT_EXEC), EACCES);
    row("mprotect: data ---", protect(data, PAGE_SIZE, PROT_NONE), 0);
    row("mprotect: data rw-", protect(data, PAGE_SIZE, PROT_RW), 0);
    row("mprotect: hole r--", protect(hole, PAGE_SIZE, PROT_READ), 0);
    row("mprotect: hole rwx, two areas", protect(hole, 2 * PAGE_SIZE, PROT_RWX), 0);
    row("mprotect: unaligned", protect(data + 1, PAGE_SIZE, PROT_READ), EINVAL);
    row("mprotect: no length", protect(data, 0, PROT_READ), 0);
    row("mprotect: around the end", protect(data, -PAGE_SIZE, PROT_READ), ENOMEM);
    row("mprotect: bad prot", protect(data, PAGE_SIZE, 0x100), EINVAL);
}

static void moves(void)
{
    row("mremap: grow", (long)mremap((void *)hole, PAGE_SIZE, 2 * PAGE_SIZE, 0), EFAULT);
    row("mremap: grow and move",
        (long)mremap((void *)hole, 2 * PAGE_SIZE, 4 * PAGE_SIZE, MREMAP_MAYMOVE), EFAULT);
    row("mremap: DONTUNMAP",
        (long)mremap((void *)hole, PAGE_SIZE, PAGE_SIZE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP),
        EINVAL);
    row("mremap: unaligned", (long)mremap((void *)(hole + 1), PAGE_SIZE, PAGE_SIZE, 0), EINVAL);
    row("mremap: to nothing", (long)mremap((void *)hole, PAGE_SIZE, 0, 0), EINVAL);
    row("mremap: same size", (long)mremap((void *)hole, 2 * PAGE_SIZE, 2 * PAGE_SIZE, 0), 0);
    row("mremap: shrink", (long)mremap((void *)hole, 2 * PAGE_SIZE, PAGE_SIZE, 0), 0);
    row("mprotect: what was cut off", protect(hole + PAGE_SIZE, PAGE_SIZE, PROT_READ), ENOMEM);
}

static void unmappings(struct sgx_enclave_run *run)
{
    struct call call = {OP_READ, data, 0, 0, 0};

    ask(run, OP_WRITE, data, M1, 0);
    row("munmap: unaligned", munmap((void *)(data + 1), PAGE_SIZE), EINVAL);
    row("munmap: no length", munmap((void *)data, 0), EINVAL);
    row("munmap: data", munmap((void *)data, PAGE_SIZE), 0);
    go(run, EENTER, &call);
    FAULTED(run, VECTOR_PF, PFEC_U, data);
    row("munmap: again", munmap((void *)data, PAGE_SIZE), 0);
    row("mmap: data again", map(data, PAGE_SIZE, PROT_RW, SHARED_FIXED), 0);
    go(run, ERESUME, NULL);
    LEFT(run);
    SAME(call.result, M1);
    ok("the page is still there");
    row("munmap: everything", munmap((void *)e.base, e.size), 0);
}

int main(int argc, char **argv)
{
    struct sgx_enclave_run run = {0};

    fresh();
    start(&e, argc, argv);
    tcs = run.tcs = e.tcs[0];
    data = ask(&run, OP_BUFFER, 0, 0, 0);
    for (int i = 0; i < e.run_count; i++)
        if (e.runs[i].prot == (PROT_READ | PROT_EXEC))
            code = e.base + e.runs[i].offset;
    hole = e.base + e.end;
    beyond = e.base + e.size;
    CHECK(code && hole + 2 * PAGE_SIZE <= beyond, "no code or no hole");
    mappings();
    protections();
    moves();
    unmappings(&run);
    return 0;
}
