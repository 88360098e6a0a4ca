/*
 * The frame that a handler gets, and what of it counts when it returns: registers, FP and vector
 * state, contexts that are made, kept, or jumped out of.
 */
#include "cases.h"

#include <setjmp.h>

#define XSTATE_MAGIC1 0x46505853U

static volatile int count;
static ucontext_t first, second;
static sigjmp_buf back;
static jmp_buf back_without_mask;

struct sw_reserved {
    uint32_t magic1, extended_size;
    uint64_t xfeatures;
    uint32_t xstate_size, padding[7];
};

static struct sw_reserved *software(ucontext_t *uc)
{
    return (struct sw_reserved *)((uint8_t *)uc->uc_mcontext.fpregs + 464);
}

static void tell_frame(int number, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;
    uintptr_t fp = (uintptr_t)uc->uc_mcontext.fpregs, rsp = registers(context)[REG_RSP];
    struct sw_reserved *sw = software(uc);
    uint32_t mxcsr, magic2;
    uint16_t control;

    __asm__ volatile("stmxcsr %0\n\tfnstcw %1" : "=m"(mxcsr), "=m"(control));
    memcpy(&magic2, (uint8_t *)fp + sw->xstate_size, 4);
    say("handler of %d: flags %#lx link %p, FP %s frame, below RSP by %lu, aligned %lu", number,
        uc->uc_flags, (void *)uc->uc_link, fp > (uintptr_t)uc ? "above the" : "below the",
        (rsp - fp - sw->extended_size) / 512, fp % 64);
    say("magic %#x %#x, size %u of %u, features %#lx, MXCSR %#x, CW %#x; context MXCSR %#x CW %#x",
        sw->magic1, magic2, sw->xstate_size, sw->extended_size, sw->xfeatures, mxcsr, control,
        uc->uc_mcontext.fpregs->mxcsr, uc->uc_mcontext.fpregs->cwd);
    say("siginfo %s context, stack aligned %lu, return address %s",
        (uintptr_t)info > (uintptr_t)uc ? "above the" : "below the",
        ((uintptr_t)uc - 8) % 16, ((void **)uc)[-1] == (void *)restorer ? "the restorer" : "other");
}

static void layout(void)
{
    on(SIGUSR1, tell_frame, 0);
    on(SIGSEGV, tell_frame, 0);
    on(SIGSYS, tell_frame, 0);
    raise(SIGUSR1);
    raise(SIGSEGV);
    raise(SIGSYS);
    __asm__ volatile("push $0x3f80\n\tldmxcsr (%%rsp)\n\tpop %%rax\n\t"
                     "push $0x27f\n\tfldcw (%%rsp)\n\tpop %%rax"
                     :
                     :
                     : "rax", "memory");
    raise(SIGUSR1);
    raise(SIGSEGV);
}

static void clobbers(int number, siginfo_t *info, void *context)
{
    (void)number;
    (void)info;
    (void)context;
    __asm__ volatile("xor %%eax, %%eax\n\tmov %%rax, %%rbx\n\tmov %%rax, %%rcx\n\t"
                     "mov %%rax, %%r8\n\tmov %%rax, %%r9\n\tmov %%rax, %%r10\n\tmov %%rax, %%r11\n\t"
                     "mov %%rax, %%r12\n\tmov %%rax, %%r13\n\tmov %%rax, %%r14\n\tmov %%rax, %%r15\n\t"
                     "pcmpeqd %%xmm0, %%xmm0\n\tpcmpeqd %%xmm7, %%xmm7\n\tpcmpeqd %%xmm15, %%xmm15\n\t"
                     "fninit\n\tfldpi"
                     :
                     :
                     : "rax", "rbx", "rcx", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
                       "xmm0", "xmm7", "xmm15", "memory", "cc");
    count++;
}

