/*
 * Exceptions of the processor: which signal, with which siginfo and context, where the program goes
 * on; what happens if the signal is blocked, ignored or has no handler.
 */
#include "cases.h"

#include <setjmp.h>

#define TF 0x100
#define RF 0x10000
#define AC 0x40000

struct fault {
    const char *name;
    void (*run)(void);
};

static uint8_t *pages;     /* rw-, r--, ---, then the second page of a file of one */
static uint8_t *beyond;
static volatile uintptr_t fault_at; /* the address the instruction names */
static sigjmp_buf back;
static volatile int count;
static int stop_after;


/* A handler begins with the AC of what it interrupts. */
#define CLEAR_AC                                                                                   \
    unsigned long flags_at_first;                                                                  \
    __asm__ volatile("pushf\n\tmov (%%rsp), %0\n\tandl $~0x40400, (%%rsp)\n\tpopf"                  \
                     : "=r"(flags_at_first)                                                        \
                     :                                                                             \
                     : "memory", "cc");                                                            \
    (void)flags_at_first

static void tell(int number, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;
    greg_t *r = uc->uc_mcontext.gregs;
    uintptr_t rip = r[REG_RIP], address = (uintptr_t)info->si_addr;
    static char place[64], offset[64];

    /* R15 is where the instruction is. */
    snprintf(offset, sizeof(offset), "%+ld", (long)(rip - r[REG_R15]));
    if (rip == fault_at)
        strcpy(offset, "where it was");
    if (info->si_code <= 0) {
        strcpy(offset, "-");
        address = r[REG_ERR] = r[REG_TRAPNO] = 0;
    }
    snprintf(place, sizeof(place), "%#lx", (long)address);
    if (info->si_code > 0 && address - fault_at + 64 < 128)
        snprintf(place, sizeof(place), "%+ld of it", (long)(address - fault_at));
    if (address && address == fault_at)
        strcpy(place, "where it was");
    else if (address && address == rip)
        strcpy(place, "RIP");
    else if (address && address == (uintptr_t)r[REG_R15])
        strcpy(place, "the instruction");
    say("signal %d: si_signo %d errno %d code %d address %s err %#lx trapno %ld RIP %s CR2 %s "
        "TF %d RF %d AC %d CS %#x SS %#x mask %#lx of the context %#lx oldmask %#lx flags %#lx",
        number, info->si_signo, info->si_errno, info->si_code, place, (long)r[REG_ERR],
        (long)r[REG_TRAPNO], offset,
        r[REG_TRAPNO] != 14                                ? "-"
        : (uintptr_t)r[REG_CR2] == fault_at                ? "where it was"
        : (uintptr_t)r[REG_CR2] == (uintptr_t)r[REG_R15]   ? "the instruction"
                                                           : "elsewhere",
        !!(r[REG_EFL] & TF), !!(r[REG_EFL] & RF), !!(r[REG_EFL] & AC),
        (unsigned)(r[REG_CSGSFS] & 0xffff), (unsigned)(r[REG_CSGSFS] >> 48), (long)mask_now(),
        (long)*context_mask(context), (long)r[REG_OLDMASK], uc->uc_flags);
}

static void told_and_on(int number, siginfo_t *info, void *context)
{
    CLEAR_AC;
    greg_t *r = registers(context);

    tell(number, info, context);
    if (++count > 8)
        _exit(9);
    /* R14 is where to go on. */
    r[REG_RIP] = r[REG_R14];
    r[REG_EFL] &= ~(TF | AC);
}

static void told_and_jump(int number, siginfo_t *info, void *context)
{
    CLEAR_AC;
    tell(number, info, context);
    siglongjmp(back, 1);
}

