/*
 * Host accesses to enclave memory, and the signals around them. An exception whose signal is
 * blocked or ignored kills the program, handler or not (Linux 6.12, kernel/signal.c,
 * force_sig_info_to_task); an access that is served changes no handler and no mask; and a fault of
 * another operand of the instruction is delivered as usual.
 *
 * The story: with SIGBUS ignored the access was retried without end; a fault of the other operand
 * of MOVS came as SI_KERNEL with address 0; a blocked SIGSEGV was left unblocked, its handler
 * gone; and so was the handler of a blocked SIGTRAP.
 *
 * enclave: ops size=0x4000000
 */
#include "host.h"

#include <setjmp.h>
#include <sys/wait.h>

static struct enclave e;
static uint8_t *hole, *read_only, *page; /* before INIT; r--, and rw-, in the enclave */
static sigjmp_buf back;
static volatile siginfo_t got;
static volatile greg_t got_error;

static void dies(int number)
{
    _exit(100 + number);
}

static void keeps(int number, siginfo_t *info, void *context)
{
    (void)number;
    got = *info;
    got_error = ((ucontext_t *)context)->uc_mcontext.gregs[REG_ERR];
    siglongjmp(back, 1);
}

static void block(int number)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, number);
    DO(sigprocmask(SIG_BLOCK, &set, NULL));
}

static void killed(const char *name, int number, void (*action)(int), int blocked, bool write,
                   volatile uint8_t *at)
{
    int status;
    pid_t pid = DO(fork());

    if (!pid) {
        alarm(20);
        signal(number, action);
        if (blocked)
            block(number);
        if (write)
            *at = 0;
        else
            (void)*at;
        _exit(0);
    }
    SAME(DO(waitpid(pid, &status, 0)), pid);
    SAME(WIFSIGNALED(status) ? WTERMSIG(status) : -WEXITSTATUS(status), number);
    ok("%s", name);
}

/* After an access that is served, `number` is as it was. */
static void kept(const char *name, int number, void (*action)(int), bool blocked)
{
    struct sigaction before, after;
    int status;
    sigset_t now;
    pid_t pid = DO(fork());

    if (!pid) {
        signal(number, action);
        if (blocked)
            block(number);
        DO(sigaction(number, NULL, &before));
        SAME(*(volatile uint8_t *)page, 0xff);
        SAME(*(volatile uint8_t *)page, 0xff);
        DO(sigaction(number, NULL, &after));
        DO(sigprocmask(SIG_BLOCK, NULL, &now));
        SAME(sigismember(&now, number), blocked);
        SAME(after.sa_handler, before.sa_handler);
        SAME(after.sa_flags, before.sa_flags);
        _exit(0);
    }
    SAME(DO(waitpid(pid, &status, 0)), pid);
    SAME(status, 0);
    ok("%s", name);
}

static void move(uint8_t *to, const uint8_t *from, size_t count)
{
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
}

#define TOLD(code, address, error)                                                                 \
    do {                                                                                           \
        SAME(got.si_signo, SIGSEGV);                                                               \
        SAME(got.si_code, code);                                                                   \
        SAME(got.si_addr, address);                                                                \
        SAME(got_error, error);                                                                    \
    } while (0)

static void elsewhere(void)
{
    uint8_t *host = DO(mmap(NULL, PAGE_SIZE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));

    (void)*(volatile uint8_t *)host;
    handle(SIGSEGV, keeps);
    if (!sigsetjmp(back, 1)) {
        move(host + 9, page, 4);
        FAIL("it was written");
    }
    TOLD(SEGV_ACCERR, host + 9, 7);
    ok("from enclave memory to memory that is read-only");
    DO(munmap(host, PAGE_SIZE));
    if (!sigsetjmp(back, 1)) {
        move(page, host + 3, 4);
        FAIL("it was read");
    }
    TOLD(SEGV_MAPERR, host + 3, 4);
    ok("from memory that is not there to enclave memory");
    if (!sigsetjmp(back, 1)) {
        move(read_only + 5, page, 4);
        FAIL("it was written");
    }
    TOLD(SEGV_ACCERR, read_only + 5, 7);
    ok("from one page of the enclave to one that is read-only");
}

int main(int argc, char **argv)
{
    struct enclave young;

    start(&e, argc, argv);
    CHECK(!enclave_open(&young, argv[1]), "%s", strerror(errno));
    young.size = e.size;
    CHECK(!enclave_reserve(&young) && !enclave_create(&young), "%s", strerror(errno));
    DO(enclave_map_range(&young, 0, PAGE_SIZE, PROT_READ));
    hole = (uint8_t *)young.base;
    DO(enclave_map_range(&e, e.end, 2 * PAGE_SIZE, PROT_RW));
    page = (uint8_t *)(e.base + e.end);
    read_only = page + PAGE_SIZE;
    *(volatile uint8_t *)page = *(volatile uint8_t *)read_only = 1;
    DO(mprotect(read_only, PAGE_SIZE, PROT_READ));

    killed("SIGSEGV blocked", SIGSEGV, dies, 1, true, read_only);
    killed("SIGSEGV ignored", SIGSEGV, SIG_IGN, 0, true, read_only);
    killed("SIGSEGV by default", SIGSEGV, SIG_DFL, 0, true, read_only);
    killed("SIGBUS blocked", SIGBUS, dies, 1, false, hole);
    killed("SIGBUS ignored", SIGBUS, SIG_IGN, 0, false, hole);
    killed("SIGBUS by default", SIGBUS, SIG_DFL, 0, false, hole);
    kept("a handler of SIGSEGV, blocked", SIGSEGV, dies, true);
    kept("a handler of SIGSEGV", SIGSEGV, dies, false);
    kept("SIGSEGV ignored, served", SIGSEGV, SIG_IGN, false);
    kept("a handler of SIGTRAP, blocked", SIGTRAP, dies, true);
    kept("SIGTRAP ignored", SIGTRAP, SIG_IGN, false);
    elsewhere();
    return 0;
}
