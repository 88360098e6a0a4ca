/*
 * Random ioctls, mappings, accesses and entries, valid and invalid: fuzz.py runs it.
 *
 *     fuzz ENCLAVE.sgxs ENCLAVE.sig SEED OPERATIONS
 *
 * No result is checked. Children do it all, a few hundred operations each, because
 * some of it ends them: to resume on another stack, to unmap their own, to spin on a lost lock. At
 * the end it prints how often what was done.
 */
#include "host.h"

#include <pthread.h>
#include <setjmp.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>

enum { FDS = 6, MAPS = 12, KINDS = 16 };

static int verbose;
static uint64_t state;
static struct shared {
    uint64_t steps, wanted, counts[KINDS], touched, refused, crashed;
} *shared;
static int fds[FDS];
static struct { uint64_t at, size; } maps[MAPS];
static struct enclave loaded;
static const char *image, *signature;
static __thread sigjmp_buf back;
static __thread volatile int armed;
static uint8_t scratch[4 * PAGE_SIZE] __attribute__((aligned(PAGE_SIZE)));

static uint64_t next(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state * 0x2545f4914f6cdd1dUL >> 8;
}

static uint64_t below(uint64_t n)
{
    return next() % n;
}

static int one_in(uint64_t n)
{
    return below(n) == 0;
}

static void caught(int number, siginfo_t *info, void *context)
{
    (void)info, (void)context;
    if (armed)
        siglongjmp(back, number);
    if (number != SIGUSR1)
        _exit(99);
}

static const uint64_t edges[] = {
    0, 1, 7, 8, 0xfff, 0x1000, 0x1001, 0x10000, 1UL << 20, 1UL << 31, 0xffffffff, 1UL << 32, 1UL << 40,
    (1UL << 47) - 4096, 1UL << 47, 1UL << 63, -1UL, -4096UL, -4095UL,
};

static uint64_t edge(void)
{
    return edges[below(sizeof(edges) / sizeof(*edges))];
}

static uint64_t pages(uint64_t n)
{
    return below(n) * PAGE_SIZE;
}

/* An address in something mapped, mostly. */
static uint64_t address(void)
{
    uint64_t i = below(MAPS);

    if (one_in(40))
        return edge();
    if (one_in(4) && loaded.base)
        return loaded.base + pages(loaded.end / PAGE_SIZE + 4) + (one_in(8) ? below(PAGE_SIZE) : 0);
    if (!maps[i].size || one_in(12))
        return (uint64_t)scratch + pages(4);
    return maps[i].at + pages(maps[i].size / PAGE_SIZE + 1) + (one_in(8) ? below(PAGE_SIZE) : 0);
}

static uint64_t offset(void)
{
    return one_in(12) ? edge() : pages(24);
}

static uint64_t length(void)
{
    return one_in(15) ? edge() : one_in(6) ? 0 : pages(6) + PAGE_SIZE;
}

static int device(void)
{
    return one_in(3) ? loaded.fd : one_in(12) ? (int)below(12) : fds[below(FDS)];
}

static uint64_t flags(void)
{
    static const uint64_t types[] = {0x100, 0x200, 0x200, 0x200, 0x400, 0};

    return one_in(20) ? next() : types[below(6)] | below(8);
}

static void spoil(void *arg, uint64_t words)
{
    if (one_in(8))
        ((uint64_t *)arg)[below(words)] = one_in(2) ? edge() : next();
}

static void create(int fd)
{
    uint64_t *secs = (uint64_t *)scratch;
    struct sgx_enclave_create arg = {.src = (uint64_t)scratch};
    uint64_t i = below(MAPS);

    memset(scratch, 0, PAGE_SIZE);
    secs[0] = 1UL << (14 + below(8));
    secs[1] = maps[i].size >= secs[0] ? maps[i].at & -secs[0] : secs[0] * below(1000);
    ((uint32_t *)scratch)[4] = 1 + below(2);
    secs[6] = 4 | below(2) << 1;
    secs[7] = 3;
    if (one_in(6))
        secs[below(60)] = next();
    spoil(&arg, 1);
    ioctl(fd, SGX_IOC_ENCLAVE_CREATE, &arg);
}

