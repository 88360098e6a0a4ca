/*
 * The entry of the enclaves of these tests. An entry on a thread that has left by an exception
 * (CSSA is not 0) goes to `exception`, with the SSA frame of that exit; others go to `serve`.
 */
#ifndef INSIDE_H
#define INSIDE_H

#include "calls.h"
#include "sgx.h"

#define ENCLU ".byte 0x0f, 0x01, 0xd7"

/* The last 184 bytes of an SSA frame. SDM 3D, 38.9.1 "GPRSGX Region". */
struct gprsgx {
    uint64_t rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15;
    uint64_t rflags, rip, ursp, urbp;
    uint32_t exitinfo, reserved;
    uint64_t fsbase, gsbase;
};

/* EXINFO, below GPRSGX if MISCSELECT asks for it. */
struct exinfo {
    uint64_t maddr;
    uint32_t errcd, reserved;
};

_Static_assert(sizeof(struct gprsgx) == 184, "GPRSGX");

void serve(struct call *call);
void exception(struct call *call, struct gprsgx *frame);

/*
 * RAX = CSSA, RBX = TCS, RCX = address after EENTER. In the layout of softsgx the stack ends at
 * the TCS, and the SSA frames of one page each begin a page after it. The handler of an exception
 * runs on the stack of the interrupted code, below its red zone.
 */
__attribute__((naked, used)) void _start(void)
{
    __asm__("cld\n\t"
            "mov %rsp, %r10\n\t"
            "test %eax, %eax\n\t"
            "jnz 1f\n\t"
            "mov %rbx, %rsp\n\t"
            "push %r10\n\t"
            "push %rcx\n\t"
            "call serve\n\t"
            "jmp 2f\n\t"
            "1: mov %eax, %esi\n\t"
            "shl $12, %rsi\n\t"
            "lea 4096-184(%rbx, %rsi), %rsi\n\t"
            "mov 32(%rsi), %rsp\n\t"
            "sub $256, %rsp\n\t"
            "and $-64, %rsp\n\t"
            "push %r10\n\t"
            "push %rcx\n\t"
            "call exception\n\t"
            "2: pop %rbx\n\t"
            "pop %rsp\n\t"
            "xor %ecx, %ecx\n\t"
            "xor %edx, %edx\n\t"
            "xor %esi, %esi\n\t"
            "xor %edi, %edi\n\t"
            "xor %r8d, %r8d\n\t"
            "xor %r9d, %r9d\n\t"
            "xor %r10d, %r10d\n\t"
            "xor %r11d, %r11d\n\t"
            "mov $4, %eax\n\t" ENCLU);
}

/* A leaf of ENCLU: RBX, RCX and RDX in, RAX out. */
static inline uint64_t enclu(uint64_t leaf, const void *rbx, uint64_t rcx, uint64_t rdx)
{
    __asm__ volatile(ENCLU : "+a"(leaf) : "b"(rbx), "c"(rcx), "d"(rdx) : "memory", "cc");
    return leaf;
}

/* Most of these enclaves do not handle exceptions. */
#ifndef HANDLES_EXCEPTIONS
__attribute__((used)) void exception(struct call *call, struct gprsgx *frame)
{
    (void)call;
    (void)frame;
    __builtin_trap();
}
#endif

#endif
