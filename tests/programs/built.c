/*
 * Enclaves that are not what was signed: one page more, of which nothing is measured; pages in
 * another order, built by a child that is killed before INIT; an enclave after exec.
 *
 * enclave: ops
 */
#include "host.h"

#include <sys/wait.h>

static uint8_t page[PAGE_SIZE] __attribute__((aligned(PAGE_SIZE)));

static void begin(struct enclave *e, char **argv)
{
    if (enclave_open(e, argv[1]) || enclave_reserve(e) || enclave_create(e))
        FAIL("%s: %s", e->step, strerror(errno));
}

/* What is signed, and a page that the signature does not know. */
static void refused(char **argv)
{
    size_t size;
    const void *sig = read_file(argv[2], &size);
    struct enclave e;

    begin(&e, argv);
    if (enclave_add(&e))
        FAIL("%s: %s", e.step, strerror(errno));
    memcpy(page + 300, "host", 4);
    DO(enclave_add_page(&e, page, e.end, SGX_PT_REG | 3, false));
    SAME(enclave_init(&e, sig), -1);
    SAME(errno, EPERM);
    ok("refused");
    close(e.fd);
}

/* Two pages from above to below. */
static void killed(char **argv)
{
    pid_t child = DO(fork());
    struct enclave e;
    int status;

    if (child == 0) {
        begin(&e, argv);
        memset(page, 7, sizeof(page));
        DO(enclave_add_page(&e, page, 0x3000, SGX_PT_REG | 3, true));
        DO(enclave_add_page(&e, page, 0x1000, SGX_PT_REG | 1, true));
        raise(SIGKILL);
    }
    SAME(DO(waitpid(child, &status, 0)), child);
    SAME(WTERMSIG(status), SIGKILL);
    ok("killed");
}

int main(int argc, char **argv)
{
    char *again[] = {"/proc/self/exe", argv[1], argv[2], "last", NULL};
    struct enclave e;

    start(&e, argc, argv);
    if (!strcmp(argv[argc - 1], "last")) {
        ok("an enclave after exec");
        return 0;
    }
    refused(argv);
    killed(argv);
    execv(again[0], again);
    FAIL("exec: %s", strerror(errno));
}
