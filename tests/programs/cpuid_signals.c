/*
 * CPUID and the program's SIGILL: whatever replaces a CPUID, handlers and masks stay as the program
 * set them, and a handler still gets the SIGILLs that the program causes.
 *
 * The story: containers refuse some `int 0x80` by its number, and CPUID leaf 18 read as oldstat; a
 * UD2 in its place makes the kernel reset handlers of those who block SIGILL.
 */
#include "host.h"

#include <cpuid.h>
#include <pthread.h>

static volatile int taken;

static void handler(int number, siginfo_t *info, void *context)
{
    ucontext_t *frame = context;

    (void)info;
    SAME(number, SIGILL);
    taken++;
    frame->uc_mcontext.gregs[REG_RIP] += 2;
}

/* SGX is announced, and the leaf has its subleaves. */
static void look(const char *what)
{
    unsigned a, b, c, d;
    sigset_t before, after;
    struct sigaction old, new;

    DO(sigprocmask(SIG_SETMASK, NULL, &before));
    DO(sigaction(SIGILL, NULL, &old));
    __cpuid_count(7, 0, a, b, c, d);
    CHECK(b & 4, "leaf 7: %#x", b);
    __cpuid_count(0x12, 0, a, b, c, d);
    CHECK(a & 1, "leaf 18: %#x", a);
    __cpuid_count(0x12, 2, a, b, c, d);
    SAME(a & 0xf, 1);
    __cpuid(0x80000000, a, b, c, d);
    CHECK(a >> 31, "leaf 80000000H: %#x", a);
    DO(sigprocmask(SIG_SETMASK, NULL, &after));
    DO(sigaction(SIGILL, NULL, &new));
    for (int number = 1; number < 65; number++)
        SAME(sigismember(&after, number), sigismember(&before, number));
    SAME(new.sa_sigaction, old.sa_sigaction);
    SAME(new.sa_flags, old.sa_flags);
    ok("%s", what);
}

static void *all_blocked(void *what)
{
    sigset_t all;

    sigfillset(&all);
    DO(sigprocmask(SIG_SETMASK, &all, NULL));
    look(what);
    return NULL;
}

int main(void)
{
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};
    sigset_t ill, none;
    pthread_t thread;

    sigemptyset(&none);
    sigemptyset(&ill);
    sigaddset(&ill, SIGILL);
    look("nothing set");
    SAME(pthread_create(&thread, NULL, all_blocked, "all blocked, no handler"), 0);
    SAME(pthread_join(thread, NULL), 0);

    DO(sigaction(SIGILL, &action, NULL));
    look("a handler");
    DO(sigprocmask(SIG_SETMASK, &ill, NULL));
    look("a handler, and SIGILL alone is blocked");
    DO(sigprocmask(SIG_SETMASK, &none, NULL));
    SAME(pthread_create(&thread, NULL, all_blocked, "a handler, all blocked"), 0);
    SAME(pthread_join(thread, NULL), 0);
    SAME(taken, 0);
    __asm__ volatile("ud2");
    SAME(taken, 1);
    ok("its own UD2 is the program's");

    signal(SIGILL, SIG_IGN);
    look("ignored");
    return 0;
}