/* Registers from `in`, a system call (RAX = 5: INT3 instead), registers to `out`. */
void all_registers(const uint64_t *in, uint64_t *out);
__asm__(".pushsection .text\n"
        ".globl all_registers\n"
        "all_registers:\n"
        "push %rbx\n\tpush %rbp\n\tpush %r12\n\tpush %r13\n\tpush %r14\n\tpush %r15\n\t"
        "push %rsi\n\tmov %rdi, %rcx\n\t"
        "mov (%rcx), %rax\n\tmov 16(%rcx), %rdx\n\tmov 24(%rcx), %rbx\n\t"
        "mov 40(%rcx), %rbp\n\tmov 48(%rcx), %rsi\n\tmov 56(%rcx), %rdi\n\t"
        "mov 64(%rcx), %r8\n\tmov 72(%rcx), %r9\n\tmov 80(%rcx), %r10\n\t"
        "mov 96(%rcx), %r12\n\tmov 104(%rcx), %r13\n\tmov 112(%rcx), %r14\n\t"
        "mov 120(%rcx), %r15\n\t"
        "cmp $5, %eax\n\tje 1f\n\tsyscall\n\tjmp 2f\n\t1: int3\n\t2:\n\t"
        "mov (%rsp), %rcx\n\t"
        "mov %rax, (%rcx)\n\tmov %rdx, 16(%rcx)\n\tmov %rbx, 24(%rcx)\n\t"
        "mov %rbp, 40(%rcx)\n\tmov %rsi, 48(%rcx)\n\tmov %rdi, 56(%rcx)\n\t"
        "mov %r8, 64(%rcx)\n\tmov %r9, 72(%rcx)\n\tmov %r10, 80(%rcx)\n\t"
        "mov %r12, 96(%rcx)\n\tmov %r13, 104(%rcx)\n\tmov %r14, 112(%rcx)\n\t"
        "mov %r15, 120(%rcx)\n\t"
        "pop %rsi\n\tpop %r15\n\tpop %r14\n\tpop %r13\n\tpop %r12\n\tpop %rbp\n\tpop %rbx\n\t"
        "ret\n"
        ".popsection\n");

/* Every register is what it was, after a signal that was sent and after an exception. */
static void kept(void)
{
    static const int numbers[] = {SIGUSR1, SIGTRAP, SIGSEGV, SIGSYS};

    for (int way = 0; way < 4; way++) {
        uint64_t in[16], out[16] = {0}, xmm[4] = {1, 2, 3, 4}, xmm_out[4] = {0};
        const uint64_t *from = in;
        uint64_t *to = out;
        double fp = 0;

        on(numbers[way], clobbers, 0);
        for (int i = 0; i < 16; i++)
            in[i] = 0x1000100010001UL * (i + 1);
        in[0] = way == 1 ? 5 : SYS_tgkill;
        in[2] = numbers[way];
        in[6] = tid_now();
        in[7] = getpid();
        __asm__ volatile("movups (%[xmm]), %%xmm7\n\tmovups 16(%[xmm]), %%xmm15\n\tfninit\n\tfldl2e\n\t"
                         "call all_registers\n\t"
                         "movups %%xmm7, (%[to])\n\tmovups %%xmm15, 16(%[to])\n\tfstpl %[fp]"
                         : "+D"(from), "+S"(to), [fp] "=m"(fp)
                         : [xmm] "b"(xmm), [to] "r"(xmm_out)
                         : "rax", "rcx", "rdx", "r8", "r9", "r10", "r11", "memory", "cc", "xmm7",
                           "xmm15");
        in[0] = way == 1 ? 5 : 0;
        for (int i = 0; i < 16; i++)
            if (i != 1 && i != 4 && i != 11 && out[i] != in[i])
                say("register %d is %#lx", i, (long)out[i]);
        say("way %d: xmm %lu %lu %lu %lu, FP %d, handled %d", way, (long)xmm_out[0],
            (long)xmm_out[1], (long)xmm_out[2], (long)xmm_out[3], (int)(fp * 1000), count);
    }
}

static void changes(int number, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;

    (void)number;
    (void)info;
    registers(context)[REG_RBX] = 0x1234;
    registers(context)[REG_R12] = 0x5678;
    registers(context)[REG_R11] = 0x9abc;
    registers(context)[REG_RCX] = 0xdef0;
    registers(context)[REG_RAX] = 0x1111;
    registers(context)[REG_EFL] |= 0x401;
    uc->uc_mcontext.fpregs->_xmm[3].element[0] = 0x77777777;
    uc->uc_mcontext.fpregs->mxcsr = 0x5f80;
    uc->uc_mcontext.fpregs->cwd = 0xe7f;
    /* Of SSE the frame says that it is not as at first. */
    if (software(uc)->magic1 == XSTATE_MAGIC1)
        *(uint64_t *)((uint8_t *)uc->uc_mcontext.fpregs + 512) |= 3;
}

