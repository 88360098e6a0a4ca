/*
 * Enclave code touches memory of the host that refuses it: the signal at the AEP is that of the
 * same access by the host itself, which the real kernel judges, except for the offset in the page,
 * which is not reported for enclaves. A thread that blocks or ignores the signal dies of it.
 *
 * The story: the handler of a blocked signal ran; a read-only page that nothing had touched
 * counted as present in the error code, and a page past the end of its file was SIGSEGV.
 *
 * enclave: ops threads=5
 */
#include "own_stub.h"

#include <setjmp.h>
#include <sys/wait.h>

static struct enclave e;
static sigjmp_buf back;
static volatile bool inside;
static volatile int times;

struct told {
    int number, code;
    uint64_t address, trap, error;
};
static volatile struct told told;

static void caught(int number, siginfo_t *info, void *context)
{
    greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;
    uint64_t page = (uint64_t)info->si_addr & -PAGE_SIZE;

    told = (struct told){number, info->si_code, (uint64_t)info->si_addr, r[REG_TRAPNO], r[REG_ERR]};
    CHECK(++times < 10, "the same fault again and again");
    if (!inside)
        siglongjmp(back, 1);
    SAME(r[REG_RIP], (uint64_t)own_aep);
    DO(mmap((void *)page, PAGE_SIZE, PROT_RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
}

static uint8_t *anonymous(int prot)
{
    return DO(mmap(NULL, PAGE_SIZE, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
}

static uint8_t *unmapped(void)
{
    uint8_t *at = anonymous(PROT_NONE);

    DO(munmap(at, PAGE_SIZE));
    return at;
}

static uint8_t *none(void)
{
    return anonymous(PROT_NONE);
}

static uint8_t *none_touched(void)
{
    uint8_t *at = anonymous(PROT_RW);

    *at = 1;
    DO(mprotect(at, PAGE_SIZE, PROT_NONE));
    return at;
}

static uint8_t *readable(void)
{
    return anonymous(PROT_READ);
}

static uint8_t *readable_touched(void)
{
    uint8_t *at = anonymous(PROT_READ);

    (void)*(volatile uint8_t *)at;
    return at;
}

static uint8_t *written_once(void)
{
    uint8_t *at = anonymous(PROT_RW);

    *at = 1;
    DO(mprotect(at, PAGE_SIZE, PROT_READ));
    return at;
}

static uint8_t *behind_the_end(void)
{
    int fd = DO(memfd_create("empty", 0));
    uint8_t *at = DO(mmap(NULL, PAGE_SIZE, PROT_RW, MAP_SHARED, fd, 0));

    DO(close(fd));
    return at;
}

static void row(const char *name, uint8_t *(*memory)(void), bool write)
{
    struct told own;
    uint8_t *at = memory();

    memset((void *)&told, 0, sizeof(told));
    inside = false;
    if (!sigsetjmp(back, 1)) {
        if (write)
            *(volatile uint64_t *)(at + 8) = M1;
        else
            (void)*(volatile uint64_t *)(at + 8);
    }
    own = told;
    own.address &= -PAGE_SIZE;
    SAME(own.address, own.number ? (uint64_t)at : 0);

    struct call call = {write ? OP_WRITE : OP_READ, (uint64_t)memory() + 8, M1, 0, 0};

    memset((void *)&told, 0, sizeof(told));
    inside = true;
    times = 0;
    own_enter(&call, e.tcs[0], EENTER);
    SAME(told.number, own.number);
    SAME(told.code, own.code);
    SAME(told.address, own.number ? call.a & -PAGE_SIZE : 0);
    SAME(told.trap, own.trap);
    SAME(told.error, own.error);
    ok("%s of %s: signal %d, code %d, error %#lx", write ? "write" : "read", name, own.number,
       own.code, (unsigned long)own.error);
}

/* force_sig: who blocks or ignores the signal dies of it. Its TCS stays at CSSA = 1. */
static void killed(const char *name, int number, bool blocked, uint8_t *(*memory)(void))
{
    static int thread;
    struct call call = {OP_READ, (uint64_t)memory(), 0, 0, 0};
    uint64_t tcs = e.tcs[++thread];
    int status;
    pid_t pid = DO(fork());

    if (!pid) {
        sigset_t set;

        sigemptyset(&set);
        sigaddset(&set, number);
        alarm(20);
        if (blocked)
            DO(sigprocmask(SIG_BLOCK, &set, NULL));
        else
            signal(number, SIG_IGN);
        inside = true;
        own_enter(&call, tcs, EENTER);
        _exit(0);
    }
    SAME(DO(waitpid(pid, &status, 0)), pid);
    SAME(WIFSIGNALED(status) ? WTERMSIG(status) : -1, number);
    ok("%s", name);
}

int main(int argc, char **argv)
{
    start(&e, argc, argv);
    handle(SIGSEGV, caught);
    handle(SIGBUS, caught);
    for (int write = 0; write < 2; write++) {
        row("memory that is not mapped", unmapped, write);
        row("---", none, write);
        row("---, touched before", none_touched, write);
        row("r--", readable, write);
        row("r--, read before", readable_touched, write);
        row("r--, written before", written_once, write);
        row("a page past the end of its file", behind_the_end, write);
    }
    killed("SIGSEGV blocked", SIGSEGV, true, unmapped);
    killed("SIGSEGV ignored", SIGSEGV, false, unmapped);
    killed("SIGBUS blocked", SIGBUS, true, behind_the_end);
    killed("SIGBUS ignored", SIGBUS, false, behind_the_end);
    return 0;
}
