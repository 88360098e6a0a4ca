/*
 * x87 and SSE state: the host's goes in at EENTER; asynchronous exits save the enclave's and show
 * the initial state outside; ERESUME brings it back. SDM 3D, EENTER, 40 "Enclave Exiting
 * Events".
 *
 * enclave: fp
 */
#include "host.h"

#include <sys/time.h>

#define INSIDE_WANTED 5

static volatile uint32_t stop;
static volatile int inside, outside;
static uint64_t tcs;

static void alarmed(int number, siginfo_t *info, void *context)
{
    mcontext_t *m = &((ucontext_t *)context)->uc_mcontext;
    const uint32_t *xmm = (const uint32_t *)m->fpregs->_xmm;

    (void)number;
    (void)info;
    if (m->gregs[REG_RAX] != ERESUME || (uint64_t)m->gregs[REG_RBX] != tcs) {
        CHECK(++outside < 1000, "1000 signals, none inside");
        return;
    }
    SAME(m->fpregs->mxcsr, 0x1f80);
    SAME(m->fpregs->cwd, 0x37f);
    for (int i = 0; i < 64; i++)
        SAME(xmm[i], 0);
    if (++inside == INSIDE_WANTED)
        stop = 1;
}

int main(int argc, char **argv)
{
    struct itimerval every = {{0, 20000}, {0, 20000}}, never = {{0, 0}, {0, 0}};
    uint32_t mxcsr = 0x3f80, found;
    struct sgx_enclave_run run = {0};
    struct enclave e;

    start(&e, argc, argv);
    tcs = run.tcs = e.tcs[0];
    handle(SIGALRM, alarmed);
    DO(setitimer(ITIMER_REAL, &every, NULL));
    SAME(ask(&run, 0, (uint64_t)&stop, 0, 0), 0);
    DO(setitimer(ITIMER_REAL, &never, NULL));
    ok("%d exits: initial state outside, XMM, MXCSR and x87 as they were inside", INSIDE_WANTED);

    /* The enclave puts back the MXCSR that it found, which has to be the one set here. */
    __asm__ volatile("ldmxcsr %0" : : "m"(mxcsr));
    SAME(ask(&run, 0, (uint64_t)&stop, 0, 0), 0);
    __asm__ volatile("stmxcsr %0" : "=m"(found));
    SAME(found, mxcsr);
    ok("MXCSR of the host goes in and comes out");
    return 0;
}
