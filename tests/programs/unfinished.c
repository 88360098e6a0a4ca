/*
 * What a runtime may forget: EACCEPT after restricting, trimming and adding, and threads that are
 * inside when their process ends. The fourth argument says which; without it nothing is forgotten.
 *
 * enclave: ops threads=2
 */
#include "host.h"

#include <pthread.h>
#include <sys/wait.h>

static volatile uint32_t inside, never;
static struct enclave e;

static void *stay(void *unused)
{
    struct sgx_enclave_run run = {.tcs = e.tcs[1]};

    ask(&run, OP_TELL, (uint64_t)&inside, (uint64_t)&never, 0);
    return unused;
}

static void send_in(void)
{
    pthread_t thread;

    SAME(pthread_create(&thread, NULL, stay, NULL), 0);
    while (!inside)
        usleep(1000);
}

static void add(struct sgx_enclave_run *run, uint64_t page)
{
    DO(enclave_map_range(&e, page - e.base, PAGE_SIZE, PROT_READ | PROT_WRITE));
    SAME(ask(run, OP_ACCEPT, page, SGX_PT_REG | 3 | 8, 0), 0);
}

int main(int argc, char **argv)
{
    const char *what = argc > 4 ? argv[4] : "";
    struct sgx_enclave_run run = {0};
    char *other[] = {"/bin/true", NULL};

    start(&e, argc, argv);
    run.tcs = e.tcs[0];
    uint64_t page = e.base + e.end;

    for (int i = 0; i < 4; i++)
        add(&run, page + i * PAGE_SIZE);
    ok("pages were added and accepted");
    if (!*what) {
        DO(restrict_page(&e, page, 1));
        SAME(ask(&run, OP_ACCEPT, page, SGX_PT_REG | 1 | 0x20, 0), 0);
        DO(modify_page(&e, page + PAGE_SIZE, SGX_PT_TRIM >> 8));
        SAME(ask(&run, OP_ACCEPT, page + PAGE_SIZE, SGX_PT_TRIM | 0x10, 0), 0);
        DO(remove_page(&e, page + PAGE_SIZE));
        ok("restricted, trimmed, removed");
    } else if (!strcmp(what, "pages") || !strcmp(what, "closed")) {
        DO(restrict_page(&e, page, 1));
        DO(restrict_page(&e, page + PAGE_SIZE, 1));
        DO(modify_page(&e, page + 2 * PAGE_SIZE, SGX_PT_TRIM >> 8));
        DO(enclave_map_range(&e, page + 4 * PAGE_SIZE - e.base, PAGE_SIZE, PROT_READ));
        /* The fault adds the page; no EACCEPT follows. */
        struct call call = {OP_READ, page + 4 * PAGE_SIZE, 0, 0, 0};
        go(&run, EENTER, &call);
        SAME(run.function, ERESUME);
        if (!strcmp(what, "closed")) {
            DO(munmap((void *)e.base, e.size));
            DO(close(e.fd));
            sleep(1);
        }
    } else if (!strcmp(what, "exit")) {
        send_in();
        exit(0);
    } else if (!strcmp(what, "exec")) {
        send_in();
        execv(other[0], other);
        FAIL("exec: %s", strerror(errno));
    } else if (!strcmp(what, "killed")) {
        pid_t child = DO(fork());
        int status;

        if (child == 0) {
            send_in();
            raise(SIGKILL);
        }
        SAME(DO(waitpid(child, &status, 0)), child);
        SAME(WTERMSIG(status), SIGKILL);
    } else {
        FAIL("%s", what);
    }
    return 0;
}
