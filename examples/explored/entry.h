/* The way into an enclave and out of it, and what its C code needs. */
#include <stdint.h>

#define EACCEPT 5
#define EEXIT 4
#define REG_PENDING_RW 0x20b

/*
 * EENTER comes here with CSSA in RAX, the TCS in RBX and the address to return to in RCX. The stack
 * ends 64 bytes below the TCS; a handler (CSSA = 1) has the page below. ENTERED is executed before
 * the stack is that of the enclave, SWITCHED after it, LEAVING before it is that of the host again;
 * R8 is the TCS. What serve() returns leaves in RDI.
 */
#ifndef ENTERED
#define ENTERED ""
#define SWITCHED ""
#define LEAVING ""
#endif

__attribute__((naked, used)) void _start(void)
{
    __asm__("cld\n\t"
            "mov %rbx, %r8\n\t" /* the fifth argument of serve() */
            "shl $12, %rax\n\t"
            "sub %rax, %rbx\n\t"
            "mov %rsp, %rax\n\t"
            ENTERED
            "lea -64(%rbx), %rsp\n\t"
            SWITCHED
            "push %rax\n\t"
            "push %rcx\n\t"
            "push %r8\n\t"
            "push %r8\n\t"
            "call serve\n\t"
            "mov %rax, %rdi\n\t"
            "pop %r8\n\t"
            "pop %r8\n\t"
            "pop %rcx\n\t"
            LEAVING
            "pop %rsp\n\t"
            "mov %rcx, %rbx\n\t"
            "mov $4, %eax\n\t"
            ".byte 0x0f, 0x01, 0xd7"); /* ENCLU[EEXIT] */
}
