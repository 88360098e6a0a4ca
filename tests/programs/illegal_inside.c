/*
 * Instructions that are illegal inside an enclave, those that are privileged, and those that are
 * legal. SDM 3D, 39.6.1 "Illegal Instructions".
 *
 * enclave: faults
 * engines: unicorn
 */
#include "illegal.h"

static const struct row refused[] = {
    {"UD2", TRY_UD2, VECTOR_UD},           {"CPUID", TRY_CPUID, VECTOR_UD},
    {"SYSCALL", TRY_SYSCALL, VECTOR_UD},   {"SYSENTER", TRY_SYSENTER, VECTOR_UD},
    {"INT 80H", TRY_INT80, VECTOR_UD},     {"INT3", TRY_INT3, VECTOR_UD},
    {"IN", TRY_IN, VECTOR_UD},             {"OUT", TRY_OUT, VECTOR_UD},
    {"SGDT", TRY_SGDT, VECTOR_UD},         {"SIDT", TRY_SIDT, VECTOR_UD},
    {"SLDT", TRY_SLDT, VECTOR_UD},         {"STR", TRY_STR, VECTOR_UD},
    {"SMSW", TRY_SMSW, VECTOR_UD},         {"RDPMC", TRY_RDPMC, VECTOR_UD},
    {"IRET", TRY_IRET, VECTOR_UD},         {"RETF", TRY_RETF, VECTOR_UD},
    {"MOV to DS", TRY_MOV_DS, VECTOR_UD},  {"VMCALL", TRY_VMCALL, VECTOR_UD},
    {"ENCLS", TRY_ENCLS, VECTOR_UD},       {"VEX with XFRM 3", TRY_VEX, VECTOR_UD},
    {"EENTER", TRY_EENTER, VECTOR_GP},     {"HLT", TRY_HLT, VECTOR_GP},
    {"CLI", TRY_CLI, VECTOR_GP},           {"WBINVD", TRY_WBINVD, VECTOR_GP},
    {"INVD", TRY_INVD, VECTOR_GP},         {"RDMSR", TRY_RDMSR, VECTOR_GP},
    {"MOV from CR0", TRY_MOV_CR0, VECTOR_GP}, {"CLTS", TRY_CLTS, VECTOR_GP},
    {"SWAPGS", TRY_SWAPGS, VECTOR_GP},     {"DIV by 0", TRY_DIV, VECTOR_DE},
};

static const struct {
    const char *name;
    unsigned what;
} legal[] = {
    {"RDTSC", TRY_RDTSC}, {"RDTSCP", TRY_RDTSCP},     {"RDRAND", TRY_RDRAND},
    {"PAUSE", TRY_PAUSE}, {"WRFSBASE", TRY_WRFSBASE},
};

int main(int argc, char **argv)
{
    struct sgx_enclave_run run = {0};
    struct enclave e;

    start(&e, argc, argv);
    run.tcs = e.tcs[0];
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++)
        refuses(&run, &refused[i]);
    for (size_t i = 0; i < sizeof(legal) / sizeof(legal[0]); i++) {
        struct call call = {legal[i].what, 0, 0, 0, 0};

        go(&run, EENTER, &call);
        LEFT(&run);
        SAME(call.result, SKIPPED);
        ok("%s is legal", legal[i].name);
    }
    return 0;
}
