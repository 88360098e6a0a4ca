/*
 * A debugger looks at enclave memory by /proc/<pid>/mem: contents of a debug enclave, which it may
 * change, EIO for another one; process_vm_readv reaches neither. Linux 6.12, sgx/encl.c,
 * sgx_vma_access; fs/proc/base.c, mem_rw.
 *
 * The story: both gave zeros, and success. With --engine native, process_vm_readv does reach the
 * pages: docs/run.md.
 *
 * enclave: ops threads=2 attributemask=0xfffffffffffffffd
 */
#include "host.h"

#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>

enum { FLAGS = 8, OENTRY = 32 }; /* in a TCS */

static struct enclave debug, production;
static uint64_t there, hidden; /* a page of each */

static void load(struct enclave *e, char **argv, uint64_t attributes)
{
    size_t size;
    const void *sigstruct = read_file(argv[2], &size);

    CHECK(sigstruct, "%s", strerror(errno));
    DO(enclave_open(e, argv[1]));
    DO(enclave_reserve(e));
    e->attributes |= attributes;
    DO(enclave_create(e));
    DO(enclave_add(e));
    DO(enclave_init(e, sigstruct));
    DO(enclave_map(e));
}

static uint64_t look(int mem, uint64_t address)
{
    uint64_t word = 0;

    SAME(DO(pread(mem, &word, 8, address)), 8);
    return word;
}

/* Through one descriptor of a process that has both enclaves. */
static void looks(int mem, const char *who)
{
    struct sgx_enclave_run run = {.tcs = debug.tcs[0]};
    uint64_t words[2] = {0, 0}, word;
    struct iovec two[2] = {{&words[0], 8}, {&words[1], 8}};

    ask(&run, OP_WRITE, there, M1, 0);
    ask(&run, OP_WRITE, there + 8, M2, 0);
    SAME(look(mem, there), M1);
    SAME(DO(pread(mem, &word, 3, there + 5)), 3);
    SAME(word & 0xFFFFFF, M1 >> 40);
    SAME(DO(lseek(mem, there, SEEK_SET)), there);
    SAME(DO(read(mem, &word, 8)), 8);
    SAME(word, M1);
    SAME(DO(read(mem, &word, 8)), 8);
    SAME(word, M2);
    SAME(DO(lseek(mem, 0, SEEK_CUR)), there + 16);
    DO(lseek(mem, there, SEEK_SET));
    SAME(DO(readv(mem, two, 2)), 16);
    SAME(words[0], M1);
    SAME(words[1], M2);
    SAME(DO(lseek(mem, 0, SEEK_CUR)), there + 16);
    words[0] = words[1] = 0;
    SAME(DO(preadv(mem, two, 2, there)), 16);
    SAME(words[1], M2);
    SAME(DO(preadv2(mem, two, 2, there + 8, 0)), 16);
    SAME(words[0], M2);
    ok("%s: reading a debug enclave", who);

    word = 0x55;
    SAME(DO(pwrite(mem, &word, 1, there + 1)), 1);
    SAME(ask(&run, OP_READ, there, 0, 0), (M1 & ~0xFF00UL) | 0x5500);
    SAME(DO(lseek(mem, there, SEEK_SET)), there);
    words[0] = M2;
    words[1] = M1;
    SAME(DO(writev(mem, two, 2)), 16);
    SAME(ask(&run, OP_READ, there, 0, 0), M2);
    SAME(ask(&run, OP_READ, there + 8, 0, 0), M1);
    ok("%s: writing a debug enclave", who);

    uint64_t tcs = debug.tcs[1];
    SAME(look(mem, tcs + FLAGS), 0);
    word = 1; /* DBGOPTIN */
    SAME(DO(pwrite(mem, &word, 8, tcs + FLAGS)), 8);
    SAME(look(mem, tcs + FLAGS), 1);
    word = 0;
    SAME(DO(pwrite(mem, &word, 8, tcs + FLAGS)), 8);
    SAME(pwrite(mem, &word, 8, tcs + OENTRY), -1);
    SAME(errno, EIO);
    CHECK(look(mem, tcs + OENTRY), "no entry point");
    ok("%s: of a TCS the flags can be changed, and nothing else", who);

    SAME(pread(mem, &word, 8, hidden), -1);
    SAME(errno, EIO);
    SAME(pwrite(mem, &word, 8, hidden), -1);
    SAME(errno, EIO);
    SAME(pread(mem, &word, 8, production.tcs[0]), -1);
    SAME(errno, EIO);
    ok("%s: nothing of a production enclave", who);

    SAME(syscall(SYS_pread64, mem, 1, 8, there), -1);
    SAME(errno, EFAULT);
    uint64_t hole = debug.base + debug.end;
    CHECK(debug.end < debug.size, "no hole");
    DO(mmap((void *)hole, PAGE_SIZE, PROT_RW, MAP_SHARED | MAP_FIXED, debug.fd, 0));
    SAME(pread(mem, &word, 8, hole), -1);
    SAME(errno, EIO);
    static uint64_t mine = M2;
    SAME(look(mem, (uint64_t)&mine), M2);
    ok("%s: a hole, a bad buffer, ordinary memory", who);
}

