/* What a program sees of its signals: actions, masks, the alternate stack, frames. Prints facts, no
 * addresses. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#define SHOW(value) printf("%s = %lld\n", #value, (long long)(value))

struct kernel_action {
    void *handler;
    unsigned long flags;
    void *restorer;
    uint64_t mask;
};
extern char **environ;
static char *stack;
static sigjmp_buf jump;
static volatile long count;

static long action(int sig, void *new, void *old, long size)
{
    return syscall(SYS_rt_sigaction, sig, new, old, size) ? -errno : 0;
}

static long mask(int how, void *new, void *old, long size)
{
    return syscall(SYS_rt_sigprocmask, how, new, old, size) ? -errno : 0;
}

static void frame(int sig, siginfo_t *in, void *context)
{
    ucontext_t *u = context;
    uintptr_t sp = (uintptr_t)__builtin_frame_address(0) + 8;
    unsigned short control;
    unsigned mxcsr;
    __asm__ volatile("fnstcw %0; stmxcsr %1" : "=m"(control), "=m"(mxcsr));
    printf("signal %d: code %d errno %d pid %d\n", sig, in->si_code, in->si_errno,
           in->si_code <= 0 ? in->si_pid == getpid() : -1);
    printf(" flags %lx link %p stack %d %d %zu\n", u->uc_flags, (void *)u->uc_link,
           u->uc_stack.ss_sp == stack, u->uc_stack.ss_flags, u->uc_stack.ss_size);
    printf(" mask %lx oldmask %llx efl %llx csgsfs %llx\n", *(unsigned long *)&u->uc_sigmask,
           u->uc_mcontext.gregs[REG_OLDMASK], u->uc_mcontext.gregs[REG_EFL] & ~0x8d5ull,
           u->uc_mcontext.gregs[REG_CSGSFS]);
    printf(" frame %ld info %ld fp %d aligned %d on stack %d\n", (long)((char *)u - (char *)sp),
           (long)((char *)in - (char *)sp), (int)((uintptr_t)u->uc_mcontext.fpregs % 64),
           (int)(sp % 16), (char *)sp > stack && (char *)sp <= stack + 65536);
    uint64_t xmm15[2];
    __asm__ volatile("movdqu %%xmm15, %0" : "=m"(xmm15));
    long gap = u->uc_mcontext.gregs[REG_RSP] - 128 - (long)u->uc_mcontext.fpregs -
               ((unsigned *)u->uc_mcontext.fpregs)[468 / 4];
    if (!u->uc_stack.ss_size)
        printf(" red zone kept %d xmm15 %lx %lx\n", gap >= 0 && gap < 64, xmm15[0], xmm15[1]);
    printf(" fpu %x %x saved %x %x magic %x\n", control, mxcsr, u->uc_mcontext.fpregs->cwd,
           u->uc_mcontext.fpregs->mxcsr, ((unsigned *)u->uc_mcontext.fpregs)[464 / 4]);
    uint64_t now;
    mask(SIG_BLOCK, 0, &now, 8);
    printf(" now %lx\n", now);
    stack_t s;
    sigaltstack(0, &s);
    printf(" sigaltstack %d %zu\n", s.ss_flags, s.ss_size);
    count++;
}

static void bare(int sig)
{
    printf("bare %d\n", sig);
    count++;
}

static void leap(int sig, siginfo_t *in, void *context)
{
    ucontext_t *u = context;
    count++;
    printf("fault %d: code %d addr %lx trapno %llx err %llx cr2 %llx\n", sig, in->si_code,
           (long)in->si_addr % 4096, u->uc_mcontext.gregs[REG_TRAPNO],
           u->uc_mcontext.gregs[REG_ERR], u->uc_mcontext.gregs[REG_CR2] % 4096);
    siglongjmp(jump, 1);
}

static void set(int sig, void *handler, int flags)
{
    struct sigaction a = {.sa_sigaction = handler, .sa_flags = flags};
    sigaddset(&a.sa_mask, SIGUSR2);
    sigaddset(&a.sa_mask, SIGSEGV);
    if (sigaction(sig, &a, 0))
        printf("sigaction %d: %d\n", sig, errno);
}

static void actions(void)
{
    struct kernel_action k = {bare, 0xffffffffffff0000ul, 0, ~0ul}, old;
    SHOW(action(0, 0, 0, 8));
    SHOW(action(65, 0, 0, 8));
    SHOW(action(SIGKILL, &k, 0, 8));
    SHOW(action(SIGKILL, 0, &old, 8));
    SHOW(action(SIGSTOP, &k, 0, 8));
    SHOW(action(SIGUSR1, &k, 0, 4));
    SHOW(action(SIGUSR1, (void *)8, 0, 8));
    SHOW(action(SIGUSR1, 0, (void *)8, 8));
    SHOW(action(SIGUSR1, (void *)0x8000000000000000, 0, 8));
    for (int sig = 1; sig <= 64; sig += sig == 8 ? 2 : 1) {
        if (sig == SIGKILL || sig == SIGSTOP || sig == SIGALRM)
            continue;
        k.handler = sig % 3 == 0 ? bare : sig % 3 == 1 ? (void *)SIG_IGN : (void *)SIG_DFL;
        struct kernel_action before, after;
        long set = action(sig, &k, &before, 8), got = action(sig, 0, &after, 8);
        printf("%d: %ld %ld before %d %lx %lx after %d %lx %lx\n", sig, set, got,
               before.handler != 0, before.flags, before.mask, after.handler == k.handler,
               after.flags, after.mask);
        k.handler = SIG_DFL;
        memset(&before, 0, sizeof before);
        action(sig, &before, 0, 8);
    }
}

static void masks(void)
{
    uint64_t m = ~0ul, old = 0;
    SHOW(mask(SIG_SETMASK, &m, 0, 4));
    SHOW(mask(7, &m, 0, 8));
    SHOW(mask(7, 0, &old, 8));
    SHOW(mask(SIG_SETMASK, (void *)8, 0, 8));
    SHOW(mask(SIG_SETMASK, &m, (void *)8, 8));
    SHOW(mask(SIG_BLOCK, 0, &old, 8));
    SHOW(old);
    m = 0x40000400;
    SHOW(mask(SIG_UNBLOCK, &m, &old, 8));
    SHOW(mask(SIG_SETMASK, 0, &old, 8));
    SHOW(old);
    m = 0;
    mask(SIG_SETMASK, &m, 0, 8);
}

static void stacks(void)
{
    stack_t s = {stack, 0, 2047}, old;
    SHOW(sigaltstack(0, &old));
    SHOW(old.ss_flags);
    SHOW(sigaltstack(&s, 0) ? errno : 0);
    s.ss_size = 65536, s.ss_flags = 5;
    SHOW(sigaltstack(&s, 0) ? errno : 0);
    SHOW(sigaltstack((void *)8, 0) ? errno : 0);
    s.ss_flags = SS_ONSTACK;
    SHOW(sigaltstack(&s, 0) ? errno : 0);
    SHOW(sigaltstack(0, (void *)8) ? errno : 0);
    sigaltstack(0, &old);
    SHOW(old.ss_flags);
    SHOW(old.ss_size);
    s.ss_flags = SS_DISABLE;
    SHOW(sigaltstack(&s, 0) ? errno : 0);
    sigaltstack(0, &old);
    SHOW(old.ss_flags);
    SHOW(old.ss_size);
    SHOW((long)old.ss_sp);
}

static void change_in_handler(int sig)
{
    stack_t s = {stack, SS_DISABLE, 0};
    printf("in %d: change %d\n", sig, sigaltstack(&s, 0) ? errno : 0);
    count++;
}

/* What the program has in its registers is in the frame, and comes back; handlers begin anew. */
static void registers(void)
{
    unsigned short control = 0x27f, after = 0;
    unsigned mxcsr = 0x1fc0, later = 0;
    uint64_t high[2] = {0x1111, 0x2222}, back[2] = {0, 0};
    __asm__ volatile("fldcw %0; ldmxcsr %1; movdqu %2, %%xmm15" ::"m"(control), "m"(mxcsr),
                     "m"(high)
                     : "xmm15");
    syscall(SYS_tgkill, getpid(), getpid(), SIGUSR1);
    __asm__ volatile("fnstcw %0; stmxcsr %1; movdqu %%xmm15, %2"
                     : "=m"(after), "=m"(later), "=m"(back));
    printf("after: %x %x %lx %lx\n", after, later, back[0], back[1]);
    __asm__ volatile("fninit; ldmxcsr %0" ::"m"((unsigned){0x1f80}));
}

