/*
 * A host's own ENCLU whose AEP counts the asynchronous exits before it resumes: what samples do
 * that want to know how often they were interrupted. From the `aex_wanted`th on `aex_told` is 1.
 */
#ifndef COUNTING_AEP_H
#define COUNTING_AEP_H

#include "host.h"

__attribute__((used)) static volatile uint64_t aex_count, aex_wanted = UINT64_MAX;
__attribute__((used)) static volatile uint32_t aex_told;

/* RDI call, RSI TCS. */
void counting_enter(struct call *call, uint64_t tcs);
__asm__(".pushsection .text\n"
        ".globl counting_enter\n"
        ".type counting_enter, @function\n"
        "counting_enter:\n"
        ".cfi_startproc\n"
        "push %rbx\n"
        ".cfi_adjust_cfa_offset 8\n"
        ".cfi_rel_offset %rbx, 0\n"
        "mov %rsi, %rbx\n"
        "mov $2, %eax\n"
        "lea 1f(%rip), %rcx\n"
        "jmp 2f\n"
        "1:\n"
        "incq aex_count(%rip)\n"
        "mov aex_count(%rip), %rdx\n"
        "cmp aex_wanted(%rip), %rdx\n"
        "jb 2f\n"
        "movl $1, aex_told(%rip)\n"
        "2:\n"
        ".byte 0x0f, 0x01, 0xd7\n"
        "pop %rbx\n"
        ".cfi_adjust_cfa_offset -8\n"
        "ret\n"
        ".cfi_endproc\n"
        ".size counting_enter, . - counting_enter\n"
        ".popsection\n");

__attribute__((unused)) static uint64_t counted(uint64_t tcs, uint64_t op, uint64_t a, uint64_t b)
{
    struct call call = {op, a, b, 0, 0};

    counting_enter(&call, tcs);
    return call.result;
}

#endif
