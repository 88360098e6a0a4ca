/*
 * The kernel touches enclave memory for the host: a system call with such a buffer does not fail;
 * it reads FF bytes, and what it writes is lost. SDM 3D, 38.5.1 "Access-control for Accesses
 * that Originate from non-SGX Instructions".
 *
 * enclave: ops
 * engines: unicorn
 */
#include "host.h"

static int pipe_in;

static void write_later(int number)
{
    (void)number;
    if (write(pipe_in, "sixteen bytes...", 16) != 16)
        _exit(2);
}

int main(int argc, char **argv)
{
    struct sgx_enclave_run run = {0};
    struct enclave e;
    uint8_t got[16];
    int ends[2];

    start(&e, argc, argv);
    run.tcs = e.tcs[0];
    uint8_t *at = (uint8_t *)ask(&run, OP_BUFFER, 0, 0, 0);
    ask(&run, OP_WRITE, (uint64_t)at, M1, 0);
    DO(pipe(ends));
    SAME(DO(write(ends[1], at, 16)), 16);
    SAME(DO(read(ends[0], got, 16)), 16);
    for (int i = 0; i < 16; i++)
        SAME(got[i], 0xff);
    ok("write(2) from the enclave writes FF bytes");
    memset(got, 0, sizeof(got));
    SAME(DO(write(ends[1], got, 16)), 16);
    SAME(DO(read(ends[0], at, 16)), 16);
    SAME(ask(&run, OP_READ, (uint64_t)at, 0, 0), M1);
    ok("read(2) into the enclave changes nothing");

    /* Such a call that waits is interrupted as any other; it used to return -512. */
    struct sigaction action = {.sa_handler = write_later};
    pipe_in = ends[1];
    DO(sigaction(SIGALRM, &action, NULL));
    alarm(1);
    SAME(read(ends[0], at, 16), -1);
    SAME(errno, EINTR);
    SAME(DO(read(ends[0], got, 16)), 16);
    action.sa_flags = SA_RESTART;
    DO(sigaction(SIGALRM, &action, NULL));
    alarm(1);
    SAME(DO(read(ends[0], at, 16)), 16);
    SAME(ask(&run, OP_READ, (uint64_t)at, 0, 0), M1);
    ok("read(2) into the enclave, interrupted");
    return 0;
}
