/* The stub of the supervisor without a tracer: signal handlers and system calls of a program.
 *
 * Freestanding; runs on the alternate stack of the thread's record with all signals blocked but the
 * reserved ones (RES), which come here whatever the program says, since they are how calls and
 * faults arrive. What the program knows of its actions, masks and alternate stack is kept in the
 * record and the action table, and answered from there as Linux would.
 *
 * r_NAME(record), s_NAME and t_NAME(table) are the fields of RECORD, SHARED and TABLE in
 * systrap_layout.py. Sources for what Linux does: Linux 6.12, kernel/signal.c, kernel/fork.c,
 * arch/x86/kernel/signal.c and signal_64.c.
 */

#include "systrap.h"

#pragma GCC visibility push(hidden)

typedef unsigned char record;
typedef unsigned char table;

/* The order of struct sigcontext. */
enum {
    R8,
    R9,
    R10,
    R11,
    R12,
    R13,
    R14,
    R15,
    RDI,
    RSI,
    RBP,
    RBX,
    RDX,
    RAX,
    RCX,
    RSP,
    RIP,
    EFL,
    SEGMENTS,
    ERR,
    TRAPNO,
    OLDMASK,
    CR2,
    REGISTERS
};

struct stack {
    u64 sp;
    u32 flags, pad;
    u64 size;
};
struct ucontext {
    u64 flags, link;
    struct stack ss;
    u64 g[REGISTERS];
    u64 fp;
    u64 reserved[8];
    u64 mask;
};
struct info {
    int sig, err, code, pad;
    int pid;
    u32 uid;
    u64 value;
    u64 rest[12];
};
struct seccomp_info {
    int sig, err, code, pad;
    u64 call_addr;
    int nr;
    u32 arch;
};
struct frame {
    u64 restorer;
    struct ucontext uc;
    struct info info;
};
struct action {
    u64 handler, flags, restorer, mask;
};

_Static_assert(sizeof(struct ucontext) == 304 && sizeof(struct info) == 128 &&
                   sizeof(struct frame) == 440,
               "ABI");
_Static_assert(sizeof(struct action) == ACTION_STRIDE, "ABI");

long own_call(long nr, long a, long b, long c, long d, long e, long f);
long user_call(long nr, long a, long b, long c, long d, long e, long f);
long clone_call(long nr, long a, long b, long c, long d, long e, record *child);
long copy(void *to, const void *from, u64 size);
void leave(volatile u32 *used, int code);
extern char restorer[], entered[], tail[], tail_end[], arrive[], depart_end[], enclu_trap[];
extern char user_called[], gate_exit[];
extern char copy_bytes[], copy_fault[], text_end[];
extern const u64 second[2];

#define OWN_(n, a, b, c, d, e, f, ...)                                                             \
    own_call(n, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))
#define OWN(...) OWN_(__VA_ARGS__, 0, 0, 0, 0, 0, 0)

#define BIT(sig) (1ull << ((sig) - 1))
#define RES RESERVED_SIGNALS
/* What the stub itself may raise, and steps of a debugger. The other reserved signals wait until it
 * returns, or each that came meanwhile would need room on its stack. */
#define IN_STUB (RES & ~(BIT(SIGILL) | BIT(SIGFPE) | BIT(INTERRUPT_SIGNAL)))
#define NEVER (BIT(SIGKILL) | BIT(SIGSTOP))
#define DFL 0
#define IGN 1
#define OUR_FLAGS (SA_SIGINFO | SA_ONSTACK | SA_NODEFER)
#define ALL_FLAGS                                                                                  \
    (SA_NOCLDSTOP | SA_NOCLDWAIT | SA_SIGINFO | SA_EXPOSE_TAGBITS | SA_RESTORER | SA_ONSTACK |     \
     SA_RESTART | SA_NODEFER | SA_RESETHAND)
#define INSTRUCTION_MAX 15
#define STACK_SIZE (RECORD_STRIDE - RECORD_STACK)

static void zero(void *at, u64 size)
{
    __asm__ volatile("rep stosb" : "+D"(at), "+c"(size) : "a"(0) : "memory");
}

/* Of our own memory only. */
static void move(void *to, const void *from, u64 size)
{
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(size)::"memory");
}

static long get(void *to, u64 user, u64 size)
{
    return copy(to, (const void *)user, size);
}

static long put(u64 user, const void *from, u64 size)
{
    return copy((void *)user, from, size);
}

static u64 fs_base(void)
{
    u64 base;
    __asm__ volatile("rdfsbase %0" : "=r"(base));
    return base;
}

static u64 gs_base(void)
{
    u64 base;
    __asm__ volatile("rdgsbase %0" : "=r"(base));
    return base;
}

static void set_bases(u64 fs, u64 gs)
{
    if (fs != fs_base())
        __asm__ volatile("wrfsbase %0" ::"r"(fs));
    if (gs != gs_base())
        __asm__ volatile("wrgsbase %0" ::"r"(gs));
}

static u32 number_of(record *r)
{
    return ((u64)r - RECORDS) / RECORD_STRIDE;
}

static record *record_at(u32 number)
{
    return (record *)(RECORDS + (u64)number * RECORD_STRIDE);
}

static volatile u32 *used_of(u32 number)
{
    return (volatile u32 *)s_USED + number;
}

/* ---- Asking the supervisor ---- */

/* A supervisor that died takes the program with it. OWN_BLIND: its pid means nothing here. */
static void check_supervisor(record *r)
{
    u32 supervisor = s_SUPERVISOR;
    int gone = (s_OWNER & FUTEX_OWNER_DIED) != 0;
    if (supervisor && !r_OWN_BLIND(r))
        gone |= OWN(SYS_KILL, supervisor, 0) == -ESRCH;
    if (gone)
        OWN(SYS_KILL, OWN(SYS_GETPID), SIGKILL);
}

static void ask(record *r, u32 kind)
{
    volatile u32 *state = (volatile u32 *)s_STATES + number_of(r);
    r_KIND(r) = kind;
    __atomic_store_n(state, REQUEST, __ATOMIC_SEQ_CST);
    __atomic_fetch_add(&s_REPORTS, 1, __ATOMIC_SEQ_CST);
    __atomic_fetch_add(&s_DOORBELL, 1, __ATOMIC_SEQ_CST);
    if (s_SLEEPING)
        OWN(SYS_FUTEX, &s_DOORBELL, FUTEX_WAKE, 1);
    for (u32 left = s_SPIN; left && *state != REPLY; left--)
        __builtin_ia32_pause();
    for (;;) {
        u32 now = *state;
        if (now == REPLY)
            break;
        if (OWN(SYS_FUTEX, state, FUTEX_WAIT, now, second) == -ETIMEDOUT)
            check_supervisor(r);
    }
    *state = IDLE;
}

#include "systrap_sent.h"

/* ---- Actions ---- */

static void lock(table *t)
{
    while (__atomic_exchange_n(&t_LOCK(t), 1, __ATOMIC_ACQUIRE))
        OWN(SYS_SCHED_YIELD);
}

static void unlock(table *t)
{
    __atomic_store_n(&t_LOCK(t), 0, __ATOMIC_RELEASE);
}

static table *table_of(record *r)
{
    return (table *)r_TABLE(r);
}

static struct action *entry(table *t, int sig)
{
    return (struct action *)t_ACTIONS(t) + sig;
}

static struct action action_of(record *r, int sig)
{
    table *t = table_of(r);
    lock(t);
    struct action a = *entry(t, sig);
    unlock(t);
    return a;
}

/* The action that the kernel has. */
static void set_real(int sig, u64 handler_address, u64 flags)
{
    struct action a = {handler_address, flags | SA_RESTORER, (u64)restorer, ~IN_STUB};
    OWN(SYS_RT_SIGACTION, sig, &a, 0, 8);
}

static void set_real_like(int sig, const struct action *a)
{
    u64 kept = a->flags & (SA_NOCLDSTOP | SA_NOCLDWAIT);
    if (RES & BIT(sig))
        return;
    if (a->handler > IGN) {
        kept |= a->flags & (SA_RESTART | SA_RESETHAND | SA_EXPOSE_TAGBITS);
        set_real(sig, (u64)entered, OUR_FLAGS | kept);
    } else {
        set_real(sig, a->handler, kept);
    }
}

static long sys_sigaction(record *r, int sig, u64 new, u64 old, u64 size)
{
    struct action a, was;
    table *t = table_of(r);
    if (size != 8)
        return -EINVAL;
    if (new && get(&a, new, sizeof a))
        return -EFAULT;
    if (sig < 1 || sig > SIGNALS || (new && (NEVER & BIT(sig))))
        return -EINVAL;
    lock(t);
    was = *entry(t, sig);
    if (new) {
        a.flags &= ALL_FLAGS;
        a.mask &= ~NEVER;
        *entry(t, sig) = a;
        set_real_like(sig, &a);
        if (a.handler == IGN && (RES & BIT(sig))) {
            drop_waiting(of_thread(r), BIT(sig));
            drop_waiting(of_process(r), BIT(sig));
        }
    }
    unlock(t);
    return old ? put(old, &was, sizeof was) : 0;
}

