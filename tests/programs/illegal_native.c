/*
 * The native engine: instructions that are illegal inside an enclave and that the processor, or a
 * filter of system calls, stops. docs/run.md lists the others.
 *
 * enclave: faults
 * engines: native
 */
#include "illegal.h"

static const struct row refused[] = {
    {"UD2", TRY_UD2, VECTOR_UD},              {"SYSCALL", TRY_SYSCALL, VECTOR_UD},
    {"INT 80H", TRY_INT80, VECTOR_UD},        {"INT3", TRY_INT3, VECTOR_UD},
    {"IN", TRY_IN, VECTOR_UD},                {"OUT", TRY_OUT, VECTOR_UD},
    {"RDPMC", TRY_RDPMC, VECTOR_UD},          {"ENCLS", TRY_ENCLS, VECTOR_UD},
    {"EENTER", TRY_EENTER, VECTOR_GP},        {"HLT", TRY_HLT, VECTOR_GP},
    {"CLI", TRY_CLI, VECTOR_GP},              {"WBINVD", TRY_WBINVD, VECTOR_GP},
    {"INVD", TRY_INVD, VECTOR_GP},            {"RDMSR", TRY_RDMSR, VECTOR_GP},
    {"MOV from CR0", TRY_MOV_CR0, VECTOR_GP}, {"CLTS", TRY_CLTS, VECTOR_GP},
    {"SWAPGS", TRY_SWAPGS, VECTOR_GP},        {"DIV by 0", TRY_DIV, VECTOR_DE},
    /* A call that the stub answers elsewhere. */
    {"SYSCALL rt_sigprocmask", TRY_SIGPROCMASK, VECTOR_UD},
};

int main(int argc, char **argv)
{
    struct sgx_enclave_run run = {0};
    struct enclave e;

    start(&e, argc, argv);
    run.tcs = e.tcs[0];
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++)
        refuses(&run, &refused[i]);
    /* With --cpuid trap; set by the test, where the machine has CPUID faulting. */
    if (getenv("CPUID_TRAPS"))
        refuses(&run, &(const struct row){"CPUID", TRY_CPUID, VECTOR_UD});
    return 0;
}