/* What a handler changes in its frame is what the program goes on with. */
static void changed(void)
{
    static const int numbers[] = {SIGUSR1, SIGSEGV, SIGSYS, SIGTRAP};

    for (size_t i = 0; i < COUNT(numbers); i++) {
        uint64_t rax = SYS_tgkill, rbx = 0, rcx, r11, r12 = 0, flags;
        uint32_t mxcsr, low;
        uint16_t control;

        on(numbers[i], changes, 0);
        register uint64_t r12_ __asm__("r12") = r12;
        __asm__ volatile("syscall\n\tmov %%r11, %3\n\tpushf\n\tpop %4\n\tcld\n\tstmxcsr %5\n\t"
                         "fnstcw %6\n\tmovd %%xmm3, %7\n\tfninit"
                         : "+a"(rax), "+b"(rbx), "=&c"(rcx), "=&r"(r11), "=&r"(flags), "=m"(mxcsr),
                           "=m"(control), "=r"(low), "+r"(r12_)
                         : "D"(getpid()), "S"(tid_now()), "d"(numbers[i])
                         : "r11", "memory", "cc", "xmm3");
        say("%d: RAX %#lx RBX %#lx RCX %#lx R11 %#lx R12 %#lx CF DF %#lx MXCSR %#x CW %#x XMM3 %#x",
            numbers[i], (long)rax, (long)rbx, (long)rcx, (long)r11, (long)r12_, (long)flags & 0x401,
            mxcsr, control, low);
        mxcsr = 0x1f80;
        __asm__ volatile("ldmxcsr %0" : : "m"(mxcsr));
    }
}

static void no_fp(int number, siginfo_t *info, void *context)
{
    (void)number;
    (void)info;
    ((ucontext_t *)context)->uc_mcontext.fpregs = NULL;
}

static void bad_magic(int number, siginfo_t *info, void *context)
{
    (void)number;
    (void)info;
    software(context)->magic1 = 0;
}

static void after_handler(const char *what, void *handler)
{
    uint32_t mxcsr = 0x5f80, low = 0x4711;

    on(SIGUSR1, handler, 0);
    __asm__ volatile("ldmxcsr %0\n\tmovd %1, %%xmm5\n\tsyscall\n\tstmxcsr %0\n\tmovd %%xmm5, %1"
                     : "+m"(mxcsr), "+r"(low)
                     : "a"(SYS_tgkill), "D"(getpid()), "S"(tid_now()), "d"(SIGUSR1)
                     : "rcx", "r11", "memory", "xmm5");
    say("%s: MXCSR %#x XMM5 %#x", what, mxcsr, low);
    mxcsr = 0x1f80;
    __asm__ volatile("ldmxcsr %0" : : "m"(mxcsr));
}

static void other_fp_frames(void)
{
    after_handler("no FP state", no_fp);
    after_handler("no magic", bad_magic);
}

static int spoiled;

static void spoils(int number, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;
    greg_t *r = registers(context);

    (void)number;
    (void)info;
    switch (spoiled) {
    case 0: uc->uc_mcontext.fpregs = (void *)8; break;
    case 1: uc->uc_mcontext.fpregs->mxcsr = ~0U; break;
    case 2: r[REG_RIP] = 0x8000000000000000L; break;
    case 3: r[REG_RIP] = 0x1238; break;
    case 4: r[REG_RSP] = 8; break;
    case 5: r[REG_CSGSFS] = (r[REG_CSGSFS] & ~0xffffL) | 0x10; break;
    case 6: r[REG_CSGSFS] = (r[REG_CSGSFS] & ~0xffffL) | 0x1237; break;
    case 7: r[REG_CSGSFS] &= 0xffffffffffffL; break;
    case 8: r[REG_CSGSFS] |= 0x1237L << 48; break;
    case 9: uc->uc_flags = 0; break;
    case 10: uc->uc_flags = ~0UL; break;
    case 11: r[REG_EFL] |= 0x3000; break;
    case 12: r[REG_EFL] |= 0x20000; break;
    case 13: r[REG_EFL] = 0; break;
    case 14: uc->uc_mcontext.fpregs = (void *)((uintptr_t)uc->uc_mcontext.fpregs + 4); break;
    case 15: *(uint64_t *)((uint8_t *)uc->uc_mcontext.fpregs + 512) = ~0UL; break;
    case 16: software(uc)->xfeatures = 0; break;
    case 17: software(uc)->xstate_size = 100; break;
    case 18: software(uc)->extended_size = 0; break;
    case 19: uc->uc_mcontext.fpregs = (void *)0x8000000000000000UL; break;
    default: break;
    }
}

static void spoil_one(void)
{
    unsigned long flags;

    raise(count ? SIGSYS : SIGUSR1);
    __asm__ volatile("pushf\n\tpop %0" : "=r"(flags));
    say("went on, IOPL %lx VM %d", flags >> 12 & 3, !!(flags & 0x20000));
}