/* An instruction with R15 at it and R14 after it; RSI is an address. */
#define AT(instruction, address)                                                                   \
    do {                                                                                           \
        fault_at = (uintptr_t)(address);                                                           \
        __asm__ volatile("lea 1f(%%rip), %%r15\n\tlea 2f(%%rip), %%r14\n\t"                        \
                         "1: " instruction "\n\t2:\n\tcld\n\tfninit"                                        \
                         :                                                                         \
                         : "S"(fault_at)                                                           \
                         : "rax", "rbx", "rcx", "rdx", "rdi", "r8", "r9", "r10", "r11", "r14",     \
                           "r15", "xmm0", "xmm1", "memory", "cc");                                 \
    } while (0)

static void read_nothing(void) { AT("mov (%%rsi), %%eax", 0x1238); }
static void write_nothing(void) { AT("mov %%eax, (%%rsi)", 0x1238); }
static void write_read_only(void) { AT("mov %%eax, (%%rsi)", pages + 4096 + 16); }
static void read_no_access(void) { AT("mov (%%rsi), %%eax", pages + 8192 + 24); }
static void write_no_access(void) { AT("lock incl (%%rsi)", pages + 8192 + 24); }
static void fetch_no_exec(void) { AT("jmp *%%rsi", pages); }
static void fetch_nothing(void) { AT("jmp *%%rsi", 0x2000); }
static void read_kernel(void) { AT("mov (%%rsi), %%eax", 0xffffffff81000000UL); }
static void write_kernel(void) { AT("mov %%eax, (%%rsi)", 0xffff888000000000UL); }
static void read_end_of_user(void) { AT("mov (%%rsi), %%eax", 0x7ffffffff000UL); }
static void read_across(void) { AT("mov (%%rsi), %%rax", pages + 8192 - 4); }
static void not_canonical(void) { AT("mov (%%rsi), %%eax", 0x8000000000000000UL); }
static void not_canonical_write(void) { AT("mov %%eax, (%%rsi)", 0x800000000000UL); }
static void not_canonical_stack(void)
{
    AT("mov %%rbp, %%rbx\n\tmov %%rsi, %%rbp\n\tmov (%%rbp), %%rax", 0x8000000000000000UL);
}
static void not_canonical_jump(void) { AT("jmp *%%rsi", 0x8000000000000000UL); }
static void beyond_file(void) { AT("mov (%%rsi), %%eax", beyond + 8); }
static void beyond_file_write(void) { AT("mov %%eax, (%%rsi)", beyond + 8); }
static void divide(void) { AT("xor %%ecx, %%ecx\n\tdiv %%ecx", 0); }
static void divide_overflow(void) { AT("mov $2, %%edx\n\tmov $1, %%ecx\n\tdiv %%ecx", 0); }
static void undefined(void) { AT("ud2", 0); }
static void undefined_lock(void) { AT(".byte 0xf0, 0x90", 0); }
static void undefined_ud1(void) { AT("ud1 (%%rsi), %%eax", 0); }
static void undefined_old(void) { AT(".byte 0x06", 0); }
static void breakpoint(void) { AT("int3", 0); }
static void breakpoint_long(void) { AT(".byte 0xcd, 3", 0); }
static void icebp(void) { AT(".byte 0xf1", 0); }
static void into(void) { AT("int $4", 0); }
static void interrupt(void) { AT("int $0x20", 0); }
static void halt(void) { AT("hlt", 0); }
static void clear_interrupts(void) { AT("cli", 0); }
static void input(void) { AT("inb $0x80, %%al", 0); }
static void control_register(void) { AT("mov %%cr0, %%rax", 0); }
static void debug_register(void) { AT("mov %%db0, %%rax", 0); }
static void model_register(void) { AT("rdmsr", 0); }
static void too_long(void)
{
    AT(".byte 0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x90", 0);
}
static void unaligned_sse(void) { AT("movaps (%%rsi), %%xmm0", pages + 4); }
static void alignment(void)
{
    AT("pushf\n\torl $0x40000, (%%rsp)\n\tpopf\n\tmov 1(%%rsi), %%eax\n\t"
       "pushf\n\tandl $~0x40000, (%%rsp)\n\tpopf",
       pages);
}
static void bad_selector(void) { AT("mov $0x1234, %%eax\n\tmov %%eax, %%fs", 0); }
static void bad_return(void) { AT("push $0x1233\n\tpush $0\n\tlretq", 0); }
static const struct {
    uint16_t fp_stack, fp_divide, fp_overflow, reserved;
    uint64_t big;
    uint32_t sse_divide, sse_invalid, sse_inexact, sse_bad;
} words __attribute__((aligned(16))) = {0x37e, 0x37b, 0x377, 0, 0x7fff,
                                        0x1d80, 0x1f00, 0x0f80, ~0U};
