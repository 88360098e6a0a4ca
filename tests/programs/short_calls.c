/*
 * Many short calls: by two threads at a time, interrupted by a timer at any point on the way in and
 * out, while another thread makes the driver flush. No call is lost and none is done twice.
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

int main(int argc, char **argv)
{
    struct itimerval every = {{0, 700}, {0, 700}}, never = {{0, 0}, {0, 0}};
    struct sgx_enclave_run run = {0};
    pthread_t threads[2];

    start(&e, argc, argv);
    run.tcs = e.tcs[2];
    uint64_t buffer = ask(&run, OP_BUFFER, 0, 0, 0);
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
    return 0;
}