static void deliveries(void)
{
    stack_t s = {stack, 0, 65536};
    set(SIGUSR1, frame, SA_SIGINFO | SA_NODEFER);
    raise(SIGUSR1);
    set(SIGUSR1, frame, SA_SIGINFO);
    registers();
    sigaltstack(&s, 0);
    set(SIGUSR1, frame, SA_SIGINFO | SA_ONSTACK);
    raise(SIGUSR1);
    kill(getpid(), SIGUSR1);
    set(SIGSEGV, frame, SA_SIGINFO | SA_ONSTACK | SA_NODEFER);
    raise(SIGSEGV);
    s.ss_flags = 1 << 31;
    sigaltstack(&s, 0);
    set(SIGTRAP, frame, SA_SIGINFO | SA_ONSTACK | SA_RESETHAND);
    raise(SIGTRAP);
    struct kernel_action k;
    action(SIGTRAP, 0, &k, 8);
    printf("reset: %d %lx\n", k.handler == 0, k.flags);
    sigaltstack(0, &s);
    SHOW(s.ss_flags);
    s = (stack_t){stack, 0, 65536};
    sigaltstack(&s, 0);
    set(SIGUSR1, change_in_handler, SA_ONSTACK);
    raise(SIGUSR1);
    set(SIGRTMIN + 3, bare, SA_RESETHAND);
    raise(SIGRTMIN + 3);
    action(SIGRTMIN + 3, 0, &k, 8);
    printf("reset: %d %lx\n", k.handler == 0, k.flags);
}

