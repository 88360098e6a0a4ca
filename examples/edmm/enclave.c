/*
 * The enclave: no library, no kernel below it, one entry. It does what a request in host memory
 * says, and trusts the host to say it: a real enclave would check every address it is given.
 */
#include "request.h"
#include "sgx.h"

/*
 * EENTER comes here with CSSA in RAX, the address of the TCS in RBX, the address to return to in
 * RCX; the stack ends where the TCS begins. Everything else is still the host's. An entry on a
 * thread that has left by an exception (CSSA is not 0) is turned away.
 */
__attribute__((naked, used)) void _start(void)
{
    __asm__("cld\n\t"
            "test %eax, %eax\n\t"
            "jnz 1f\n\t"
            "mov %rsp, %rax\n\t"
            "mov %rbx, %rsp\n\t"
            "push %rax\n\t" /* the host's stack */
            "push %rcx\n\t"
            "call serve\n\t"
            "pop %rcx\n\t"
            "pop %rsp\n\t"
            "1: mov %rcx, %rbx\n\t" /* EEXIT goes to RBX */
            "xor %ecx, %ecx\n\t"    /* and nothing of ours goes with it */
            "xor %edx, %edx\n\t"
            "xor %esi, %esi\n\t"
            "xor %edi, %edi\n\t"
            "xor %r8d, %r8d\n\t"
            "xor %r9d, %r9d\n\t"
            "xor %r10d, %r10d\n\t"
            "xor %r11d, %r11d\n\t"
            "mov $4, %eax\n\t"
            ".byte 0x0f, 0x01, 0xd7"); /* ENCLU[EEXIT] */
}

/* A leaf that takes a SECINFO in RBX and the address of a page in RCX. */
static uint64_t enclu(uint64_t leaf, uint64_t address, uint64_t flags)
{
    struct sgx_secinfo secinfo = {.flags = flags};

    __asm__ volatile(".byte 0x0f, 0x01, 0xd7"
                     : "+a"(leaf)
                     : "b"(&secinfo), "c"(address)
                     : "memory", "cc");
    return leaf;
}

__attribute__((used)) void serve(struct request *request)
{
    volatile uint64_t *word = (volatile uint64_t *)request->address;
    uint64_t (*function)(void) = (uint64_t(*)(void))request->address;

    switch (request->what) {
    case ASK_READ:
        request->result = *word;
        break;
    case ASK_WRITE:
        *word = request->value;
        break;
    case ASK_COPY:
        for (uint64_t i = 0; i < request->length; i++)
            ((volatile uint8_t *)word)[i] = ((const uint8_t *)request->value)[i];
        break;
    case ASK_CALL:
        request->result = function();
        break;
    case ASK_ACCEPT:
        request->result = enclu(EACCEPT, request->address, request->value);
        break;
    case ASK_EXTEND:
        enclu(EMODPE, request->address, request->value);
        break;
    default:
        __builtin_trap();
    }
}
