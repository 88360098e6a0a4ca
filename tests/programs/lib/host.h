/*
 * What the programs share: loading the enclave named by the arguments, entering it, and saying what
 * is wrong. A program prints one line `ok ...` for each thing it has found right, and returns 0.
 */
#ifndef HOST_H
#define HOST_H

#ifndef _GNU_SOURCE
#error "compile with -D_GNU_SOURCE"
#endif

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <ucontext.h>

#include "calls.h"
#include "load.h"
#include "sgx.h"
#include "vdso.h"

#define M1 0x1122334455667788UL
#define M2 0x8877665544332211UL
#define RW (SGX_R | SGX_W)
#define RX (SGX_R | SGX_X)
#define RWX (SGX_R | SGX_W | SGX_X)
#define PROT_RW (PROT_READ | PROT_WRITE)
#define PROT_RWX (PROT_READ | PROT_WRITE | PROT_EXEC)

static sgx_enter_enclave_t enter;

__attribute__((format(printf, 3, 4), noreturn, unused)) static void
fail_at(const char *file, int line, const char *format, ...)
{
    va_list args;

    fflush(stdout);
    fprintf(stderr, "FAIL %s:%d: ", file, line);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    _exit(1);
}

#define FAIL(...) fail_at(__FILE__, __LINE__, __VA_ARGS__)
#define CHECK(what, format, ...)                                                                   \
    do {                                                                                           \
        if (!(what))                                                                               \
            FAIL("%s: " format, #what, ##__VA_ARGS__);                                             \
    } while (0)

/* Two numbers that have to be the same, with both in the message. */
#define SAME(got, wanted)                                                                          \
    do {                                                                                           \
        unsigned long got_ = (unsigned long)(got), wanted_ = (unsigned long)(wanted);              \
        if (got_ != wanted_)                                                                       \
            FAIL("%s is %#lx, to be %#lx (%s)", #got, got_, wanted_, #wanted);                     \
    } while (0)

/* A system call that has to work: -1 is errno's business. */
#define DO(call)                                                                                   \
    ({                                                                                             \
        __auto_type did_ = (call);                                                                 \
        if ((long)did_ == -1)                                                                      \
            FAIL("%s: %s", #call, strerror(errno));                                                \
        did_;                                                                                      \
    })

__attribute__((format(printf, 1, 2), unused)) static void ok(const char *format, ...)
{
    va_list args;

    printf("ok ");
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    printf("\n");
    fflush(stdout);
}

/* The enclave of argv[1], signed by argv[2]; `enter` is the vDSO's function. */
__attribute__((unused)) static void start(struct enclave *e, int argc, char **argv)
{
    CHECK(argc >= 3, "usage: %s ENCLAVE.sgxs ENCLAVE.sig", argv[0]);
    if (enclave_load(e, argv[1], argv[2]))
        FAIL("%s: %s", e->step, strerror(errno));
    enter = vdso_enter();
    CHECK(enter, "no %s in the vDSO", VDSO_ENTER);
}

/*
 * One run of a thread of the enclave; what came of it is in `run`. These enclaves leave with the
 * stack pointer with which they were entered by EENTER. So what was entered here is resumed here,
 * called by the same function: then the frame of the vDSO function is where it was.
 */
__attribute__((unused, noinline)) static void go(struct sgx_enclave_run *run, unsigned leaf,
                                       struct call *call)
{
    run->exception_vector = run->exception_error_code = 0;
    run->exception_addr = 0;

    int got = call_enclave((uint64_t)call, leaf, run, enter);

    CHECK(got == 0, "the vDSO function returned %d", got);
}

#define LEFT(run)                                                                                  \
    do {                                                                                           \
        if ((run)->function != EEXIT)                                                              \
            FAIL("not left by EEXIT: function %u, vector %u, code %#x, address %#lx",              \
                 (run)->function, (run)->exception_vector, (run)->exception_error_code,            \
                 (unsigned long)(run)->exception_addr);                                            \
    } while (0)

#define FAULTED(run, vector, code, address)                                                        \
    do {                                                                                           \
        SAME((run)->function, ERESUME);                                                            \
        SAME((run)->exception_vector, vector);                                                     \
        SAME((run)->exception_error_code, code);                                                   \
        SAME((run)->exception_addr, address);                                                      \
    } while (0)

/* A call that leaves by EEXIT; its result. */
__attribute__((unused)) static uint64_t ask(struct sgx_enclave_run *run, uint64_t op, uint64_t a,
                                            uint64_t b, uint64_t c)
{
    struct call call = {op, a, b, c, 0};

    go(run, EENTER, &call);
    LEFT(run);
    return call.result;
}

__attribute__((unused)) static int restrict_page(struct enclave *e, uint64_t page, uint64_t rights)
{
    struct sgx_enclave_restrict_permissions arg = {
        .offset = page - e->base, .length = PAGE_SIZE, .permissions = rights};

    return ioctl(e->fd, SGX_IOC_ENCLAVE_RESTRICT_PERMISSIONS, &arg);
}

__attribute__((unused)) static int modify_page(struct enclave *e, uint64_t page, uint64_t type)
{
    struct sgx_enclave_modify_types arg = {
        .offset = page - e->base, .length = PAGE_SIZE, .page_type = type};

    return ioctl(e->fd, SGX_IOC_ENCLAVE_MODIFY_TYPES, &arg);
}

__attribute__((unused)) static int remove_page(struct enclave *e, uint64_t page)
{
    struct sgx_enclave_remove_pages arg = {.offset = page - e->base, .length = PAGE_SIZE};

    return ioctl(e->fd, SGX_IOC_ENCLAVE_REMOVE_PAGES, &arg);
}

/* A handler with the context of what it interrupted. */
__attribute__((unused)) static void handle(int number,
                                           void (*handler)(int, siginfo_t *, void *))
{
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_RESTART};

    DO(sigaction(number, &action, NULL));
}

#endif
