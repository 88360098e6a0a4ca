/*
 * ENCLU outside of enclaves, with every kind of operand: the signal, si_code, si_addr as an offset
 * from RBX, and REG_ERR and REG_TRAPNO of its frame; and what the vDSO function reports of the same.
 * Without softsgx the answers are those of the real processor and kernel. tests/silicon.py has them
 * as measured, tests/runner/test_silicon.py compares.
 */
#include "host.h"

#include <sys/mman.h>

/* RDI RAX, RSI RBX, RDX RCX. */
void own_enclu(uint64_t rax, uint64_t rbx, uint64_t rcx);
extern const char own_at[], own_behind[];
__asm__(".pushsection .text\n"
        ".globl own_enclu, own_at, own_behind\n"
        ".type own_enclu, @function\n"
        "own_enclu:\n"
        ".cfi_startproc\n"
        "push %rbx\n"
        ".cfi_adjust_cfa_offset 8\n"
        ".cfi_rel_offset %rbx, 0\n"
        "mov %rdi, %rax\n"
        "mov %rsi, %rbx\n"
        "mov %rdx, %rcx\n"
        "own_at:\n"
        ".byte 0x0f, 0x01, 0xd7\n"
        "own_behind:\n"
        "pop %rbx\n"
        ".cfi_adjust_cfa_offset -8\n"
        "ret\n"
        ".cfi_endproc\n"
        ".size own_enclu, . - own_enclu\n"
        ".popsection\n");

#define KERNEL 0xffff888000000000UL
#define NON_CANONICAL (1UL << 47)
#define HIGH (0xffffffffUL << 32)
#define AEP ((uint64_t)own_at)

static volatile struct {
    int times, number, code;
    uint64_t address, error, trap, rax, rbx, rcx;
} seen;

static void caught(int number, siginfo_t *info, void *context)
{
    greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;

    if (r[REG_RIP] != (greg_t)own_at)
        _exit(99);
    seen.times++;
    seen.number = number;
    seen.code = info->si_code;
    seen.address = (uint64_t)info->si_addr;
    seen.error = r[REG_ERR];
    seen.trap = r[REG_TRAPNO];
    seen.rax = r[REG_RAX];
    seen.rbx = r[REG_RBX];
    seen.rcx = r[REG_RCX];
    r[REG_RIP] = (greg_t)own_behind;
}

/* Memory that was written once, and then got these rights. */
static uint64_t page(int prot)
{
    char *at = DO(mmap(NULL, PAGE_SIZE, PROT_RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));

    *(volatile char *)at = 1;
    DO(mprotect(at, PAGE_SIZE, prot));
    return (uint64_t)at;
}

static uint64_t fresh(int prot)
{
    return (uint64_t)DO(mmap(NULL, PAGE_SIZE, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
}

static void executed(const char *leaf, const char *row, uint64_t rax, uint64_t rbx, uint64_t rcx)
{
    seen.times = 0;
    own_enclu(rax, rbx, rcx);
    SAME(seen.times, 1);
    SAME((uint32_t)seen.rax, (uint32_t)rax); /* a patched ENCLU loses the high half */
    SAME(seen.rbx, rbx);
    SAME(seen.rcx, rcx);
    ok("signal | %s | %s | %d %d %#lx %#lx %lu", leaf, row, seen.number, seen.code,
       seen.trap == VECTOR_PF ? seen.address - rbx : seen.address, seen.error, seen.trap);
}

static void reported(const char *leaf, const char *row, uint64_t rax, uint64_t rbx)
{
    struct sgx_enclave_run run = {.tcs = rbx};

    SAME(enter(0, 0, 0, rax, 0, 0, &run), 0);
    SAME(run.function, rax);
    ok("vdso | %s | %s | %#lx %#x %u", leaf, row,
       run.exception_vector == VECTOR_PF ? run.exception_addr - rbx : run.exception_addr,
       run.exception_error_code, run.exception_vector);
}

static void entries(const char *leaf, uint64_t rax)
{
    uint64_t unmapped = page(PROT_RW);
    struct {
        const char *row;
        uint64_t rbx, rcx;
    } rows[] = {
        {"RBX not page-aligned, mapped", page(PROT_RW) + 8, AEP},
        {"RBX not page-aligned, unmapped", unmapped + 8, AEP},
        {"RBX not canonical", NON_CANONICAL, AEP},
        {"RBX a misaligned kernel address", KERNEL + 8, AEP},
        {"RBX ordinary memory, RCX (AEP) not canonical", page(PROT_RW), NON_CANONICAL},
        {"RBX unmapped, RCX (AEP) not canonical", unmapped, NON_CANONICAL},
        {"RBX ordinary memory, present and writable", page(PROT_RW), AEP},
        {"RBX ordinary memory, never touched", fresh(PROT_RW), AEP},
        {"RBX read-only", page(PROT_READ), AEP},
        {"RBX read and execute", page(PROT_READ | PROT_EXEC), AEP},
        {"RBX PROT_NONE", page(PROT_NONE), AEP},
        {"RBX unmapped", unmapped, AEP},
        {"RBX 0", 0, AEP},
        {"RBX a kernel address, page-aligned", KERNEL, AEP},
        {"RBX read-only, never touched", fresh(PROT_READ), AEP},
        {"RBX write-only", page(PROT_WRITE), AEP},
        {"RBX past the last user page", NON_CANONICAL - PAGE_SIZE, AEP},
        {"RBX read-only, RCX (AEP) not canonical", page(PROT_READ), NON_CANONICAL},
        /* Not in the table; the real processor is asked all the same. */
        {"RBX PROT_NONE, never touched", fresh(PROT_NONE), AEP},
        {"RBX the program's code", (uint64_t)own_at & -PAGE_SIZE, AEP},
        {"RBX a kernel address, RCX (AEP) one as well", KERNEL, KERNEL},
        {"RBX ordinary memory, RCX (AEP) a kernel address", page(PROT_RW), KERNEL},
        {"RBX shared memory", (uint64_t)DO(mmap(NULL, PAGE_SIZE, PROT_RW,
                                                MAP_SHARED | MAP_ANONYMOUS, -1, 0)), AEP},
    };

    DO(munmap((void *)unmapped, PAGE_SIZE));
    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        executed(leaf, rows[i].row, rax, rows[i].rbx, rows[i].rcx);
        executed(leaf, rows[i].row, rax | HIGH, rows[i].rbx, rows[i].rcx);
    }
    for (unsigned i = 0; enter && i < sizeof(rows) / sizeof(rows[0]); i++)
        if (rows[i].rcx == AEP)
            reported(leaf, rows[i].row, rax, rows[i].rbx);
}

int main(void)
{
    uint64_t leaves[] = {0, 1, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0x7fffffff, 0xffffffff};
    char name[16];

    enter = vdso_enter();
    handle(SIGSEGV, caught);
    handle(SIGILL, caught);
    for (unsigned i = 0; i < sizeof(leaves) / sizeof(leaves[0]); i++) {
        snprintf(name, sizeof(name), "%#lx", leaves[i]);
        executed(name, "mapped", leaves[i], page(PROT_RW), AEP);
        executed(name, "zero", leaves[i], 0, 0);
        executed(name, "bad", leaves[i], NON_CANONICAL + 8, NON_CANONICAL);
    }
    entries("EENTER", EENTER);
    entries("ERESUME", ERESUME);
    return 0;
}