/* ---- Masks: the real one never has RES, VBLOCKED has what the program believes of them. ---- */

static u64 mask_of(record *r, struct ucontext *u)
{
    return u->mask | r_VBLOCKED(r);
}

static void set_mask(record *r, struct ucontext *u, u64 mask)
{
    u64 newly = mask & ~r_VBLOCKED(r) & RES;
    u->mask = mask & ~(RES | NEVER);
    r_VBLOCKED(r) = mask & RES;
    if (newly)
        hand_over(r, newly);
}

static long sys_sigprocmask(record *r, struct ucontext *u, int how, u64 new, u64 old, u64 size)
{
    u64 was = mask_of(r, u), set;
    if (size != 8)
        return -EINVAL;
    if (new) {
        if (get(&set, new, 8))
            return -EFAULT;
        if (how == SIG_BLOCK)
            set |= was;
        else if (how == SIG_UNBLOCK)
            set = was & ~set;
        else if (how != SIG_SETMASK)
            return -EINVAL;
        set_mask(r, u, set);
    }
    return old ? put(old, &was, 8) : 0;
}

/* ---- The alternate stack ---- */

static int in_stack(record *r, u64 sp)
{
    return sp > r_VSS_SP(r) && sp - r_VSS_SP(r) <= r_VSS_SIZE(r);
}

static int on_stack(record *r, u64 sp)
{
    return !(r_VSS_FLAGS(r) & SS_AUTODISARM) && in_stack(r, sp);
}

static u32 stack_flags(record *r, u64 sp)
{
    return !r_VSS_SIZE(r) ? SS_DISABLE : on_stack(r, sp) ? SS_ONSTACK : 0;
}

static void set_stack(record *r, u64 sp, u32 flags, u64 size)
{
    r_VSS_SP(r) = sp;
    r_VSS_FLAGS(r) = flags;
    r_VSS_SIZE(r) = size;
}

static long change_stack(record *r, const struct stack *new, u64 sp)
{
    u32 mode = new->flags & ~SS_AUTODISARM;
    if (on_stack(r, sp))
        return -EPERM;
    if (mode != SS_DISABLE && mode != SS_ONSTACK && mode != 0)
        return -EINVAL;
    if (mode == SS_DISABLE)
        set_stack(r, 0, new->flags, 0);
    else if (new->size < MINSIGSTKSZ)
        return -ENOMEM;
    else
        set_stack(r, new->sp, new->flags, new->size);
    return 0;
}

static long sys_sigaltstack(record *r, u64 new, u64 old, u64 sp)
{
    struct stack s;
    struct stack was = {r_VSS_SP(r), stack_flags(r, sp) | (r_VSS_FLAGS(r) & SS_AUTODISARM), 0,
                        r_VSS_SIZE(r)};
    if (new) {
        if (get(&s, new, sizeof s))
            return -EFAULT;
        long result = change_stack(r, &s, sp);
        if (result)
            return result;
    }
    return old ? put(old, &was, sizeof was) : 0;
}

/* ---- Delivery ---- */

/* From the supervisor, or from a thread that wants this one to look. */
static int is_call(record *r, int sig, const struct info *in)
{
    if (!in->sig) /* It has been noted. */
        return 1;
    if (sig != INTERRUPT_SIGNAL)
        return 0;
    if (in->code == SI_QUEUE)
        return in->value == INTERRUPT_VALUE || in->value == LOOK_VALUE;
    /* Over RLIMIT_SIGPENDING, it comes without siginfo. */
    return in->code == SI_USER && !in->pid && (r_INTERRUPT(r) || r_OWN_LOOK(r));
}

/* Whether the supervisor has called. Its signal may have been lost beside another of its number. */
static int interrupted(record *r, int sig)
{
    if (sig != INTERRUPT_SIGNAL)
        return 0;
    r_OWN_LOOK(r) = 0;
    return __atomic_exchange_n(&r_INTERRUPT(r), 0, __ATOMIC_SEQ_CST);
}

static void queue_self(int sig, struct info *in)
{
    long pid = OWN(SYS_GETPID), tid = OWN(SYS_GETTID);
    if (OWN(SYS_RT_TGSIGQUEUEINFO, pid, tid, sig, in) < 0)
        OWN(SYS_TGKILL, pid, tid, sig);
}

/* Until the handler returns, reserved signals wait, too. */
static void block_all(void)
{
    static const u64 all = ~0ull;
    OWN(SYS_RT_SIGPROCMASK, SIG_SETMASK, &all, 0, 8);
}

/* Let the kernel do what a signal does by default: it comes again when the handler returns. */
static void by_default(record *r, struct ucontext *u, int sig, struct info *in)
{
    if (r_PROCESS(r))
        t_UNTOLD((table *)r_PROCESS(r)) = !r_OWN_TOLD(r);
    set_real(sig, DFL, 0);
    u->mask &= ~BIT(sig);
    if (RES & BIT(sig))
        block_all();
    queue_self(sig, in);
}

static u64 fp_size(u64 fp)
{
    const u32 *reserved = (const u32 *)(fp + 464);
    u32 found[2];
    if (!fp || get(found, (u64)reserved, 8))
        return 0;
    return found[0] == FP_XSTATE_MAGIC1 ? found[1] : 512;
}

/* The kernel's get_sigframe: where the frame goes; 0 if it does not fit. */
static u64 frame_at(record *r, u64 sp, const struct action *a, u64 fp_bytes, u64 *fp)
{
    int bound = on_stack(r, sp);
    sp -= RED_ZONE;
    if ((a->flags & SA_ONSTACK) && stack_flags(r, sp) == 0) {
        sp = r_VSS_SP(r) + r_VSS_SIZE(r);
        bound = 1;
    }
    sp = (sp - fp_bytes) & ~63ull;
    *fp = fp_bytes ? sp : 0;
    sp = ((sp - sizeof(struct frame)) & ~15ull) - 8;
    if (bound && !in_stack(r, sp))
        return 0;
    return sp;
}

/* What a frame shows of the last exception, also that of a signal that was sent. */
static void show_exception(record *r, u64 *g, int forced, int sig, u32 set)
{
    if (set & OUT_ERR_SET)
        g[ERR] = r_OUT_ERR(r);
    if (set & OUT_TRAPNO_SET)
        g[TRAPNO] = r_OUT_TRAPNO(r);
    if (set & OUT_CR2_SET)
        g[CR2] = r_OUT_CR2(r);
    u64 *last = (u64 *)r_OWN_EXCEPTION(r);
    if (forced && sig != SIGSYS) {
        last[0] = g[ERR];
        last[1] = g[TRAPNO];
        last[2] = g[CR2];
    }
    if (!forced || sig == SIGSYS) {
        g[ERR] = last[0];
        g[TRAPNO] = last[1];
        g[CR2] = last[2];
    }
}

/* The handler below has its state in its own frame, and begins with the initial one: so that of the
 * kernel's frame has become free for the next. */
static u64 initial_fp(record *r)
{
    u64 fp = r_OWN_FP(r), size = fp_size(fp);
    if (!fp)
        return 0;
    zero((void *)fp, FX_SOFTWARE);
    *(unsigned short *)fp = FCW_INITIAL;
    *(u32 *)(fp + FX_MXCSR) = MXCSR_INITIAL;
    if (size > FX_SIZE) {
        u32 xstate = *(u32 *)(fp + FX_SOFTWARE + 16);
        zero((void *)(fp + FX_SIZE), xstate - FX_SIZE);
        *(u64 *)(fp + FX_SIZE) = 3; /* x87 and SSE are there, as the kernel says of every frame. */
    }
    return fp;
}

