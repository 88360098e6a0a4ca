/* What hosts ask the enclaves of these tests for: RDI holds the address of a call. */
#ifndef CALLS_H
#define CALLS_H

#include <stdint.h>

struct call {
    uint64_t op, a, b, c, result;
};

/* enclave/ops.c */
enum {
    OP_NOP,
    OP_BUFFER,     /* result = address of BUFFER_PAGES rw- pages of zeros */
    OP_READ,       /* result = 8 bytes at a */
    OP_WRITE,      /* b to the 8 bytes at a */
    OP_COPY,       /* c bytes from b to a, one by one in one instruction */
    OP_ACCEPT,     /* EACCEPT of page a, flags b; result = status */
    OP_EXTEND,     /* EMODPE of page a, flags b */
    OP_ACCEPTCOPY, /* EACCEPTCOPY to page a, flags b, from page c; result = status */
    OP_CALL,       /* result = function at a */
    OP_WAIT,       /* until the 4 bytes at a, in host memory, are not 0; result = errors */
    OP_TELL,       /* 1 to the 4 bytes at a, then OP_WAIT for b */
    OP_COUNT,      /* a rounds of a loop in registers; result = errors */
    OP_SPIN_WRITE, /* 1, 2, 3... to the 8 bytes at a, until the 4 bytes at b are not 0 */
    OP_SPIN_READ,  /* the same, reading */
    OP_LOCKED,     /* a times: take the spin lock, add 1 to the total; result = total at the end */
    OP_ATOMIC,     /* a times: add 1 to the total by one locked instruction */
    OP_TOTAL,      /* result = the total */
    OP_MEET,       /* a (0 or 1) and the other side take turns, b rounds each */
    OP_MXCSR,      /* result = MXCSR */
    OP_BASES,      /* a = 8 bytes at FS:0, b = FS base by RDFSBASE, c = GS base */
    OP_GROW,       /* c times: take the unfair lock, EACCEPT the next page from a on, flags b */
    OP_ACCEPT_EACH, /* EACCEPT of c pages from a on, flags b; c = refused, result = sum of status */
    OP_ANSWER,     /* b times: wait for an odd number in the 8 bytes at a, and add 1 */
    OP_STACK,      /* result = URSP of the first SSA frame of the TCS at a, where 0 is written then */
};

#define BUFFER_PAGES 4

/* enclave/faults.c: the instruction to execute, and what only the handler inside is asked. */
enum {
    TRY_UD2, TRY_DIV, TRY_CPUID, TRY_SYSCALL, TRY_SYSENTER, TRY_INT80, TRY_INT3, TRY_IN, TRY_OUT,
    TRY_SGDT, TRY_SIDT, TRY_SLDT, TRY_STR, TRY_SMSW, TRY_RDPMC, TRY_IRET, TRY_RETF, TRY_MOV_DS,
    TRY_VMCALL, TRY_ENCLS, TRY_EENTER, TRY_HLT, TRY_CLI, TRY_WBINVD, TRY_INVD, TRY_RDMSR,
    TRY_MOV_CR0, TRY_CLTS, TRY_SWAPGS, TRY_RDTSC, TRY_RDTSCP, TRY_RDRAND, TRY_PAUSE,
    TRY_WRFSBASE, TRY_WRITE, TRY_VEX, TRY_X87, TRY_SSE, TRY_SS, TRY_AC, TRY_SIGPROCMASK,
};
#define SKIPPED 0x5a5aUL /* RAX after an instruction that the handler skipped */
#define HANDLE 1000      /* entry at CSSA = 1: a = EXITINFO, b = MADDR, c = ERRCD, result = RIP */

/* enclave/fp.c */
#define FP_MXCSR 0x5f80UL /* round up */
#define FP_CW 0x0e7fUL    /* round to zero, double precision */

/* enclave/report.c: a = address of the answer in host memory. */
struct answer {
    uint8_t report[432];
    uint8_t mac[16];       /* over the report, with the key that EGETKEY gives its target */
    uint8_t seal[16], again[16], other[16]; /* SEAL keys: the same twice, then with another KEYID */
    uint64_t report_status, seal_status, name_status, svn_status, right_status, padding[3];
};

#endif
