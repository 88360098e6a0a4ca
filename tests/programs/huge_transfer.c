/*
 * read(2) and write(2) with an enclave page as their buffer and any length: they transfer what they
 * can. An mmap(2) of the device that only the real kernel refuses leaves nothing in the model.
 *
 * The story: all pages of a length of 2^62 were looked at, one by one.
 *
 * enclave: ops
 */
#include "host.h"

#include <sys/syscall.h>

int main(int argc, char **argv)
{
    struct enclave e;
    struct sgx_enclave_run run = {0};
    char got[16];
    int out[2];

    start(&e, argc, argv);
    run.tcs = e.tcs[0];

    uint64_t page = ask(&run, OP_BUFFER, 0, 0, 0);

    DO(pipe(out));
    SAME(write(out[1], "12345678", 8), 8);
    SAME(syscall(SYS_read, out[0], page, 1UL << 62), 8);
    SAME(write(out[1], (void *)page, 8), 8);
    SAME(read(out[0], got, 16), 8);
    SAME(memcmp(got, "\377\377\377\377\377\377\377\377", 8), 0);
    ok("a read of 2^62 bytes into an enclave page");

    void *low = mmap(NULL, PAGE_SIZE, PROT_NONE, MAP_SHARED | MAP_FIXED, e.fd, 0);

    SAME(low, MAP_FAILED);
    SAME(munmap((void *)e.base, e.size), 0);
    DO(close(e.fd));
    ok("a mapping at 0 is refused");
    return 0;
}
