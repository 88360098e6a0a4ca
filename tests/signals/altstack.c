/* sigaltstack: what is asked back, what is refused, on which stack a handler runs. */
#include "cases.h"

#include <setjmp.h>

#define SIZE 65536
#define AUTODISARM (1U << 31)

static uint8_t *area, *other;
static volatile int depth;
static sigjmp_buf out;
static ucontext_t main_context, side_context;

static const char *which(uintptr_t sp)
{
    if (area && sp >= (uintptr_t)area && sp <= (uintptr_t)area + SIZE)
        return "first";
    if (other && sp >= (uintptr_t)other && sp <= (uintptr_t)other + SIZE)
        return "second";
    return "no";
}

static const char *here(void)
{
    return which((uintptr_t)__builtin_frame_address(0));
}

static void areas(void)
{
    area = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    other = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static void tell_stack(const char *when, const stack_t *stack)
{
    say("%s: flags %#x size %zu, %s alternate stack", when, stack->ss_flags, stack->ss_size,
        !stack->ss_sp ? "NULL, no" : which((uintptr_t)stack->ss_sp));
}

static void ask_stack(const char *when)
{
    stack_t stack = {(void *)1, 2, 3};

    if (sigaltstack(NULL, &stack))
        say("%s: errno %d", when, errno);
    else
        tell_stack(when, &stack);
}

static void set(void *at, int flags, size_t size)
{
    stack_t stack = {at, flags, size}, old = {0};
    long got = syscall(SYS_sigaltstack, &stack, &old);

    say("set flags %#x size %zu: %ld errno %d", flags, size, got, got ? errno : 0);
    tell_stack("  before", &old);
    ask_stack("  now");
}

static void shown(int number, siginfo_t *info, void *context)
{
    (void)info;
    say("handler of %d on %s alternate stack", number, here());
    ask_stack("in the handler");
    tell_stack("in the context", &((ucontext_t *)context)->uc_stack);
}

static void set_and_ask(void)
{
    areas();
    ask_stack("at first");
    set(area, 0, SIZE);
    set(area, SS_DISABLE, SIZE);
    set(area, SS_ONSTACK, SIZE);
    set(area, AUTODISARM, SIZE);
    set(area, AUTODISARM | SS_DISABLE, SIZE);
    set(area, AUTODISARM | SS_ONSTACK, SIZE);
    set(area, SS_ONSTACK | SS_DISABLE, SIZE);
    set(area, 4, SIZE);
    set(area, 1 << 30, SIZE);
    set(NULL, 0, SIZE);
    set(other, SS_DISABLE, 17);
    static const size_t sizes[] = {0,    1,    1024, 2047, 2048,        3000, 3400,     3632,
                                   4096, 8192, 9999, SIZE, (size_t)-1L, 2696, 1UL << 40};
    for (size_t i = 0; i < COUNT(sizes); i++)
        set(area, 0, sizes[i]);
    TRY(syscall(SYS_sigaltstack, (void *)8, NULL));
    TRY(syscall(SYS_sigaltstack, NULL, (void *)8));
    TRY(syscall(SYS_sigaltstack, NULL, NULL));
    stack_t stack = {other, 0, SIZE};
    TRY(syscall(SYS_sigaltstack, &stack, (void *)8));
    ask_stack("after EFAULT");
    say("AT_MINSIGSTKSZ %lu", getauxval(51));
}

static void on_it(void)
{
    areas();
    set(area, 0, SIZE);
    on(SIGUSR1, shown, SA_ONSTACK);
    on(SIGSEGV, shown, SA_ONSTACK);
    on(SIGSYS, shown, 0);
    raise(SIGUSR1);
    raise(SIGSEGV);
    raise(SIGSYS);
    ask_stack("afterwards");
    set(NULL, SS_DISABLE, 0);
    raise(SIGUSR1);
    raise(SIGSEGV);
}

static void changes_it(int number, siginfo_t *info, void *context)
{
    (void)info;
    (void)context;
    say("handler of %d on %s alternate stack", number, here());
    set(other, 0, SIZE);
    set(NULL, SS_DISABLE, 0);
    set(area, 0, SIZE);
}

static void not_while_on_it(void)
{
    areas();
    set(area, 0, SIZE);
    on(SIGUSR1, changes_it, SA_ONSTACK);
    on(SIGBUS, changes_it, SA_ONSTACK);
    on(SIGUSR2, changes_it, 0);
    raise(SIGUSR1);
    raise(SIGBUS);
    ask_stack("afterwards");
    raise(SIGUSR2);
    ask_stack("afterwards");
}

static void nests(int number, siginfo_t *info, void *context)
{
    (void)info;
    (void)context;
    uintptr_t sp = (uintptr_t)__builtin_frame_address(0);
    static uintptr_t last;

    depth++;
    say("%d deep, handler of %d on %s alternate stack, %s", depth, number, here(),
        depth == 1 ? "first" : sp < last ? "below the last" : "not below the last");
    last = sp;
    ask_stack("there");
    if (depth < 4)
        send_thread(tid_now(), depth & 1 ? SIGUSR2 : SIGSEGV);
    say("back, %s", here());
}

static void nested(void)
{
    areas();
    set(area, 0, SIZE);
    on(SIGSEGV, nests, SA_ONSTACK | SA_NODEFER);
    on(SIGUSR2, nests, SA_NODEFER);
    raise(SIGSEGV);
    say("afterwards on %s", here());
    depth = 0;
    on(SIGUSR2, nests, SA_ONSTACK | SA_NODEFER);
    raise(SIGUSR2);
}

static void disarmed(int number, siginfo_t *info, void *context)
{
    shown(number, info, context);
    if (depth++ < 2)
        raise(number);
    set(other, AUTODISARM, SIZE);
    if (depth++ < 3)
        raise(number);
}

static void automatic(void)
{
    areas();
    set(area, AUTODISARM, SIZE);
    on(SIGUSR1, shown, SA_ONSTACK);
    raise(SIGUSR1);
    ask_stack("afterwards");
    on(SIGFPE, disarmed, SA_ONSTACK | SA_NODEFER);
    raise(SIGFPE);
    ask_stack("afterwards");
}

static void through_context(int number, siginfo_t *info, void *context)
{
    shown(number, info, context);
    ((ucontext_t *)context)->uc_stack = (stack_t){other, depth, SIZE};
}

/* sigreturn sets the alternate stack from the context. */
static void set_by_return(void)
{
    static const int flags[] = {0, SS_DISABLE, SS_ONSTACK, (int)AUTODISARM, 7, 0};

    areas();
    for (size_t i = 0; i < COUNT(flags); i++) {
        depth = flags[i];
        set(area, 0, SIZE);
        on(SIGUSR1, through_context, i & 1 ? SA_ONSTACK : 0);
        raise(SIGUSR1);
        ask_stack("afterwards");
    }
}

static void jumps(int number, siginfo_t *info, void *context)
{
    shown(number, info, context);
    siglongjmp(out, 1);
}

static void left_by_jump(void)
{
    areas();
    set(area, 0, SIZE);
    on(SIGUSR1, jumps, SA_ONSTACK);
    on(SIGSEGV, jumps, SA_ONSTACK);
    if (!sigsetjmp(out, 1))
        raise(SIGUSR1);
    ask_stack("afterwards");
    if (!sigsetjmp(out, 1))
        touch(8);
    ask_stack("afterwards");
    set(area, AUTODISARM, SIZE);
    if (!sigsetjmp(out, 1))
        raise(SIGUSR1);
    ask_stack("afterwards, and it stays disarmed");
}

static void swaps(int number, siginfo_t *info, void *context)
{
    shown(number, info, context);
    swapcontext(&side_context, &main_context);
    say("again in the handler on %s alternate stack", here());
    ask_stack("there");
}

/* Out of a handler on its stack, another signal meanwhile, and back into it. */
static void switched(void)
{
    volatile int round = 0;

    areas();
    set(area, AUTODISARM, SIZE);
    on(SIGUSR1, swaps, SA_ONSTACK);
    on(SIGUSR2, shown, SA_ONSTACK);
    getcontext(&main_context);
    if (round++ == 0)
        raise(SIGUSR1);
    say("round %d", round);
    if (round == 2) {
        ask_stack("outside");
        set(other, 0, SIZE);
        raise(SIGUSR2);
        main_context.uc_link = NULL;
        swapcontext(&main_context, &side_context);
    }
    ask_stack("at last");
}

static int deeper(int n)
{
    volatile char room[512];

    room[n % 512] = n;
    return n > 1 << 30 ? 0 : deeper(n + 1) + room[(n + 1) % 512];
}

static void overflown(int number, siginfo_t *info, void *context)
{
    uintptr_t sp = registers(context)[REG_RSP], at = (uintptr_t)info->si_addr;

    say("handler of %d on %s alternate stack: code %d, address %s", number, here(), info->si_code,
        at + 65536 > sp && at < sp + 65536 ? "near RSP" : "elsewhere");
    _exit(5);
}

static void *overflows(void *unused)
{
    stack_t stack = {area, 0, SIZE};

    sigaltstack(&stack, NULL);
    say("%d", deeper(0));
    return unused;
}

static void overflow_seen(void)
{
    pthread_attr_t attributes;
    pthread_t thread;

    areas();
    on(SIGSEGV, overflown, SA_ONSTACK);
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 131072);
    pthread_create(&thread, &attributes, overflows, NULL);
    pthread_join(thread, NULL);
}

