/* rt_sigaction: what is kept, what is asked back, what each flag does. */
#include "cases.h"

static volatile int count;

static void noted(int number, siginfo_t *info, void *context)
{
    count++;
    say("handler of %d, si_signo %d, mask %#lx, mask of the context %#lx", number, info->si_signo,
        (long)mask_now(), (long)*context_mask(context));
}

static void told(const char *what, int number)
{
    struct kaction old = {(void *)1, 2, NULL, 3};
    long got = kaction(number, NULL, &old);

    say("%s %d: %ld %s flags %#lx restorer %s mask %#lx", what, number, got,
        old.handler == (void *)noted            ? "handler"
        : old.handler == (void *)SIG_DFL        ? "default"
        : old.handler == (void *)SIG_IGN        ? "ignored"
                                                : "other",
        old.flags, old.restorer == restorer ? "ours" : old.restorer ? "other" : "none",
        (long)old.mask);
}

static void defaults(void)
{
    for (int number = 1; number < 65; number++)
        told("at first", number);
}

static void kept_and_asked(void)
{
    static const unsigned long flags[] = {
        0, SA_NOCLDSTOP, SA_NOCLDWAIT, SA_SIGINFO, SA_ONSTACK, SA_RESTART, SA_NODEFER, SA_RESETHAND,
        0x400, 0x800, 0x100, 0x10, ~0UL, 0xffffffff00000000UL};
    static const int numbers[] = {SIGUSR1, SIGCHLD, 32, 33, 34, 64};

    for (size_t i = 0; i < COUNT(exceptions) + COUNT(numbers); i++) {
        int number = i < COUNT(exceptions) ? exceptions[i] : numbers[i - COUNT(exceptions)];

        for (size_t j = 0; j < COUNT(flags); j++) {
            struct kaction new = {noted, flags[j] | KSA_RESTORER, restorer, ~0UL >> j};
            struct kaction old = {0};
            struct kaction last = {0};

            kaction(number, NULL, &last);
            if (kaction(number, &new, &old))
                say("%d flags %#lx: errno %d", number, flags[j], errno);
            if (memcmp(&old, &last, sizeof(old)))
                say("%d flags %#lx: the old one is another", number, flags[j]);
            told("set", number);
        }
        ignore(number);
        told("ignored", number);
        default_of(number);
        told("default", number);
    }
}

static void refused(void)
{
    static const int numbers[] = {-1, 0, 65, 1000, SIGKILL, SIGSTOP};
    struct kaction new = {noted, KSA_RESTORER, restorer, 0}, old;

    for (size_t i = 0; i < COUNT(numbers); i++) {
        say("number %d", numbers[i]);
        TRY(kaction(numbers[i], &new, NULL));
        TRY(kaction(numbers[i], NULL, &old));
        TRY(kaction(numbers[i], NULL, NULL));
        new.handler = (void *)SIG_IGN;
        TRY(kaction(numbers[i], &new, &old));
    }
    for (size_t i = 0; i < COUNT(exceptions); i++) {
        int number = exceptions[i];
        struct kaction *bad = (struct kaction *)8;

        say("number %d", number);
        TRY(syscall(SYS_rt_sigaction, number, &new, NULL, 4UL));
        TRY(syscall(SYS_rt_sigaction, number, NULL, &old, 16UL));
        TRY(syscall(SYS_rt_sigaction, number, bad, NULL, 8UL));
        TRY(syscall(SYS_rt_sigaction, number, (void *)-8L, NULL, 8UL));
        TRY(syscall(SYS_rt_sigaction, number, (void *)(1UL << 63), NULL, 8UL));
        TRY(syscall(SYS_rt_sigaction, number, NULL, bad, 8UL));
        new.handler = noted;
        TRY(syscall(SYS_rt_sigaction, number, &new, bad, 8UL));
        told("after EFAULT", number);
        /* The upper half of the number is not looked at. */
        TRY(syscall(SYS_rt_sigaction, number | 1UL << 32, NULL, &old, 8UL));
    }
}

