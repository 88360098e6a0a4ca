/*
 * Instructions that enclave/faults.c executes and that must be refused: at what vector, told how,
 * and that nothing of them was executed.
 */
#ifndef ILLEGAL_H
#define ILLEGAL_H

#include "host.h"

struct row {
    const char *name;
    unsigned what, vector;
};

static void refuses(struct sgx_enclave_run *run, const struct row *row)
{
    struct call call = {row->what, 0, 0, 0, 0}, handler = {HANDLE, 0, 0, 0, 0};

    go(run, EENTER, &call);
    CHECK(run->function == ERESUME && run->exception_vector == row->vector,
          "%s: function %u, vector %u, to be %u", row->name, run->function, run->exception_vector,
          row->vector);
    go(run, EENTER, &handler);
    LEFT(run);
    /* Without MISCSELECT.EXINFO a #GP leaves EXITINFO invalid. */
    SAME(handler.a, row->vector == VECTOR_GP ? 0 : 0x80000300UL | row->vector);
    go(run, ERESUME, NULL);
    LEFT(run);
    SAME(call.result, SKIPPED);
    ok("%s: vector %u, not executed", row->name, row->vector);
}

#endif
