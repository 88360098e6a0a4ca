/*
 * A program that confines itself before or after it has an enclave: it enters, by the vDSO and by
 * an ENCLU of its own, executes CPUID, and takes faults inside; calls on the enclave are served as
 * far as the filter allows them.
 *
 * enclave: ops threads=2
 */
#include "filters.h"
#include "host.h"

#include <pthread.h>

static struct enclave e;
static uint64_t buffer;
static char **arguments;

static void enter_and_look(uint64_t tcs)
{
    struct sgx_enclave_run run = {.tcs = tcs};

    for (int i = 0; i < 20; i++)
        SAME(ask(&run, OP_COUNT, 10, 0, 0), 0);
    cpuid();
}

/* By an ENCLU of this program. */
static void own_enclu(void)
{
    struct call call = {OP_COUNT, 10, 0, 0, 1};
    uint64_t rax = EENTER, rbx = e.tcs[0], rcx, rdi = (uint64_t)&call, rsi = 0, rdx = 0;

    __asm__ volatile("lea 1f(%%rip), %%rcx\n1:\t.byte 0x0f, 0x01, 0xd7"
                     : "+a"(rax), "+b"(rbx), "=&c"(rcx), "+D"(rdi), "+S"(rsi), "+d"(rdx)
                     :
                     : "r8", "r9", "r10", "r11", "memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3",
                       "xmm4", "xmm5", "xmm6", "xmm7");
    SAME(call.result, 0);
}

/* All that is in an allow-list: neither futex nor gettid nor getpid, nor what serves the device. */
static int allow_list(void)
{
    INSTALL(ONLY_X86_64, PASSES(SYS_write), PASSES(SYS_exit_group), KILL);
    enter_and_look(e.tcs[0]);
    own_enclu();
    return 3;
}

static int ioctl_denied(void)
{
    INSTALL(ONLY_X86_64, EQUAL(SYS_ioctl, 0, 1), FAILS(EXDEV), ALLOW);
    enter_and_look(e.tcs[0]);
    SAME(restrict_page(&e, buffer, SGX_R), -1);
    SAME(errno, EXDEV);
    return 3;
}

/* The calls of EDMM and no others. */
static int pages_are_changed(void)
{
    INSTALL(ONLY_X86_64, PASSES(SYS_write), PASSES(SYS_exit_group), PASSES(SYS_ioctl),
            PASSES(SYS_mprotect), FAILS(EPERM));
    SAME(restrict_page(&e, buffer, SGX_R), 0);
    struct sgx_enclave_run run = {.tcs = e.tcs[0]};
    SAME(ask(&run, OP_ACCEPT, buffer, SGX_R | SGX_PT_REG | 1 << 5, 0), 0);
    SAME(ask(&run, OP_READ, buffer, 0, 0), 0);
    SAME(mprotect((void *)buffer, PAGE_SIZE, PROT_READ), 0);
    SAME(munmap((void *)buffer, PAGE_SIZE), -1);
    SAME(errno, EPERM);
    return 3;
}

/* The device is opened, an enclave built, with nothing more than these calls need themselves. */
static int built_in_confinement(void)
{
    struct enclave inner;
    struct sgx_enclave_run run = {0};

    INSTALL(ONLY_X86_64, PASSES(SYS_write), PASSES(SYS_exit_group), PASSES(SYS_ioctl),
            PASSES(SYS_openat), PASSES(SYS_mmap), PASSES(SYS_mprotect), PASSES(SYS_munmap),
            PASSES(SYS_close), PASSES(SYS_fstat), PASSES(SYS_newfstatat), PASSES(SYS_read),
            PASSES(SYS_brk), PASSES(SYS_lseek), PASSES(SYS_open), KILL);
    if (enclave_load(&inner, arguments[1], arguments[2]))
        FAIL("%s: %s", inner.step, strerror(errno));
    run.tcs = inner.tcs[0];
    SAME(ask(&run, OP_COUNT, 10, 0, 0), 0);
    return 3;
}

static void *second(void *unused)
{
    struct sock_filter filter[] = {ONLY_X86_64, PASSES(SYS_exit), PASSES(SYS_exit_group),
                                   PASSES(SYS_write), PASSES(SYS_madvise), PASSES(SYS_futex),
                                   PASSES(SYS_munmap), PASSES(SYS_rt_sigprocmask), KILL};

    SAME(install(SECCOMP_FILTER_FLAG_TSYNC, PROGRAM(filter)), 0);
    enter_and_look(e.tcs[1]);
    return unused;
}

static int threads(void)
{
    pthread_t thread;

    SAME(pthread_create(&thread, NULL, second, NULL), 0);
    enter_and_look(e.tcs[0]);
    SAME(pthread_join(thread, NULL), 0);
    enter_and_look(e.tcs[0]);
    return 3;
}

/* One thread is confined, the other has the enclave made and changed. */
static void *alone(void *unused)
{
    INSTALL(ONLY_X86_64, PASSES(SYS_exit), PASSES(SYS_exit_group), PASSES(SYS_write),
            PASSES(SYS_madvise), PASSES(SYS_munmap), PASSES(SYS_rt_sigprocmask), KILL);
    enter_and_look(e.tcs[1]);
    return unused;
}

static int one_thread(void)
{
    pthread_t thread;
    struct enclave inner;
    struct sgx_enclave_run run = {0};
    uint8_t byte;

    SAME(pthread_create(&thread, NULL, alone, NULL), 0);
    SAME(pthread_join(thread, NULL), 0);
    if (enclave_load(&inner, arguments[1], arguments[2]))
        FAIL("%s: %s", inner.step, strerror(errno));
    run.tcs = inner.tcs[0];
    SAME(ask(&run, OP_COUNT, 10, 0, 0), 0);
    SAME(read(inner.fd, &byte, 1), -1);
    SAME(errno, EINVAL);
    SAME(munmap((void *)inner.base, inner.size), 0);
    return 3;
}

static int strict(void)
{
    if (prctl(PR_GET_SECCOMP) == 0)
        SAME(prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT), 0);
    enter_and_look(e.tcs[0]);
    own_enclu();
    syscall(SYS_exit, 3);
    return 4;
}

int main(int argc, char **argv)
{
    struct sgx_enclave_run run = {0};

    arguments = argv;
    start(&e, argc, argv);
    run.tcs = e.tcs[0];
    buffer = ask(&run, OP_BUFFER, 0, 0, 0);
    ENDS(allow_list, EXITED(3));
    ENDS(ioctl_denied, EXITED(3));
    ENDS(pages_are_changed, EXITED(3));
    ENDS(built_in_confinement, EXITED(3));
    ENDS(threads, EXITED(3));
    ENDS(one_thread, EXITED(3));
    ENDS(strict, EXITED(3));
    INSTALL(ONLY_X86_64, PASSES(SYS_write), PASSES(SYS_exit_group), KILL);
    enter_and_look(e.tcs[0]);
    printf("ok the process that built the enclave\n");
    fflush(stdout);
    return 0;
}