static void *overflows_without(void *unused)
{
    say("%d", deeper(0));
    return unused;
}

static void overflow_kills(void)
{
    pthread_attr_t attributes;
    pthread_t thread;

    on(SIGSEGV, overflown, 0);
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 131072);
    pthread_create(&thread, &attributes, overflows_without, NULL);
    pthread_join(thread, NULL);
}

static void again(int number, siginfo_t *info, void *context)
{
    (void)info;
    (void)context;
    depth++;
    raise(number);
}

static void unexpected(int number, siginfo_t *info, void *context)
{
    (void)context;
    say("handler of %d: code %d, pid %s, on %s alternate stack", number, info->si_code,
        whose(info->si_pid), here());
    _exit(6);
}

/* The handlers themselves fill the alternate stack, with memory below it that is mapped. */
static void alternate_overflown(void)
{
    uint8_t *both = mmap(NULL, 2 * SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    area = both + SIZE;
    set(area, 0, SIZE);
    on(SIGUSR1, again, SA_ONSTACK | SA_NODEFER);
    raise(SIGUSR1);
}

static void alternate_overflown_seen(void)
{
    on(SIGSEGV, unexpected, 0);
    alternate_overflown();
}

static void unmapped(void)
{
    areas();
    set(area, 0, SIZE);
    munmap(area, SIZE);
    on(SIGUSR1, shown, SA_ONSTACK);
    raise(SIGUSR1);
    say("not reached");
}

static void unmapped_seen(void)
{
    on(SIGSEGV, unexpected, 0);
    unmapped();
}

static void unmapped_own(void)
{
    areas();
    set(area, 0, SIZE);
    munmap(area, SIZE);
    on(SIGSEGV, shown, SA_ONSTACK);
    touch(8);
}

static void read_only(void)
{
    areas();
    set(area, 0, SIZE);
    mprotect(area, SIZE, PROT_READ);
    on(SIGBUS, shown, SA_ONSTACK);
    raise(SIGBUS);
}

/* No stack at all. */
static void no_stack(void)
{
    on(SIGSEGV, unexpected, 0);
    __asm__ volatile("mov $8, %%esp\n\tmovl $1, (%%rsp)" : : : "memory");
}

static void no_stack_but_alternate(void)
{
    areas();
    set(area, 0, SIZE);
    on(SIGSEGV, unexpected, SA_ONSTACK);
    __asm__ volatile("mov $8, %%esp\n\tpush %%rax" : : : "memory");
}

/* The red zone of the interrupted code stays as it was. */
static void red_zone(void)
{
    long sum;

    on(SIGTRAP, shown, 0);
    __asm__ volatile("movq $1, -8(%%rsp)\n\tmovq $2, -64(%%rsp)\n\tmovq $4, -128(%%rsp)\n\t"
                     "int3\n\t"
                     "mov -8(%%rsp), %0\n\tadd -64(%%rsp), %0\n\tadd -128(%%rsp), %0"
                     : "=r"(sum)
                     :
                     : "memory");
    say("red zone %ld", sum);
}

static void *own_of_thread(void *unused)
{
    ask_stack("in the thread");
    set(other, 0, SIZE);
    pthread_kill(pthread_self(), SIGSEGV);
    return unused;
}

static void of_each_thread(void)
{
    pthread_t thread;

    areas();
    set(area, 0, SIZE);
    on(SIGSEGV, shown, SA_ONSTACK);
    pthread_create(&thread, NULL, own_of_thread, NULL);
    pthread_join(thread, NULL);
    raise(SIGSEGV);
}

static void in_the_child(void)
{
    ask_stack("in the child");
    raise(SIGSEGV);
}

static void after_fork(void)
{
    areas();
    set(area, AUTODISARM, SIZE);
    on(SIGSEGV, shown, SA_ONSTACK);
    in_child("child", in_the_child);
    pid_t pid = vfork();
    if (!pid) {
        ask_stack("after vfork");
        set(other, 0, SIZE);
        _exit(0);
    }
    waitpid(pid, NULL, 0);
    ask_stack("in the parent");
}

static int cloned(void *unused)
{
    (void)unused;
    ask_stack("in the clone");
    return 0;
}

static void after_clone(void)
{
    static uint8_t stack[65536] __attribute__((aligned(16)));
    int status;

    areas();
    set(area, 0, SIZE);
    pid_t pid = clone(cloned, stack + sizeof(stack), CLONE_VM | SIGCHLD, NULL);
    waitpid(pid, &status, 0);
    ended("CLONE_VM", status);
    pid = clone(cloned, stack + sizeof(stack), SIGCHLD, NULL);
    waitpid(pid, &status, 0);
    ended("a copy", status);
    pid = clone(cloned, stack + sizeof(stack), CLONE_VM | CLONE_VFORK | SIGCHLD, NULL);
    waitpid(pid, &status, 0);
    ended("CLONE_VFORK", status);
    ask_stack("in the parent");
}

CASES_MAIN(CASE(set_and_ask), CASE(on_it), CASE(not_while_on_it), CASE(nested), CASE(automatic),
           CASE(set_by_return), CASE(left_by_jump), CASE(switched), CASE(overflow_seen),
           CASE(overflow_kills), CASE(alternate_overflown), CASE(alternate_overflown_seen),
           CASE(unmapped), CASE(unmapped_seen), CASE(unmapped_own), CASE(read_only),
           CASE(no_stack), CASE(no_stack_but_alternate), CASE(red_zone), CASE(of_each_thread),
           CASE(after_fork), CASE(after_clone))
