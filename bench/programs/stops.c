/*
 * What exceptions inside an enclave cost the host program, timed by itself: `name value` in
 * microseconds. One exception is three calls: EENTER until the vDSO function returns it, EENTER of
 * the handler at CSSA 1 until its EEXIT, ERESUME until the EEXIT of the first call.
 *
 * enclave: faults
 */
#include "host.h"
#include "timing.h"


enum { WARM = 100, ROUNDS = 2000, PARTS = 4 };

static double took[PARTS][ROUNDS];
static const char *const names[PARTS] = {"exception", "handler", "resume", "all"};

int main(int argc, char **argv)
{
    struct sgx_enclave_run run = {0};
    struct enclave e;

    start(&e, argc, argv);
    run.tcs = e.tcs[0];
    for (int i = -WARM; i < ROUNDS; i++) {
        struct call call = {TRY_UD2, 0, 0, 0, 0}, handle = {HANDLE, 0, 0, 0, 0};
        double times[PARTS];

        times[0] = now();
        go(&run, EENTER, &call);
        times[1] = now();
        FAULTED(&run, VECTOR_UD, 0, 0);
        go(&run, EENTER, &handle);
        times[2] = now();
        LEFT(&run);
        go(&run, ERESUME, &call);
        times[3] = now();
        LEFT(&run);
        SAME(call.result, SKIPPED);
        for (int part = 0; i >= 0 && part < PARTS; part++)
            took[part][i] = part < 3 ? times[part + 1] - times[part] : times[3] - times[0];
    }
    for (int part = 0; part < PARTS; part++)
        show_times(names[part], took[part], ROUNDS);
    return 0;
}
