/*
 * mremap(2) of ordinary memory over an enclave page: the page is gone from there, and what came is
 * ordinary memory, for mprotect(2) as well.
 *
 * The story: only calls whose first argument lies in an enclave were looked at.
 *
 * enclave: ops
 */
#include "host.h"

int main(int argc, char **argv)
{
    struct enclave e;
    struct sgx_enclave_run run = {0};
    int out[2];

    start(&e, argc, argv);
    run.tcs = e.tcs[0];

    uint64_t page = ask(&run, OP_BUFFER, 0, 0, 0);
    char *old = DO(mmap(NULL, PAGE_SIZE, PROT_RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));

    strcpy(old, "came from outside");
    SAME(mremap(old, PAGE_SIZE, PAGE_SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, (void *)page), page);
    SAME(strcmp((char *)page, "came from outside"), 0);
    DO(pipe(out));
    DO(mprotect((void *)page, PAGE_SIZE, PROT_NONE));
    SAME(write(out[1], (void *)page, 1), -1);
    SAME(errno, EFAULT);
    DO(mprotect((void *)page, PAGE_SIZE, PROT_READ));
    SAME(write(out[1], (void *)page, 1), 1);
    ok("ordinary memory where an enclave page was");
    return 0;
}
