/*
 * A host with its own ENCLU that blocks every signal: entering an enclave changes neither the mask
 * nor a handler.
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
    ok("an entry with all signals blocked");
    DO(sigprocmask(SIG_BLOCK, NULL, &now));
    CHECK(sigismember(&now, SIGILL) && sigismember(&now, SIGSEGV), "unblocked");
    DO(sigaction(SIGILL, NULL, &action));
    CHECK(action.sa_sigaction == never, "SIGILL has another handler");
    DO(sigaction(SIGSEGV, NULL, &action));
    CHECK(action.sa_sigaction == never, "SIGSEGV has another handler");
    ok("mask and handlers as they were");
    return 0;
}
