/*
 * Executes one instruction that may be refused, and handles the exception: entered at CSSA = 1, it
 * says what the SSA frame holds, steps over the instruction (its length is in R12) and changes RAX.
 */
#define HANDLES_EXCEPTIONS
#include "inside.h"

#define TRY(length, text)                                                                          \
    __asm__ volatile("mov $" #length ", %%r12d\n\t" text                                           \
                     : "+a"(rax)                                                                   \
                     : "d"(0)                                                                      \
                     : "rbx", "rcx", "r11", "r12", "memory", "cc")
#define CASE(what, length, text)                                                                   \
    case what:                                                                                     \
        TRY(length, text);                                                                         \
        break

static uint64_t try_legal(uint64_t what)
{
    uint64_t rax = SKIPPED, fs;

    switch (what) {
    case TRY_RDTSC:
        __asm__ volatile("rdtsc" : : : "rax", "rdx");
        break;
    case TRY_RDTSCP:
        __asm__ volatile("rdtscp" : : : "rax", "rcx", "rdx");
        break;
    case TRY_RDRAND:
        __asm__ volatile("rdrand %%rcx" : : : "rcx", "cc");
        break;
    case TRY_PAUSE:
        __asm__ volatile("pause");
        break;
    case TRY_WRFSBASE:
        __asm__ volatile("rdfsbase %0\n\twrfsbase %0" : "=&r"(fs));
        break;
    default:
        rax = 0;
    }
    return rax;
}

static uint64_t try_system(uint64_t what)
{
    uint64_t rax = 0;

    switch (what) {
        CASE(TRY_SGDT, 4, "sgdt (%%rsp)");
        CASE(TRY_SIDT, 4, "sidt (%%rsp)");
        CASE(TRY_SLDT, 3, ".byte 0x0f, 0x00, 0xc0");
        CASE(TRY_STR, 3, ".byte 0x0f, 0x00, 0xc8");
        CASE(TRY_SMSW, 3, ".byte 0x0f, 0x01, 0xe0");
        CASE(TRY_RDPMC, 2, "rdpmc");
        CASE(TRY_IRET, 2, "iretq");
        CASE(TRY_RETF, 1, "lretl");
        CASE(TRY_MOV_DS, 2, ".byte 0x8e, 0xd8");
        CASE(TRY_VMCALL, 3, ".byte 0x0f, 0x01, 0xc1");
        CASE(TRY_ENCLS, 3, ".byte 0x0f, 0x01, 0xcf");
        CASE(TRY_HLT, 1, "hlt");
        CASE(TRY_CLI, 1, "cli");
        CASE(TRY_WBINVD, 2, "wbinvd");
        CASE(TRY_INVD, 2, "invd");
        CASE(TRY_RDMSR, 2, "rdmsr");
        CASE(TRY_MOV_CR0, 3, ".byte 0x0f, 0x20, 0xc0");
        CASE(TRY_CLTS, 2, "clts");
        CASE(TRY_SWAPGS, 3, "swapgs");
    default:
        rax = try_legal(what);
    }
    return rax;
}

/* Exceptions of computing; a handler that steps over them leaves the state to be cleaned up. */
static uint64_t try_computing(uint64_t what)
{
    const uint32_t mxcsr = 0x1f80, unmasked = 0x1d80;
    const uint16_t cw = 0x37b; /* division by zero is not masked */
    uint64_t rax = 0;

    switch (what) {
    case TRY_X87:
        __asm__ volatile("fninit\n\tfldcw %1\n\tfld1\n\tfldz\n\tfdivrp\n\t"
                         "mov $1, %%r12d\n\tfwait\n\tfninit"
                         : "+a"(rax) : "m"(cw) : "r12", "st", "st(1)");
        break;
    case TRY_SSE:
        __asm__ volatile("ldmxcsr %2\n\txorps %%xmm0, %%xmm0\n\tmov $1, %%r12d\n\t"
                         "cvtsi2ss %%r12d, %%xmm1\n\tmov $4, %%r12d\n\t"
                         "divss %%xmm0, %%xmm1\n\tldmxcsr %1"
                         : "+a"(rax) : "m"(mxcsr), "m"(unmasked) : "r12", "xmm0", "xmm1");
        break;
    case TRY_SS:
        __asm__ volatile("mov %%rbp, %%rbx\n\tmov $1, %%ebp\n\tshl $63, %%rbp\n\t"
                         "mov $4, %%r12d\n\tmov 0(%%rbp), %%rax\n\tmov %%rbx, %%rbp"
                         : "+a"(rax) : : "rbx", "r12", "cc");
        break;
    case TRY_AC:
        __asm__ volatile("pushfq\n\torl $0x40000, (%%rsp)\n\tpopfq\n\tmov $5, %%r12d\n\t"
                         "mov 1(%%rsp), %%rax\n\t"
                         "pushfq\n\tandl $~0x40000, (%%rsp)\n\tpopfq"
                         : "+a"(rax) : : "r12", "cc", "memory");
        break;
    }
    return rax;
}

__attribute__((used)) void serve(struct call *call)
{
    uint64_t rax = 0;

    switch (call->op) {
        CASE(TRY_UD2, 2, "ud2");
        CASE(TRY_CPUID, 2, "cpuid");
        CASE(TRY_SYSCALL, 2, "syscall");
        CASE(TRY_SIGPROCMASK, 2, "mov $14, %%eax\n\tsyscall");
        CASE(TRY_SYSENTER, 2, "sysenter");
        CASE(TRY_INT80, 2, "int $0x80");
        CASE(TRY_INT3, 1, "int3");
        CASE(TRY_IN, 1, "in %%dx, %%al");
        CASE(TRY_OUT, 1, "out %%al, %%dx");
        CASE(TRY_VEX, 4, "vpaddd %%xmm0, %%xmm0, %%xmm0");
    case TRY_DIV:
        __asm__ volatile("mov $2, %%r12d\n\tdiv %%ecx" : "+a"(rax) : "c"(0), "d"(0) : "r12", "cc");
        break;
    case TRY_EENTER:
        rax = EENTER;
        TRY(3, ENCLU);
        break;
    case TRY_WRITE:
        __asm__ volatile("mov $3, %%r12d\n\tmov %%rax, (%%rcx)"
                         : "+a"(rax)
                         : "c"(call->a)
                         : "r12", "memory");
        break;
    case TRY_X87:
    case TRY_SSE:
    case TRY_SS:
    case TRY_AC:
        rax = try_computing(call->op);
        break;
    default:
        rax = try_system(call->op);
    }
    call->result = rax;
}

__attribute__((used)) void exception(struct call *call, struct gprsgx *frame)
{
    const struct exinfo *exinfo = (const struct exinfo *)frame - 1;

    call->a = frame->exitinfo;
    call->b = exinfo->maddr;
    call->c = exinfo->errcd;
    call->result = frame->rip;
    frame->rip += frame->r12;
    frame->rax = SKIPPED;
}
