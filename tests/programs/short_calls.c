/*
 * Many short calls: by two threads at a time, interrupted by a timer at any point on the way in and
 * out, while another thread makes the driver flush. No call is lost and none is done twice; once a
 * page is restricted no call writes it. Natively, a thread that was stopped for a flush just when it
 * executed ENCLU had its #UD delivered later, where it was somewhere else.
 *
 * enclave: ops threads=3
 */
#include "hand.h"

#include <sys/time.h>

#define CALLS 400
#define FLUSHES 20

static struct enclave e;
static volatile int alarms;

static void alarmed(int number, siginfo_t *info, void *context)
{
    (void)number;
    (void)info;
    (void)context;
    alarms++;
}

static void *calls(void *tcs)
{
    struct sgx_enclave_run run = {.tcs = (uint64_t)tcs};

    for (int i = 0; i < CALLS; i++)
        ask(&run, OP_LOCKED, 1, 0, 0);
    return NULL;
}

static volatile uint64_t buffer, restricted, refused, opened;

/* Writes as often as it can, until it is refused. */
static void *writes(void *tcs)
{
    struct sgx_enclave_run run = {.tcs = (uint64_t)tcs};

    for (uint64_t i = 1;; i++) {
        uint64_t before = restricted;
        struct call call = {OP_WRITE, buffer, i, 0, 0};

        go(&run, EENTER, &call);
        if (run.function == ERESUME) {
            FAULTED(&run, VECTOR_PF, PFEC_P | PFEC_W | PFEC_U | PFEC_SGX, buffer);
            refused = 1;
            while (!opened)
                usleep(1000);
            go(&run, ERESUME, &call);
            LEFT(&run);
            return NULL;
        }
        CHECK(!before, "write %lu after RESTRICT_PERMISSIONS had returned", i);
    }
}

static void restrict_writer(struct sgx_enclave_run *run)
{
    pthread_t writer;

    SAME(pthread_create(&writer, NULL, writes, (void *)e.tcs[0]), 0);
    usleep(30000);
    DO(restrict_page(&e, buffer, SGX_R));
    restricted = 1;
    while (!refused)
        usleep(1000);
    SAME(ask(run, OP_ACCEPT, buffer, SGX_R | SGX_PT_REG | SGX_PR, 0), 0);
    ask(run, OP_EXTEND, buffer, RW, 0);
    restricted = 0;
    opened = 1;
    SAME(pthread_join(writer, NULL), 0);
    opened = refused = 0;
}

int main(int argc, char **argv)
{
    struct itimerval every = {{0, 700}, {0, 700}}, never = {{0, 0}, {0, 0}};
    struct sgx_enclave_run run = {0};
    pthread_t threads[2];

    start(&e, argc, argv);
    run.tcs = e.tcs[2];
    buffer = ask(&run, OP_BUFFER, 0, 0, 0);
    handle(SIGALRM, alarmed);
    DO(setitimer(ITIMER_REAL, &every, NULL));
    calls((void *)e.tcs[0]);
    DO(setitimer(ITIMER_REAL, &never, NULL));
    SAME(ask(&run, OP_TOTAL, 0, 0, 0), CALLS);
    ok("one thread and a timer");
    DO(setitimer(ITIMER_REAL, &every, NULL));
    for (int i = 0; i < 2; i++)
        SAME(pthread_create(&threads[i], NULL, calls, (void *)e.tcs[i]), 0);
    for (int i = 0; i < FLUSHES; i++) {
        DO(restrict_page(&e, buffer, SGX_R));
        SAME(ask(&run, OP_ACCEPT, buffer, SGX_R | SGX_PT_REG | SGX_PR, 0), 0);
        ask(&run, OP_EXTEND, buffer, RW, 0);
        ask(&run, OP_WRITE, buffer, i, 0);
        SAME(ask(&run, OP_READ, buffer, 0, 0), i);
    }
    for (int i = 0; i < 2; i++)
        SAME(pthread_join(threads[i], NULL), 0);
    DO(setitimer(ITIMER_REAL, &never, NULL));
    SAME(ask(&run, OP_TOTAL, 0, 0, 0), 3 * CALLS);
    CHECK(alarms, "no signal came");
    ok("two threads, a timer and a driver that flushes");
    for (int i = 0; i < 5; i++)
        restrict_writer(&run);
    ok("no short call writes a page that was restricted");
    return 0;
}