static void faults(void)
{
    set(SIGSEGV, leap, SA_SIGINFO);
    set(SIGFPE, leap, SA_SIGINFO | SA_ONSTACK);
    set(SIGILL, leap, SA_SIGINFO);
    set(SIGBUS, leap, SA_SIGINFO);
    set(SIGTRAP, leap, SA_SIGINFO);
    if (!sigsetjmp(jump, 1))
        *(volatile int *)8 = 1;
    if (!sigsetjmp(jump, 1))
        (void)*(volatile int *)(stack + 131072);
    if (!sigsetjmp(jump, 1))
        __asm__ volatile("hlt");
    if (!sigsetjmp(jump, 1))
        __asm__ volatile("ud2");
    if (!sigsetjmp(jump, 1))
        __asm__ volatile("int3");
    if (!sigsetjmp(jump, 1))
        __asm__ volatile("xorl %%edx, %%edx; xorl %%ecx, %%ecx; divl %%ecx" ::
                             : "rax", "rcx", "rdx");
    if (!sigsetjmp(jump, 1))
        __asm__ volatile("pushfq; orq $0x100, (%%rsp); popfq; nop" ::: "memory");
    FILE *f = tmpfile();
    char *p = mmap(0, 4096, PROT_READ, MAP_SHARED, fileno(f), 0);
    if (!sigsetjmp(jump, 1))
        (void)*(volatile char *)p;
    uint64_t m;
    mask(SIG_BLOCK, 0, &m, 8);
    SHOW(m);
}

/* A reserved signal that is blocked waits, one of its kind; one that is ignored is lost. */
static void waiting(void)
{
    uint64_t m = 1ul << (SIGSEGV - 1) | 1ul << (SIGSYS - 1) | 1ul << (SIGUSR1 - 1), none = 0;
    set(SIGSEGV, bare, 0);
    set(SIGSYS, bare, 0);
    set(SIGUSR1, bare, 0);
    mask(SIG_SETMASK, &m, 0, 8);
    count = 0;
    raise(SIGSEGV);
    raise(SIGSEGV);
    raise(SIGSYS);
    raise(SIGUSR1);
    SHOW(count);
    mask(SIG_SETMASK, &none, 0, 8);
    SHOW(count);
    mask(SIG_SETMASK, &m, 0, 8);
    raise(SIGSEGV);
    raise(SIGUSR1);
    signal(SIGSEGV, SIG_IGN);
    signal(SIGUSR1, SIG_IGN);
    set(SIGSEGV, bare, 0);
    set(SIGUSR1, bare, 0);
    mask(SIG_SETMASK, &none, 0, 8);
    SHOW(count);
    signal(SIGSEGV, SIG_IGN);
    raise(SIGSEGV);
    mask(SIG_SETMASK, &m, 0, 8);
    raise(SIGSEGV);
    set(SIGSEGV, bare, 0);
    mask(SIG_SETMASK, &none, 0, 8);
    SHOW(count);
}

