/*
 * One enclave reads a page of another that the kernel has yet to add: a page fault, an AEX, EAUG,
 * and then the abort page. SDM 3D, 38.3 "Access-control Requirements".
 *
 * The story: natively the kernel served the fault of a thread that was still inside, and the model
 * refused ENCLS there. In the emulator what was stored to the abort page could be read there.
 *
 * enclave: ops
 */
#include "host.h"

int main(int argc, char **argv)
{
    struct sgx_enclave_run run = {0};
    static struct enclave e[2];

    for (int i = 0; i < 2; i++)
        start(&e[i], argc, argv);
    run.tcs = e[0].tcs[0];
    uint64_t at = e[1].base + e[1].end;

    DO(enclave_map_range(&e[1], e[1].end, 2 * PAGE_SIZE, PROT_RW));
    SAME(ask(&run, OP_READ, at, 0, 0), -1UL);
    ask(&run, OP_WRITE, at + PAGE_SIZE, M1, 0);
    SAME(ask(&run, OP_READ, at + PAGE_SIZE, 0, 0), -1UL);
    ok("pages of another enclave that are not there yet read as FF bytes");
    return 0;
}