static void add(int fd)
{
    static uint64_t secinfo[8] __attribute__((aligned(64)));
    struct sgx_enclave_add_pages arg = {
        .src = address(), .offset = offset(), .length = length(), .secinfo = (uint64_t)secinfo,
        .flags = below(2)};

    secinfo[0] = flags();
    spoil(secinfo, 8);
    spoil(&arg, 6);
    ioctl(fd, SGX_IOC_ENCLAVE_ADD_PAGES, &arg);
    memset(secinfo, 0, sizeof(secinfo));
}

static void do_ioctl(void)
{
    struct sgx_enclave_restrict_permissions restricted = {offset(), length(), below(8), 0, 0};
    struct sgx_enclave_modify_types modified = {offset(), length(), 1 + below(5), 0, 0};
    struct sgx_enclave_remove_pages removed = {offset(), length(), 0};
    struct sgx_enclave_init init = {address()};
    struct sgx_enclave_provision provision = {device()};
    int fd = device();

    spoil(&restricted, 5), spoil(&modified, 5), spoil(&removed, 3);
    switch (below(9)) {
    case 0: create(fd); break;
    case 1: case 2: add(fd); break;
    case 3: ioctl(fd, SGX_IOC_ENCLAVE_INIT, &init); break;
    case 4: ioctl(fd, SGX_IOC_ENCLAVE_PROVISION, &provision); break;
    case 5: ioctl(fd, SGX_IOC_ENCLAVE_RESTRICT_PERMISSIONS, &restricted); break;
    case 6: ioctl(fd, SGX_IOC_ENCLAVE_MODIFY_TYPES, &modified); break;
    case 7: ioctl(fd, SGX_IOC_ENCLAVE_REMOVE_PAGES, &removed); break;
    default: ioctl(fd, 0xA400 | below(10) | (below(4) << 30) | below(64) << 16, address()); break;
    }
}

static void do_open(void)
{
    static const char *const names[] = {
        "/dev/sgx_enclave", "/dev/sgx/enclave", "/dev/sgx_enclave", "/dev/sgx_provision",
        "/dev/null"};
    int i = below(FDS);

    if (fds[i] > 2)
        close(fds[i]);
    fds[i] = one_in(5) ? dup(device()) : open(names[below(5)], below(4) | (one_in(2) ? O_CLOEXEC : 0));
}

static void do_mmap(void)
{
    uint64_t i = below(MAPS), size = one_in(30) ? edge() : pages(30) + PAGE_SIZE;
    uint64_t where = one_in(2) ? 0 : address() & -4096UL, prot = below(8);
    int kind = (one_in(6) ? MAP_PRIVATE : MAP_SHARED), fd = device();
    void *got;

    if (where && where >= (uint64_t)scratch && where < (uint64_t)scratch + sizeof(scratch))
        where = 0;
    if (where)
        kind |= one_in(3) ? 0 : one_in(3) ? MAP_FIXED_NOREPLACE : MAP_FIXED;
    if (where && (kind & MAP_FIXED) && size > 60 * PAGE_SIZE)
        size = PAGE_SIZE; /* not over everything else */
    if (one_in(3))
        kind |= MAP_ANONYMOUS, fd = -1;
    if (size > 1UL << 41)
        return;
    if (kind & MAP_FIXED && (where < 1UL << 32 || where > 1UL << 46) && !maps[i].size)
        kind &= ~MAP_FIXED;
    got = mmap((void *)where, size, prot, kind, fd, one_in(10) ? edge() & 0xfff000 : 0);
    if (got != MAP_FAILED && size < 1UL << 30) {
        maps[i].at = (uint64_t)got;
        maps[i].size = size;
    }
}

/* Ranges that do not reach the program itself. */
static uint64_t reach(uint64_t at, uint64_t *size)
{
    uint64_t low = at & -4096UL;

    if (low >= (uint64_t)scratch && low < (uint64_t)scratch + sizeof(scratch))
        return 0;
    for (int i = 0; i < MAPS; i++)
        if (maps[i].size && low >= maps[i].at && low < maps[i].at + maps[i].size) {
            if (*size > maps[i].at + maps[i].size - low)
                *size = maps[i].at + maps[i].size - low;
            return low;
        }
    if (loaded.base && low >= loaded.base && low < loaded.base + loaded.size) {
        if (*size > loaded.base + loaded.size - low)
            *size = loaded.base + loaded.size - low;
        return low;
    }
    *size = 0;
    return edge();
}

