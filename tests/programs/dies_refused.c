/*
 * A write that the EPCM refuses, through an ENCLU of the host's own: nobody is told but the process,
 * by a signal that it has no handler for.
 *
 * enclave: ops
 * exit: -11
 */
#include "host.h"

void own_enter(struct call *call, uint64_t tcs);
__asm__(".pushsection .text\n"
        ".globl own_enter\n"
        ".type own_enter, @function\n"
        "own_enter:\n"
        ".cfi_startproc\n"
        "push %rbx\n"
        ".cfi_adjust_cfa_offset 8\n"
        ".cfi_rel_offset %rbx, 0\n"
        "mov %rsi, %rbx\n"
        "mov $2, %eax\n"
        "lea 1f(%rip), %rcx\n"
        "1:\n"
        ".byte 0x0f, 0x01, 0xd7\n"
        "pop %rbx\n"
        ".cfi_adjust_cfa_offset -8\n"
        "ret\n"
        ".cfi_endproc\n"
        ".size own_enter, . - own_enter\n"
        ".popsection\n");

int main(int argc, char **argv)
{
    struct enclave e;
    struct sgx_enclave_run run = {0};
    struct call call = {OP_WRITE, 0, M1, 0, 0};

    start(&e, argc, argv);
    run.tcs = e.tcs[0];
    call.a = ask(&run, OP_BUFFER, 0, 0, 0);
    DO(restrict_page(&e, call.a, SGX_R));
    SAME(ask(&run, OP_ACCEPT, call.a, SGX_R | SGX_PT_REG | SGX_PR, 0), 0);
    ok("the page is r--");
    own_enter(&call, e.tcs[0]);
    FAIL("the write went through");
}
