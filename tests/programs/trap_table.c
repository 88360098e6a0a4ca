/*
 * What a program sees of its exceptions: signal, si_code, si_addr, REG_TRAPNO, REG_ERR; one row
 * each, first of instructions outside, then of the same inside an enclave that was entered by a
 * stub of the host's own. Without arguments only those outside: then it runs on any machine.
 * tests/runner/test_trap_table.py has the rule, `linux.traps`.
 *
 * The story: every SIGFPE of #MF and #XM had si_code 7, by a table; and SIGTRAP had 0 from machines
 * in Python.
 *
 * enclave: faults
 */
#include "own_stub.h"

#include <fenv.h>
#include <setjmp.h>

static sigjmp_buf back;
static struct {
    int number, code, trap, error;
    uint64_t address, rip;
    uint16_t cwd, swd;
    uint32_t mxcsr;
} seen;
static struct enclave e;
static bool inside;

static void note(const siginfo_t *info, const ucontext_t *context)
{
    const greg_t *r = context->uc_mcontext.gregs;

    seen.number = info->si_signo;
    seen.code = info->si_code;
    seen.address = (uint64_t)info->si_addr;
    seen.trap = r[REG_TRAPNO];
    seen.error = r[REG_ERR];
    seen.rip = r[REG_RIP];
    seen.cwd = context->uc_mcontext.fpregs->cwd;
    seen.swd = context->uc_mcontext.fpregs->swd;
    seen.mxcsr = context->uc_mcontext.fpregs->mxcsr;
}

static void caught(int number, siginfo_t *info, void *context)
{
    struct call handler = {HANDLE, 0, 0, 0, 0};

    (void)number;
    /* Signals leave the flag that asks for alignment. */
    __asm__ volatile("pushfq\n\tandl $~0x40000, (%%rsp)\n\tpopfq" : : : "cc", "memory");
    note(info, context);
    if (!inside)
        siglongjmp(back, 1);
    /* The enclave's own handler steps over the instruction; to return is ERESUME. */
    own_enter(&handler, e.tcs[0], EENTER);
}

static void row(const char *name)
{
    printf("ok %s %d %d ", name, seen.number, seen.code);
    if (seen.address == seen.rip)
        printf("rip");
    else
        printf("%#lx", (unsigned long)seen.address);
    printf(" %d %#x cwd %#x swd %#x mxcsr %#x\n", seen.trap, seen.error, seen.cwd, seen.swd,
           seen.mxcsr);
    fflush(stdout);
}

static const double zero = 0, one = 1, three = 3, huge = 1e308, small = 1e-308, denormal = 5e-324;
static double result;

/* Computes under a control word, and waits for what comes of it. */
#define X87(name, control, text)                                                                   \
    static void name(void)                                                                         \
    {                                                                                              \
        const uint16_t cw = control;                                                               \
                                                                                                   \
        __asm__ volatile("fninit\n\tfldcw %0\n\t" text "\n\tfwait"                                 \
                         : : "m"(cw), "m"(zero), "m"(one), "m"(three), "m"(huge), "m"(small),      \
                             "m"(denormal), "m"(result) : "st", "st(1)", "memory");                \
    }

/* Computes `a` text `b` under an MXCSR. */
#define SSE(name, control, text, a, b)                                                             \
    static void name(void)                                                                         \
    {                                                                                              \
        const uint32_t mxcsr = control;                                                            \
                                                                                                   \
        __asm__ volatile("ldmxcsr %0\n\tmovsd %1, %%xmm0\n\t" text " %2, %%xmm0"                   \
                         : : "m"(mxcsr), "m"(a), "m"(b) : "xmm0");                                 \
    }

X87(x87_invalid, 0x37e, "fldl %1\n\tfdivl %1")
X87(x87_denormal, 0x37d, "fldl %6")
X87(x87_divide, 0x37b, "fldl %2\n\tfdivl %1")
X87(x87_overflow, 0x377, "fldl %4\n\tfmull %4\n\tfstpl %7")
X87(x87_underflow, 0x36f, "fldl %5\n\tfmull %5\n\tfstpl %7")
X87(x87_precision, 0x35f, "fldl %2\n\tfdivl %3")
/* A masked exception before does not count; of two that are not masked the kernel names one. */
X87(x87_masked, 0x37b, "fldl %1\n\tfdivl %1\n\tfstpl %7\n\tfldl %2\n\tfdivl %1")
X87(x87_two, 0x357, "fldl %4\n\tfmull %4\n\tfstpl %7")
SSE(sse_invalid, 0x1f00, "divsd", zero, zero)
SSE(sse_denormal, 0x1e80, "addsd", denormal, one)
SSE(sse_divide, 0x1d80, "divsd", one, zero)
SSE(sse_overflow, 0x1b80, "mulsd", huge, huge)
SSE(sse_underflow, 0x1780, "mulsd", small, small)
SSE(sse_precision, 0x0f80, "divsd", one, three)
SSE(sse_masked, 0x1d81, "divsd", one, zero)
SSE(sse_two, 0x0b80, "mulsd", huge, huge)
SSE(sse_sticky, 0x1d01, "divsd", one, zero)

