/*
 * A handler of a signal that came inside leaves by siglongjmp: the thread stays where it was, and
 * is resumed later.
 *
 * enclave: ops
 */
#include "host.h"

#include <setjmp.h>
#include <sys/time.h>

static sigjmp_buf out;
static volatile uint32_t stop;
static uint64_t tcs;

static void alarmed(int number, siginfo_t *info, void *context)
{
    greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;

    (void)number;
    (void)info;
    if (r[REG_RAX] == ERESUME && (uint64_t)r[REG_RBX] == tcs)
        siglongjmp(out, 1);
}

int main(int argc, char **argv)
{
    struct itimerval every = {{0, 20000}, {0, 20000}}, never = {{0, 0}, {0, 0}};
    static struct sgx_enclave_run run;
    static struct call call;
    static struct enclave e;

    start(&e, argc, argv);
    tcs = run.tcs = e.tcs[0];
    call = (struct call){OP_WAIT, (uint64_t)&stop, 0, 0, 99};
    handle(SIGALRM, alarmed);
    if (sigsetjmp(out, 1) == 0) {
        DO(setitimer(ITIMER_REAL, &every, NULL));
        go(&run, EENTER, &call);
        FAIL("came out by itself");
    }
    DO(setitimer(ITIMER_REAL, &never, NULL));
    ok("out of the enclave by siglongjmp");
    SAME(call.result, 99);
    stop = 1;
    go(&run, ERESUME, NULL);
    LEFT(&run);
    SAME(call.result, 0);
    ok("resumed, and left by EEXIT");
    SAME(ask(&run, OP_COUNT, 100, 0, 0), 0);
    return 0;
}
