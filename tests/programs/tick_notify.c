/*
 * AEX-Notify: after the AEX of a timer tick ERESUME enters the handler of the enclave, which counts
 * and goes back to the interrupted code by itself.
 *
 * enclave: notify aexnotify=1
 */
#include "host.h"

int main(int argc, char **argv)
{
    static struct enclave e;
    static struct sgx_enclave_run run;
    size_t size;
    const void *sigstruct = read_file(argv[argc > 2 ? 2 : 0], &size);

    CHECK(argc >= 3 && sigstruct, "usage: %s ENCLAVE.sgxs ENCLAVE.sig", argv[0]);
    DO(enclave_open(&e, argv[1]));
    DO(enclave_reserve(&e));
    e.attributes |= 0x400; /* AEXNOTIFY */
    DO(enclave_create(&e));
    DO(enclave_add(&e));
    DO(enclave_init(&e, sigstruct));
    DO(enclave_map(&e));
    enter = vdso_enter();
    run.tcs = e.tcs[0];
    /* The enclave counts in registers until its handler was entered five times. */
    SAME(ask(&run, OP_WAIT, 5, 0, 0), 5);
    ok("told of five timer interrupts");
    return 0;
}