static void fp_stack(void)
{
    AT("fninit\n\tfldcw (%%rsi)\n\tfstp %%st(0)\n\tfwait", &words.fp_stack);
}
static void fp_divide(void)
{
    AT("fninit\n\tfldcw (%%rsi)\n\tfld1\n\tfldz\n\tfdivrp\n\tfwait", &words.fp_divide);
}
static void fp_overflow(void)
{
    AT("fninit\n\tfldcw (%%rsi)\n\tfildq 4(%%rsi)\n\tfld1\n\tfscale\n\tfwait", &words.fp_overflow);
}
static void sse_divide(void)
{
    AT("ldmxcsr (%%rsi)\n\tmov $1, %%eax\n\tcvtsi2sd %%eax, %%xmm0\n\t"
       "xorps %%xmm1, %%xmm1\n\tdivsd %%xmm1, %%xmm0",
       &words.sse_divide);
}
static void sse_invalid(void)
{
    AT("ldmxcsr (%%rsi)\n\txorps %%xmm1, %%xmm1\n\txorps %%xmm0, %%xmm0\n\t"
       "divsd %%xmm1, %%xmm0",
       &words.sse_invalid);
}
static void sse_inexact(void)
{
    AT("ldmxcsr (%%rsi)\n\tmov $1, %%eax\n\tmov $3, %%ecx\n\t"
       "cvtsi2sd %%eax, %%xmm0\n\tcvtsi2sd %%ecx, %%xmm1\n\tdivsd %%xmm1, %%xmm0",
       &words.sse_inexact);
}
static void bad_mxcsr(void) { AT("ldmxcsr (%%rsi)", &words.sse_bad); }
static void bad_xsave(void) { AT("xor %%ecx, %%ecx\n\txsetbv", 0); }
static void vsyscall_read(void) { AT("mov (%%rsi), %%eax", 0xffffffffff600000UL); }
static void vsyscall_jump(void) { AT("jmp *%%rsi", 0xffffffffff600008UL); }
static void step(void) { AT("pushf\n\torl $0x100, (%%rsp)\n\tpopf\n\tnop", 0); }
static void encls(void) { AT(".byte 0x0f, 0x01, 0xcf", 0); }

#define FAULT(function) {#function, function}
static const struct fault faults[] = {
    FAULT(read_nothing), FAULT(write_nothing), FAULT(write_read_only), FAULT(read_no_access),
    FAULT(write_no_access), FAULT(fetch_no_exec), FAULT(fetch_nothing), FAULT(read_kernel),
    FAULT(write_kernel), FAULT(read_end_of_user), FAULT(read_across), FAULT(not_canonical),
    FAULT(not_canonical_write), FAULT(not_canonical_jump), FAULT(beyond_file),
    FAULT(beyond_file_write), FAULT(divide), FAULT(divide_overflow), FAULT(undefined),
    FAULT(undefined_lock), FAULT(undefined_ud1), FAULT(undefined_old), FAULT(breakpoint),
    FAULT(breakpoint_long), FAULT(icebp), FAULT(into), FAULT(interrupt), FAULT(halt),
    FAULT(clear_interrupts), FAULT(input), FAULT(control_register), FAULT(debug_register),
    FAULT(model_register), FAULT(too_long), FAULT(unaligned_sse), FAULT(alignment),
    FAULT(bad_selector), FAULT(fp_stack), FAULT(fp_divide), FAULT(fp_overflow),
    FAULT(sse_divide), FAULT(sse_invalid), FAULT(sse_inexact), FAULT(bad_xsave),
    FAULT(vsyscall_read), FAULT(vsyscall_jump), FAULT(step), FAULT(encls), FAULT(bad_mxcsr),
    /* Those leave the stack elsewhere. */
    FAULT(bad_return), FAULT(not_canonical_stack),
};
/* So many of them go on at the next instruction. */
#define GO_ON (COUNT(faults) - 2)