static long build(record *r, struct ucontext *u, int sig, const struct info *in,
                  const struct action *a, u32 set, int forced)
{
    struct frame f;
    if (!u->fp)
        u->fp = initial_fp(r);
    u64 fp, fp_bytes = fp_size(u->fp);
    u64 sp = frame_at(r, u->g[RSP], a, fp_bytes, &fp);
    if (!sp || !(a->flags & SA_RESTORER))
        return -EFAULT;
    f.restorer = a->restorer;
    f.uc = *u;
    f.uc.link = 0;
    f.uc.ss = (struct stack){r_VSS_SP(r), r_VSS_FLAGS(r), 0, r_VSS_SIZE(r)};
    f.uc.fp = fp;
    f.uc.mask = r_UMASK_VALID(r) ? r_UMASK_SAVED(r) : mask_of(r, u);
    f.uc.g[OLDMASK] = f.uc.mask;
    show_exception(r, f.uc.g, forced, sig, set);
    f.info = *in;
    u64 size = sizeof f - (a->flags & SA_SIGINFO ? 0 : sizeof f.info);
    if ((fp && copy((void *)fp, (void *)u->fp, fp_bytes)) || put(sp, &f, size))
        return -EFAULT;

    u->g[RSP] = sp;
    u->g[RIP] = a->handler;
    u->g[RDI] = sig;
    u->g[RSI] = sp + __builtin_offsetof(struct frame, info);
    u->g[RDX] = sp + __builtin_offsetof(struct frame, uc);
    u->g[RAX] = 0;
    u->g[SEGMENTS] = (u->g[SEGMENTS] & ~0xffff00000000ffffull) | USER_CS | (u64)USER_DS << 48;
    u->g[EFL] &= ~(u64)(RFLAGS_TF | RFLAGS_DF | RFLAGS_RF);
    r_OWN_FP(r) = u->fp;
    u->fp = 0; /* rt_sigreturn then loads the initial state, with which handlers begin. */
    return 0;
}

/* RIP is at a call to be repeated, and a handler comes in between. The kernel takes every handler of
 * a reserved signal for one with SA_RESTART. */
static void settle_restart(record *r, struct ucontext *u, int sig, const struct action *a)
{
    int by_kernel = (RES & BIT(sig)) && r_OWN_REWOUND(r) && r_OWN_REWOUND(r) == u->g[RIP];
    int by_supervisor = r_RESTART(r) && u->g[RIP] == r_SYSCALL_AT(r);
    if ((by_kernel || by_supervisor) && !(a->flags & SA_RESTART)) {
        u->g[RAX] = -EINTR;
        u->g[RIP] += SYSCALL_LENGTH;
    }
    r_RESTART(r) = 0;
    r_OWN_REWOUND(r) = 0;
}

/* An action is taken, whatever is blocked. False: the process dies by a reserved signal. */
static int act(record *r, struct ucontext *u, int sig, struct info *in, u32 set, int forced)
{
    struct action a = action_of(r, sig);
    if (a.handler == IGN && !forced)
        return 1;
    if (a.handler <= IGN) {
        by_default(r, u, sig, in);
        return !(RES & BIT(sig));
    }
    settle_restart(r, u, sig, &a);
    if (a.flags & SA_RESETHAND) {
        lock(table_of(r));
        entry(table_of(r), sig)->handler = DFL;
        unlock(table_of(r));
    }
    if (build(r, u, sig, in, &a, set, forced)) {
        struct info fault = {.sig = SIGSEGV, .code = SI_KERNEL};
        if (sig != SIGSEGV && !(mask_of(r, u) & BIT(SIGSEGV)))
            return act(r, u, SIGSEGV, &fault, 0, 1);
        by_default(r, u, SIGSEGV, &fault);
        return 0;
    }
    r_UMASK_VALID(r) = 0;
    if (r_VSS_FLAGS(r) & SS_AUTODISARM)
        set_stack(r, 0, SS_DISABLE, 0);
    set_mask(r, u, mask_of(r, u) | a.mask | (a.flags & SA_NODEFER ? 0 : BIT(sig)));
    return 1;
}

/* An exception: blocked or ignored, it kills. */
static void force(record *r, struct ucontext *u, int sig, struct info *in, u32 set)
{
    if (mask_of(r, u) & BIT(sig))
        by_default(r, u, sig, in);
    else
        act(r, u, sig, in, set, 1);
}

/* A signal that was sent. */
static void deliver(record *r, struct ucontext *u, int sig, struct info *in, u32 set)
{
    if (!(mask_of(r, u) & BIT(sig)))
        act(r, u, sig, in, set, 0);
    else if (RES & BIT(sig))
        note(r, sig, in);
    else
        queue_self(sig, in);
}

