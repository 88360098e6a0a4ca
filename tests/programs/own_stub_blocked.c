/*
 * A host with its own ENCLU that blocks every signal: entering an enclave changes neither the mask
 * nor a handler. Nor does it deliver a signal that is pending: the kernel unblocks the number of an
 * exception, and where one of that number is pending, the exception has no signal of its own. A
 * program that began with SIGSEGV pending died of it at the first CPUID of ld.so, on a processor
 * with CPUID faulting.
 *
 * enclave: ops
 */
#include "host.h"

static void own_enter(struct call *call, uint64_t tcs)
{
    uint64_t rax = EENTER, rbx = tcs, rcx, rdi = (uint64_t)call, rsi = 0, rdx = 0;

    __asm__ volatile("lea 1f(%%rip), %%rcx\n1:\t.byte 0x0f, 0x01, 0xd7"
                     : "+a"(rax), "+b"(rbx), "=&c"(rcx), "+D"(rdi), "+S"(rsi), "+d"(rdx)
                     :
                     : "r8", "r9", "r10", "r11", "memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3",
                       "xmm4", "xmm5", "xmm6", "xmm7");
}

/* The same, made at run time: nothing but its exception shows that it is an ENCLU. */
static const unsigned char code[] = {
    0x53,                                     /* push rbx */
    0x48, 0x89, 0xf3,                         /* mov  rbx, rsi */
    0x31, 0xf6, 0x31, 0xd2,                   /* xor  esi, esi; xor edx, edx */
    0xb8, EENTER, 0x00, 0x00, 0x00,           /* mov  eax, EENTER */
    0x48, 0x8d, 0x0d, 0x00, 0x00, 0x00, 0x00, /* lea  rcx, [rip] */
    0x0f, 0x01, 0xd7,                         /* enclu */
    0x5b, 0xc3                                /* pop  rbx; ret */
};

static void enter_with_pending(struct call *call, uint64_t tcs)
{
    static const int numbers[] = {SIGILL, SIGSEGV, SIGBUS};
    void *made = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS,
                      -1, 0);
    sigset_t pending;

    CHECK(made != MAP_FAILED, "no memory");
    memcpy(made, code, sizeof code);
    for (int i = 0; i < 3; i++)
        DO(raise(numbers[i]));
    ((void (*)(struct call *, uint64_t))made)(call, tcs);
    DO(sigpending(&pending));
    for (int i = 0; i < 3; i++)
        CHECK(sigismember(&pending, numbers[i]), "signal %d is lost", numbers[i]);
}

static void never(int number, siginfo_t *info, void *context)
{
    (void)context;
    FAIL("signal %d at %p", number, info->si_addr);
}

int main(int argc, char **argv)
{
    struct call call = {OP_BUFFER, 0, 0, 0, 0};
    struct sigaction action;
    struct enclave e;
    sigset_t all, now;

    handle(SIGILL, never);
    handle(SIGSEGV, never);
    sigfillset(&all);
    DO(sigprocmask(SIG_BLOCK, &all, NULL));
    start(&e, argc, argv);
    own_enter(&call, e.tcs[0]);
    CHECK(call.result > e.base && call.result < e.base + e.size, "%#lx is no address inside",
          (unsigned long)call.result);
    call.result = 0;
    enter_with_pending(&call, e.tcs[0]);
    CHECK(call.result > e.base && call.result < e.base + e.size, "%#lx is no address inside",
          (unsigned long)call.result);
    ok("entries with all signals blocked");
    DO(sigprocmask(SIG_BLOCK, NULL, &now));
    CHECK(sigismember(&now, SIGILL) && sigismember(&now, SIGSEGV), "unblocked");
    DO(sigaction(SIGILL, NULL, &action));
    CHECK(action.sa_sigaction == never, "SIGILL has another handler");
    DO(sigaction(SIGSEGV, NULL, &action));
    CHECK(action.sa_sigaction == never, "SIGSEGV has another handler");
    ok("mask and handlers as they were");
    return 0;
}
