/*
 * FS and GS of a thread inside come from its TCS, those outside come back at EEXIT.
 *
 * enclave: ops threads=2
 */
#include "host.h"

#include <asm/prctl.h>
#include <sys/syscall.h>

static unsigned long base_of(int which)
{
    unsigned long base = 0;

    DO(syscall(SYS_arch_prctl, which, &base));
    return base;
}

int main(int argc, char **argv)
{
    unsigned long fs = base_of(ARCH_GET_FS), gs;
    struct sgx_enclave_run run = {0};
    struct enclave e;

    DO(syscall(SYS_arch_prctl, ARCH_SET_GS, 0x7000));
    gs = base_of(ARCH_GET_GS);
    start(&e, argc, argv);
    for (int i = 0; i < 2; i++) {
        struct call call = {OP_BASES, 0, 0, 0, 0};

        run.tcs = e.tcs[i];
        go(&run, EENTER, &call);
        LEFT(&run);
        /* Thread data comes after the TCS and its two SSA frames, and is zero. */
        SAME(call.b, e.tcs[i] + 3 * PAGE_SIZE);
        SAME(call.c, e.tcs[i] + 3 * PAGE_SIZE);
        SAME(call.a, 0);
        SAME(base_of(ARCH_GET_FS), fs);
        SAME(base_of(ARCH_GET_GS), gs);
    }
    ok("bases of the TCS inside, of the host outside");
    return 0;
}
