/* A host's own way into an enclave: exceptions come as signals at its AEP. */
#ifndef OWN_STUB_H
#define OWN_STUB_H

#include "host.h"

/* RDI call, RSI TCS, EDX leaf. */
void own_enter(struct call *call, uint64_t tcs, unsigned leaf);
extern const char own_aep[];
__asm__(".pushsection .text\n"
        ".globl own_enter, own_aep\n"
        ".type own_enter, @function\n"
        "own_enter:\n"
        ".cfi_startproc\n"
        "push %rbx\n"
        ".cfi_adjust_cfa_offset 8\n"
        ".cfi_rel_offset %rbx, 0\n"
        "mov %rsi, %rbx\n"
        "mov %edx, %eax\n"
        "lea own_aep(%rip), %rcx\n"
        "own_aep:\n"
        ".byte 0x0f, 0x01, 0xd7\n"
        "pop %rbx\n"
        ".cfi_adjust_cfa_offset -8\n"
        "ret\n"
        ".cfi_endproc\n"
        ".size own_enter, . - own_enter\n"
        ".popsection\n");

#endif
