/*
 * Exceptions inside an enclave whose host has its own ENCLU and a signal handler, as the runtimes
 * that emulate system calls have it, timed by itself: `name value` in microseconds. From EENTER to
 * the handler; the handler's EENTER at CSSA 1 until its EEXIT; from the end of the handler, which
 * leads to ERESUME at the AEP, until the EEXIT of the first call.
 *
 * enclave: faults
 */
#include "own_stub.h"
#include "timing.h"


enum { WARM = 100, ROUNDS = 2000, PARTS = 4 };

static double took[PARTS][ROUNDS], times[PARTS];
static const char *const names[PARTS] = {"signal", "handler", "resume", "all"};
static struct enclave e;

static void caught(int number, siginfo_t *info, void *context)
{
    struct call handle = {HANDLE, 0, 0, 0, 0};

    (void)info;
    times[1] = now();
    SAME(number, SIGILL);
    SAME(((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP], (uint64_t)own_aep);
    own_enter(&handle, e.tcs[0], EENTER);
    times[2] = now();
}

int main(int argc, char **argv)
{
    start(&e, argc, argv);
    handle(SIGILL, caught);
    for (int i = -WARM; i < ROUNDS; i++) {
        struct call call = {TRY_UD2, 0, 0, 0, 0};

        times[0] = now();
        own_enter(&call, e.tcs[0], EENTER);
        times[3] = now();
        SAME(call.result, SKIPPED);
        for (int part = 0; i >= 0 && part < PARTS; part++)
            took[part][i] = part < 3 ? times[part + 1] - times[part] : times[3] - times[0];
    }
    for (int part = 0; part < PARTS; part++)
        show_times(names[part], took[part], ROUNDS);
    return 0;
}