static void change_mapping(void)
{
    static const int advices[] = {3, 4, 8, 9, 10, 11, 14, 15, 16, 21, 100};
    uint64_t size = length(), at = reach(address(), &size), other = PAGE_SIZE;
    uint64_t to = reach(address(), &other);
    void *got;

    if (!at)
        return;
    switch (below(7)) {
    case 0: case 1: case 2:
        mprotect((void *)at, size, below(8));
        break;
    case 3:
        if (one_in(3))
            munmap((void *)at, size);
        break;
    case 4:
        madvise((void *)at, size, advices[below(11)]);
        break;
    case 5:
        if (one_in(4))
            to = 0;
        got = mremap((void *)at, size, one_in(2) ? size : pages(4),
                     to && other ? MREMAP_MAYMOVE | MREMAP_FIXED : below(8) & ~2UL, to);
        if (got != MAP_FAILED) {
            int i = below(MAPS);
            maps[i].at = (uint64_t)got;
            maps[i].size = PAGE_SIZE;
        }
        break;
    default:
        syscall(SYS_pkey_mprotect, at, size, below(8), -1);
    }
}

static void touch(void)
{
    volatile uint64_t *at = (volatile uint64_t *)address();

    armed = 1;
    if (sigsetjmp(back, 1) == 0) {
        if (one_in(2) && (uint64_t)at - (uint64_t)scratch < sizeof(scratch))
            *at = next();
        else if (one_in(3) && (uint64_t)at >= loaded.base && (uint64_t)at < loaded.base + loaded.size)
            *at = next();
        else
            (void)*at;
        shared->touched++;
    } else {
        shared->refused++;
    }
    armed = 0;
}

static void transfer(void)
{
    struct iovec io = {(void *)address(), 100};
    int out[2];

    if (pipe(out))
        return;
    switch (below(5)) {
    case 0: write(out[1], (void *)address(), below(6000)); break;
    case 1: read(device(), (void *)address(), one_in(4) ? edge() : below(6000)); break;
    case 2: writev(out[1], &io, 1); break;
    case 3: pread(fds[below(FDS)], (void *)address(), length(), 0); break;
    default:
        write(out[1], scratch, 64);
        read(out[0], (void *)address(), 64);
    }
    close(out[0]);
    close(out[1]);
}

static void go_in(uint64_t seed)
{
    struct sgx_enclave_run run = {0};
    struct call call = {OP_NOP, address(), address(), below(64), 0};
    static const uint8_t ops[] = {OP_NOP, OP_BUFFER, OP_READ, OP_WRITE, OP_COPY, OP_ACCEPT,
                                  OP_EXTEND, OP_ACCEPTCOPY, OP_COUNT, OP_LOCKED, OP_TOTAL,
                                  OP_CALL, OP_MXCSR, OP_BASES, 99};
    uint64_t leaf = seed % 12 == 0 ? below(9) : seed % 5 == 0 ? ERESUME : EENTER;

    run.tcs = one_in(8) || !loaded.threads ? address() : loaded.tcs[below(loaded.threads)];
    call.op = ops[below(sizeof(ops))];
    if (call.op == OP_COUNT || call.op == OP_LOCKED)
        call.a = below(3000);
    if (call.op == OP_ACCEPT || call.op == OP_EXTEND || call.op == OP_ACCEPTCOPY)
        call.a &= -4096UL, call.b = flags() | (one_in(2) ? 1 << (3 + below(3)) : 0), call.c = address();
    armed = 1;
    if (sigsetjmp(back, 1) == 0)
        enter((unsigned long)&call, 0, 0, leaf, 0, 0, &run);
    armed = 0;
}

static void *thread(void *unused)
{
    stack_t stack = {.ss_sp = malloc(65536), .ss_size = 65536};

    sigaltstack(&stack, NULL);
    if (one_in(3)) {
        sigset_t all;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, NULL);
    }
    for (int i = 0; i < 5; i++)
        go_in(next());
    stack.ss_flags = SS_DISABLE;
    sigaltstack(&stack, NULL);
    free(stack.ss_sp);
    return unused;
}

