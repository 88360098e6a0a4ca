/*
 * Calls that the supervisor serves touch only that memory of the program which the kernel would
 * touch, nothing below a small stack, and the stack need not have grown below RSP.
 *
 * The story: the supervisor put paths, filters and signal actions 4,224 bytes below RSP. Where a
 * stack had not grown that far, opening the device went to the real kernel, and failed; below the
 * small stack of a coroutine, memory of the program was overwritten.
 */
#include "host.h"

#include <linux/openat2.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

enum { BELOW = 16384, STACK = 8192 };

#define DEVICE "/dev/sgx_enclave"

static ucontext_t back, there;
static char *block;
static void (*todo)(void);

static void opens(void)
{
    struct open_how how = {.flags = O_RDWR};
    int fds[] = {
        open(DEVICE, O_RDWR),
        open("/dev/sgx_provision", O_RDWR),
        open("/proc/cpuinfo", O_RDONLY),
        syscall(SYS_open, DEVICE, O_RDWR),
        syscall(SYS_openat2, AT_FDCWD, DEVICE, &how, sizeof(how)),
    };

    for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++)
        DO(close(fds[i]));
}

static void looks(void)
{
    struct stat st;
    struct statx x;
    struct rusage usage;
    struct timespec now;

    DO(stat(DEVICE, &st));
    DO(lstat(DEVICE, &st));
    DO(fstatat(AT_FDCWD, DEVICE, &st, 0));
    DO(statx(AT_FDCWD, DEVICE, 0, STATX_BASIC_STATS, &x));
    DO(access(DEVICE, R_OK | W_OK));
    DO(faccessat(AT_FDCWD, DEVICE, R_OK, 0));
    DO(getrusage(RUSAGE_SELF, &usage));
    DO(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now));
}

static void maps(void)
{
    int fd = DO(open(DEVICE, O_RDWR));
    char *at = DO(mmap(NULL, 4 * PAGE_SIZE, PROT_READ, MAP_SHARED, fd, 0));

    DO(mprotect(at, 2 * PAGE_SIZE, PROT_NONE));
    DO(munmap(at, 4 * PAGE_SIZE));
    DO(close(fd));
}

static void child(void)
{
    pid_t pid = vfork();

    if (pid == 0) {
        int fd = open(DEVICE, O_RDWR);

        _exit(fd < 0 ? 1 : ioctl(fd, SGX_IOC_ENCLAVE_INIT, NULL) != -1);
    }
    int status;

    SAME(DO(waitpid(pid, &status, 0)), pid);
    SAME(status, 0);
}

static void coroutine(void)
{
    todo();
}

static void on_small_stack(const char *what, void (*how)(void))
{
    memset(block, 0x55, BELOW + STACK);
    DO(getcontext(&there));
    there.uc_stack.ss_sp = block + BELOW;
    there.uc_stack.ss_size = STACK;
    there.uc_link = &back;
    todo = how;
    makecontext(&there, coroutine, 0);
    DO(swapcontext(&back, &there));
    for (int i = 0; i < BELOW; i++)
        CHECK(block[i] == 0x55, "%s: %d bytes below the stack: %.20s", what, BELOW - i, block + i);
    ok("%s on a small stack", what);
}

/* Start of the mapping that grows down. */
static uint64_t lowest(void)
{
    char line[256];
    uint64_t start = 0, end;
    FILE *maps = fopen("/proc/self/maps", "r");

    CHECK(maps, "%s", strerror(errno));
    while (fgets(line, sizeof(line), maps))
        if (sscanf(line, "%lx-%lx", &start, &end) == 2 && start <= (uint64_t)&start &&
            (uint64_t)&start < end)
            break;
    fclose(maps);
    return start;
}

static long open_at(uint64_t rsp)
{
    static const char path[] = DEVICE;
    long result;

    asm volatile("mov %%rsp, %%rbx\n\tmov %[rsp], %%rsp\n\tsyscall\n\tmov %%rbx, %%rsp"
                 : "=a"(result)
                 : "0"((long)SYS_open), "D"(path), "S"((long)O_RDWR), "d"(0L), [rsp] "r"(rsp)
                 : "rbx", "rcx", "r11", "memory");
    return result;
}

static volatile sig_atomic_t handled;

static void count(int number)
{
    (void)number;
    handled++;
}

/* The kernel takes away the handler of a signal that it forces on a thread that blocks it. */
static void touches(void)
{
    int fd = DO(open(DEVICE, O_RDWR));
    volatile char *at = DO(mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    struct sigaction action = {.sa_handler = count}, now;
    sigset_t all, before;

    DO(sigaction(SIGSEGV, &action, NULL));
    sigfillset(&all);
    DO(sigprocmask(SIG_BLOCK, &all, &before));
    pid_t pid = DO(fork());
    if (pid == 0) {
        *at; /* no enclave: SIGBUS, which is blocked */
        _exit(0);
    }
    int status;
    SAME(DO(waitpid(pid, &status, 0)), pid);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS, "status %#x", status);
    DO(sigprocmask(SIG_SETMASK, &before, NULL));
    DO(sigaction(SIGSEGV, NULL, &now));
    CHECK(now.sa_handler == count, "the handler of SIGSEGV is another one");
    DO(munmap((void *)at, PAGE_SIZE));
    DO(close(fd));
}

int main(void)
{
    block = aligned_alloc(PAGE_SIZE, BELOW + STACK);
    on_small_stack("open", opens);
    on_small_stack("stat and access", looks);
    on_small_stack("mmap and mprotect", maps);
    on_small_stack("a vfork child", child);
    on_small_stack("a fault with all signals blocked", touches);

    uint64_t low = lowest();
    for (int above = PAGE_SIZE; above >= 0; above -= 128) {
        int fd = open_at(low + above);

        CHECK(fd >= 0, "open %d bytes above the lowest page of the stack: %d", above, fd);
        DO(close(fd));
    }
    SAME(open_at(8), 3);
    ok("open wherever RSP points");
    return 0;
}