/* Signals that are pending for this thread alone in the kernel: SigPnd of /proc. */
static u64 pending_of_thread(void)
{
    static const char path[] = "/proc/thread-self/status", name[] = "SigPnd:\t";
    char text[1024];
    u64 set = 0;
    long fd = OWN(SYS_OPEN, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    long size = OWN(SYS_READ, fd, text, sizeof text), at = 0, matched = 0;
    OWN(SYS_CLOSE, fd);
    for (; at < size && name[matched]; at++)
        matched = text[at] == name[matched] ? matched + 1 : text[at] == name[0];
    for (; at < size && text[at] > ' '; at++)
        set = set << 4 | (text[at] <= '9' ? text[at] - '0' : text[at] - 'a' + 10);
    return name[matched] ? 0 : set;
}

/* Which signals the kernel has for this thread, as far as they come before those of the process. */
static u64 before_process(u64 set)
{
    u64 all = 0;
    OWN(SYS_RT_SIGPENDING, &all, 8);
    return all & set & ~RES ? pending_of_thread() & set & ~RES : 0;
}

static int take_from_kernel(u64 set, struct info *in)
{
    static const u64 none[2];
    long sig = OWN(SYS_RT_SIGTIMEDWAIT, &set, in, none, 8);
    return sig > 0 ? sig : 0;
}

/* The reserved signal of `set` that Linux would take now; 0 if there is none. One that only the
 * kernel has may come first: those of the thread before those of the process. */
static int next_of(record *r, u64 set, struct info *in)
{
    for (;;) {
        u64 own = ready(of_thread(r)) & set & RES, all = ready(of_process(r)) & set & RES, first;
        if (own) {
            int sig = first_of(own);
            if (take_waiting(of_thread(r), sig, in))
                return sig;
        } else if (all) {
            int sig = first_of(all);
            if ((first = before_process(set)) &&
                (sig = take_from_kernel(first & -first, in)))
                return sig;
            sig = first_of(all);
            if (take_waiting(of_process(r), sig, in))
                return sig;
        } else {
            return 0;
        }
    }
}

/* What waits and is open gets its frames, one upon the other. */
static void deliver_due(record *r, struct ucontext *u)
{
    struct info in;
    int sig;
    while ((sig = next_of(r, ~mask_of(r, u), &in)))
        if (!act(r, u, sig, &in, 0, 0))
            return;
}

/* ---- Calls for the program, and what the supervisor has a held thread do ---- */

/* A call that cannot wait is made here, any other in the thread's own context, where signals reach
 * it. True: made here. */
static int waits_never(u64 nr)
{
    switch (nr) {
    case SYS_MMAP:
    case SYS_MPROTECT:
    case SYS_MUNMAP:
    case SYS_MREMAP:
    case SYS_BRK:
    case SYS_MADVISE:
    case SYS_PKEY_MPROTECT:
    case SYS_GETPID:
    case SYS_FSTAT:
    case SYS_STAT:
    case SYS_LSTAT:
    case SYS_NEWFSTATAT:
    case SYS_STATX:
    case SYS_ACCESS:
    case SYS_FACCESSAT:
    case SYS_FACCESSAT2:
    case SYS_READLINK:
    case SYS_READLINKAT:
    case SYS_DUP:
    case SYS_DUP2:
    case SYS_DUP3:
    case SYS_LSEEK:
    case SYS_MEMFD_CREATE:
    case SYS_CLOCK_GETTIME:
    case SYS_GETRUSAGE:
    case SYS_TIMES:
    case SYS_PRCTL:
    case SYS_ARCH_PRCTL:
    case SYS_SECCOMP:
        return 1;
    }
    return 0;
}

/* False: a filter of the program has trapped it, and SIGSYS is delivered. */
static int make_with(record *r, struct ucontext *u, u64 nr, const u64 *a)
{
    r_OWN_TRAPPED(r) = 0;
    long result = user_call(nr, a[0], a[1], a[2], a[3], a[4], a[5]);
    if (r_OWN_TRAPPED(r)) {
        struct seccomp_info *in = (struct seccomp_info *)r_OWN_TRAP_INFO(r);
        in->call_addr = u->g[RIP];
        force(r, u, SIGSYS, (struct info *)in, 0);
        return 0;
    }
    u->g[RAX] = result;
    if (nr == SYS_ARCH_PRCTL)
        r_FS(r) = fs_base();
    return 1;
}

static int make(record *r, struct ucontext *u, u64 nr)
{
    const u64 *g = u->g, a[] = {g[RDI], g[RSI], g[RDX], g[R10], g[R8], g[R9]};
    return make_with(r, u, nr, a);
}

static u64 block_of(record *r)
{
    return SYSTRAP_BLOCKS + (u64)number_of(r) * BLOCK_STRIDE;
}

static u64 call_in_block(record *r)
{
    return block_of(r) + (r_OWN_I386(r) ? BLOCK_INT80 : 0);
}

static void __attribute__((noreturn)) sys_exit(record *r, struct ucontext *u, int code);
static void sys_exit_group(record *r, struct ucontext *u, int code);

/* True: the call is done, and an exit stop is wanted. */
static int run(record *r, struct ucontext *u)
{
    u64 nr = u->g[RAX];
    int i386 = r_OWN_I386(r) != 0;
    if (nr == (i386 ? SYS_EXIT_I386 : SYS_EXIT))
        sys_exit(r, u, i386 ? u->g[RBX] : u->g[RDI]);
    if (i386 && nr == SYS_EXIT_GROUP_I386) {
        u->g[RDI] = u->g[RBX];
        sys_exit_group(r, u, u->g[RDI]);
    }
    if (!i386 && waits_never(u->g[RAX])) {
        int made = make(r, u, u->g[RAX]), wanted = r_WANT_EXIT(r);
        r_WANT_EXIT(r) = 0;
        return made && wanted;
    }
    r_NEXT(r) = r_WANT_EXIT(r) ? (u64)gate_exit : u->g[RIP];
    u->g[RIP] = call_in_block(r);
    return 0;
}

static long call(record *r, int user)
{
    u64 *a = (u64 *)r_CALL_ARGS(r);
    if (user)
        return user_call(r_CALL_NR(r), a[0], a[1], a[2], a[3], a[4], a[5]);
    return own_call(r_CALL_NR(r), a[0], a[1], a[2], a[3], a[4], a[5]);
}

static void command_deliver(record *r, struct ucontext *u, int sig, struct info *in)
{
    r_OWN_TOLD(r) = 1;
    if ((RES & BIT(sig)) && in->code > 0 && (u32)sig != r_OWN_SENT(r))
        force(r, u, sig, in, r_OUT_SET(r));
    else
        deliver(r, u, sig, in, r_OUT_SET(r));
    r_OWN_TOLD(r) = 0;
}

static void report(record *r, struct ucontext *u, u32 kind, int sig, struct info *in)
{
    r_FRAME(r) = (u64)u;
    r_INFO(r) = (u64)in;
    r_SIGNAL(r) = sig;
    for (;;) {
        ask(r, kind);
        switch (r_COMMAND(r)) {
        case COMMAND_CALL:
        case COMMAND_CALL_USER:
            r_CALL_RESULT(r) = call(r, r_COMMAND(r) == COMMAND_CALL_USER);
            kind = KIND_CALLED;
            continue;
        case COMMAND_RUN:
            if (!run(r, u))
                return;
            kind = KIND_EXIT;
            continue;
        case COMMAND_DELIVER:
        case COMMAND_DELIVER_STOP:
            command_deliver(r, u, r_SIGNAL(r), (struct info *)r_OUT_INFO(r));
            if (r_COMMAND(r) == COMMAND_DELIVER)
                return;
            kind = KIND_STEPPED;
            continue;
        case COMMAND_STEP:
            r_OWN_TF(r) = (u->g[EFL] & RFLAGS_TF) != 0;
            r_STEPPING(r) = 1;
            u->g[EFL] |= RFLAGS_TF;
            return;
        default:
            return;
        }
    }
}

/* ---- Records, and new threads ---- */

static void raise_top(u32 above)
{
    u32 top = s_TOP;
    while (top < above && !__atomic_compare_exchange_n(&s_TOP, &top, above, 0, __ATOMIC_SEQ_CST,
                                                       __ATOMIC_SEQ_CST))
        ;
}

static record *claim_record(void)
{
    for (u32 i = 0; i < RECORDS_MAX; i++) {
        u32 expected = 0;
        if (!*used_of(i) && __atomic_compare_exchange_n(used_of(i), &expected, 1, 0,
                                                        __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
            record *r = record_at(i);
            zero(r, RECORD_STACK);
            ((volatile u32 *)s_STATES)[i] = IDLE;
            ((volatile u32 *)s_MAIL_STATES)[i] = IDLE;
            raise_top(i + 1);
            return r;
        }
    }
    return 0;
}

static void give_back(record *r)
{
    *used_of(number_of(r)) = 0;
}

static table *claim_table(u32 first)
{
    for (u32 k = 0; k < RECORDS_MAX; k++) {
        table *t = (table *)(s_TABLES + (u64)((first + k) % RECORDS_MAX) * TABLE_STRIDE);
        u32 expected = 0;
        if (!t_COUNT(t) && __atomic_compare_exchange_n(&t_COUNT(t), &expected, 1, 0,
                                                       __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
            t_LOCK(t) = 0;
            t_CONFINED(t) = 0;
            t_UNTOLD(t) = 0;
            zero(t_WAITING(t), WAITING_SIZE);
            return t;
        }
    }
    return 0;
}

static void set_up(record *r)
{
    struct stack *real = (struct stack *)r_REAL_SS(r);
    *real = (struct stack){(u64)r + RECORD_STACK, 0, 0, STACK_SIZE};
    r_NUMBER(r) = number_of(r);
    r_OWN_MAIL_WORD(r) = (u64)((volatile u32 *)s_MAIL_STATES + number_of(r));
}

static void use(u64 t, int more)
{
    __atomic_fetch_add(&t_COUNT(t), more, __ATOMIC_SEQ_CST);
}

static void drop_tables(record *r)
{
    u64 process = r_PROCESS(r);
    r_PROCESS(r) = 0;
    if (process != r_TABLE(r))
        use(process, -1);
    use(r_TABLE(r), -1);
}

struct made {
    u64 flags, stack;
    long nr;
    u64 args[5];
};

/* Where the child's actions are, and what waits for its process. False: no table is left. */
static int child_tables(record *r, record *c, u64 flags, int clear)
{
    table *t = table_of(r), *own = 0;
    if (!(flags & CLONE_THREAD) && !(own = claim_table(number_of(c))))
        return 0;
    r_PROCESS(c) = own ? (u64)own : r_PROCESS(r);
    if (!own || (flags & CLONE_SIGHAND)) { /* CLONE_THREAD without it is refused by the kernel. */
        r_TABLE(c) = (u64)t;
        use((u64)t, 1);
        if (!own && r_PROCESS(r) != (u64)t)
            use(r_PROCESS(r), 1);
        return 1;
    }
    r_TABLE(c) = (u64)own;
    move(t_ACTIONS(own), t_ACTIONS(t), ACTION_STRIDE * (SIGNALS + 1));
    for (int sig = 1; clear && sig <= SIGNALS; sig++)
        *entry(own, sig) = (struct action){.handler = entry(own, sig)->handler == IGN ? IGN : DFL};
    return 1;
}

/* What a child begins with: the parent's frame, on its own stack. */
static void child_frame(record *c, struct ucontext *u, u64 stack)
{
    u64 size = fp_size(u->fp), fp = ((u64)c + RECORD_STRIDE - size) & ~63ull;
    struct ucontext *cu = (struct ucontext *)((fp - sizeof *cu) & ~15ull);
    copy((void *)fp, (void *)u->fp, size);
    *cu = *u;
    cu->fp = fp;
    cu->ss = *(struct stack *)r_REAL_SS(c);
    cu->g[RAX] = 0;
    if (stack)
        cu->g[RSP] = stack;
    r_START_FRAME(c) = (u64)cu;
}

/* A forked process goes on in a file of its own (`moved` in systrap.S). */
static int moves(u64 flags)
{
    return s_FAMILY && !(flags & CLONE_VM);
}

static record *child_record(record *r, struct ucontext *u, const struct made *m, int clear)
{
    record *c = claim_record();
    if (!c)
        return 0;
    set_up(c);
    if (!child_tables(r, c, m->flags, clear)) {
        give_back(c);
        return 0;
    }
    r_PARENT(c) = number_of(r);
    r_CHILD_FLAGS(c) = m->flags;
    if (moves(m->flags)) /* The upper bit: no other value of REGISTERED has it. */
        r_SERIAL(c) = __atomic_fetch_add(&s_FORKS, 1, __ATOMIC_SEQ_CST) | 1u << 31;
    r_OWN_BLIND(c) = r_OWN_BLIND(r);
    r_OWN_CLEAR(c) = clear;
    r_VBLOCKED(c) = r_VBLOCKED(r);
    move(r_OWN_EXCEPTION(c), r_OWN_EXCEPTION(r), 24);
    if ((m->flags & (CLONE_VM | CLONE_VFORK)) == CLONE_VM)
        set_stack(c, 0, SS_DISABLE, 0);
    else
        set_stack(c, r_VSS_SP(r), r_VSS_FLAGS(r), r_VSS_SIZE(r));
    r_GS(c) = r_GS(r) == (u64)r ? (u64)c : r_GS(r);
    child_frame(c, u, m->stack);
    return c;
}

/* A filter of the program has to judge calls that are answered here, too. Of which threads, and with
 * what result, the supervisor knows. */
static int is_confined(record *r)
{
    return __atomic_load_n(&t_CONFINED(table_of(r)), __ATOMIC_SEQ_CST) != 0;
}

/* A new thread begins with the filters that its maker then has. */
static int is_reported_new(record *r, u64 flags)
{
    return !(flags & CLONE_THREAD) || is_confined(r);
}

/* A new thread, until the supervisor knows it: by its maker, which may end at once. */
static void wait_registered(record *c, long pid, u32 registered)
{
    static const u64 soon[2] = {0, 10000000};
    while (r_REGISTERED(c) != registered) {
        struct info dead;
        dead.pid = 0;
        OWN(SYS_FUTEX, &r_REGISTERED(c), FUTEX_WAIT, 0, soon);
        OWN(SYS_WAITID, P_PID, pid, &dead, WEXITED | WNOHANG | WNOWAIT | __WALL, 0);
        if (dead.pid == pid || OWN(SYS_KILL, pid, 0) == -ESRCH)
            return;
    }
}

static long make_child(record *r, struct ucontext *u, const struct made *m, int clear)
{
    record *c = child_record(r, u, m, clear);
    if (!c)
        return -EAGAIN;
    u64 all = ~0ull, mine;
    const u64 *a = m->args;
    int locked = !(m->flags & (CLONE_SIGHAND | CLONE_VFORK));
    OWN(SYS_RT_SIGPROCMASK, SIG_SETMASK, &all, &mine, 8);
    if (locked)
        lock(table_of(r));
    long pid = clone_call(m->nr, a[0], a[1], a[2], a[3], a[4], c);
    if (locked)
        unlock(table_of(r));
    OWN(SYS_RT_SIGPROCMASK, SIG_SETMASK, &mine, 0, 8);
    int moved = pid >= 0 && r_SERIAL(c), waits = !(m->flags & CLONE_VFORK);
    if (moved && waits)
        wait_registered(c, pid, r_SERIAL(c));
    if (pid < 0 || moved) { /* The child has left this file, or has ended. */
        drop_tables(c);
        give_back(c);
    } else if (is_reported_new(r, m->flags) && waits) {
        wait_registered(c, pid, 1);
    }
    return pid;
}

static long sys_clone(record *r, struct ucontext *u, long nr)
{
    u64 *g = u->g;
    struct made m = {0, 0, nr, {g[RDI], g[RSI], g[RDX], g[R10], g[R8]}};
    if (nr == SYS_CLONE) {
        m.flags = g[RDI];
        m.stack = g[RSI];
    } else if (nr == SYS_VFORK) {
        m.flags = CLONE_VM | CLONE_VFORK;
    }
    return make_child(r, u, &m, 0);
}

static int all_zero(u64 user, u64 size)
{
    u64 word;
    for (; size; user += sizeof word, size -= size < sizeof word ? size : sizeof word) {
        word = 0;
        if (get(&word, user, size < sizeof word ? size : sizeof word) || word)
            return 0;
    }
    return 1;
}

/* CLONE_CLEAR_SIGHAND is done by the child itself, which has to keep our handlers. */
static long sys_clone3(record *r, struct ucontext *u)
{
    u64 *g = u->g, size = g[RSI], *a = (u64 *)r_OWN_SCRATCH(r);
    struct made m = {0, 0, SYS_CLONE3, {(u64)a, size, g[RDX], g[R10], g[R8]}};
    if (size > PAGE_SIZE)
        return -E2BIG;
    if (size < CLONE_ARGS_SIZE_VER0)
        return -EINVAL;
    if (get(a, g[RDI], size < OWN_SCRATCH_SIZE ? size : OWN_SCRATCH_SIZE))
        return -EFAULT;
    if (size > OWN_SCRATCH_SIZE) {
        if (!all_zero(g[RDI] + OWN_SCRATCH_SIZE, size - OWN_SCRATCH_SIZE))
            return -E2BIG;
        m.args[1] = OWN_SCRATCH_SIZE;
    }
    int clear = (a[0] & CLONE_CLEAR_SIGHAND) != 0;
    if (clear && (a[0] & CLONE_SIGHAND))
        return -EINVAL;
    a[0] &= ~CLONE_CLEAR_SIGHAND;
    m.flags = a[0];
    m.stack = a[5] ? a[5] + a[6] : 0;
    return make_child(r, u, &m, clear);
}

/* Something that waits may be for this thread: it looks as soon as signals are open. */
static void look_after(record *r)
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if ((ready(of_thread(r)) | ready(of_process(r))) & taken_by(r))
        tell_to_look(r);
}

/* In a new thread, on its own stack, all signals blocked; it goes on with its frame. */
void started(record *r)
{
    u64 fs = fs_base();
    r_TID(r) = OWN(SYS_GETTID);
    r_PID(r) = OWN(SYS_GETPID);
    r_FS(r) = fs;
    for (int sig = 1; r_OWN_CLEAR(r) && sig <= SIGNALS; sig++)
        if (!((RES | NEVER) & BIT(sig)) && entry(table_of(r), sig)->handler == DFL)
            set_real(sig, DFL, 0);
    if (!r_OWN_EXEC(r) && !r_KNOWN(r) && is_reported_new(r, r_CHILD_FLAGS(r))) {
        __asm__ volatile("wrgsbase %0" ::"r"((u64)r));
        report(r, (struct ucontext *)r_START_FRAME(r), KIND_NEW, 0, 0);
    }
    if (s_SUPERVISOR && !(r_CHILD_FLAGS(r) & CLONE_THREAD))
        r_OWN_BLIND(r) = OWN(SYS_KILL, s_SUPERVISOR, 0) == -ESRCH;
    look_after(r);
    set_bases(r_FS(r), r_GS(r));
}

/* After exec: actions are the kernel's, but what the program ignored of RES is in the table. */
void prepare(record *r, u64 sp)
{
    u64 all = ~0ull, mask;
    table *t = table_of(r);
    OWN(SYS_RT_SIGPROCMASK, SIG_SETMASK, &all, &mask, 8);
    set_up(r);
    for (int sig = 1; sig <= SIGNALS; sig++) {
        u64 ignored = entry(t, sig)->handler == IGN && (RES & BIT(sig));
        zero(entry(t, sig), ACTION_STRIDE);
        if (!(NEVER & BIT(sig)))
            OWN(SYS_RT_SIGACTION, sig, 0, entry(t, sig), 8);
        if (ignored)
            entry(t, sig)->handler = IGN;
        if (RES & BIT(sig))
            set_real(sig, (u64)entered, OUR_FLAGS | SA_RESTART);
    }
    struct ucontext *u = (struct ucontext *)(((u64)r + RECORD_STRIDE - sizeof *u) & ~15ull) - 1;
    zero(u, sizeof *u);
    u->flags = UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS;
    u->ss = *(struct stack *)r_REAL_SS(r);
    u->g[RSP] = sp;
    u->g[RIP] = r_ENTRY(r);
    u->g[EFL] = USER_RFLAGS;
    u->g[SEGMENTS] = USER_CS | (u64)USER_DS << 48;
    u->mask = mask & ~RES;
    r_VBLOCKED(r) |= mask & RES;
    r_START_FRAME(r) = (u64)u;
    r_GS(r) = (u64)r;
    r_OWN_EXEC(r) = 1;
}

/* ---- The other calls that the stub answers ---- */

static void sys_sigreturn(record *r, struct ucontext *u)
{
    struct ucontext p;
    if (get(&p, u->g[RSP], sizeof p)) {
        struct info fault = {.sig = SIGSEGV, .code = SI_KERNEL};
        force(r, u, SIGSEGV, &fault, 0);
        return;
    }
    change_stack(r, &p.ss, u->g[RSP]); /* Before the registers, and so as seen by the handler. */
    move(u->g, p.g, sizeof p.g);
    u->flags = p.flags;
    u->fp = p.fp; /* The kernel reads it, and refuses it, from where it is. */
    set_mask(r, u, p.mask);
}

static void sys_exit(record *r, struct ucontext *u, int code)
{
    r_SYSCALL_NR(r) = SYS_EXIT; /* which may stand for another call */
    if (r_REGISTERED(r))
        report(r, u, KIND_ENDING, 0, 0);
    block_all();
    r_WANTED(r) = 0;
    r_VBLOCKED(r) = RES;
    hand_over(r, RES);
    drop_tables(r);
    leave(used_of(number_of(r)), code);
    __builtin_unreachable();
}

static void sys_exit_group(record *r, struct ucontext *u, int code)
{
    r_SYSCALL_NR(r) = SYS_EXIT_GROUP;
    r_EXITCODE(r) = code;
    if (r_REGISTERED(r))
        report(r, u, KIND_ENDING, 0, 0);
    make(r, u, SYS_EXIT_GROUP);
}

static int sys_arch_prctl(record *r, struct ucontext *u)
{
    u64 *g = u->g, base = r_GS(r) == (u64)r ? 0 : r_GS(r);
    if (g[RDI] == ARCH_GET_GS) {
        g[RAX] = put(g[RSI], &base, 8);
        return 1;
    }
    if (g[RDI] != ARCH_SET_GS)
        return 0;
    if (make(r, u, SYS_ARCH_PRCTL) && !g[RAX])
        r_GS(r) = g[RSI] ? g[RSI] : (u64)r;
    return 1;
}

/* ---- Calls that wait with a mask of their own ---- */

/* What OWN_WAITING says of the call in the block. */
enum { TEMPORARY_MASK = 1, SIGNALS_WANTED };

static void replace_argument(record *r, struct ucontext *u, int argument, u64 value)
{
    r_OWN_ARGUMENT(r) = argument + 1;
    r_OWN_ARGUMENT_WAS(r) = u->g[argument];
    u->g[argument] = value;
}

/* A signal waits that ends the call, unless something is ready: each call has its own rule, so the
 * kernel decides, with a signal that is pending there. True: the signal. */
static int interrupted_at_once(record *r, struct ucontext *u, u64 nr, int argument, int pair)
{
    static const u8 order[] = {RDI, RSI, RDX, R10, R8, R9};
    u64 *scratch = (u64 *)r_OWN_SCRATCH(r), a[sizeof order];
    for (u32 n = 0; n < sizeof order; n++)
        a[n] = order[n] == argument ? (u64)(pair ? scratch + 1 : scratch) : u->g[order[n]];
    scratch[0] = ~RES;
    scratch[1] = (u64)scratch;
    scratch[2] = 8;
    tell_to_look(r);
    return make_with(r, u, nr, a) && u->g[RAX] == (u64)-EINTR;
}

/* The kernel gets the mask without RES, and VBLOCKED is RES of it until the call is over. */
static void with_mask(record *r, struct ucontext *u, int argument, u64 user, u64 size, int pair)
{
    u64 mask, was = mask_of(r, u), *scratch = (u64 *)r_OWN_SCRATCH(r);
    if (!user || size != 8 || get(&mask, user, 8)) {
        run(r, u); /* Linux refuses it, or there is none. */
        return;
    }
    r_UMASK_SAVED(r) = was;
    if ((ready(of_thread(r)) | ready(of_process(r))) & ~mask) {
        u64 nr = u->g[RAX];
        u->g[RAX] = -EINTR;
        if (nr == SYS_RT_SIGSUSPEND || interrupted_at_once(r, u, nr, argument, pair)) {
            set_mask(r, u, mask);
            r_UMASK_VALID(r) = 1;
        }
        return;
    }
    r_OWN_WAITING(r) = TEMPORARY_MASK;
    r_OWN_TEMPORARY(r) = mask;
    r_VBLOCKED(r) = mask & RES;
    run(r, u);
    if ((mask | was) & RES) {
        scratch[0] = mask & ~RES;
        scratch[1] = (u64)scratch;
        scratch[2] = 8;
        replace_argument(r, u, argument, (u64)(pair ? scratch + 1 : scratch));
        r_NEXT(r) = (u64)gate_exit;
    }
}

static void with_mask_pair(record *r, struct ucontext *u)
{
    u64 pair[2] = {0, 0};
    if (u->g[R9] && get(pair, u->g[R9], sizeof pair))
        pair[0] = 0;
    with_mask(r, u, R9, pair[0], pair[1], 1);
}

/* What waits of `set` is taken by rt_sigtimedwait. */
static int take(record *r, struct ucontext *u, u64 set)
{
    struct info in;
    int sig = next_of(r, set, &in);
    if (!sig)
        return 0;
    u->g[RAX] = u->g[RSI] && put(u->g[RSI], &in, sizeof in) ? -EFAULT : sig;
    return 1;
}

/* It waits no more: what it has not taken may be for another thread. */
static void stop_wanting(record *r)
{
    u64 wanted = r_WANTED(r);
    r_WANTED(r) = 0;
    if (wanted & r_VBLOCKED(r))
        hand_over(r, wanted & r_VBLOCKED(r));
}

static int is_time(u64 user)
{
    long time[2];
    return !user || (!get(time, user, sizeof time) && time[0] >= 0 && (u64)time[1] < 1000000000);
}

static void sys_sigtimedwait(record *r, struct ucontext *u)
{
    u64 set, *scratch = (u64 *)r_OWN_SCRATCH(r);
    if (u->g[R10] != 8 || get(&set, u->g[RDI], 8) || !(set & RES) || !is_time(u->g[RDX])) {
        run(r, u);
        return;
    }
    r_WANTED(r) = set & RES;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (take(r, u, set)) {
        stop_wanting(r);
        return;
    }
    r_OWN_WAITING(r) = SIGNALS_WANTED;
    r_OWN_TEMPORARY(r) = set;
    run(r, u);
    scratch[0] = set & ~RES;
    replace_argument(r, u, RDI, (u64)scratch);
    r_NEXT(r) = (u64)gate_exit;
}

static void sys_sigpending(record *r, struct ucontext *u)
{
    u64 set = 0, size = u->g[RSI];
    if (!make(r, u, SYS_RT_SIGPENDING) || u->g[RAX])
        return;
    get(&set, u->g[RDI], size);
    set |= (ready(of_thread(r)) | ready(of_process(r))) & r_VBLOCKED(r);
    put(u->g[RDI], &set, size);
}

/* rt_sigqueueinfo and rt_tgsigqueueinfo: their siginfo says which, since nothing else tells whether
 * a signal with SI_QUEUE is of the process. */
static void sys_queueinfo(record *r, struct ucontext *u, u64 sig, int argument, u32 who)
{
    u8 *in = r_OWN_SCRATCH(r);
    u32 *mark = (u32 *)(in + MARK_AT);
    run(r, u);
    if (sig - 1 >= SIGNALS || !(RES & BIT(sig)) || get(in, u->g[argument], sizeof(struct info)))
        return;
    mark[0] = MARK;
    mark[1] = who;
    replace_argument(r, u, argument, (u64)in);
    r_NEXT(r) = (u64)gate_exit;
}

/* Such a call has been left. Its mask was in force if a signal has ended it. */
static void waited(record *r, struct ucontext *u, int ended_by_signal)
{
    u32 kind = r_OWN_WAITING(r);
    r_OWN_WAITING(r) = 0;
    if (kind != TEMPORARY_MASK)
        return;
    if (ended_by_signal) {
        r_UMASK_VALID(r) = 1;
        set_mask(r, u, r_OWN_TEMPORARY(r));
    } else {
        r_VBLOCKED(r) = r_UMASK_SAVED(r) & RES;
    }
}

/* The signal that has ended the call was none of the program's: it goes on. */
static void again(record *r, struct ucontext *u)
{
    u64 *g = u->g;
    if (g[RIP] != r_SYSCALL_AT(r) + SYSCALL_LENGTH || g[RAX] != (u64)-EINTR)
        return;
    if (r_UMASK_VALID(r)) {
        r_UMASK_VALID(r) = 0;
        set_mask(r, u, r_UMASK_SAVED(r));
    }
    g[RIP] = r_SYSCALL_AT(r);
    g[RAX] = r_SYSCALL_NR(r);
}

#include "systrap_native.h"

/* The arguments of the trapped call, kept, or put back for another attempt. */
static void move_arguments(u64 *kept, u64 *g, int back)
{
    static const u8 order[] = {RDI, RSI, RDX, R10, R8, R9};
    for (u32 n = 0; n < sizeof order; n++)
        if (back)
            g[order[n]] = kept[n];
        else
            kept[n] = g[order[n]];
}

static int passes(record *r, u64 nr)
{
    const volatile u8 *bits = r_PASSES(r);
    return nr < 512 && (bits[nr / 8] >> nr % 8 & 1);
}

/* What the program's filters say of a call. The supervisor asks them: the kernel has judged with ours
 * as well, and only the strictest answer counts. False: it has been answered. */
static int judged(record *r, struct ucontext *u, struct info *in)
{
    if (!is_confined(r) || passes(r, u->g[RAX]))
        return 1;
    report(r, u, KIND_JUDGE, SIGSYS, in);
    return r_COMMAND(r) == COMMAND_SERVE;
}

/* A call that our filter has trapped. */
static void trapped(record *r, struct ucontext *u, struct info *in)
{
    u64 *g = u->g;
    r_RESTART(r) = 0;
    r_WANT_EXIT(r) = 0;
    r_OWN_ARGUMENT(r) = 0;
    r_OWN_WAITING(r) = 0;
    r_UMASK_VALID(r) = 0;
    r_OWN_REWOUND(r) = 0;
    r_SYSCALL_AT(r) = g[RIP] - SYSCALL_LENGTH;
    r_SYSCALL_NR(r) = g[RAX];
    r_OWN_I386(r) = ((struct seccomp_info *)in)->arch != AUDIT_ARCH_X86_64;
    move_arguments((u64 *)r_SYSCALL_ARGS(r), g, 0);
    if (!r_OWN_I386(r)) {
        if (!judged(r, u, in))
            return;
        switch (g[RAX]) {
        case SYS_RT_SIGACTION:
            g[RAX] = sys_sigaction(r, g[RDI], g[RSI], g[RDX], g[R10]);
            return;
        case SYS_RT_SIGPROCMASK:
            g[RAX] = sys_sigprocmask(r, u, g[RDI], g[RSI], g[RDX], g[R10]);
            return;
        case SYS_SIGALTSTACK:
            g[RAX] = sys_sigaltstack(r, g[RDI], g[RSI], g[RSP]);
            return;
        case SYS_RT_SIGRETURN:
            sys_sigreturn(r, u);
            return;
        case SYS_CLONE:
        case SYS_FORK:
        case SYS_VFORK:
            g[RAX] = sys_clone(r, u, g[RAX]);
            return;
        case SYS_CLONE3:
            g[RAX] = sys_clone3(r, u);
            return;
        case SYS_EXIT:
            sys_exit(r, u, g[RDI]);
        case SYS_EXIT_GROUP:
            sys_exit_group(r, u, g[RDI]);
            return;
        case SYS_ARCH_PRCTL:
            if (sys_arch_prctl(r, u))
                return;
            break;
        case SYS_RT_SIGSUSPEND:
            with_mask(r, u, RDI, g[RDI], g[RSI], 0);
            return;
        case SYS_PPOLL:
            with_mask(r, u, R10, g[R10], g[R8], 0);
            return;
        case SYS_EPOLL_PWAIT:
        case SYS_EPOLL_PWAIT2:
            with_mask(r, u, R8, g[R8], g[R9], 0);
            return;
        case SYS_PSELECT6:
        case SYS_IO_PGETEVENTS:
            with_mask_pair(r, u);
            return;
        case SYS_RT_SIGTIMEDWAIT:
            sys_sigtimedwait(r, u);
            return;
        case SYS_RT_SIGPENDING:
            sys_sigpending(r, u);
            return;
        case SYS_RT_SIGQUEUEINFO:
            sys_queueinfo(r, u, (u32)g[RSI], RDX, MARK_PROCESS);
            return;
        case SYS_RT_TGSIGQUEUEINFO:
            sys_queueinfo(r, u, (u32)g[RDX], R10, MARK_THREAD);
            return;
        }
    } else if (native_trapped(r, u, g[RIP] - SYSCALL_LENGTH)) {
        return;
    }
    report(r, u, KIND_SYSCALL, SIGSYS, in);
}

/* ---- The handler ---- */

/* A signal has just ended the call in the block. */
static int ended_in_block(record *r, const struct ucontext *u)
{
    return u->g[RIP] == block_of(r) + SYSCALL_LENGTH && u->g[RAX] == (u64)-EINTR && !r_WANT_EXIT(r);
}

/* Calls that a handler without SA_RESTART ends, and that go on after another one. */
static int is_restartable(u64 nr)
{
    switch (nr) {
    case SYS_READ:
    case SYS_WRITE:
    case SYS_READV:
    case SYS_WRITEV:
    case SYS_PREAD64:
    case SYS_PWRITE64:
    case SYS_PREADV:
    case SYS_PWRITEV:
    case SYS_PREADV2:
    case SYS_PWRITEV2:
    case SYS_IOCTL:
    case SYS_RECVFROM:
    case SYS_SENDTO:
    case SYS_RECVMSG:
    case SYS_SENDMSG:
    case SYS_RECVMMSG:
    case SYS_SENDMMSG:
    case SYS_ACCEPT:
    case SYS_ACCEPT4:
    case SYS_CONNECT:
    case SYS_FUTEX:
    case SYS_WAIT4:
    case SYS_WAITID:
    case SYS_FLOCK:
    case SYS_FCNTL:
    case SYS_OPEN:
    case SYS_OPENAT:
    case SYS_OPENAT2:
    case SYS_CREAT:
    case SYS_SPLICE:
    case SYS_TEE:
    case SYS_VMSPLICE:
    case SYS_SENDFILE:
    case SYS_COPY_FILE_RANGE:
    case SYS_MQ_TIMEDSEND:
    case SYS_MQ_TIMEDRECEIVE:
    case SYS_GETRANDOM:
        return 1;
    }
    return 0;
}

/* The kernel has taken RIP back to a call, to make it again. SYSCALL has left its RIP and RFLAGS, so
 * hardly a call that has not begun looks like this; and ending it is then as if it had. */
static int is_rewound(const struct ucontext *u)
{
    const u64 *g = u->g;
    u8 code[SYSCALL_LENGTH];
    return g[RCX] == g[RIP] + SYSCALL_LENGTH && !((g[R11] ^ g[EFL]) & ~(u64)(RFLAGS_RF | RFLAGS_TF)) &&
           is_restartable(g[RAX]) && !get(code, g[RIP], sizeof code) && code[0] == 0x0f &&
           code[1] == 0x05;
}

/* The program's call in the thread's own context is over, or has to begin again: RIP goes back to
 * where the program believes to be. */
static void out_of_block(record *r, struct ucontext *u)
{
    u64 *g = u->g;
    int in_block = g[RIP] - block_of(r) < BLOCK_STRIDE, exits = g[RIP] == (u64)gate_exit;
    int begins = g[RIP] == call_in_block(r);
    r_OWN_REWOUND(r) = is_rewound(u) ? in_block ? r_SYSCALL_AT(r) : g[RIP] : 0;
    if (!in_block && !exits)
        return;
    if (r_OWN_ARGUMENT(r))
        g[r_OWN_ARGUMENT(r) - 1] = r_OWN_ARGUMENT_WAS(r);
    r_OWN_ARGUMENT(r) = 0;
    waited(r, u, in_block && !begins && g[RAX] == (u64)-EINTR);
    if (begins) {
        g[RIP] = r_SYSCALL_AT(r);
        if (!r_OWN_I386(r)) /* There RCX is an argument. */
            g[RCX] = r_SYSCALL_AT(r) + SYSCALL_LENGTH;
        g[RAX] = r_SYSCALL_NR(r);
        move_arguments((u64 *)r_SYSCALL_ARGS(r), g, 1);
        return;
    }
    g[RIP] = r_SYSCALL_AT(r) + SYSCALL_LENGTH;
    if (!r_OWN_I386(r))
        g[RCX] = g[RIP];
    if (r_WANT_EXIT(r)) {
        r_WANT_EXIT(r) = 0;
        report(r, u, KIND_EXIT, 0, 0);
    }
}

/* Sent by the supervisor, for a timer that it plays, or with its token. */
static int is_ours(const struct info *in)
{
    if (in->code == TOKEN_CODE)
        return 1;
    if (in->code != SI_USER && in->code != SI_QUEUE && in->code != SI_TKILL)
        return 0;
    return s_SUPERVISOR && (u32)in->pid == s_SUPERVISOR;
}

static int is_prefix(unsigned char byte)
{
    switch (byte) {
    case 0x26:
    case 0x2e:
    case 0x36:
    case 0x3e: /* segments */
    case 0x64 ... 0x67: /* segments, operand size, address size */
    case 0xf0:
    case 0xf2:
    case 0xf3:
        return 1;
    default:
        return (byte & 0xf0) == 0x40; /* REX */
    }
}

/* Whether a fault may be an instruction that the model has to execute. */
static int is_special(const struct ucontext *u, int sig)
{
    unsigned char code[INSTRUCTION_MAX] = {0};
    int at = 0;
    if (s_HAS_ENCLAVE)
        return 1;
    get(code, u->g[RIP], sizeof code); /* As far as it is there. */
    if (sig == SIGILL && code[0] == 0x0f && code[1] == 0x0b)
        return 1;
    while (at < INSTRUCTION_MAX - 3 && is_prefix(code[at]))
        at++;
    if (code[at] != 0x0f)
        return 0;
    /* CPUID, which is an exception on some machines, and ENCLU. */
    return code[at + 1] == 0xa2 || (code[at + 1] == 0x01 && code[at + 2] == 0xd7);
}

/* In an enclave, or in the stub on its way there. */
static int is_inside(record *r, const struct ucontext *u)
{
    u64 ip = u->g[RIP];
    return r_INSIDE(r) || native_inside(r) ||
           (ip >= BASE && ip < RECORDS + (u64)RECORDS_MAX * RECORD_STRIDE);
}

static void report_sent(record *r, struct ucontext *u, int sig, struct info *in)
{
    r_OWN_SENT(r) = sig;
    report(r, u, KIND_SIGNAL, sig, in);
    r_OWN_SENT(r) = 0;
}

/* Signals that were sent and that the thread takes now. */
static void give_due(record *r, struct ucontext *u)
{
    struct info in;
    int sig;
    if (r_STEPPING(r)) /* First the supervisor's step. */
        return;
    while (is_inside(r, u) && (sig = next_of(r, ~mask_of(r, u), &in)))
        report_sent(r, u, sig, &in);
    deliver_due(r, u);
}

/* Handlers that have not begun yet: signals upon which the kernel has put another. They came before
 * it, and before what comes while that runs. */
static void note_below(record *r, struct ucontext *u)
{
    int sig = u->g[RDI];
    struct info *in = (struct info *)u->g[RSI];
    struct ucontext *below = (struct ucontext *)u->g[RDX];
    if (u->g[RIP] != (u64)entered)
        return;
    note_below(r, below);
    if ((RES & BIT(sig)) && !is_exception(below, sig, in) && !is_call(r, sig, in) && !is_ours(in)) {
        note(r, sig, in);
        in->sig = 0;
    }
}

/* A signal while the stub itself runs: only reserved ones can come. */
static void nested(record *r, struct ucontext *u, int sig, struct info *in)
{
    u64 ip = u->g[RIP];
    note_below(r, u);
    if (is_exception(u, sig, in)) {
        if (ip == (u64)copy_bytes && (sig == SIGSEGV || sig == SIGBUS)) {
            u->g[RIP] = (u64)copy_fault;
        } else if (ip == (u64)user_called && sig == SIGSYS) {
            move(r_OWN_TRAP_INFO(r), in, 128);
            r_OWN_TRAPPED(r) = 1;
        } else if (ip != (u64)entered) { /* There another was first: the exception comes again. */
            by_default(r, u, sig, in);
        }
        return;
    }
    if (!is_call(r, sig, in))
        note(r, sig, in);
    if (interrupted(r, sig))
        r_OWN_INTERRUPTED(r) = 1;
    r_OWN_DUE(r) = 1;
    if (ip >= (u64)tail && ip < (u64)tail_end)
        u->g[RIP] = (u64)tail; /* It has looked already. */
}

static void stopped_stepping(record *r, struct ucontext *u)
{
    r_STEPPING(r) = 0;
    if (!r_OWN_TF(r))
        u->g[EFL] &= ~(u64)RFLAGS_TF;
}

/* An exception, or a signal that was sent and has not waited yet. */
static void arrives(record *r, struct ucontext *u, int sig, struct info *in, int real)
{
    if (real && (sig == SIGSYS || !is_special(u, sig)) && !is_inside(r, u))
        force(r, u, sig, in, 0);
    else if (real)
        report(r, u, KIND_SIGNAL, sig, in);
    else if (is_ours(in) || (!(RES & BIT(sig)) && is_inside(r, u)))
        report_sent(r, u, sig, in);
    else if (RES & BIT(sig))
        note(r, sig, in);
    else
        deliver(r, u, sig, in, 0);
}

/* Calls that every program makes here, and whose result is never their own number. */
static int returns_another(u64 nr)
{
    switch (nr) {
    case SYS_RT_SIGACTION:
    case SYS_RT_SIGPROCMASK:
    case SYS_RT_SIGRETURN:
    case SYS_SIGALTSTACK:
    case SYS_RT_SIGSUSPEND:
    case SYS_RT_SIGPENDING:
    case SYS_RT_SIGTIMEDWAIT:
    case SYS_CLONE:
    case SYS_FORK:
    case SYS_VFORK:
    case SYS_CLONE3:
    case SYS_EXIT:
    case SYS_EXIT_GROUP:
        return 1;
    }
    return 0;
}

/* Whether a call was skipped. The kernel keeps one pending SIGSYS of a thread: if one that was sent
 * has come since the call began, its own is dropped (Linux 6.12, kernel/signal.c, legacy_queue), and
 * RAX still has the number. It is known if it is loaded right before the call, as in the code that
 * ends handlers: after a lost rt_sigreturn a thread would run on into whatever lies behind. */
static int is_skipped(const struct ucontext *u)
{
    enum { LOAD = 7 }; /* mov rax, imm32; mov eax, imm32 are its last five bytes. */
    const u64 *g = u->g;
    u8 code[LOAD + SYSCALL_LENGTH];
    u32 nr;
    if (!returns_another(g[RAX]) || g[RCX] != g[RIP] ||
        get(code, g[RIP] - sizeof code, sizeof code) || code[LOAD] != 0x0f || code[LOAD + 1] != 0x05)
        return 0;
    move(&nr, code + LOAD - sizeof nr, sizeof nr);
    return nr == g[RAX] &&
           (code[2] == 0xb8 || (code[0] == 0x48 && code[1] == 0xc7 && code[2] == 0xc0));
}

static void skipped(record *r, struct ucontext *u)
{
    struct info in = {.sig = SIGSYS, .err = TRAP_DATA, .code = SI_CODE_SECCOMP};
    struct seccomp_info *call = (struct seccomp_info *)&in;
    call->call_addr = u->g[RIP];
    call->nr = (int)u->g[RAX];
    call->arch = AUDIT_ARCH_X86_64;
    trapped(r, u, &in);
}

static void arrived(record *r, struct ucontext *u, int sig, struct info *in)
{
    int real = is_exception(u, sig, in), stepping = r_STEPPING(r);
    int seccomp = real && sig == SIGSYS && in->code == SI_CODE_SECCOMP;
    if (sig == SIGSYS && !real && !stepping && !is_ours(in) && !is_inside(r, u) && is_skipped(u)) {
        note(r, sig, in);
        skipped(r, u);
        return;
    }
    if (stepping)
        stopped_stepping(r, u);
    if (seccomp && in->err == TRAP_DATA) {
        if (r_INSIDE(r) || native_inside(r)) /* There it is no call: it is #UD. */
            report(r, u, KIND_SYSCALL, sig, in);
        else
            trapped(r, u, in);
        return;
    }
    if (!stepping && real && (sig == SIGILL || sig == SIGSEGV) && native_exception(r, u))
        return;
    if (u->g[RIP] == (u64)gate_exit && sig == SIGSEGV && real) {
        out_of_block(r, u);
        stop_wanting(r);
        return;
    }
    if (u->g[RIP] == (u64)enclu_trap && sig == SIGSEGV && real) {
        u->g[RIP] = s_AEP;
        report(r, u, KIND_ENCLU_TRAP, sig, in);
        return;
    }
    u32 waiting = r_OWN_WAITING(r);
    int ended = ended_in_block(r, u), call = is_call(r, sig, in);
    out_of_block(r, u);
    if (seccomp)
        ((struct seccomp_info *)in)->call_addr = u->g[RIP];
    if (interrupted(r, sig)) {
        report(r, u, KIND_INTERRUPT, sig, in);
    } else if (stepping && call) {
        r_STEPPING(r) = 1;
        u->g[EFL] |= RFLAGS_TF;
    }
    if (stepping && !call) {
        r_OWN_SENT(r) = real ? 0 : sig;
        report(r, u, KIND_SIGNAL, sig, in);
        r_OWN_SENT(r) = 0;
    } else if (!call) {
        arrives(r, u, sig, in, real);
    }
    int took = ended && waiting == SIGNALS_WANTED && take(r, u, r_OWN_TEMPORARY(r));
    give_due(r, u);
    if (ended && !took)
        again(r, u);
    stop_wanting(r);
}

/* What came while the stub ran. */
static void leftover(record *r, struct ucontext *u)
{
    if (r_OWN_DUE(r)) {
        r_OWN_DUE(r) = 0;
        hand_over(r, RES & ~taken_by(r));
    }
    while (r_OWN_INTERRUPTED(r)) {
        r_OWN_INTERRUPTED(r) = 0;
        report(r, u, KIND_INTERRUPT, 0, 0);
    }
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if ((ready(of_thread(r)) | ready(of_process(r))) & taken_by(r)) {
        out_of_block(r, u); /* If a call is about to begin, it begins later. */
        stop_wanting(r);
        give_due(r, u);
    }
    set_bases(r_FS(r), r_GS(r));
}

static record *record_of(struct ucontext *u)
{
    return (record *)((u64)u & ~(u64)(RECORD_STRIDE - 1));
}

/* Called before the handler returns, as often as something has come since the last time. */
void finish(struct ucontext *u)
{
    leftover(record_of(u), u);
}

/* 1: not the outermost handler of the thread. */
int handler(int sig, struct info *in, struct ucontext *u)
{
    record *r = record_of(u);
    u64 ip = u->g[RIP];
    int own = ip >= SYSTRAP_CODE && ip < (u64)text_end;
    int open = (ip >= (u64)arrive && ip < (u64)depart_end) || ip == (u64)gate_exit;
    if (own && !open) {
        nested(r, u, sig, in);
        return 1;
    }
    r_OWN_FP(r) = 0;
    r_FS(r) = fs_base();
    r_GS(r) = gs_base();
    arrived(r, u, sig, in);
    leftover(r, u);
    return 0;
}