#define PLAIN(name, text)                                                                          \
    static void name(void)                                                                         \
    {                                                                                              \
        __asm__ volatile(text : : : "rax", "rbx", "rcx", "rdx", "r12", "cc", "memory");            \
    }

PLAIN(divide, "xor %%ecx, %%ecx\n\tdiv %%ecx")
PLAIN(int3, "int3")
PLAIN(int_3, "int $3")
PLAIN(int1, ".byte 0xf1")
PLAIN(step, "pushfq\n\torl $0x100, (%%rsp)\n\tpopfq\n\tnop\n\tnop")
PLAIN(int_4, "int $4")
PLAIN(int_5, "int $5")
PLAIN(int_21h, "int $0x21")
PLAIN(ud2, "ud2")
PLAIN(cli, "cli")
PLAIN(not_canonical, "mov $1, %%eax\n\tshl $63, %%rax\n\tmov (%%rax), %%rax")
PLAIN(stack, "mov %%rbp, %%rbx\n\tmov $1, %%ebp\n\tshl $63, %%rbp\n\tmov 0(%%rbp), %%rax")
PLAIN(unaligned, "pushfq\n\torl $0x40000, (%%rsp)\n\tpopfq\n\tmov 1(%%rsp), %%rax")

#define ROW(name) {#name, name}
static const struct {
    const char *name;
    void (*run)(void);
} outside[] = {
    ROW(divide), ROW(int3), ROW(int_3), ROW(int1), ROW(step), ROW(int_4), ROW(int_5), ROW(int_21h),
    ROW(ud2), ROW(cli), ROW(not_canonical), ROW(stack), ROW(unaligned), ROW(x87_invalid),
    ROW(x87_denormal), ROW(x87_divide), ROW(x87_overflow), ROW(x87_underflow), ROW(x87_precision),
    ROW(x87_masked), ROW(x87_two), ROW(sse_invalid), ROW(sse_denormal), ROW(sse_divide),
    ROW(sse_overflow), ROW(sse_underflow), ROW(sse_precision), ROW(sse_masked), ROW(sse_two),
    ROW(sse_sticky),
};

static const struct {
    const char *name;
    unsigned what;
} within[] = {
    {"in_divide", TRY_DIV}, {"in_ud2", TRY_UD2}, {"in_int3", TRY_INT3}, {"in_cli", TRY_CLI},
    {"in_x87", TRY_X87}, {"in_sse", TRY_SSE}, {"in_stack", TRY_SS}, {"in_unaligned", TRY_AC},
};

int main(int argc, char **argv)
{
    static const int numbers[] = {SIGILL, SIGTRAP, SIGBUS, SIGFPE, SIGSEGV};

    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        struct sigaction action = {.sa_sigaction = caught, .sa_flags = SA_SIGINFO | SA_NODEFER};

        DO(sigaction(numbers[i], &action, NULL));
    }
    for (size_t i = 0; i < sizeof(outside) / sizeof(outside[0]); i++) {
        if (!sigsetjmp(back, 1)) {
            outside[i].run();
            FAIL("%s: no signal", outside[i].name);
        }
        row(outside[i].name);
    }
    if (argc < 3)
        return 0;
    start(&e, argc, argv);
    inside = true;
    for (size_t i = 0; i < sizeof(within) / sizeof(within[0]); i++) {
        struct call call = {within[i].what, 0, 0, 0, 0};

        memset(&seen, 0, sizeof(seen));
        own_enter(&call, e.tcs[0], EENTER);
        if (!seen.number) {
            printf("ok %s none\n", within[i].name);
            continue;
        }
        SAME(seen.rip, (uint64_t)own_aep);
        SAME(call.result, SKIPPED);
        row(within[i].name);
    }
    return 0;
}
