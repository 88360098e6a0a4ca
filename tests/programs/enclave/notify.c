/*
 * An enclave that asks to be told of AEX. At CSSA = 0 it serves one call: spin until the handler has
 * counted A notices, in registers that the handler must bring back. At CSSA = 1 ERESUME has entered
 * the handler: it counts, gives the frame back by EDECCSSA, and loads what the frame holds.
 */
#include "calls.h"
#include "sgx.h"

#define ENCLU ".byte 0x0f, 0x01, 0xd7"

uint64_t notices __attribute__((visibility("hidden")));

/* GPRSGX of SSA[0], by the layout: the frame is the page behind the TCS. */
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
            "mov $9, %eax\n\t" ENCLU "\n\t" /* EDECCSSA */
            "mov 32(%r8), %rsp\n\t"
            "lea -128(%rsp), %rsp\n\t" /* below the red zone */
            "push 136(%r8)\n\t"
            "push 128(%r8)\n\t"
            "popfq\n\t"
            "mov 0(%r8), %rax\n\t"
            "mov 8(%r8), %rcx\n\t"
            "mov 16(%r8), %rdx\n\t"
            "mov 24(%r8), %rbx\n\t"
            "mov 40(%r8), %rbp\n\t"
            "mov 48(%r8), %rsi\n\t"
            "mov 56(%r8), %rdi\n\t"
            "mov 72(%r8), %r9\n\t"
            "mov 80(%r8), %r10\n\t"
            "mov 88(%r8), %r11\n\t"
            "mov 96(%r8), %r12\n\t"
            "mov 104(%r8), %r13\n\t"
            "mov 112(%r8), %r14\n\t"
            "mov 120(%r8), %r15\n\t"
            "mov 64(%r8), %r8\n\t"
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