static void prepare(void *handler, unsigned long flags)
{
    int fd = memfd_create("one page", MFD_CLOEXEC);

    pages = mmap(NULL, 3 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(pages + 4096, 4096, PROT_READ);
    mprotect(pages + 8192, 4096, PROT_NONE);
    if (ftruncate(fd, 4096))
        _exit(9);
    beyond = (uint8_t *)mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) + 4096;
    for (size_t i = 0; handler && i < COUNT(exceptions); i++)
        on(exceptions[i], handler, flags);
}

static void handled(void)
{
    prepare(told_and_on, 0);
    for (size_t i = 0; i < GO_ON; i++) {
        say("%s", faults[i].name);
        count = 0;
        faults[i].run();
    }
    say("mask %#lx", (long)mask_now());
}

static void left_by_jump(void)
{
    prepare(told_and_jump, 0);
    for (size_t i = 0; i < COUNT(faults); i++) {
        say("%s", faults[i].name);
        if (!sigsetjmp(back, 1))
            faults[i].run();
    }
    say("mask %#lx", (long)mask_now());
}

static void on_alternate_stack(void)
{
    stack_t stack = {malloc(65536), 0, 65536};

    sigaltstack(&stack, NULL);
    prepare(told_and_on, SA_ONSTACK | SA_NODEFER);
    for (size_t i = 0; i < GO_ON; i += 3) {
        say("%s", faults[i].name);
        count = 0;
        faults[i].run();
    }
}

/* The masks of others: what the context of the fault shows. */
static void with_masks(void)
{
    prepare(told_and_on, 0);
    for (size_t i = 0; i < COUNT(exceptions); i++)
        on_masking(exceptions[i], told_and_on, SA_SIGINFO, BIT(SIGUSR1) | BIT(SIGTRAP));
    for (size_t i = 0; i < GO_ON; i += 5) {
        mask_set(BIT(SIGUSR2) | BIT(40));
        say("%s", faults[i].name);
        count = 0;
        faults[i].run();
        say("mask %#lx", (long)mask_now());
    }
}

static size_t chosen;

static void run_chosen(void)
{
    faults[chosen].run();
    say("went on");
}

static void each_in_a_child(size_t stride)
{
    for (chosen = 0; chosen < COUNT(faults); chosen += stride)
        in_child(faults[chosen].name, run_chosen);
}

static void by_default(void)
{
    prepare(NULL, 0);
    each_in_a_child(1);
}

static void ignored(void)
{
    prepare(NULL, 0);
    for (size_t i = 0; i < COUNT(exceptions); i++)
        ignore(exceptions[i]);
    each_in_a_child(1);
}

static void blocked(void)
{
    prepare(told_and_on, 0);
    mask_set(EXCEPTIONS);
    each_in_a_child(1);
}

static void all_blocked(void)
{
    prepare(told_and_on, 0);
    mask_set(~0UL);
    each_in_a_child(3);
}

static void reset(void)
{
    prepare(told_and_on, SA_RESETHAND);
    for (chosen = 0; chosen < 4; chosen++) {
        faults[chosen].run();
        in_child("again", run_chosen);
        on(SIGSEGV, told_and_on, SA_RESETHAND);
    }
}

static void faults_itself(int number, siginfo_t *info, void *context)
{
    tell(number, info, context);
    if (++count < 4)
        AT("mov %%eax, (%%rsi)", 0x1238);
    if (number == SIGSEGV)
        registers(context)[REG_RIP] = registers(context)[REG_R14];
}

