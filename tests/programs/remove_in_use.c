/*
 * A page is trimmed, accepted and removed while a thread inside keeps reading it: the thread is
 * refused from the trim on, and goes on with a page of zeros once one is there again.
 *
 * enclave: ops threads=2
 */
#include "hand.h"

static struct enclave e;
static volatile uint32_t stop;
static struct hand reader;

int main(int argc, char **argv)
{
    struct sgx_enclave_run manager = {0};

    start(&e, argc, argv);
    manager.tcs = e.tcs[1];
    uint64_t buffer = ask(&manager, OP_BUFFER, 0, 0, 0);
    hand_start(&reader, e.tcs[0]);
    hand_enter(&reader, OP_SPIN_READ, buffer, (uint64_t)&stop);
    usleep(50000);
    SAME(remove_page(&e, buffer), -1);
    SAME(errno, EPERM);
    ok("an untrimmed page is not removed");
    DO(modify_page(&e, buffer, PT_TRIM));
    hand_wait(&reader);
    FAULTED(&reader.run, VECTOR_PF, PFEC_P | PFEC_U | PFEC_SGX, buffer);
    ok("the reader was refused");
    SAME(remove_page(&e, buffer), -1);
    SAME(errno, EPERM);
    SAME(ask(&manager, OP_ACCEPT, buffer, SGX_PT_TRIM | SGX_MODIFIED, 0), 0);
    DO(remove_page(&e, buffer));
    ok("accepted and removed");
    SAME(remove_page(&e, buffer), -1);
    SAME(errno, EFAULT);

    hand_resume(&reader);
    hand_wait(&reader);
    FAULTED(&reader.run, VECTOR_PF, PFEC_P | PFEC_U | PFEC_SGX, buffer);
    SAME(ask(&manager, OP_ACCEPT, buffer, RW | SGX_PT_REG | SGX_PENDING, 0), 0);
    stop = 1;
    hand_resume(&reader);
    hand_wait(&reader);
    LEFT(&reader.run);
    SAME(reader.call.result, 0);
    ok("the reader goes on with a new page");
    return 0;
}
