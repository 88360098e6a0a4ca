/*
 * With CPUID faulting no CPUID escapes: code made at run time, of another thread, after fork, after
 * exec, with prefixes. Without it, those that no disassembly proves reach the real processor.
 */
#include <asm/prctl.h>
#include <cpuid.h>
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(what)                                                                                \
    do {                                                                                           \
        if (!(what)) {                                                                             \
            fprintf(stderr, "FAIL %s:%d: %s\n", __FILE__, __LINE__, #what);                        \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

/* edi leaf, esi sub-leaf, rdx four words. */
static const unsigned char code[] = {
    0x53, 0x49, 0x89, 0xd0, 0x89, 0xf8, 0x89, 0xf1, 0x66, 0x2e, 0x48, 0x0f, 0xa2, 0x41, 0x89, 0x00,
    0x41, 0x89, 0x58, 0x04, 0x41, 0x89, 0x48, 0x08, 0x41, 0x89, 0x50, 0x0c, 0x5b, 0xc3};
static void (*made)(unsigned leaf, unsigned subleaf, unsigned *words);

static void found(unsigned leaf, unsigned subleaf, unsigned *w)
{
    __cpuid_count(leaf, subleaf, w[0], w[1], w[2], w[3]);
}

static long faulting(int what, long value)
{
    return syscall(SYS_arch_prctl, what, value);
}

static void sees_sgx(void)
{
    unsigned w[4];

    made(0, 0, w);
    CHECK(w[0] >= 0x12);
    made(7, 0, w);
    CHECK(w[1] & 1 << 2);
    CHECK(w[2] & 1 << 30);
    made(0x12, 0, w);
    CHECK((w[0] & 3) == 3);
    made(0x12, 1, w);
    CHECK((w[2] & 3) == 3);
}

static void *in_thread(void *unused)
{
    sigset_t all, now;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, NULL);
    sees_sgx();
    pthread_sigmask(SIG_SETMASK, NULL, &now);
    CHECK(sigismember(&now, SIGSEGV) && sigismember(&now, SIGILL));
    return unused;
}

static sigjmp_buf back;
static volatile int code_seen;

static void caught(int number, siginfo_t *info, void *context)
{
    (void)number;
    (void)context;
    code_seen = info->si_code;
    siglongjmp(back, 1);
}

static int refused(void)
{
    unsigned w[4];

    code_seen = 0;
    if (sigsetjmp(back, 1))
        return code_seen;
    made(0, 0, w);
    return 0;
}

static void *denied(void *unused)
{
    CHECK(faulting(ARCH_GET_CPUID, 0) == 0); /* a thread is as who made it */
    CHECK(refused() == SI_KERNEL);
    CHECK(faulting(ARCH_SET_CPUID, 1) == 0);
    CHECK(refused() == 0);
    return unused;
}

int main(int argc, char **argv)
{
    struct sigaction action = {.sa_sigaction = caught, .sa_flags = SA_SIGINFO}, now;
    pthread_t thread;
    int status;

    made = found;
    sees_sgx();
    made = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memcpy((void *)made, code, sizeof code);
    if (faulting(ARCH_SET_CPUID, 1) < 0) {
        CHECK(errno == ENODEV);
        printf("ok no CPUID faulting here\n");
        return 0;
    }
    sees_sgx();
    if (argc > 1)
        return 0;
    printf("ok code made at run time\n");

    sigaction(SIGSEGV, &action, NULL);
    CHECK(!pthread_create(&thread, NULL, in_thread, NULL));
    CHECK(!pthread_join(thread, NULL));
    sigaction(SIGSEGV, NULL, &now);
    CHECK(now.sa_sigaction == caught);
    printf("ok a thread that blocks all signals\n");

    if (!fork()) {
        sees_sgx();
        execl("/proc/self/exe", argv[0], "again", NULL);
        _exit(3);
    }
    CHECK(wait(&status) > 0 && status == 0);
    printf("ok after fork and after exec\n");

    CHECK(faulting(ARCH_GET_CPUID, 0) == 1);
    CHECK(refused() == 0);
    CHECK(faulting(ARCH_SET_CPUID, 0) == 0);
    CHECK(faulting(ARCH_GET_CPUID, 0) == 0);
    CHECK(refused() == SI_KERNEL);
    CHECK(!pthread_create(&thread, NULL, denied, NULL));
    CHECK(!pthread_join(thread, NULL));
    CHECK(refused() == SI_KERNEL);
    CHECK(faulting(ARCH_SET_CPUID, 1) == 0);
    CHECK(refused() == 0);
    printf("ok the program's own CPUID faulting\n");

    /* One that disassembly finds. */
    made = found;
    sees_sgx();
    CHECK(faulting(ARCH_SET_CPUID, 0) == 0);
    CHECK(refused() == SI_KERNEL);
    CHECK(faulting(ARCH_SET_CPUID, 1) == 0);
    sees_sgx();
    printf("ok the same for code of the program\n");
    return 0;
}
