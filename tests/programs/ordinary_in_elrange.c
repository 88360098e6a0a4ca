/*
 * Ordinary memory mapped over a page of ELRANGE: the host uses it, and the enclave gets a page
 * fault, because it is not EPC. SDM 3D, 38.3 "Access-control Requirements".
 *
 * enclave: ops
 * engines: unicorn
 */
#include "host.h"

int main(int argc, char **argv)
{
    struct sgx_enclave_run run = {0};
    struct enclave e;

    start(&e, argc, argv);
    run.tcs = e.tcs[0];
    uint64_t data = ask(&run, OP_BUFFER, 0, 0, 0);
    struct call call = {OP_READ, data, 0, 0, 0};

    ask(&run, OP_WRITE, data, M1, 0);
    DO(munmap((void *)data, PAGE_SIZE));
    SAME((long)DO(mmap((void *)data, PAGE_SIZE, PROT_RW,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0)),
         (long)data);
    *(uint64_t *)data = M2;
    go(&run, EENTER, &call);
    CHECK(run.function == ERESUME && run.exception_vector == VECTOR_PF,
          "ordinary memory in ELRANGE was read");
    SAME(*(uint64_t *)data, M2);
    ok("ordinary memory in ELRANGE is nothing to the enclave");
    DO(mmap((void *)data, PAGE_SIZE, PROT_RW, MAP_SHARED | MAP_FIXED, e.fd, 0));
    go(&run, ERESUME, NULL);
    LEFT(&run);
    SAME(call.result, M1);
    ok("the page is still there");
    return 0;
}
