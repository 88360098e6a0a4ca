/*
 * Processes that die of a signal, and whether a refusal was the reason: one child for each row of
 * the table. tests/runner/test_deaths.py compares what --explain says of them.
 *
 * The story: the last refusal of any process was given as the reason, even for a signal that came
 * from elsewhere.
 *
 * enclave: ops size=0x4000000
 */
#include "own_stub.h"

#include <pthread.h>
#include <setjmp.h>
#include <sys/wait.h>

static struct enclave e;
static struct sgx_enclave_run run;
static uint64_t page;
static volatile uint8_t *hole; /* before INIT: the driver adds no page */
static sigjmp_buf back;
static volatile char *const null = NULL;

/* Refused by the EPCM, in the enclave, and told by a signal: this ENCLU is not the vDSO's. */
static void refused(void)
{
    struct call call = {OP_WRITE, page, M1, 0, 0};

    own_enter(&call, e.tcs[0], EENTER);
}

static void handler(int number)
{
    (void)number;
    siglongjmp(back, 1);
}

static void refused_and_handled(void)
{
    signal(SIGSEGV, handler);
    if (!sigsetjmp(back, 1))
        refused();
    signal(SIGSEGV, SIG_DFL);
}

static void with_signal(int how)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGSEGV);
    if (how)
        DO(sigprocmask(SIG_BLOCK, &set, NULL));
    else
        signal(SIGSEGV, SIG_IGN);
    refused();
}

static void blocked(void)
{
    with_signal(1);
}

static void ignored(void)
{
    with_signal(0);
}

static void then_killed(void)
{
    refused_and_handled();
    kill(getpid(), SIGSEGV);
    pause();
}

static void then_null(void)
{
    refused_and_handled();
    *null = 0;
}

static void in_handler(int number)
{
    signal(number, SIG_DFL);
    raise(number);
}

static void raised_in_handler(void)
{
    signal(SIGSEGV, in_handler);
    refused();
}

static void of_a_call(void)
{
    CHECK(restrict_page(&e, page + 1, SGX_R) < 0, "an offset that is no page");
    *null = 0;
}

static void *null_there(void *unused)
{
    *null = 0;
    return unused;
}

static void of_another_thread(void)
{
    pthread_t thread;

    refused_and_handled();
    DO(-pthread_create(&thread, NULL, null_there, NULL));
    pause();
}

static void *refused_there(void *unused)
{
    refused();
    return unused;
}

static void in_another_thread(void)
{
    pthread_t thread;

    DO(-pthread_create(&thread, NULL, refused_there, NULL));
    pause();
}

static void bus(void)
{
    (void)*hole;
}

static void bus_handled_then_sent(void)
{
    signal(SIGBUS, handler);
    if (!sigsetjmp(back, 1))
        (void)*hole;
    signal(SIGBUS, SIG_DFL);
    raise(SIGBUS);
}

static void no_rights(void)
{
    DO(mprotect((void *)page, PAGE_SIZE, PROT_NONE));
    *(volatile char *)page = 0;
}

static void trapped(void)
{
    refused_and_handled();
    abort();
}

static const struct {
    const char *name;
    void (*body)(void);
} ROWS[] = {
    {"refused", refused},
    {"blocked", blocked},
    {"ignored", ignored},
    {"then killed", then_killed},
    {"then null", then_null},
    {"raised in the handler", raised_in_handler},
    {"null after a call", of_a_call},
    {"null in another thread", of_another_thread},
    {"refused in another thread", in_another_thread},
    {"bus", bus},
    {"bus handled, then sent", bus_handled_then_sent},
    {"no rights", no_rights},
    {"aborted", trapped},
};

int main(int argc, char **argv)
{
    for (unsigned i = 0; i < sizeof(ROWS) / sizeof(*ROWS); i++) {
        pid_t pid = DO(fork());
        int status;

        if (!pid) {
            int fd;

            alarm(100);
            start(&e, argc, argv);
            run.tcs = e.tcs[0];
            page = ask(&run, OP_BUFFER, 0, 0, 0);
            DO(restrict_page(&e, page, SGX_R));
            SAME(ask(&run, OP_ACCEPT, page, SGX_R | SGX_PT_REG | SGX_PR, 0), 0);
            fd = DO(open("/dev/sgx_enclave", O_RDWR));
            hole = DO(mmap(NULL, PAGE_SIZE, PROT_READ, MAP_SHARED, fd, 0));
            ROWS[i].body();
            _exit(0);
        }
        SAME(DO(waitpid(pid, &status, 0)), pid);
        printf("ok %s: process %d: %d\n", ROWS[i].name, pid,
               WIFSIGNALED(status) ? WTERMSIG(status) : -WEXITSTATUS(status));
        fflush(stdout);
    }
    return 0;
}