static void at_the_end_of_memory(void)
{
    uint8_t *two = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct kaction new = {noted, KSA_RESTORER, restorer, 0};

    mprotect(two + 4096, 4096, PROT_NONE);
    for (int back = 0; back <= 40; back += 8) {
        memcpy(two, &new, sizeof(new));
        memset(two + 4096 - back, 0, back);
        say("%d bytes", back);
        TRY(kaction(SIGSEGV, (void *)(two + 4096 - back), NULL));
        TRY(kaction(SIGSEGV, NULL, (void *)(two + 4096 - back)));
    }
    mprotect(two, 4096, PROT_READ);
    TRY(kaction(SIGSEGV, NULL, (void *)two));
    TRY(kaction(SIGUSR1, NULL, (void *)two));
    told("at last", SIGSEGV);
}

static void asked_in_handler(int number, siginfo_t *info, void *context)
{
    (void)info;
    (void)context;
    told("in the handler", number);
}

static void reset_hand(void)
{
    for (size_t i = 0; i < COUNT(exceptions); i++) {
        on(exceptions[i], asked_in_handler, SA_RESETHAND);
        send_thread(tid_now(), exceptions[i]);
        told("afterwards", exceptions[i]);
    }
    on_masking(SIGUSR1, asked_in_handler, SA_RESETHAND | SA_NODEFER, BIT(SIGUSR2));
    raise(SIGUSR1);
    told("afterwards", SIGUSR1);
    raise(SIGUSR1);
}

static void reset_hand_dies(void)
{
    on(SIGSEGV, asked_in_handler, SA_RESETHAND);
    touch(8);
}

static void again_in_handler(int number, siginfo_t *info, void *context)
{
    (void)info;
    int mine = ++count;

    say("into %d, mask %#lx, of the context %#lx", mine, (long)mask_now(),
        (long)*context_mask(context));
    if (mine < 3)
        send_thread(tid_now(), number);
    say("out of %d, pending %#lx", mine, (long)pending_now());
}

static void deferred(void)
{
    static const int numbers[] = {SIGUSR1, SIGSEGV, SIGTRAP, SIGSYS, 40};

    for (size_t i = 0; i < COUNT(numbers); i++) {
        say("number %d", numbers[i]);
        count = 0;
        on(numbers[i], again_in_handler, 0);
        send_thread(tid_now(), numbers[i]);
        say("not deferred");
        count = 0;
        on_masking(numbers[i], again_in_handler, SA_NODEFER, BIT(SIGBUS) | BIT(SIGUSR2));
        send_thread(tid_now(), numbers[i]);
        say("not deferred, but in the mask");
        count = 0;
        on_masking(numbers[i], again_in_handler, SA_NODEFER, BIT(numbers[i]));
        send_thread(tid_now(), numbers[i]);
        say("afterwards mask %#lx", (long)mask_now());
    }
}

static void masks_of_handlers(void)
{
    for (size_t i = 0; i < COUNT(exceptions); i++) {
        on_masking(exceptions[i], noted, SA_SIGINFO, EXCEPTIONS | BIT(SIGUSR2) | BIT(64));
        mask_set(BIT(SIGWINCH) | BIT(exceptions[(i + 1) % 6]));
        send_thread(tid_now(), exceptions[i]);
        say("afterwards mask %#lx", (long)mask_now());
    }
    on_masking(SIGUSR1, noted, SA_SIGINFO, ~0UL);
    raise(SIGUSR1);
    say("afterwards mask %#lx", (long)mask_now());
}

static void with_context(int number, siginfo_t *info, void *context)
{
    (void)info;
    say("handler of %d, mask of the context %#lx, flags %#lx", number,
        (long)*context_mask(context), ((ucontext_t *)context)->uc_flags);
}

/* Without SA_SIGINFO there is no siginfo, but the context. */
static void without_siginfo(void)
{
    on_masking(SIGUSR1, with_context, 0, 0);
    on_masking(SIGSEGV, with_context, 0, 0);
    raise(SIGUSR1);
    raise(SIGSEGV);
}

static void without_restorer_usr1(void)
{
    struct kaction action = {noted, SA_SIGINFO, NULL, 0};

    kaction(SIGUSR1, &action, NULL);
    raise(SIGUSR1);
    say("not reached");
}

