/*
 * What the vDSO function promises: return values, the fields of sgx_enclave_run, user handlers.
 * Linux 6.12, arch/x86/include/uapi/asm/sgx.h, arch/x86/entry/vdso/vsgx.S.
 *
 * enclave: ops threads=2
 */
#include "host.h"

static struct {
    int times, returns;
    long rdi, rsi, rdx;
    unsigned function;
    uint64_t repair;
} handler;

static int user_handler(long rdi, long rsi, long rdx, long rsp, long r8, long r9,
                        struct sgx_enclave_run *run)
{
    (void)rsp;
    (void)r8;
    (void)r9;
    handler.times++;
    handler.rdi = rdi;
    handler.rsi = rsi;
    handler.rdx = rdx;
    handler.function = run->function;
    if (handler.repair && run->function != EEXIT) {
        DO(mprotect((void *)handler.repair, PAGE_SIZE, PROT_RW));
        return ERESUME;
    }
    return handler.returns;
}

/* Like `go`, a frame of its own: what was entered here is resumed here. */
__attribute__((noinline)) static int with_handler(struct sgx_enclave_run *run, unsigned leaf,
                                                  struct call *call, int returns)
{
    handler.times = 0;
    handler.returns = returns;
    run->user_handler = (uint64_t)user_handler;
    int got = call_enclave((uint64_t)call, leaf, run, enter);

    run->user_handler = 0;
    return got;
}

static void arguments(struct sgx_enclave_run *run)
{
    struct call call = {OP_NOP, 0, 0, 0, 0};
    struct sgx_enclave_run before;

    for (unsigned leaf = 0; leaf < 6; leaf++) {
        if (leaf == EENTER || leaf == ERESUME)
            continue;
        before = *run;
        SAME((long)call_enclave((uint64_t)&call, leaf, run, enter), (long)-EINVAL);
        SAME(memcmp(run, &before, sizeof(before)), 0);
    }
    ok("other leaves: -EINVAL, run untouched");
    for (unsigned i = 0; i < sizeof(run->reserved); i += 43) {
        run->reserved[i] = 1;
        SAME((long)call_enclave((uint64_t)&call, EENTER, run, enter), (long)-EINVAL);
        run->reserved[i] = 0;
    }
    ok("reserved bytes: -EINVAL");
    run->user_data = M1;
    run->exception_vector = 99;
    SAME(call_enclave((uint64_t)&call, EENTER, run, enter), 0);
    SAME(run->function, EEXIT);
    SAME(run->user_data, M1);
    SAME(run->exception_vector, 99);
    ok("EEXIT leaves user_data and the exception alone");
}

static void refused(struct enclave *e, struct sgx_enclave_run *run)
{
    struct call call = {OP_NOP, 0, 0, 0, 0};
    uint64_t tcs = run->tcs;

    run->tcs = tcs + 8;
    go(run, EENTER, &call);
    SAME(run->function, EENTER);
    SAME(run->exception_vector, VECTOR_GP);
    ok("TCS not aligned: #GP of EENTER");
    run->tcs = 0x1000000;
    go(run, EENTER, &call);
    SAME(run->function, EENTER);
    SAME(run->exception_vector, VECTOR_PF);
    SAME(run->exception_error_code, PFEC_W | PFEC_U);
    SAME(run->exception_addr, 0x1000000 + PAGE_SIZE - 1);
    ok("TCS where nothing is: #PF of EENTER");
    run->tcs = tcs;
    go(run, ERESUME, &call);
    SAME(run->function, ERESUME);
    SAME(run->exception_vector, VECTOR_GP);
    ok("ERESUME with CSSA = 0: #GP");
    run->tcs = e->tcs[1];
    call.op = 999; /* the enclave executes UD2, and so does its handler: both SSA frames are used */
    go(run, EENTER, &call);
    FAULTED(run, VECTOR_UD, 0, 0);
    go(run, EENTER, &call);
    FAULTED(run, VECTOR_UD, 0, 0);
    go(run, EENTER, &call);
    SAME(run->function, EENTER);
    SAME(run->exception_vector, VECTOR_GP);
    ok("EENTER with CSSA = NSSA: #GP");
    run->tcs = tcs;
}

static void handlers(struct sgx_enclave_run *run)
{
    struct call call = {OP_NOP, 0, 0, 0, 0};
    uint64_t buffer = ask(run, OP_BUFFER, 0, 0, 0);

    SAME(with_handler(run, EENTER, &call, 0), 0);
    SAME(handler.times, 1);
    SAME(handler.function, EEXIT);
    SAME((long)with_handler(run, EENTER, &call, -7), -7L);
    SAME((long)with_handler(run, EENTER, &call, 5), (long)-EINVAL);
    ok("what a handler returns");

    call = (struct call){OP_WRITE, buffer, M2, 0, 0};
    ask(run, OP_WRITE, buffer, M1, 0);
    DO(mprotect((void *)buffer, PAGE_SIZE, PROT_READ));
    SAME((long)with_handler(run, EENTER, &call, -3), -3L);
    SAME(handler.rdi, VECTOR_PF);
    SAME(handler.rsi, PFEC_P | PFEC_U | PFEC_W);
    SAME(handler.rdx, buffer);
    SAME(run->exception_vector, VECTOR_PF);
    DO(mprotect((void *)buffer, PAGE_SIZE, PROT_RW));
    SAME(with_handler(run, ERESUME, NULL, 0), 0);
    SAME(run->function, EEXIT);
    ok("a handler is told vector, code and address");

    DO(mprotect((void *)buffer, PAGE_SIZE, PROT_READ));
    call.b = M1;
    handler.repair = buffer;
    SAME(with_handler(run, EENTER, &call, 0), 0);
    SAME(handler.times, 2);
    SAME(ask(run, OP_READ, buffer, 0, 0), M1);
    ok("a handler repairs and resumes");
}

int main(int argc, char **argv)
{
    struct sgx_enclave_run run = {0};
    struct enclave e;

    start(&e, argc, argv);
    run.tcs = e.tcs[0];
    arguments(&run);
    refused(&e, &run);
    handlers(&run);
    return 0;
}
