/*
 * An enclave of 600 threads: 604 runs of pages with equal rights, an area each. The loader
 * maps all of them, and every TCS can be entered.
 *
 * The story: the loader of the example had room for 512 runs and 64 threads, and dropped the others
 * in silence: threads from number 508 on faulted.
 *
 * enclave: ops threads=600 stack_pages=1 nssa=1 thread_data_pages=0
 */
#include "host.h"

int main(int argc, char **argv)
{
    struct sgx_enclave_run run = {0};
    struct enclave e;

    start(&e, argc, argv);
    SAME(e.threads, 600);
    CHECK(e.run_count > 512, "%d runs", e.run_count);
    for (int i = 0; i < e.threads; i++) {
        run.tcs = e.tcs[i];
        ask(&run, OP_NOP, 0, 0, 0);
    }
    ok("600 threads, each has entered");
    return 0;
}
