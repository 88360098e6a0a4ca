/*
 * A process that fights the stub, beside one that calls an enclave, forks and executes programs.
 *
 * hostile ENCLAVE SIGSTRUCT WHAT SEED; the numbers of systrap_layout.py are macros. It ends with
 * code 7 if the other process found everything right.
 *
 * enclave: ops threads=2
 */
#include "host.h"

#include <pthread.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define CALLS 200
#define LIVES 6
#define WORD(at) (*(volatile uint32_t *)(uintptr_t)(at))
#define LONG(at) (*(volatile uint64_t *)(uintptr_t)(at))

static uint64_t seed;
static volatile int waits = 1;

static uint64_t draw(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed;
}

/* Something that would be taken for a number, an address or a state, or is neither. */
static uint64_t value(void)
{
    switch (draw() % 8) {
    case 0:
        return 0;
    case 1:
        return draw() % 4;
    case 2:
        return ~0UL >> draw() % 64;
    case 3:
        return RECORDS + draw() % (4 * RECORD_STRIDE);
    case 4:
        return SYSTRAP_CONTROL + SHARED_TABLES + draw() % 4 * TABLE_STRIDE;
    case 5:
        return 1UL << draw() % 64;
    default:
        return draw();
    }
}

static uint64_t place(void)
{
    switch (draw() % 8) {
    case 0:
        return SYSTRAP_CONTROL + 0x2000 + draw() % 0x100;
    case 1:
        return SYSTRAP_CONTROL + SHARED_STATES + draw() % 16;
    case 2:
        return SYSTRAP_CONTROL + SHARED_MAIL_STATES + draw() % 16;
    case 3:
        return SYSTRAP_CONTROL + SHARED_TABLES + draw() % (2 * TABLE_STRIDE);
    case 4:
        return RECORDS + draw() % 3 * RECORD_STRIDE + draw() % RECORD_STRIDE;
    case 5:
        return BOX + draw() % BOX_SIZE;
    case 6:
        return NATIVE_SLOTS + draw() % (3 * SLOT_STRIDE);
    default:
        return RECORDS + draw() % 3 * RECORD_STRIDE + draw() % RECORD_STACK;
    }
}

static int has_slots;

/* As fast as it can; after a while also where it must be fatal. */
static void *scribbles(void *unused)
{
    for (int i = 0;; i++) {
        uint64_t at = place() & ~7UL;

        if (at >= NATIVE_SLOTS && at < NATIVE_SLOTS + 3 * SLOT_STRIDE && !has_slots)
            continue;
        if (draw() % 2)
            LONG(at) = value();
        else
            WORD(at) = value();
        if (draw() % 4 == 0)
            usleep(draw() % 100);
    }
    return unused;
}

/* The words of state of all records, and the counts that make the supervisor look. */
static void *forges(void *unused)
{
    for (;;) {
        uint64_t n = draw() % 8 ? draw() % 4 : draw() % RECORDS_MAX;
        uint64_t states = draw() % 2 ? SHARED_STATES : SHARED_MAIL_STATES;

        if (draw() % 4)
            WORD(SYSTRAP_CONTROL + states + 4 * n) = draw() % 5;
        WORD(RECORDS + n * RECORD_STRIDE + RECORD_KIND) = draw() % 16;
        WORD(SYSTRAP_CONTROL + SHARED_USED + 4 * n) = draw() % 2;
        WORD(SYSTRAP_CONTROL + SHARED_TOP) = draw() % 2 ? RECORDS_MAX : ~0U;
        WORD(SYSTRAP_CONTROL + SHARED_REPORTS) += 1;
        WORD(SYSTRAP_CONTROL + SHARED_MAILS) += 1;
        WORD(SYSTRAP_CONTROL + SHARED_DOORBELL) += 1;
        usleep(draw() % 100);
    }
    return unused;
}

/* Nobody is woken by the doorbell. */
static void *eats(void *unused)
{
    for (;;)
        WORD(SYSTRAP_CONTROL + SHARED_DOORBELL) = 0;
    return unused;
}

/* A call of the stub's own: no filter stops it. */
static long own(long number, long a, long b, long c, long d, long e)
{
    long (*call)(long, long, long, long, long, long, long) = (void *)OWN_CALL;
    return call(number, a, b, c, d, e, 0);
}

static void calls(struct enclave *e)
{
    struct sgx_enclave_run run = {.tcs = e->tcs[0]};

    for (int i = 0; i < CALLS; i++) {
        ask(&run, OP_LOCKED, 1, 0, 0);
        if (i % 32 == 0 && !fork())
            _exit(0);
        if (i % 16 == 0)
            restrict_page(e, ask(&run, OP_BUFFER, 0, 0, 0), SGX_R);
    }
    waits = 0;
}

/* The signals of the stub are blocked, and have no handler any more. */
static void without_handlers(void)
{
    static uint64_t action[4], all = ~0UL;

    for (int number = 1; number < 64; number++)
        own(SYS_rt_sigaction, number, (long)action, 0, 8, 0);
    own(SYS_rt_sigprocmask, SIG_SETMASK, (long)&all, 0, 8, 0);
    open("/dev/sgx_enclave", O_RDWR); /* This traps. */
    WORD(draw() % 8 + 8) = 1;
}

/* The supervisor cannot interrupt it, and inside it computes without end. */
static void is_deaf(struct enclave *e)
{
    struct sgx_enclave_run run = {.tcs = e->tcs[0]};
    uint64_t interrupt = 1UL << (INTERRUPT_SIGNAL - 1);

    own(SYS_rt_sigprocmask, SIG_BLOCK, (long)&interrupt, 0, 8, 0);
    ask(&run, OP_COUNT, 1UL << 40, 0, 0);
}