/* A range that begins in ordinary memory and ends in the enclave, as a dump has it. */
static void across(int mem)
{
    struct sgx_enclave_run run = {.tcs = debug.tcs[0]};
    char *below = (char *)debug.base - PAGE_SIZE;
    char page[2 * PAGE_SIZE];

    SAME((uint64_t)DO(mmap(below, PAGE_SIZE, PROT_RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0)),
         (uint64_t)below);
    memset(below, 0x77, PAGE_SIZE);
    SAME(DO(pread(mem, page, sizeof(page), (uint64_t)below)), sizeof(page));
    SAME(page[0], 0x77);
    SAME(page[PAGE_SIZE - 1], 0x77);
    uint64_t first = ask(&run, OP_READ, debug.base, 0, 0);
    SAME(memcmp(page + PAGE_SIZE, &first, 8), 0);
    ok("across the border of an enclave");
}

int main(int argc, char **argv)
{
    char name[64];
    uint64_t word = 0;
    int ends[2], status;

    CHECK(argc >= 3, "usage");
    int early = DO(open("/proc/self/mem", O_RDWR));
    load(&debug, argv, SGX_ATTR_DEBUG);
    load(&production, argv, 0);
    enter = vdso_enter();
    struct sgx_enclave_run run = {.tcs = debug.tcs[0]};
    there = ask(&run, OP_BUFFER, 0, 0, 0);
    run.tcs = production.tcs[0];
    hidden = ask(&run, OP_BUFFER, 0, 0, 0);
    ask(&run, OP_WRITE, hidden, M1, 0);

    looks(early, "opened before there was an enclave");
    looks(DO(open("/proc/thread-self/mem", O_RDWR)), "/proc/thread-self/mem");
    snprintf(name, sizeof(name), "/proc/%d/mem", getpid());
    looks(DO(syscall(SYS_open, name, O_RDWR)), "/proc/<pid>/mem");
    snprintf(name, sizeof(name), "/proc/self/task/%d/mem", getpid());
    looks(DO(open(name, O_RDWR)), "/proc/self/task/<tid>/mem");
    int self = DO(open("/proc/self", O_RDONLY | O_DIRECTORY));
    looks(DO(openat(self, "mem", O_RDWR)), "by a directory descriptor");
    looks(DO(dup(early)), "dup");
    across(early);

    struct iovec local = {&word, 8}, remote = {(void *)there, 8};
    if (process_vm_readv(getpid(), &local, 1, &remote, 1, 0) == -1)
        SAME(errno, EFAULT);
    int reader = DO(open("/proc/self/mem", O_RDONLY));
    SAME(pwrite(reader, &word, 8, there), -1);
    SAME(errno, EBADF);
    SAME(look(reader, there), look(early, there));
    ok("opened for reading only");

    /* A child looks into its parent, which waits. */
    DO(pipe(ends));
    uint64_t seen = look(early, there);
    pid_t child = DO(fork());
    if (child == 0) {
        snprintf(name, sizeof(name), "/proc/%d/mem", getppid());
        int mem = DO(open(name, O_RDWR));
        SAME(look(mem, there), seen);
        SAME(pread(mem, &word, 8, hidden), -1);
        SAME(errno, EIO);
        SAME(look(early, there), seen); /* the parent's, inherited */
        ok("a child looks into its parent");
        DO(close(ends[1]));
        DO(read(ends[0], name, 1)); /* and is looked into */
        _exit(0);
    }
    snprintf(name, sizeof(name), "/proc/%d/mem", child);
    int mem = DO(open(name, O_RDONLY));
    SAME(look(mem, there), seen);
    DO(close(ends[1]));
    SAME(DO(waitpid(child, &status, 0)), child);
    SAME(status, 0);
    SAME(pread(mem, &word, 8, there), 0);
    ok("a parent looks into its child");
    return 0;
}
