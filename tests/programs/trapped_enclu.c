/*
 * ENCLUs that no disassembly proves: assembly whose symbol has no type and that runs straight into
 * the next function, code made at run time. Having been executed is the proof. They are entered
 * with all signals blocked, too, and with the signals of exceptions ignored: mask and handlers stay.
 *
 * enclave: ops threads=2
 */
#include "host.h"

/* Neither type, size nor call frame information; RDI call, RSI TCS, EDX leaf, RCX AEP. */
extern const char bare_enter[], bare_enclu[], made_end[];
__asm__(".pushsection .text\n"
        "bare_enter:\n"
        "push %rbx\n"
        "mov %rsi, %rbx\n"
        "mov %edx, %eax\n"
        "lea bare_enclu(%rip), %rcx\n"
        "jmp bare_enclu\n"
        ".byte 0x48, 0xb8\n" /* half an instruction in the way of a linear disassembly */
        "bare_enclu:\n"
        ".byte 0x0f, 0x01, 0xd7\n"
       
        "pop %rbx\n"
        "ret\n"
        "made_end:\n"
        ".popsection\n");

typedef void (*enter_t)(struct call *call, uint64_t tcs, unsigned leaf);

static struct enclave e;
static enter_t own_enter;
static uint64_t aep;
static struct {
    volatile int number, code, times;
    volatile uint64_t address;
} seen;

static uint64_t own(uint64_t op, uint64_t a, uint64_t b)
{
    struct call call = {op, a, b, 0, 0};

    seen.times = 0;
    own_enter(&call, e.tcs[0], EENTER);
    return call.result;
}

static void repaired(int number, siginfo_t *info, void *context)
{
    greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;

    seen.number = number;
    seen.code = info->si_code;
    seen.address = (uint64_t)info->si_addr;
    SAME(r[REG_RIP], aep);
    SAME(r[REG_RAX], ERESUME);
    CHECK(++seen.times < 10, "the same fault again and again");
    DO(mprotect(info->si_addr, PAGE_SIZE, PROT_RW));
}

static void entries(const char *what)
{
    handle(SIGSEGV, repaired);
    uint64_t buffer = own(OP_BUFFER, 0, 0);
    own(OP_WRITE, buffer, M1);
    SAME(own(OP_READ, buffer, 0), M1);
    ok("%s: entries", what);

    DO(mprotect((void *)buffer, PAGE_SIZE, PROT_READ));
    own(OP_WRITE, buffer, M2);
    SAME(seen.times, 1);
    SAME(seen.number, SIGSEGV);
    SAME(seen.code, SEGV_ACCERR);
    SAME(seen.address, buffer);
    SAME(own(OP_READ, buffer, 0), M2);
    ok("%s: SIGSEGV at its AEP, repaired and resumed", what);
}

static void never(int number, siginfo_t *info, void *context)
{
    (void)context;
    FAIL("signal %d at %p", number, info->si_addr);
}

/* What an exception can come as: all of them have `handler` before, and after an entry. */
static void untouched(const char *what, bool blocked, void (*handler)(int, siginfo_t *, void *))
{
    const int exceptions[] = {SIGILL, SIGTRAP, SIGBUS, SIGFPE, SIGSEGV};
    struct sigaction action;
    sigset_t all, some, now;

    for (unsigned i = 0; i < 5; i++)
        handle(exceptions[i], handler);
    sigfillset(&all);
    sigemptyset(&some);
    sigaddset(&some, SIGSEGV);
    sigaddset(&some, SIGILL);
    for (int round = 0; round < 2; round++) {
        /* All, and only two: then the others do not show that these were blocked. Nothing else
         * does for a signal that has no handler. */
        if (blocked)
            DO(sigprocmask(SIG_SETMASK, round ? &some : &all, NULL));
        if (round && blocked && handler != never)
            break;
        uint64_t buffer = own(OP_BUFFER, 0, 0);
        CHECK(buffer > e.base && buffer < e.base + e.size, "%#lx", (unsigned long)buffer);
        SAME(own(OP_READ, buffer, 0), M2);
        DO(sigprocmask(SIG_BLOCK, NULL, &now));
        for (unsigned i = 0; i < 5; i++) {
            int number = exceptions[i];
            DO(sigaction(number, NULL, &action));
            CHECK((void *)action.sa_sigaction == (void *)handler, "signal %d has another handler",
                  number);
            SAME(sigismember(&now, number),
                 blocked && (!round || number == SIGSEGV || number == SIGILL));
        }
    }
    sigemptyset(&all);
    DO(sigprocmask(SIG_SETMASK, &all, NULL));
    ok("mask and handlers as they were: %s", what);
}

int main(int argc, char **argv)
{
    start(&e, argc, argv);
    own_enter = (enter_t)(uint64_t)bare_enter;
    aep = (uint64_t)bare_enclu;
    entries("assembly without symbols");
    untouched("blocked", true, never);
    untouched("neither", false, never);
    untouched("ignored", false, (void *)SIG_IGN);
    untouched("ignored and blocked", true, (void *)SIG_IGN);
    untouched("default and blocked", true, (void *)SIG_DFL);

    size_t size = made_end - bare_enter;
    char *made = DO(mmap(NULL, PAGE_SIZE, PROT_RWX, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    memcpy(made, bare_enter, size);
    own_enter = (enter_t)(uint64_t)made;
    aep = (uint64_t)made + (bare_enclu - bare_enter);
    entries("code made at run time");
    untouched("blocked", true, never);

    /* Other code where that one was. */
    memset(made, 0x90, size);
    memcpy(made + 64, bare_enter, size);
    own_enter = (enter_t)(uint64_t)(made + 64);
    aep += 64;
    entries("code made anew");
    return 0;
}
