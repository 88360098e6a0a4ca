/*
 * An enclave with AVX in its XFRM: asynchronous exits save the upper halves of YMM, show the initial
 * state outside, and ERESUME brings them back, whatever the host computes meanwhile.
 *
 * enclave: avx_state xfrm=7
 * engines: native
 * run: --xfrm 0x7
 * cc: -mavx
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
    const uint8_t *image = (const uint8_t *)m->fpregs;
    const uint64_t *upper = (const uint64_t *)(image + 576);

    (void)number;
    (void)info;
    if (m->gregs[REG_RAX] != ERESUME || (uint64_t)m->gregs[REG_RBX] != tcs) {
        CHECK(++outside < 1000, "1000 signals, none inside");
        return;
    }
    if (*(const uint64_t *)(image + 512) & 4)
        for (int i = 0; i < 32; i++)
            SAME(upper[i], 0);
    if (++inside == INSIDE_WANTED)
        stop = 1;
    __asm__ volatile("vpcmpeqd %%xmm3, %%xmm3, %%xmm3\n\tvinsertf128 $1, %%xmm3, %%ymm3, %%ymm3"
                     :
                     :
                     : "xmm3");
}

int main(int argc, char **argv)
{
    struct itimerval every = {{0, 20000}, {0, 20000}}, never = {{0, 0}, {0, 0}};
    struct sgx_enclave_run run = {0};
    struct enclave e;
    size_t size;

    if (!__builtin_cpu_supports("avx")) {
        ok("this processor has no AVX");
        return 0;
    }
    CHECK(argc >= 3, "arguments");
    const void *sig = read_file(argv[2], &size);
    CHECK(sig && !enclave_open(&e, argv[1]) && !enclave_reserve(&e), "%s", strerror(errno));
    e.xfrm = 7;
    if (enclave_create(&e) || enclave_add(&e) || enclave_init(&e, sig) || enclave_map(&e))
        FAIL("%s: %s", e.step, strerror(errno));
    enter = vdso_enter();
    tcs = run.tcs = e.tcs[0];
    handle(SIGALRM, alarmed);
    DO(setitimer(ITIMER_REAL, &every, NULL));
    SAME(ask(&run, 0, (uint64_t)&stop, 0, 0), 0);
    DO(setitimer(ITIMER_REAL, &never, NULL));
    ok("%d exits: upper halves of YMM initial outside, as they were inside", INSIDE_WANTED);
    return 0;
}