static void segv_once(int number, siginfo_t *info, void *context)
{
    (void)context;
    say("handler of %d: code %d pid %s", number, info->si_code, whose(info->si_pid));
    _exit(3);
}

static void without_restorer_segv_seen(void)
{
    struct kaction action = {noted, SA_SIGINFO, NULL, 0};

    on(SIGSEGV, segv_once, 0);
    kaction(SIGUSR1, &action, NULL);
    raise(SIGUSR1);
    say("not reached");
}

static void without_restorer_segv(void)
{
    struct kaction action = {segv_once, SA_SIGINFO, NULL, 0};

    kaction(SIGSEGV, &action, NULL);
    told("set", SIGSEGV);
    touch(8);
}

static void pending_and_ignored(void)
{
    static const int numbers[] = {SIGUSR1, SIGSEGV, SIGSYS, SIGTRAP, SIGCHLD, SIGWINCH, 50};

    mask_set(~0UL);
    for (size_t i = 0; i < COUNT(numbers); i++) {
        send_thread(tid_now(), numbers[i]);
        kill(getpid(), numbers[i]);
        say("%d: pending %#lx", numbers[i], (long)pending_now());
        default_of(numbers[i]);
        say("%d: pending, set to default, %#lx", numbers[i], (long)pending_now());
        send_thread(tid_now(), numbers[i]);
        ignore(numbers[i]);
        say("%d: pending, ignored, %#lx", numbers[i], (long)pending_now());
        kill(getpid(), numbers[i]);
        say("%d: sent while ignored, %#lx", numbers[i], (long)pending_now());
        on(numbers[i], noted, 0);
        say("%d: handled, %#lx", numbers[i], (long)pending_now());
        on(numbers[i], noted, 0);
    }
    mask_set(0);
}

static void ignored_exceptions_sent(void)
{
    for (size_t i = 0; i < COUNT(exceptions); i++) {
        ignore(exceptions[i]);
        send_thread(tid_now(), exceptions[i]);
        kill(getpid(), exceptions[i]);
        told("ignored and sent", exceptions[i]);
    }
}

static void *sets_action(void *unused)
{
    on(SIGBUS, noted, SA_RESTART);
    told("in the thread", SIGBUS);
    return unused;
}

static void of_all_threads(void)
{
    pthread_t thread;

    on(SIGBUS, noted, SA_NODEFER);
    pthread_create(&thread, NULL, sets_action, NULL);
    pthread_join(thread, NULL);
    told("in the main thread", SIGBUS);
}

static void changed_in_handler(int number, siginfo_t *info, void *context)
{
    (void)info;
    (void)context;
    on(number, noted, SA_NODEFER);
    told("changed", number);
    send_thread(tid_now(), number);
}

static void action_in_action(void)
{
    on(SIGTRAP, changed_in_handler, SA_NODEFER);
    raise(SIGTRAP);
    told("afterwards", SIGTRAP);
    on(SIGUSR1, changed_in_handler, SA_RESETHAND);
    raise(SIGUSR1);
    told("afterwards", SIGUSR1);
}

/* Each signal with a default that kills, sent to a child. */
static void ends_by(void)
{
    for (int number = 1; number < 65; number++) {
        int status = 0;
        pid_t pid;

        if (number == SIGSTOP || number == SIGTSTP || number == SIGTTIN || number == SIGTTOU)
            continue;
        pid = fork();
        if (!pid) {
            kill(getpid(), number);
            _exit(0);
        }
        waitpid(pid, &status, 0);
        say("signal %d", number);
        ended("child", status);
    }
}

CASES_MAIN(CASE(defaults), CASE(kept_and_asked), CASE(refused), CASE(at_the_end_of_memory),
           CASE(reset_hand), CASE(reset_hand_dies), CASE(deferred), CASE(masks_of_handlers),
           CASE(without_siginfo), CASE(without_restorer_usr1), CASE(without_restorer_segv_seen),
           CASE(without_restorer_segv), CASE(pending_and_ignored), CASE(ignored_exceptions_sent),
           CASE(of_all_threads), CASE(action_in_action), CASE(ends_by))
