/*
 * Loaders reserve addresses as PROT_NONE memory, private or shared, up to 1 TiB of it, and replace
 * parts by the enclave's mappings; what is left of the reservation stays what it was.
 *
 * enclave: ops
 */
#include "host.h"

static void inside(int argc, char **argv, uint64_t reserved, int kind, const char *name)
{
    struct sgx_enclave_run run = {0};
    struct enclave e;
    size_t size;

    CHECK(argc >= 3, "arguments");
    const void *sig = read_file(argv[2], &size);
    CHECK(sig && !enclave_open(&e, argv[1]), "%s: %s", e.step, strerror(errno));
    uint8_t *at = mmap(NULL, reserved, PROT_NONE, kind | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(at != MAP_FAILED, "%s: %s", name, strerror(errno));
    e.base = ((uint64_t)at + e.size - 1) & -e.size;
    if (enclave_create(&e) || enclave_add(&e) || enclave_init(&e, sig) || enclave_map(&e))
        FAIL("%s: %s: %s", name, e.step, strerror(errno));
    run.tcs = e.tcs[0];
    uint64_t buffer = ask(&run, OP_BUFFER, 0, 0, 0);
    ask(&run, OP_WRITE, buffer, M1, 0);
    SAME(ask(&run, OP_READ, buffer, 0, 0), M1);

    /* Behind the enclave the reservation is ordinary memory, if it is asked to be. */
    uint8_t *rest = (uint8_t *)(e.base + e.size);
    DO(mprotect(rest, PAGE_SIZE, PROT_RW));
    rest[5] = 7;
    struct call call = {OP_READ, (uint64_t)rest, 0, 0, 0};
    go(&run, EENTER, &call);
    LEFT(&run);
    SAME(call.result, 7UL << 40);
    DO(munmap(at, reserved));
    call.op = OP_NOP;
    go(&run, EENTER, &call);
    SAME(run.function, EENTER);
    SAME(run.exception_vector, VECTOR_PF);
    close(e.fd);
    ok("%s", name);
}

int main(int argc, char **argv)
{
    enter = vdso_enter();
    CHECK(enter, "no vDSO function");
    inside(argc, argv, 1UL << 24, MAP_PRIVATE, "16 MiB private");
    inside(argc, argv, 1UL << 24, MAP_SHARED, "16 MiB shared");
    inside(argc, argv, 1UL << 40, MAP_PRIVATE, "1 TiB private");
    inside(argc, argv, 1UL << 40, MAP_SHARED, "1 TiB shared");
    return 0;
}