static void in_its_own_handler(void)
{
    on(SIGSEGV, faults_itself, 0);
    read_nothing();
}

static void in_its_own_handler_not_deferred(void)
{
    on(SIGSEGV, faults_itself, SA_NODEFER);
    read_nothing();
    say("%d faults", count);
}

static void in_another_handler(void)
{
    prepare(told_and_on, 0);
    on_masking(SIGUSR1, faults_itself, SA_SIGINFO, BIT(SIGUSR2));
    count = 3;
    raise(SIGUSR1);
    on_masking(SIGUSR1, faults_itself, SA_SIGINFO, BIT(SIGSEGV));
    count = 0;
    raise(SIGUSR1);
}

static void repairs(int number, siginfo_t *info, void *context)
{
    tell(number, info, context);
    if (++count == 1)
        mprotect(pages + 8192, 4096, PROT_READ);
    else
        mprotect(pages + 8192, 4096, PROT_READ | PROT_WRITE);
}

static void repaired(void)
{
    prepare(told_and_on, 0);
    on(SIGSEGV, repairs, 0);
    write_no_access();
    say("%d faults, %d", count, *(int *)(pages + 8192 + 24));
}

static void deeper(int number, siginfo_t *info, void *context)
{
    tell(number, info, context);
    if (count < 5) {
        count++;
        static void (*const next[])(void) = {undefined, divide, breakpoint, beyond_file, halt};
        next[count - 1]();
    }
    registers(context)[REG_RIP] = registers(context)[REG_R14];
}

static void nested(void)
{
    prepare(deeper, SA_NODEFER);
    read_nothing();
    say("mask %#lx", (long)mask_now());
}

static uintptr_t first_step;
static char steps[400];
static size_t steps_length;

static void stepped(int number, siginfo_t *info, void *context)
{
    greg_t *r = registers(context);
    uintptr_t rip = r[REG_RIP];

    if (!first_step)
        first_step = rip;
    if (steps_length < sizeof(steps) - 40)
        steps_length += snprintf(steps + steps_length, sizeof(steps) - steps_length, " %+ld%s",
                                 (long)(rip - first_step),
                                 (uintptr_t)info->si_addr == rip ? "" : "(address)");
    if (number != SIGTRAP || info->si_code != TRAP_TRACE || !(r[REG_EFL] & TF))
        say("another: signal %d code %d TF %d", number, info->si_code, !!(r[REG_EFL] & TF));
    if (++count > stop_after)
        r[REG_EFL] &= ~TF;
}

