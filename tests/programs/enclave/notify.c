/*
 * An enclave that asks to be told of AEX. At CSSA = 0 it serves one call: spin until the handler
 * has counted A notices, in registers that the handler must bring back. At CSSA = 1 ERESUME has
 * entered the handler: it counts, copies what the frame holds to the interrupted stack, gives the
 * frame back by EDECCSSA, and loads the copy. From EDECCSSA on the next AEX may write the frame
 * again, and be told of in its turn: a handler that still read the frame there went on with its
 * own registers.
 */
#include "calls.h"
#include "sgx.h"

#define ENCLU ".byte 0x0f, 0x01, 0xd7"

uint64_t notices __attribute__((visibility("hidden")));

/* GPRSGX of SSA[0], by the layout: the frame is the page after the TCS. */
#define FRAME "8192-184"

__attribute__((naked, used)) void _start(void)
{
    __asm__("cld\n\t"
            "test %eax, %eax\n\t"
            "jnz 1f\n\t"
            "mov %rsp, %r10\n\t"
            "mov %rbx, %rsp\n\t"
            "push %r10\n\t"
            "push %rcx\n\t"
            "mov %rbx, %rsi\n\t"
            "call serve\n\t"
            "pop %rbx\n\t"
            "pop %rsp\n\t"
            "mov $4, %eax\n\t" ENCLU "\n\t"
            "1: incq notices(%rip)\n\t"
            "lea " FRAME "(%rbx), %r8\n\t"
            "mov 32(%r8), %rsp\n\t"
            "lea -128(%rsp), %rsp\n\t" /* below the red zone */
            "push 136(%r8)\n\t"        /* RIP */
            "push 120(%r8)\n\t"
            "push 112(%r8)\n\t"
            "push 104(%r8)\n\t"
            "push 96(%r8)\n\t"
            "push 88(%r8)\n\t"
            "push 80(%r8)\n\t"
            "push 72(%r8)\n\t"
            "push 64(%r8)\n\t"
            "push 56(%r8)\n\t"
            "push 48(%r8)\n\t"
            "push 40(%r8)\n\t"
            "push 24(%r8)\n\t"
            "push 16(%r8)\n\t"
            "push 8(%r8)\n\t"
            "push 0(%r8)\n\t"
            "push 128(%r8)\n\t"             /* RFLAGS */
            "mov $9, %eax\n\t" ENCLU "\n\t" /* EDECCSSA */
            "popfq\n\t"
            "pop %rax\n\t"
            "pop %rcx\n\t"
            "pop %rdx\n\t"
            "pop %rbx\n\t"
            "pop %rbp\n\t"
            "pop %rsi\n\t"
            "pop %rdi\n\t"
            "pop %r8\n\t"
            "pop %r9\n\t"
            "pop %r10\n\t"
            "pop %r11\n\t"
            "pop %r12\n\t"
            "pop %r13\n\t"
            "pop %r14\n\t"
            "pop %r15\n\t"
            "ret $128\n\t");
}

__attribute__((used)) void serve(struct call *call, uint64_t tcs)
{
    volatile uint8_t *notify = (uint8_t *)tcs + 8192 - 184 + 167;
    uint64_t up = 0, down = 0;

    *notify = 1;
    while (*(volatile uint64_t *)&notices < call->a)
        __asm__ volatile("inc %0\n\tdec %1\n\tpause" : "+r"(up), "+r"(down) : : "cc");
    *notify = 0;
    call->result = up + down ? 0 : notices;
}