static void with_threads(void)
{
    pthread_t ids[3];
    int n = 0;

    while (n < 3 && !pthread_create(&ids[n], NULL, thread, NULL))
        n++;
    for (int i = 0; i < 3; i++)
        one_in(2) ? do_ioctl() : change_mapping();
    if (n && one_in(2))
        pthread_kill(ids[0], SIGUSR1);
    while (n)
        pthread_join(ids[--n], NULL);
}

static void step(int child);

static void with_child(void)
{
    int status;
    pid_t pid = one_in(4) ? vfork() : fork();

    if (pid == 0) {
        alarm(4);
        for (int i = 0; i < 20; i++)
            step(1);
        if (one_in(4))
            go_in(1);
        if (one_in(4))
            kill(getpid(), SIGKILL);
        if (one_in(4))
            execl("/bin/true", "true", NULL);
        _exit(0);
    }
    waitpid(pid, &status, 0);
}

static void reload(void)
{
    if (loaded.base) {
        if (one_in(2))
            munmap((void *)loaded.base, loaded.size);
        close(loaded.fd);
    }
    memset(&loaded, 0, sizeof(loaded));
    loaded.fd = -1;
    if (enclave_load(&loaded, image, signature)) {
        if (loaded.fd > 2)
            close(loaded.fd);
        if (loaded.base)
            munmap((void *)loaded.base, loaded.size);
        memset(&loaded, 0, sizeof(loaded));
        loaded.fd = -1;
    }
}

static void step(int child)
{
    uint64_t what = below(1000);
    int kind = what < 380 ? 0 : what < 450 ? 1 : what < 580 ? 2 : what < 760 ? 3 : what < 880 ? 4
             : what < 975 ? 5 : what < 985 ? 6 : what < 990 ? 7 : what < 994 ? 8 : 9;

    shared->counts[kind]++;
    if (verbose)
        dprintf(2, "%d: %lu %d\n", getpid(), shared->steps, kind);
    switch (kind) {
    case 0: do_ioctl(); break;
    case 1: do_open(); break;
    case 2: do_mmap(); break;
    case 3: change_mapping(); break;
    case 4: touch(); break;
    case 5: go_in(next()); break;
    case 6: transfer(); break;
    case 7: if (!child) reload(); break;
    case 8: if (!child) with_child(); break;
    default: if (!child) with_threads(); break;
    }
}

static void session(uint64_t seed)
{
    stack_t stack = {.ss_sp = malloc(65536), .ss_size = 65536};
    struct sigaction action = {.sa_sigaction = caught, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    static const int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGUSR1};

    alarm(4);
    state = seed * 0x9e3779b97f4a7c15UL + 1;
    sigaltstack(&stack, NULL);
    for (unsigned i = 0; i < sizeof(signals) / sizeof(*signals); i++)
        DO(sigaction(signals[i], &action, NULL));
    for (int i = 0; i < FDS; i++)
        fds[i] = open("/dev/sgx_enclave", O_RDWR);
    reload();
    for (int n = 0; n < 300 && shared->steps < shared->wanted; n++) {
        shared->steps++;
        step(0);
    }
}

int main(int argc, char **argv)
{
    uint64_t seed;
    int status;

    CHECK(argc == 5, "SGXS, SIGSTRUCT, SEED, OPERATIONS are needed");
    verbose = getenv("FUZZ_VERBOSE") != NULL;
    image = argv[1], signature = argv[2];
    seed = strtoul(argv[3], NULL, 0) << 20;
    enter = vdso_enter();
    CHECK(enter, "no %s", VDSO_ENTER);
    shared = DO(mmap(NULL, PAGE_SIZE, PROT_RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    shared->wanted = strtoul(argv[4], NULL, 0);
    while (shared->steps < shared->wanted) {
        pid_t pid = DO(fork());

        if (pid == 0) {
            session(seed);
            _exit(0);
        }
        seed++;
        DO(waitpid(pid, &status, 0));
        if (WIFSIGNALED(status) || WEXITSTATUS(status))
            shared->crashed++;
    }
    printf("ok");
    for (int i = 0; i < 10; i++)
        printf(" %lu", shared->counts[i]);
    printf(" touched %lu refused %lu crashed %lu\n", shared->touched, shared->refused,
           shared->crashed);
    return 0;
}