static void spoiled_frames(void)
{
    on(SIGUSR1, spoils, 0);
    for (count = 0; count < 2; count++)
        for (spoiled = 0; spoiled < 20; spoiled++) {
            char name[32];

            snprintf(name, sizeof(name), "change %d", spoiled);
            if (count)
                on(SIGSYS, spoils, 0);
            in_child(name, spoil_one);
        }
}

static void spoil_told(int number, siginfo_t *info, void *context)
{
    (void)context;
    say("handler of %d: code %d address %p mask %#lx, of the context %#lx", number, info->si_code,
        info->si_code > 0 ? info->si_addr : NULL, (long)mask_now(), (long)*context_mask(context));
    _exit(4);
}

static void spoiled_and_handled(void)
{
    on_masking(SIGUSR1, spoils, SA_SIGINFO, BIT(SIGUSR2));
    on(SIGSEGV, spoil_told, 0);
    on(SIGBUS, spoil_told, 0);
    on(SIGILL, spoil_told, 0);
    for (spoiled = 0; spoiled < 20; spoiled++) {
        char name[32];

        snprintf(name, sizeof(name), "change %d", spoiled);
        in_child(name, spoil_one);
    }
}

/* rt_sigreturn where there is no frame at all. */
static void return_without_frame(void)
{
    __asm__ volatile("mov $15, %%eax\n\tmov $0x1238, %%esp\n\tsyscall" : : : "memory");
}

static void return_without_frame_told(void)
{
    stack_t stack = {malloc(65536), 0, 65536};

    sigaltstack(&stack, NULL);
    on(SIGSEGV, spoil_told, SA_ONSTACK);
    return_without_frame();
}

static void keeps(int number, siginfo_t *info, void *context)
{
    (void)number;
    (void)info;
    memcpy(&second, context, sizeof(second));
    count++;
}

/* A frame that the program wrote by itself, as checkpoint tools do. */
static void own_frame(void)
{
    static struct {
        ucontext_t uc;
        uint8_t room[4096];
    } frame __attribute__((aligned(64)));
    static uint8_t stack[65536];
    volatile int round = 0;

    on(SIGUSR1, keeps, 0);
    raise(SIGUSR1);
    memcpy(&frame.uc, &second, sizeof(frame.uc));
    frame.uc.uc_mcontext.fpregs = NULL;
    *context_mask(&frame.uc) = BIT(SIGUSR2) | BIT(SIGSEGV) | BIT(SIGSYS);
    frame.uc.uc_stack = (stack_t){stack, 0, sizeof(stack)};
    if (!round++) {
        uint64_t rip, rsp;

        __asm__ volatile("lea 1f(%%rip), %0\n\tmov %%rsp, %1" : "=r"(rip), "=r"(rsp));
        frame.uc.uc_mcontext.gregs[REG_RIP] = rip;
        frame.uc.uc_mcontext.gregs[REG_RSP] = rsp;
        __asm__ volatile("push %%rbx\n\tpush %%rbp\n\tmov %%rsp, %%rbx\n\t"
                         "mov %%rsp, %c2(%0)\n\tlea 1f(%%rip), %%rax\n\tmov %%rax, %c3(%0)\n\t"
                         "mov %0, %%rsp\n\tmov $15, %%eax\n\tsyscall\n\tud2\n\t"
                         "1: pop %%rbp\n\tpop %%rbx"
                         :
                         : "r"(&frame.uc), "r"(0L),
                           "i"(offsetof(ucontext_t, uc_mcontext.gregs) + 8 * REG_RSP),
                           "i"(offsetof(ucontext_t, uc_mcontext.gregs) + 8 * REG_RIP)
                         : "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12",
                           "r13", "r14", "r15", "memory", "cc");
        stack_t now;
        sigaltstack(NULL, &now);
        say("back: mask %#lx, alternate stack flags %#x size %zu", (long)mask_now(), now.ss_flags,
            now.ss_size);
    }
}

static void jumps(int number, siginfo_t *info, void *context)
{
    (void)info;
    (void)context;
    say("handler of %d, mask %#lx", number, (long)mask_now());
    siglongjmp(back, number);
}

static void jumps_without(int number, siginfo_t *info, void *context)
{
    (void)info;
    (void)context;
    say("handler of %d, mask %#lx", number, (long)mask_now());
    longjmp(back_without_mask, number);
}

