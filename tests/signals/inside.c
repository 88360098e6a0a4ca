/*
 * Signals that come while a thread is inside an enclave. No kernel without SGX says what is right,
 * so these cases do: SDM 3D, 40.3 "Synthetic State on Asynchronous Enclave Exit", and what Linux
 * does with the state it finds. A case that finds everything right says so, and nothing else.
 */
#include "cases.h"

#include <setjmp.h>

#define STACK_SIZE 65536

static volatile uint32_t told, stop;
static volatile int handled, times[65], nested, expected_inside, last_value, disorder;
static volatile uint64_t answered;
static uint64_t tcs_of_thread;
static uintptr_t near_stack;
static volatile int thread_tid;
static uint8_t alternate[STACK_SIZE] __attribute__((aligned(16)));
static sigjmp_buf away;

#define RIGHT(what, ...)                                                                           \
    do {                                                                                           \
        if (!(what))                                                                               \
            say("WRONG: " #what __VA_ARGS__);                                                      \
    } while (0)
#define EQUAL(got, wanted)                                                                         \
    do {                                                                                           \
        uint64_t got_ = (uint64_t)(got), wanted_ = (uint64_t)(wanted);                             \
        if (got_ != wanted_)                                                                       \
            say("WRONG: " #got " is %#lx, to be %#lx", (long)got_, (long)wanted_);                 \
    } while (0)

/* The state that AEX leaves: at the AEP, ready for ERESUME, with the host's stack. */
static void after_exit(void *context)
{
    greg_t *r = registers(context);

    EQUAL(r[REG_RAX], ERESUME);
    EQUAL(r[REG_RBX], tcs_of_thread);
    EQUAL(r[REG_RCX], r[REG_RIP]);
    RIGHT((uint64_t)r[REG_RIP] - vdso_function < 4096);
    EQUAL(r[REG_RDX] | r[REG_RSI] | r[REG_RDI], 0);
    EQUAL(r[REG_R8] | r[REG_R9] | r[REG_R10] | r[REG_R11], 0);
    EQUAL(r[REG_R12] | r[REG_R13] | r[REG_R14] | r[REG_R15], 0);
    RIGHT(near_stack - (uint64_t)r[REG_RSP] < 65536);
    RIGHT((uint64_t)r[REG_RBP] - (uint64_t)r[REG_RSP] < 4096);
    EQUAL(r[REG_EFL] & 0x40500, 0);
}

static void noted(int number, siginfo_t *info, void *context)
{
    EQUAL(info->si_signo, number);
    if (expected_inside)
        after_exit(context);
    times[number] = times[number] + 1;
    handled = handled + 1;
}

static void *enters(void *argument)
{
    struct sgx_enclave_run run = {.tcs = tcs_of_thread};
    uint64_t mask = *(uint64_t *)argument;
    stack_t stack = {alternate, 0, STACK_SIZE};

    sigaltstack(&stack, NULL);
    mask_set(mask);
    thread_tid = tid_now();
    near_stack = (uintptr_t)__builtin_frame_address(0);
    EQUAL(ask(&run, OP_TELL, (uint64_t)&told, (uint64_t)&stop, 0), 0);
    answered = mask_now();
    return NULL;
}

static uint64_t thread_mask;

/* A thread is inside until end(). */
static pthread_t begin(uint64_t mask)
{
    pthread_t thread;

    if (!tcs_of_thread)
        tcs_of_thread = the_enclave.tcs[0];
    told = stop = 0;
    thread_mask = mask;
    pthread_create(&thread, NULL, enters, &thread_mask);
    while (!told)
        nap(200);
    expected_inside = 1;
    return thread;
}

static void end(pthread_t thread)
{
    expected_inside = 0;
    stop = 1;
    pthread_join(thread, NULL);
}

static const int numbers[] = {SIGUSR1, SIGTERM, SIGALRM, SIGILL, SIGTRAP, SIGBUS,
                              SIGFPE,  SIGSEGV, SIGSYS,  SIGCHLD, 34 + 6};

/*
 * A handler that nothing interrupts: the next signal is sent once it has counted this one, which is
 * before it returns.
 */
static void alone(int number, void *handler, unsigned long flags)
{
    on_masking(number, handler, flags | SA_SIGINFO, ~0UL);
}

static uint64_t all_but(int number)
{
    uint64_t mask = 0;

    for (size_t i = 0; i < COUNT(numbers); i++)
        mask |= BIT(numbers[i]);
    return mask & ~BIT(number);
}

static void until_handled(int count)
{
    while (handled < count)
        nap(100);
}

static void every_signal(void)
{
    pthread_t thread = begin(0);

    for (size_t i = 0; i < COUNT(numbers); i++) {
        alone(numbers[i], noted, SA_RESTART);
        for (int j = 0; j < 5; j++) {
            int before = handled;

            send_thread(thread_tid, numbers[i]);
            until_handled(before + 1);
        }
    }
    end(thread);
    EQUAL(handled, 5 * COUNT(numbers));
    say("right");
}

/*
 * All of them at once: none is lost beside another, or beside what interrupts the thread for others.
 * The latter was a SIGFPE, too, and the kernel keeps one pending signal of each number. SIGSYS is
 * left out: a call of the thread that seccomp traps at that very moment is one.
 */
static void in_bursts(void)
{
    pthread_t thread = begin(0);

    for (size_t i = 0; i < COUNT(numbers); i++)
        alone(numbers[i], noted, SA_RESTART);
    for (int round = 1; round <= 100; round++) {
        int all = round * ((int)COUNT(numbers) - 1);

        for (size_t i = 0; i < COUNT(numbers); i++)
            if (numbers[i] != SIGSYS)
                send_thread(thread_tid, numbers[i]);
        for (int waits = 0; waits < 100000 && handled < all; waits++)
            nap(100);
        for (size_t i = 0; i < COUNT(numbers); i++)
            if (numbers[i] != SIGSYS && times[numbers[i]] != round)
                say("WRONG: signal %d came %d times of %d", numbers[i], times[numbers[i]], round);
        if (handled != all)
            break;
    }
    end(thread);
    say("right");
}

/* The process is sent them, and only the thread inside has them open. */
static void of_the_process(void)
{
    pthread_t thread = begin(0);

    mask_set(~0UL);
    for (size_t i = 0; i < COUNT(numbers); i++) {
        int before = handled;

        alone(numbers[i], noted, 0);
        kill(getpid(), numbers[i]);
        until_handled(before + 1);
    }
    end(thread);
    EQUAL(pending_now(), 0);
    say("right");
}

static void in_order(int number, siginfo_t *info, void *context)
{
    (void)number;
    after_exit(context);
    if (info->si_value.sival_int != last_value + 1)
        disorder++;
    last_value = info->si_value.sival_int;
    handled = handled + 1;
}

static void queued(void)
{
    pthread_t thread = begin(0);

    on(40, in_order, SA_RESTART);
    for (int i = 1; i <= 300; i++) {
        siginfo_t info = {.si_code = SI_QUEUE};

        info.si_value.sival_int = i;
        EQUAL(syscall(SYS_rt_tgsigqueueinfo, getpid(), thread_tid, 40, &info), 0);
    }
    until_handled(300);
    end(thread);
    EQUAL(handled, 300);
    EQUAL(disorder, 0);
    say("right");
}

static void on_alternate(int number, siginfo_t *info, void *context)
{
    uintptr_t here = (uintptr_t)__builtin_frame_address(0);
    stack_t stack;

    noted(number, info, context);
    RIGHT(here - (uintptr_t)alternate < STACK_SIZE);
    sigaltstack(NULL, &stack);
    EQUAL(stack.ss_flags, SS_ONSTACK);
    EQUAL(((ucontext_t *)context)->uc_stack.ss_sp, alternate);
    EQUAL(((ucontext_t *)context)->uc_stack.ss_flags, 0);
}

static void on_alternate_stack(void)
{
    pthread_t thread = begin(0);

    for (size_t i = 0; i < COUNT(numbers); i++) {
        alone(numbers[i], on_alternate, SA_ONSTACK);
        send_thread(thread_tid, numbers[i]);
        until_handled(i + 1);
    }
    end(thread);
    say("right");
}

static void with_masks(int number, siginfo_t *info, void *context)
{
    EQUAL(mask_now(), all_but(0) | BIT(SIGUSR2) | BIT(SIGHUP) | BIT(SIGIO));
    EQUAL(*context_mask(context), BIT(SIGUSR2) | BIT(SIGIO));
    noted(number, info, context);
}

static void masks_of_handlers(void)
{
    pthread_t thread = begin(BIT(SIGUSR2) | BIT(SIGIO));

    for (size_t i = 0; i < COUNT(numbers); i++) {
        on_masking(numbers[i], with_masks, SA_SIGINFO, BIT(SIGHUP) | all_but(numbers[i]));
        send_thread(thread_tid, numbers[i]);
        until_handled(i + 1);
    }
    end(thread);
    EQUAL(answered, BIT(SIGUSR2) | BIT(SIGIO));
    say("right");
}

static void changes_mask(int number, siginfo_t *info, void *context)
{
    *context_mask(context) = EXCEPTIONS | BIT(SIGHUP);
    noted(number, info, context);
}

static void mask_through_the_context(void)
{
    pthread_t thread = begin(BIT(SIGIO));

    on(SIGUSR1, changes_mask, 0);
    on(SIGSEGV, noted, 0);
    send_thread(thread_tid, SIGUSR1);
    until_handled(1);
    send_thread(thread_tid, SIGSEGV);
    end(thread);
    EQUAL(answered, EXCEPTIONS | BIT(SIGHUP));
    EQUAL(handled, 1);
    say("right");
}

static void *enters_blocked(void *unused)
{
    uint64_t all = ~0UL;

    enters(&all);
    EQUAL(handled, 0);
    for (size_t i = 0; i < COUNT(numbers); i++)
        RIGHT(pending_now() & BIT(numbers[i]));
    mask_set(0);
    EQUAL(handled, COUNT(numbers));
    return unused;
}

/* What is blocked waits until the thread is out and opens it. */
static void blocked(void)
{
    pthread_t thread;

    for (size_t i = 0; i < COUNT(numbers); i++)
        on(numbers[i], noted, 0);
    tcs_of_thread = the_enclave.tcs[0];
    pthread_create(&thread, NULL, enters_blocked, NULL);
    while (!told)
        nap(200);
    for (size_t i = 0; i < COUNT(numbers); i++)
        send_thread(thread_tid, numbers[i]);
    end(thread);
    say("right");
}

static void inner(int number, siginfo_t *info, void *context)
{
    (void)info;
    RIGHT(registers(context)[REG_RIP] != registers(context)[REG_RCX] ||
          registers(context)[REG_RAX] != ERESUME);
    RIGHT(*context_mask(context) & BIT(SIGUSR1));
    (void)number;
    nested = nested + 1;
}

static void outer(int number, siginfo_t *info, void *context)
{
    after_exit(context);
    send_thread(tid_now(), SIGSEGV);
    EQUAL(nested, handled + 1);
    noted(number, info, context);
}

static void nested_handlers(void)
{
    pthread_t thread = begin(0);

    on(SIGUSR1, outer, 0);
    on(SIGSEGV, inner, 0);
    for (int i = 0; i < 20; i++) {
        send_thread(thread_tid, SIGUSR1);
        until_handled(i + 1);
    }
    end(thread);
    say("right");
}

static void reset_hand(void)
{
    pthread_t thread = begin(0);

    for (size_t i = 0; i < COUNT(numbers); i++) {
        struct kaction action;

        alone(numbers[i], noted, SA_RESETHAND);
        send_thread(thread_tid, numbers[i]);
        until_handled(i + 1);
        kaction(numbers[i], NULL, &action);
        EQUAL(action.handler, SIG_DFL);
    }
    end(thread);
    say("right");
}

static struct sgx_enclave_run kept_run;
static struct call kept_call;

/* Out by a jump, from the first stay and from those that ERESUME went on with. */
static void jumps(int number, siginfo_t *info, void *context)
{
    noted(number, info, context);
    expected_inside = 0;
    siglongjmp(away, 1);
}

static void *entered_and_left(void *unused)
{
    thread_tid = tid_now();
    near_stack = (uintptr_t)__builtin_frame_address(0);
    kept_run.tcs = tcs_of_thread;
    kept_call = (struct call){OP_TELL, (uint64_t)&told, (uint64_t)&stop, 0, 99};
    if (!sigsetjmp(away, 1)) {
        go(&kept_run, EENTER, &kept_call);
        say("WRONG: out by itself");
    }
    EQUAL(mask_now(), 0);
    stop = 1;
    go(&kept_run, ERESUME, NULL);
    EQUAL(kept_run.function, EEXIT);
    EQUAL(kept_call.result, 0);
    return unused;
}

static void left_by_jump(void)
{
    for (size_t i = 0; i < COUNT(numbers); i++) {
        pthread_t thread;

        told = stop = 0;
        tcs_of_thread = the_enclave.tcs[i % 3];
        on(numbers[i], jumps, 0);
        pthread_create(&thread, NULL, entered_and_left, NULL);
        while (!told)
            nap(200);
        expected_inside = 1;
        send_thread(thread_tid, numbers[i]);
        pthread_join(thread, NULL);
        EQUAL(handled, i + 1);
    }
    say("right");
}

static void enters_other(int number, siginfo_t *info, void *context)
{
    struct sgx_enclave_run run = {.tcs = the_enclave.tcs[1]};

    noted(number, info, context);
    EQUAL(ask(&run, OP_COUNT, 1000, 0, 0), 0);
    EQUAL(ask(&run, OP_ATOMIC, 3, 0, 0), 0);
    nested = nested + 1;
}

static void enclave_calls_in_handlers(void)
{
    struct sgx_enclave_run run = {.tcs = 0};
    pthread_t thread = begin(0);

    alone(SIGUSR1, enters_other, 0);
    alone(SIGSEGV, enters_other, 0);
    for (int i = 0; i < 10; i++) {
        send_thread(thread_tid, i & 1 ? SIGUSR1 : SIGSEGV);
        while (nested <= i)
            nap(100);
    }
    end(thread);
    run.tcs = the_enclave.tcs[1];
    EQUAL(ask(&run, OP_TOTAL, 0, 0, 0), 30);
    say("right");
}

static void forks(int number, siginfo_t *info, void *context)
{
    int status = -1;

    noted(number, info, context);
    pid_t pid = fork();
    if (!pid)
        _exit(9);
    waitpid(pid, &status, 0);
    EQUAL(status, 9 << 8);
    nested = nested + 1;
}

static void forked_in_handlers(void)
{
    pthread_t thread = begin(0);

    alone(SIGUSR1, forks, 0);
    alone(SIGTRAP, forks, 0);
    for (int i = 0; i < 4; i++) {
        send_thread(thread_tid, i & 1 ? SIGUSR1 : SIGTRAP);
        while (nested <= i)
            nap(100);
    }
    end(thread);
    say("right");
}

/* A process with a thread inside, in shared memory what it does; its number. */
static volatile uint64_t *shared_words;

static void *spins(void *unused)
{
    struct sgx_enclave_run run = {.tcs = the_enclave.tcs[1]};

    mask_set(~0UL);
    shared_words[1] = tid_now();
    ask(&run, OP_SPIN_WRITE, (uint64_t)&shared_words[0], (uint64_t)&stop, 0);
    return unused;
}

static pid_t spinning(void)
{
    shared_words = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t pid = fork();
    if (!pid) {
        pthread_t thread;

        prctl(PR_SET_PDEATHSIG, SIGKILL);
        enter_before();
        pthread_create(&thread, NULL, spins, NULL);
        for (;;)
            pause();
    }
    while (shared_words[0] < 1000)
        nap(500);
    return pid;
}

static void killed(void)
{
    static const int deadly[] = {SIGTERM, SIGKILL, SIGSEGV, SIGSYS, SIGUSR1, SIGILL, 40};

    for (size_t i = 0; i < COUNT(deadly); i++) {
        int status = 0;
        pid_t pid = spinning();

        kill(pid, deadly[i]);
        waitpid(pid, &status, 0);
        EQUAL(status & 0x7f, deadly[i]);
    }
    say("right");
}

static void stopped(void)
{
    int status = 0;
    pid_t pid = spinning();

    for (int i = 0; i < 3; i++) {
        uint64_t there;

        kill(pid, i & 1 ? SIGTSTP : SIGSTOP);
        EQUAL(waitpid(pid, &status, WUNTRACED), pid);
        RIGHT(WIFSTOPPED(status) && WSTOPSIG(status) == (i & 1 ? SIGTSTP : SIGSTOP));
        /* Until it stands still. */
        do {
            there = shared_words[0];
            nap(20000);
        } while (shared_words[0] != there);
        kill(pid, SIGCONT);
        EQUAL(waitpid(pid, &status, WCONTINUED), pid);
        RIGHT(WIFCONTINUED(status));
        while (shared_words[0] == there)
            nap(500);
    }
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    say("right");
}

/* Exceptions inside go to the caller of the vDSO function; no handler hears of them. */
static void exceptions_inside(void)
{
    struct sgx_enclave_run run = {.tcs = the_enclave.tcs[0]};

    for (int way = 0; way < 3; way++) {
        struct call call = {OP_READ, 0x1238, 0, 0, 0};

        for (size_t i = 0; i < COUNT(exceptions); i++)
            way == 2 ? ignore(exceptions[i]) : on(exceptions[i], noted, 0);
        mask_set(way == 1 ? ~0UL : BIT(SIGBUS));
        run.tcs = the_enclave.tcs[way];
        go(&run, EENTER, &call);
        EQUAL(run.function, ERESUME);
        EQUAL(run.exception_vector, 14);
        EQUAL(mask_now() & BIT(SIGBUS), BIT(SIGBUS));
        EQUAL(mask_now() & BIT(SIGSEGV), way == 1 ? BIT(SIGSEGV) : 0);
    }
    EQUAL(handled, 0);
    say("right");
}

static void timers(void)
{
    pthread_t thread = begin(0);

    for (size_t i = 0; i < 4; i++) {
        static const int of[] = {SIGSEGV, SIGUSR1, SIGSYS, 41};
        struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = of[i]};
        struct itimerspec every = {{0, 2000000}, {0, 2000000}};
        int before = handled;
        timer_t timer;

        event._sigev_un._tid = thread_tid;
        alone(of[i], noted, SA_RESTART);
        timer_create(CLOCK_MONOTONIC, &event, &timer);
        timer_settime(timer, 0, &every, NULL);
        until_handled(before + 20);
        timer_delete(timer);
    }
    end(thread);
    say("right");
}

/* Another thread takes the process's signals; the one inside is not disturbed. */
static void taken_elsewhere(void)
{
    pthread_t thread = begin(~0UL);

    mask_set(~0UL);
    for (size_t i = 0; i < COUNT(numbers); i++) {
        uint64_t set = BIT(numbers[i]);
        siginfo_t info;

        on(numbers[i], noted, 0);
        kill(getpid(), numbers[i]);
        EQUAL(syscall(SYS_rt_sigtimedwait, &set, &info, NULL, 8UL), numbers[i]);
        EQUAL(info.si_pid, getpid());
    }
    end(thread);
    EQUAL(handled, 0);
    say("right");
}

/* FP and vector state of the host are the handler's to use; the enclave's comes back. */
static void fp_in_handlers(int number, siginfo_t *info, void *context)
{
    uint32_t mxcsr;
    uint16_t control;

    __asm__ volatile("stmxcsr %0\n\tfnstcw %1" : "=m"(mxcsr), "=m"(control));
    EQUAL(mxcsr, 0x1f80);
    EQUAL(control, 0x37f);
    EQUAL(((ucontext_t *)context)->uc_mcontext.fpregs->mxcsr & ~0x3f, 0x1f80);
    __asm__ volatile("pcmpeqd %%xmm0, %%xmm0\n\tpcmpeqd %%xmm9, %%xmm9\n\tfninit\n\tfldpi"
                     :
                     :
                     : "xmm0", "xmm9");
    noted(number, info, context);
}

static void fp_of_handlers(void)
{
    pthread_t thread = begin(0);

    alone(SIGUSR1, fp_in_handlers, 0);
    alone(SIGFPE, fp_in_handlers, 0);
    for (int i = 0; i < 10; i++) {
        send_thread(thread_tid, i & 1 ? SIGUSR1 : SIGFPE);
        until_handled(i + 1);
    }
    end(thread);
    say("right");
}

INSIDE_MAIN(CASE(every_signal), CASE(in_bursts), CASE(of_the_process), CASE(queued),
            CASE(on_alternate_stack), CASE(masks_of_handlers), CASE(mask_through_the_context),
            CASE(blocked), CASE(nested_handlers), CASE(reset_hand), CASE(left_by_jump),
            CASE(enclave_calls_in_handlers), CASE(forked_in_handlers), CASE(killed),
            CASE(stopped), CASE(exceptions_inside), CASE(timers), CASE(taken_elsewhere),
            CASE(fp_of_handlers))