static void without(uint64_t at, uint64_t size, int maps)
{
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE;

    own(SYS_munmap, at, size, 0, 0, 0);
    if (maps)
        mmap((void *)at, size, PROT_RWX, flags, -1, 0);
    open("/dev/sgx_enclave", O_RDWR);
    if (!fork())
        _exit(0);
}

/* The call of a forked process, by one that has not been made by the stub: only its maker's file is
 * copied for it. */
static void asks_for_files(void)
{
    uint64_t family = LONG(SYSTRAP_CONTROL + SHARED_FAMILY);
    uint64_t stack = RECORDS + RECORD_STRIDE - 64;
    int status;

    SAME(own(SYS_brk, FORKED_CALL, family, RECORDS, stack, 1), -EPERM);
    for (uint64_t n = 0; n < family + 3; n++) {
        pid_t child = DO(own(SYS_fork, 0, 0, 0, 0, 0));

        if (!child) {
            for (int i = 0; i < 8; i++)
                own(SYS_brk, FORKED_CALL, n + (draw() << 32), value(), value(), value());
            if (n != family)
                SAME(own(SYS_brk, FORKED_CALL, n, RECORDS, stack, 1), -EPERM);
            _exit(7);
        }
        SAME(own(SYS_wait4, child, (long)&status, 0, 0, 0), child);
        SAME(status, 7 << 8);
    }
    _exit(7);
}

/* The supervisor does not hear of this process. */
static void hides(void)
{
    if (own(SYS_fork, 0, 0, 0, 0, 0))
        return;
    setsid();
    for (;;)
        pause();
}

/* The common page: neither written to nor made writable. */
static void writes_common(void)
{
    SAME(mprotect((void *)SYSTRAP_CONTROL, PAGE_SIZE, PROT_RW), -1);
    SAME(errno, EACCES);
    WORD(SYSTRAP_CONTROL + SHARED_SPIN) = ~0;
}

static void fight(const char *what, int argc, char **argv)
{
    static struct enclave e;
    pthread_t thread;
    void *(*other)(void *) = !strcmp(what, "scribble") ? scribbles
                             : !strcmp(what, "forge")  ? forges
                             : !strcmp(what, "doorbell") ? eats
                                                         : NULL;
    if (!strcmp(what, "handlers"))
        without_handlers();
    else if (!strcmp(what, "gate"))
        without(SYSTRAP_CODE, SYSTRAP_CODE_SIZE, draw() % 2);
    else if (!strcmp(what, "records"))
        without(SYSTRAP_CONTROL + 0x2000, SYSTRAP_SHARED_SIZE - 0x2000, draw() % 2);
    else if (!strcmp(what, "box"))
        without(BOX, BOX_SIZE, draw() % 2);
    else if (!strcmp(what, "files"))
        asks_for_files();
    else if (!strcmp(what, "hides"))
        hides();
    else if (!strcmp(what, "common"))
        writes_common();
    if (!other && strcmp(what, "deaf"))
        return;
    start(&e, argc, argv);
    if (!other)
        is_deaf(&e);
    DO(pthread_create(&thread, NULL, other, NULL));
    calls(&e);
}

static void works(int argc, char **argv)
{
    static struct enclave e;
    struct sgx_enclave_run run = {0};
    int status;

    start(&e, argc, argv);
    run.tcs = e.tcs[0];
    for (int i = 1; i <= CALLS; i++) {
        ask(&run, OP_LOCKED, 1, 0, 0);
        SAME(ask(&run, OP_TOTAL, 0, 0, 0), i);
        if (i % 20)
            continue;
        pid_t child = DO(fork());
        if (!child && i % 40)
            _exit(i % 100);
        if (!child)
            execl("/bin/sh", "sh", "-c", "exit 33", NULL);
        DO(waitpid(child, &status, 0));
        SAME(status, (i % 40 ? i % 100 : 33) << 8);
    }
}

int main(int argc, char **argv)
{
    pid_t worker = DO(fork());
    int status, deaf = !strcmp(argv[3], "deaf");

    if (!worker) {
        works(argc, argv);
        ok("%d calls beside a process that fights", CALLS);
        _exit(7);
    }
    has_slots = !strcmp(argv[5], "native");
    CHECK(freopen("/dev/null", "w", stderr), "%s", strerror(errno));
    for (int life = 1; life <= (deaf ? 1 : LIVES); life++) {
        pid_t fighter = DO(fork());

        if (!fighter) {
            setpgid(0, 0);
            seed = strtoul(argv[4], NULL, 0) * LIVES + life + 0x9E3779B97F4A7C15UL;
            fight(argv[3], argc, argv);
            _exit(0);
        }
        int ended = 0;
        for (int i = 0; i < (deaf ? 20000 : 400) && !ended; i++) {
            usleep(1000);
            ended = waitpid(fighter, &status, WNOHANG) == fighter;
        }
        if (deaf)
            CHECK(ended && status == SIGKILL, "it has not been found");
        if (!strcmp(argv[3], "files"))
            CHECK(ended && status == 7 << 8, "it has got another's file");
        if (!strcmp(argv[3], "common"))
            CHECK(ended && status == SIGSEGV, "it has written to the common page");
        kill(-fighter, SIGKILL);
        kill(fighter, SIGKILL);
    }
    DO(waitpid(worker, &status, 0));
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