static int died(int pid)
{
    int status;
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static void deaths(void)
{
    uint64_t m = 1ul << (SIGSEGV - 1);
    struct kernel_action none = {0};
    fflush(stdout);
    for (int way = 0; way < 8; way++) {
        int pid = fork();
        if (!pid) {
            set(SIGSEGV, leap, SA_SIGINFO);
            sigsetjmp(jump, 1);
            if (way == 0)
                mask(SIG_SETMASK, &m, 0, 8), *(volatile int *)8 = 1;
            if (way == 1)
                signal(SIGSEGV, SIG_IGN), *(volatile int *)8 = 1;
            if (way == 2)
                signal(SIGTRAP, SIG_DFL), raise(SIGTRAP);
            if (way == 3)
                none.handler = bare, action(SIGUSR1, &none, 0, 8), signal(SIGSEGV, SIG_DFL),
                raise(SIGUSR1);
            if (way == 4)
                signal(SIGSEGV, SIG_DFL), kill(getpid(), SIGSEGV), pause();
            if (way == 5)
                signal(SIGUSR1, SIG_DFL), raise(SIGUSR1);
            if (way == 6)
                syscall(SYS_exit, 6);
            if (way == 7) {
                signal(SIGSEGV, SIG_DFL);
                __asm__ volatile("xorl %esp, %esp; mov $15, %eax; syscall");
            }
            _exit(1);
        }
        printf("way %d: %d\n", way, died(pid));
        fflush(stdout);
    }
}

static void *thread(void *unused)
{
    stack_t s;
    uint64_t m;
    sigaltstack(0, &s);
    mask(SIG_BLOCK, 0, &m, 8);
    printf("thread: stack %d %zu mask %lx\n", s.ss_flags, s.ss_size, m);
    set(SIGUSR1, frame, SA_SIGINFO | SA_ONSTACK);
    raise(SIGUSR1);
    return unused;
}

static void children(void)
{
    uint64_t m = 0x40000400, old;
    stack_t s;
    pthread_t t;
    mask(SIG_SETMASK, &m, 0, 8);
    pthread_create(&t, 0, thread, 0);
    pthread_join(t, 0);
    fflush(stdout);
    int pid = fork();
    if (!pid) {
        sigaltstack(0, &s);
        mask(SIG_BLOCK, 0, &old, 8);
        printf("child: stack %d %zu mask %lx\n", s.ss_flags, s.ss_size, old);
        set(SIGUSR1, bare, 0);
        raise(SIGUSR1);
        pthread_create(&t, 0, thread, 0);
        pthread_join(t, 0);
        fflush(stdout);
        _exit(5);
    }
    SHOW(died(pid));
    raise(SIGUSR1);
    fflush(stdout);
    pid = vfork();
    if (!pid) {
        signal(SIGUSR1, SIG_IGN);
        execl("/nonexistent", "x", (char *)0);
        _exit(9);
    }
    SHOW(died(pid));
    raise(SIGUSR1);
    fflush(stdout);
    char *command[] = {"sh", "-c", "exit 7", 0};
    posix_spawn(&pid, "/bin/sh", 0, 0, command, environ);
    SHOW(died(pid));
    SHOW(system("exit 3"));
    m = 0;
    mask(SIG_SETMASK, &m, 0, 8);
}

int main(void)
{
    setvbuf(stdout, 0, _IOFBF, 1 << 16);
    stack = mmap(0, 262144, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(stack + 131072, 4096, PROT_NONE);
    actions();
    masks();
    stacks();
    deliveries();
    faults();
    waiting();
    deaths();
    children();
    SHOW(count);
    return 0;
}