#define STEPS(body)                                                                                \
    do {                                                                                           \
        uint64_t words_[8] = {0}, *at_ = words_, rdi_ = 0;                                         \
                                                                                                   \
        first_step = count = steps_length = 0;                                                     \
        __asm__ volatile("pushf\n\torl $0x100, (%%rsp)\n\tpopf\n\t" body                           \
                         "\n\tpushf\n\tandl $~0x100, (%%rsp)\n\tpopf\n\tnop"                       \
                         : "+S"(at_), "+D"(rdi_)                                                   \
                         :                                                                         \
                         : "rax", "rbx", "rcx", "rdx", "r8", "r9", "r10", "r11", "memory", "cc");  \
        say("%s: %d steps:%.*s", #body, count, (int)steps_length, steps);                          \
    } while (0)

/* Each instruction with TF set by the program; system calls that are ours and others. */
static void single_steps(void)
{
    stop_after = 100;
    on(SIGTRAP, stepped, 0);
    STEPS("nop\n\tnop");
    STEPS("mov $39, %%eax\n\tsyscall\n\tnop");
    STEPS("mov $14, %%eax\n\txor %%edi, %%edi\n\txor %%edx, %%edx\n\tmov $8, %%r10d\n\tsyscall");
    STEPS("mov $131, %%eax\n\txor %%edi, %%edi\n\txor %%esi, %%esi\n\tsyscall");
    STEPS("mov $13, %%eax\n\tmov $10, %%edi\n\txor %%edx, %%edx\n\tmov $8, %%r10d\n\tsyscall");
    STEPS("mov $9999, %%eax\n\tsyscall\n\tcld");
    STEPS("mov $3, %%ecx\n\trep lodsb");
    STEPS("mov %%ss, %%eax\n\tmov %%eax, %%ss\n\tnop");
    stop_after = 2;
    STEPS("nop\n\tnop\n\tnop\n\tnop\n\tnop");
}

static void step_cpuid(void)
{
    stop_after = 100;
    on(SIGTRAP, stepped, 0);
    STEPS("xor %%eax, %%eax\n\tcpuid\n\tnop");
    STEPS("rdtsc\n\tnop");
}

static void step_over_faults(void)
{
    prepare(told_and_on, 0);
    stop_after = 100;
    on(SIGTRAP, stepped, 0);
    first_step = count = steps_length = 0;
    __asm__ volatile("lea 1f(%%rip), %%r15\n\tlea 2f(%%rip), %%r14\n\tpushf\n\t"
                     "orl $0x100, (%%rsp)\n\tpopf\n\tnop\n\t1: ud2\n\t2: nop\n\tnop"
                     :
                     :
                     : "r14", "r15", "memory", "cc");
    say("%d steps:%s", count, steps);
}

static void step_blocked(void)
{
    on(SIGTRAP, stepped, 0);
    mask_set(BIT(SIGTRAP));
    step();
}

static void step_ignored(void)
{
    ignore(SIGTRAP);
    step();
}

static void sets_step(int number, siginfo_t *info, void *context)
{
    (void)number;
    (void)info;
    registers(context)[REG_EFL] |= TF;
}

/* The handler sets TF in the context: after it returns one instruction is executed. */
static void step_by_return(void)
{
    stop_after = 3;
    on(SIGTRAP, stepped, 0);
    on(SIGUSR1, sets_step, 0);
    on(SIGSEGV, sets_step, 0);
    for (int i = 0; i < 2; i++) {
        first_step = count = steps_length = 0;
        __asm__ volatile("syscall\n\tnop\n\tnop\n\tnop\n\tnop\n\tnop"
                         :
                         : "a"(SYS_tgkill), "D"(getpid()), "S"(tid_now()),
                           "d"(i ? SIGSEGV : SIGUSR1)
                         : "rcx", "r11", "memory");
        say("%d steps:%s", count, steps);
    }
}

/* Handlers start without TF, and without AC as well. */
static void tell_flags(int number, siginfo_t *info, void *context)
{
    CLEAR_AC;
    unsigned long flags = flags_at_first;

    (void)info;
    say("handler of %d: TF %d AC %d DF %d, context TF %d AC %d DF %d", number, !!(flags & TF),
        !!(flags & AC), !!(flags & 0x400), !!(registers(context)[REG_EFL] & TF),
        !!(registers(context)[REG_EFL] & AC), !!(registers(context)[REG_EFL] & 0x400));
}

static void flags_of_handlers(void)
{
    static const unsigned long sets[] = {0, AC, 0x400, AC | 0x400};

    on(SIGUSR1, tell_flags, 0);
    on(SIGSYS, tell_flags, 0);
    for (size_t i = 0; i < COUNT(sets); i++)
        for (int j = 0; j < 2; j++) {
            unsigned long flags;

            __asm__ volatile("pushf\n\tor %%rbx, (%%rsp)\n\tpopf\n\tsyscall\n\t"
                             "pushf\n\tmov (%%rsp), %1\n\tandl $~0x40400, (%%rsp)\n\tpopf"
                             : "=a"(flags), "=&r"(flags)
                             : "0"(SYS_tgkill), "D"(getpid()), "S"(tid_now()),
                               "d"(j ? SIGSYS : SIGUSR1), "b"(sets[i])
                             : "rcx", "r11", "memory", "cc");
            say("afterwards AC %d DF %d", !!(flags & AC), !!(flags & 0x400));
        }
}

/* The kernel's own accesses do not raise anything. */
static void by_system_calls(void)
{
    prepare(told_and_on, 0);
    TRY(write(1, (void *)0x1238, 4));
    TRY(syscall(SYS_rt_sigprocmask, SIG_BLOCK, pages + 8192, NULL, 8UL));
    TRY(syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, pages + 4096, 8UL));
    TRY(syscall(SYS_rt_sigprocmask, SIG_BLOCK, beyond, NULL, 8UL));
    TRY(syscall(SYS_rt_sigaction, SIGUSR1, beyond, NULL, 8UL));
    TRY(syscall(SYS_sigaltstack, pages + 8192, NULL));
    TRY(syscall(SYS_rt_sigprocmask, SIG_BLOCK, 0x8000000000000000UL, NULL, 8UL));
}


