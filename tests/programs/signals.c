/*
 * Signals while a thread is inside an enclave: an asynchronous exit first, so the handler sees the
 * state of SDM 3D, 40.3 "Synthetic State on Asynchronous Enclave Exit"; when it returns, the
 * enclave goes on where it was.
 *
 * enclave: ops
 */
#include "host.h"

#include <sys/time.h>

#define INSIDE_WANTED 5

static volatile uint32_t stop;
static volatile int inside, outside;
static volatile uint64_t aep;
static uint64_t tcs, near;

static void alarmed(int number, siginfo_t *info, void *context)
{
    greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;

    (void)number;
    (void)info;
    if (r[REG_RAX] != ERESUME || (uint64_t)r[REG_RBX] != tcs) {
        if (++outside > 1000)
            FAIL("1000 signals, none inside: rip %#lx, rax %#lx", (long)r[REG_RIP],
                 (long)r[REG_RAX]);
        return;
    }
    SAME(r[REG_RCX], r[REG_RIP]);
    if (aep)
        SAME(r[REG_RIP], aep);
    aep = r[REG_RIP];
    SAME(r[REG_RDI] | r[REG_RSI] | r[REG_RDX], 0);
    SAME(r[REG_R8] | r[REG_R9] | r[REG_R10] | r[REG_R11], 0);
    SAME(r[REG_R12] | r[REG_R13] | r[REG_R14] | r[REG_R15], 0);
    CHECK((uint64_t)r[REG_RSP] < near && near - r[REG_RSP] < 65536, "RSP is not the host's");
    if (++inside == INSIDE_WANTED)
        stop = 1;
}

int main(int argc, char **argv)
{
    struct itimerval every = {{0, 20000}, {0, 20000}}, never = {{0, 0}, {0, 0}};
    struct sgx_enclave_run run = {0};
    struct enclave e;

    start(&e, argc, argv);
    near = (uint64_t)__builtin_frame_address(0);
    tcs = run.tcs = e.tcs[0];
    handle(SIGALRM, alarmed);
    DO(setitimer(ITIMER_REAL, &every, NULL));
    SAME(ask(&run, OP_WAIT, (uint64_t)&stop, 0, 0), 0);
    DO(setitimer(ITIMER_REAL, &never, NULL));
    ok("handler at the AEP with RAX = 3, RBX = TCS, RCX = AEP, the rest 0");
    uintptr_t first = vdso_function;
    CHECK(aep >= first && aep < first + 4096, "AEP %#lx is not in the vDSO function",
          (unsigned long)aep);
    ok("AEP is in the vDSO function");
    SAME(ask(&run, OP_COUNT, 1000, 0, 0), 0);
    ok("the loop went on, and the thread can be entered again");
    return 0;
}
