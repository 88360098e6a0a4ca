/*
 * A thread that blocks every signal reads enclave memory from outside: FF bytes, and that
 * changes no handler and no mask.
 *
 * enclave: ops
 * engines: unicorn
 */
#include "host.h"

static void never(int number, siginfo_t *info, void *context)
{
    (void)context;
    FAIL("signal %d at %p", number, info->si_addr);
}

int main(int argc, char **argv)
{
    struct sgx_enclave_run run = {0};
    struct sigaction action;
    struct enclave e;
    sigset_t all, now;

    handle(SIGSEGV, never);
    sigfillset(&all);
    DO(sigprocmask(SIG_BLOCK, &all, NULL));
    start(&e, argc, argv);
    run.tcs = e.tcs[0];
    volatile uint64_t *at = (volatile uint64_t *)ask(&run, OP_BUFFER, 0, 0, 0);
    SAME(*at, -1UL);
    *at = M1;
    SAME(*at, -1UL);
    SAME(ask(&run, OP_READ, (uint64_t)at, 0, 0), 0);
    ok("abort page with all signals blocked");
    DO(sigprocmask(SIG_BLOCK, NULL, &now));
    DO(sigaction(SIGSEGV, NULL, &action));
    CHECK(sigismember(&now, SIGSEGV), "SIGSEGV is not blocked any more");
    CHECK(action.sa_sigaction == never, "SIGSEGV has another handler");
    ok("SIGSEGV as it was");
    return 0;
}
