/*
 * An enclave is entered with RSP at the very end of the stack: ENCLU needs no stack, and the vDSO
 * function no more than its own frame. The stub pushes registers below the red zone.
 *
 * The story: where it could not, the program got a SIGSEGV.
 *
 * enclave: ops
 */
#include "host.h"

enum { PUSHED = 4 * 8 }; /* the run structure, the return address, RBP and RBX */

uint64_t own_stack; /* the enclave clears registers */

static int enter_at(uint64_t rsp, struct call *call, struct sgx_enclave_run *run)
{
    uint64_t leaf = EENTER;
    int result;

    asm volatile("mov %%rsp, own_stack(%%rip)\n\tmov %%rsi, %%rsp\n\tpush %%rdx\n\tcall *%%rax\n\t"
                 "mov own_stack(%%rip), %%rsp"
                 : "=a"(result), "+S"(rsp), "+d"(run), "+D"(call), "+c"(leaf)
                 : "0"(vdso_function)
                 : "rbx", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "memory", "cc");
    return result;
}

static void enters(struct enclave *e, char *lowest, const char *how)
{
    struct sgx_enclave_run run = {.tcs = e->tcs[0]};

    for (int above = 0; above < 256; above += 24) {
        struct call call = {.op = OP_NOP};

        SAME(enter_at((uint64_t)lowest + PUSHED + above, &call, &run), 0);
        LEFT(&run);
    }
    ok("entered at the end of the stack, %s", how);
}

static void unexpected(int number)
{
    FAIL("signal %d", number);
}

int main(int argc, char **argv)
{
    struct sigaction action = {.sa_handler = unexpected}, now;
    sigset_t all, before, after;
    struct enclave e;

    start(&e, argc, argv);
    char *stack = DO(mmap(NULL, 2 * PAGE_SIZE, PROT_RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    DO(mprotect(stack, PAGE_SIZE, PROT_NONE));
    enters(&e, stack + PAGE_SIZE, "a page that cannot be touched below it");

    DO(sigaction(SIGSEGV, &action, NULL));
    sigfillset(&all);
    DO(sigprocmask(SIG_BLOCK, &all, &before));
    enters(&e, stack + PAGE_SIZE, "all signals blocked");
    DO(sigprocmask(SIG_SETMASK, &before, &after));
    SAME(sigismember(&after, SIGSEGV), 1);
    DO(sigaction(SIGSEGV, NULL, &now));
    SAME((uint64_t)now.sa_handler, (uint64_t)unexpected);
    DO(munmap(stack, PAGE_SIZE));
    enters(&e, stack + PAGE_SIZE, "nothing below it");
    return 0;
}