static void *thread_faults(void *argument)
{
    (void)argument;
    for (int i = 0; i < 50; i++) {
        count = 0;
        if (i & 1)
            read_nothing();
        else
            undefined();
    }
    return NULL;
}

static void quiet(int number, siginfo_t *info, void *context)
{
    greg_t *r = registers(context);

    if (number != (info->si_code == ILL_ILLOPN ? SIGILL : SIGSEGV))
        say("signal %d code %d", number, info->si_code);
    r[REG_RIP] = r[REG_R14];
}

static void in_threads(void)
{
    pthread_t threads[4];

    prepare(quiet, 0);
    for (int i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, thread_faults, NULL);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    say("all done");
}

/* Sent signals with the numbers of exceptions, between exceptions. */
static void with_sent_ones(void)
{
    prepare(told_and_on, 0);
    mask_set(BIT(SIGILL) | BIT(SIGSEGV));
    kill(getpid(), SIGILL);
    kill(getpid(), SIGSEGV);
    mask_set(BIT(SIGILL) | BIT(SIGSEGV));
    say("pending %#lx", (long)pending_now());
    chosen = 16;
    run_chosen();
    say("pending %#lx", (long)pending_now());
    in_child("child", run_chosen);
}

/* The signal is pending and blocked when the exception raises it: it dies of the exception. */
static void pending_too(void)
{
    prepare(told_and_on, 0);
    mask_set(BIT(SIGSEGV));
    kill(getpid(), SIGSEGV);
    read_nothing();
    say("not reached");
}

static void tell_last(int number, siginfo_t *info, void *context)
{
    greg_t *r = registers(context);

    (void)info;
    say("signal %d: err %#lx trapno %ld CR2 %#lx", number, (long)r[REG_ERR], (long)r[REG_TRAPNO],
        (long)r[REG_CR2]);
}

/* What was sent shows the last exception of the thread that became a signal, if there was one. */
static void sent_before_any(void)
{
    on(SIGUSR1, tell_last, 0);
    on(SIGSEGV, tell_last, 0);
    raise(SIGUSR1);
    raise(SIGSEGV);
}

static void sent_after_one(void)
{
    on(SIGUSR1, tell_last, 0);
    on(SIGSEGV, told_and_on, 0);
    on(SIGFPE, told_and_on, 0);
    read_nothing();
    raise(SIGUSR1);
    halt();
    raise(SIGUSR1);
    divide();
    raise(SIGUSR1);
}

CASES_MAIN(CASE(handled), CASE(left_by_jump), CASE(on_alternate_stack), CASE(with_masks),
           CASE(by_default), CASE(ignored), CASE(blocked), CASE(all_blocked), CASE(reset),
           CASE(in_its_own_handler), CASE(in_its_own_handler_not_deferred),
           CASE(in_another_handler), CASE(repaired), CASE(nested), CASE(single_steps),
           CASE(step_cpuid), CASE(step_over_faults), CASE(step_blocked), CASE(step_ignored),
           CASE(step_by_return), CASE(flags_of_handlers), CASE(by_system_calls), CASE(in_threads),
           CASE(with_sent_ones), CASE(pending_too),
           CASE(sent_before_any), CASE(sent_after_one))
