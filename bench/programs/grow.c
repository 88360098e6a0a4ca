/*
 * A heap that grows inside, timed by the host program: `name value` in microseconds for each page.
 * `accept`: EACCEPT of a page that is not there, so a fault, EAUG and EACCEPT again. `touch`: the
 * first store to such a page. `trim`: the pages are taken away again: EMODT, EACCEPT, EREMOVE.
 *
 * enclave: ops size=0x4000000
 */
#include "host.h"
#include "timing.h"


enum { PAGES = 50, ROUNDS = 50, PARTS = 3 };

static const char *const names[PARTS] = {"accept", "touch", "trim"};

/* One round: the pages come, are written to, and go. */
static void grow(struct enclave *e, struct sgx_enclave_run *run, uint64_t at, double took[PARTS])
{
    struct sgx_enclave_modify_types trim = {
        .offset = at - e->base, .length = PAGES * PAGE_SIZE, .page_type = SGX_PT_TRIM >> 8};
    struct sgx_enclave_remove_pages removal = {
        .offset = at - e->base, .length = PAGES * PAGE_SIZE};
    double begin = now();

    SAME(ask(run, OP_GROW, at, RW | SGX_PT_REG | SGX_PENDING, PAGES), 0);
    double accepted = now();
    ask(run, OP_COPY, at + 1, at, PAGES * PAGE_SIZE - 1);
    double touched = now();
    DO(ioctl(e->fd, SGX_IOC_ENCLAVE_MODIFY_TYPES, &trim));
    SAME(ask(run, OP_GROW, at, SGX_PT_TRIM | SGX_MODIFIED, PAGES), 0);
    DO(ioctl(e->fd, SGX_IOC_ENCLAVE_REMOVE_PAGES, &removal));
    double gone = now();
    took[0] = (accepted - begin) / PAGES;
    took[1] = (touched - accepted) / PAGES;
    took[2] = (gone - touched) / PAGES;
}

int main(int argc, char **argv)
{
    double took[PARTS][ROUNDS];
    struct sgx_enclave_run run = {0};
    struct enclave e;

    start(&e, argc, argv);
    run.tcs = e.tcs[0];
    DO(enclave_map_range(&e, e.end, PAGES * PAGE_SIZE, PROT_RW));
    for (int i = 0; i < ROUNDS; i++) {
        double found[PARTS];

        grow(&e, &run, e.base + e.end, found);
        for (int part = 0; part < PARTS; part++)
            took[part][i] = found[part];
    }
    for (int part = 0; part < PARTS; part++)
        show_times(names[part], took[part], ROUNDS);
    return 0;
}