static void jumped(void)
{
    for (volatile size_t i = 0; i < COUNT(exceptions); i++) {
        int number = exceptions[i], got;

        on(number, jumps, 0);
        got = sigsetjmp(back, 1);
        if (!got)
            raise(number);
        say("%d, mask %#lx", got, (long)mask_now());
        on(number, jumps_without, 0);
        got = _setjmp(back_without_mask);
        if (!got)
            raise(number);
        say("%d, mask %#lx, the signal stays blocked", got, (long)mask_now());
    }
    mask_set(0);
    on(SIGSEGV, jumps, 0);
    for (volatile int i = 0; i < 100; i++)
        if (!sigsetjmp(back, 1))
            touch(8);
}

static void deepest(int number, siginfo_t *info, void *context)
{
    (void)info;
    (void)context;
    static const int next[] = {SIGUSR1, SIGSEGV, SIGUSR2, SIGSYS, SIGTRAP, SIGTERM, SIGBUS};

    if (count < (int)COUNT(next))
        raise(next[count++]);
    say("deepest is %d, mask %#lx", number, (long)mask_now());
    siglongjmp(back, 1);
}

static void jumped_from_deep(void)
{
    static const int numbers[] = {SIGUSR1, SIGSEGV, SIGUSR2, SIGSYS, SIGTRAP, SIGTERM, SIGBUS};

    for (size_t i = 0; i < COUNT(numbers); i++)
        on(numbers[i], deepest, 0);
    if (!sigsetjmp(back, 1))
        raise(SIGUSR1);
    say("mask %#lx", (long)mask_now());
}

static void by_context(int number, siginfo_t *info, void *context)
{
    (void)info;
    (void)context;
    say("handler of %d, mask %#lx", number, (long)mask_now());
    count++;
    setcontext(&first);
}

static void left_by_setcontext(void)
{
    mask_set(BIT(SIGUSR2) | BIT(SIGSYS));
    on(SIGUSR1, by_context, 0);
    on(SIGSEGV, by_context, 0);
    getcontext(&first);
    say("round %d, mask %#lx, of the context %#lx", count, (long)mask_now(),
        (long)*context_mask(&first));
    if (count == 0)
        raise(SIGUSR1);
    if (count == 1)
        touch(8);
    if (count == 2)
        raise(SIGSEGV);
}

static void coroutine(void)
{
    for (int i = 0; i < 3; i++) {
        say("coroutine %d, mask %#lx", i, (long)mask_now());
        raise(SIGSEGV);
        mask_set(mask_now() | BIT(40 + i));
        swapcontext(&second, &first);
    }
}

static void swapped(int number, siginfo_t *info, void *context)
{
    (void)info;
    (void)context;
    say("handler of %d, mask %#lx: to the coroutine", number, (long)mask_now());
    swapcontext(&first, &second);
    say("back in the handler, mask %#lx", (long)mask_now());
}

static void coroutines(void)
{
    static uint8_t stack[65536];

    on(SIGUSR1, swapped, 0);
    on(SIGSEGV, keeps, 0);
    getcontext(&second);
    second.uc_stack.ss_sp = stack;
    second.uc_stack.ss_size = sizeof(stack);
    second.uc_link = NULL;
    /* keeps() overwrites it: the coroutine has its own handler's copy. */
    on(SIGSEGV, tell_frame, 0);
    makecontext(&second, coroutine, 0);
    for (int i = 0; i < 3; i++) {
        raise(SIGUSR1);
        say("main, mask %#lx", (long)mask_now());
    }
}

/* Handlers may use the segment registers and whatever is thread-local. */
static __thread int mine = 5;

static void thread_local(int number, siginfo_t *info, void *context)
{
    (void)info;
    (void)context;
    mine += number;
    errno = number;
}

static void *with_thread_local(void *unused)
{
    raise(SIGSEGV);
    raise(SIGUSR1);
    say("thread-local %d, errno %d", mine, errno);
    return unused;
}

static void thread_locals(void)
{
    pthread_t thread;

    on(SIGSEGV, thread_local, 0);
    on(SIGUSR1, thread_local, 0);
    pthread_create(&thread, NULL, with_thread_local, NULL);
    pthread_join(thread, NULL);
    with_thread_local(NULL);
}

CASES_MAIN(CASE(layout), CASE(kept), CASE(changed), CASE(other_fp_frames), CASE(spoiled_frames),
           CASE(spoiled_and_handled), CASE(return_without_frame), CASE(return_without_frame_told),
           CASE(own_frame), CASE(jumped), CASE(jumped_from_deep), CASE(left_by_setcontext),
           CASE(coroutines), CASE(thread_locals))
