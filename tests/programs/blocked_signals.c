/*
 * A thread that blocks every signal enters an enclave, faults in it, and (outside) executes CPUID:
 * that changes neither its mask nor any handler of the process.
 *
 * enclave: ops
 */
#include "host.h"

#include <cpuid.h>

static const int numbers[] = {SIGSEGV, SIGILL, SIGBUS, SIGTRAP, SIGFPE, SIGSYS};
#define COUNT (sizeof(numbers) / sizeof(numbers[0]))

static void never(int number, siginfo_t *info, void *context)
{
    (void)context;
    FAIL("signal %d at %p", number, info->si_addr);
}

static void unchanged(const char *after)
{
    sigset_t now;

    DO(sigprocmask(SIG_BLOCK, NULL, &now));
    for (size_t i = 0; i < COUNT; i++) {
        struct sigaction action;

        CHECK(sigismember(&now, numbers[i]), "signal %d unblocked after %s", numbers[i], after);
        DO(sigaction(numbers[i], NULL, &action));
        CHECK(action.sa_sigaction == never, "signal %d has another handler after %s", numbers[i],
              after);
    }
    ok("%s", after);
}

int main(int argc, char **argv)
{
    struct sgx_enclave_run run = {0};
    unsigned eax, ebx, ecx, edx;
    struct enclave e;
    sigset_t all;

    for (size_t i = 0; i < COUNT; i++)
        handle(numbers[i], never);
    sigfillset(&all);
    DO(sigprocmask(SIG_BLOCK, &all, NULL));
    start(&e, argc, argv);
    run.tcs = e.tcs[0];
    uint64_t buffer = ask(&run, OP_BUFFER, 0, 0, 0);
    ask(&run, OP_WRITE, buffer, M1, 0);
    unchanged("entries");
    __cpuid_count(7, 0, eax, ebx, ecx, edx);
    CHECK(ebx & 4, "CPUID.7.EBX[2] is not set");
    unchanged("CPUID");

    struct call call = {OP_WRITE, buffer, M2, 0, 0};
    DO(mprotect((void *)buffer, PAGE_SIZE, PROT_READ));
    go(&run, EENTER, &call);
    FAULTED(&run, VECTOR_PF, PFEC_P | PFEC_W | PFEC_U, buffer);
    unchanged("a fault inside");
    DO(mprotect((void *)buffer, PAGE_SIZE, PROT_RW));
    go(&run, ERESUME, NULL);
    LEFT(&run);
    SAME(ask(&run, OP_READ, buffer, 0, 0), M2);
    unchanged("ERESUME");
    return 0;
}
