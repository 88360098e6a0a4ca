/*
 * MISCSELECT.EXINFO: the SSA frame of a page fault says the full address and the error code, and
 * EXITINFO is valid for it; CR2, which the host sees, has its low 12 bits clear. SDM 3D,
 * 40.3 "Synthetic State on Asynchronous Enclave Exit".
 *
 * enclave: faults miscselect=1
 */
#include "host.h"

int main(int argc, char **argv)
{
    struct call call = {TRY_WRITE, 0, 0, 0, 0}, handler = {HANDLE, 0, 0, 0, 0};
    struct sgx_enclave_run run = {0};
    struct enclave e;
    size_t size;

    CHECK(argc >= 3, "arguments");
    const void *sig = read_file(argv[2], &size);
    CHECK(sig && !enclave_open(&e, argv[1]) && !enclave_reserve(&e), "%s", strerror(errno));
    e.miscselect = 1;
    if (enclave_create(&e) || enclave_add(&e) || enclave_init(&e, sig) || enclave_map(&e))
        FAIL("%s: %s", e.step, strerror(errno));
    enter = vdso_enter();
    run.tcs = e.tcs[0];
    call.a = e.base + 0x10; /* the ELF header: r-- */
    go(&run, EENTER, &call);
    SAME(run.function, ERESUME);
    SAME(run.exception_vector, VECTOR_PF);
    SAME(run.exception_addr, e.base);
    CHECK(run.exception_error_code == (PFEC_P | PFEC_U | PFEC_W) ||
              run.exception_error_code == (PFEC_U | PFEC_W),
          "error code %#x", run.exception_error_code);
    uint64_t code = run.exception_error_code;
    go(&run, EENTER, &handler);
    LEFT(&run);
    SAME(handler.a, 0x80000300UL | VECTOR_PF);
    SAME(handler.b, e.base + 0x10);
    SAME(handler.c, code);
    ok("MADDR and ERRCD of a page fault");
    go(&run, ERESUME, NULL);
    LEFT(&run);
    SAME(call.result, SKIPPED);
    ok("stepped over");

    call.op = TRY_CLI;
    go(&run, EENTER, &call);
    FAULTED(&run, VECTOR_GP, 0, 0);
    go(&run, EENTER, &handler);
    LEFT(&run);
    SAME(handler.a, 0x80000300UL | VECTOR_GP);
    SAME(handler.b, 0);
    SAME(handler.c, 0);
    go(&run, ERESUME, NULL);
    LEFT(&run);
    ok("EXITINFO is valid for #GP, too");
    return 0;
}
