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
    struct action a = {handler_address, flags | SA_RESTORER, (u64)restorer, ~RES};
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
        if (a.handler == IGN)
            r_PENDING(r) &= ~(RES & BIT(sig));
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
    u->mask = mask & ~(RES | NEVER);
    r_VBLOCKED(r) = mask & RES;
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

static int is_interrupt(int sig, const struct info *in)
{
    return sig == INTERRUPT_SIGNAL && in->code == SI_QUEUE && in->value == INTERRUPT_VALUE;
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
static void by_default(struct ucontext *u, int sig, struct info *in)
{
    set_real(sig, DFL, 0);
    u->mask &= ~BIT(sig);
    if (RES & BIT(sig))
        block_all();
    queue_self(sig, in);
}

static int slot_of(int sig)
{
    int slot = 0;
    for (u64 below = RES & (BIT(sig) - 1); below; below &= below - 1)
        slot++;
    return slot;
}

/* A reserved signal that the program has blocked: one of each kind waits, as in the kernel. */
static void keep(record *r, int sig, const struct info *in)
{
    if (!(r_PENDING(r) & BIT(sig))) {
        move(r_PENDING_INFO(r) + 128 * slot_of(sig), in, 128);
        r_PENDING(r) |= BIT(sig);
    }
}

static void forget(record *r, int sig, struct info *in)
{
    move(in, r_PENDING_INFO(r) + 128 * slot_of(sig), 128);
    r_PENDING(r) &= ~BIT(sig);
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

static long build(record *r, struct ucontext *u, int sig, const struct info *in,
                  const struct action *a, u32 set)
{
    struct frame f;
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
    if (set & OUT_ERR_SET)
        f.uc.g[ERR] = r_OUT_ERR(r);
    if (set & OUT_TRAPNO_SET)
        f.uc.g[TRAPNO] = r_OUT_TRAPNO(r);
    if (set & OUT_CR2_SET)
        f.uc.g[CR2] = r_OUT_CR2(r);
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
    u->fp = 0; /* rt_sigreturn then loads the initial state, with which handlers begin. */
    return 0;
}

/* RIP is at a call to be repeated, and a handler comes in between. */
static void settle_restart(record *r, struct ucontext *u, const struct action *a)
{
    if (r_RESTART(r) && u->g[RIP] == r_SYSCALL_AT(r) && !(a->flags & SA_RESTART)) {
        u->g[RAX] = -EINTR;
        u->g[RIP] += SYSCALL_LENGTH;
    }
    r_RESTART(r) = 0;
}

static void deliver(record *r, struct ucontext *u, int sig, struct info *in, u32 set)
{
    struct action a = action_of(r, sig);
    int reserved = (RES & BIT(sig)) != 0, forced = reserved && in->code > 0;
    int blocked = (mask_of(r, u) & BIT(sig)) != 0;
    if (forced && (blocked || a.handler <= IGN)) {
        by_default(u, sig, in);
        return;
    }
    if (blocked) {
        if (reserved)
            keep(r, sig, in);
        else
            queue_self(sig, in);
        return;
    }
    if (a.handler == IGN)
        return;
    if (a.handler == DFL) {
        by_default(u, sig, in);
        return;
    }
    settle_restart(r, u, &a);
    if (a.flags & SA_RESETHAND) {
        lock(table_of(r));
        entry(table_of(r), sig)->handler = DFL;
        unlock(table_of(r));
    }
    if (build(r, u, sig, in, &a, set)) {
        struct info fault = {.sig = SIGSEGV, .code = SI_KERNEL};
        if (sig == SIGSEGV)
            by_default(u, sig, &fault);
        else
            deliver(r, u, SIGSEGV, &fault, 0);
        return;
    }
    r_UMASK_VALID(r) = 0;
    if (r_VSS_FLAGS(r) & SS_AUTODISARM)
        set_stack(r, 0, SS_DISABLE, 0);
    set_mask(r, u, mask_of(r, u) | a.mask | (a.flags & SA_NODEFER ? 0 : BIT(sig)));
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
static int make(record *r, struct ucontext *u, u64 nr)
{
    u64 *g = u->g;
    r_OWN_TRAPPED(r) = 0;
    long result = user_call(nr, g[RDI], g[RSI], g[RDX], g[R10], g[R8], g[R9]);
    if (r_OWN_TRAPPED(r)) {
        struct seccomp_info *in = (struct seccomp_info *)r_OWN_TRAP_INFO(r);
        in->call_addr = g[RIP];
        deliver(r, u, SIGSYS, (struct info *)in, 0);
        return 0;
    }
    g[RAX] = result;
    if (nr == SYS_ARCH_PRCTL)
        r_FS(r) = fs_base();
    return 1;
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
            deliver(r, u, r_SIGNAL(r), (struct info *)r_OUT_INFO(r), r_OUT_SET(r));
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
            return r;
        }
    }
    return 0;
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

static void drop_table(record *r)
{
    __atomic_fetch_sub(&t_COUNT(table_of(r)), 1, __ATOMIC_SEQ_CST);
}

struct made {
    u64 flags, stack;
    long nr;
    u64 args[5];
};

/* The table of the child; 0 if there is none left. */
static table *child_table(record *r, record *c, u64 flags, int clear)
{
    table *t = table_of(r);
    if (flags & CLONE_SIGHAND) {
        __atomic_fetch_add(&t_COUNT(t), 1, __ATOMIC_SEQ_CST);
        return t;
    }
    table *own = claim_table(number_of(c));
    if (!own)
        return 0;
    move(t_ACTIONS(own), t_ACTIONS(t), ACTION_STRIDE * (SIGNALS + 1));
    for (int sig = 1; clear && sig <= SIGNALS; sig++)
        *entry(own, sig) = (struct action){.handler = entry(own, sig)->handler == IGN ? IGN : DFL};
    return own;
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

static record *child_record(record *r, struct ucontext *u, const struct made *m, int clear)
{
    record *c = claim_record();
    if (!c)
        return 0;
    set_up(c);
    table *t = child_table(r, c, m->flags, clear);
    if (!t) {
        *used_of(number_of(c)) = 0;
        return 0;
    }
    r_TABLE(c) = (u64)t;
    r_PARENT(c) = number_of(r);
    r_CHILD_FLAGS(c) = m->flags;
    r_OWN_BLIND(c) = r_OWN_BLIND(r);
    r_OWN_CLEAR(c) = clear;
    r_VBLOCKED(c) = r_VBLOCKED(r);
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
static void wait_registered(record *c, long pid)
{
    static const u64 soon[2] = {0, 10000000};
    while (!r_REGISTERED(c)) {
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
    if (pid < 0) {
        drop_table(c);
        *used_of(number_of(c)) = 0;
    } else if (is_reported_new(r, m->flags) && !(m->flags & CLONE_VFORK)) {
        wait_registered(c, pid);
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
    if (!r_OWN_EXEC(r) && is_reported_new(r, r_CHILD_FLAGS(r))) {
        __asm__ volatile("wrgsbase %0" ::"r"((u64)r));
        report(r, (struct ucontext *)r_START_FRAME(r), KIND_NEW, 0, 0);
    }
    if (s_SUPERVISOR && !(r_CHILD_FLAGS(r) & CLONE_THREAD))
        r_OWN_BLIND(r) = OWN(SYS_KILL, s_SUPERVISOR, 0) == -ESRCH;
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
        deliver(r, u, SIGSEGV, &fault, 0);
        return;
    }
    move(u->g, p.g, sizeof p.g);
    u->flags = p.flags;
    u->fp = p.fp; /* The kernel reads it, and refuses it, from where it is. */
    set_mask(r, u, p.mask);
    change_stack(r, &p.ss, u->g[RSP]);
}

static void sys_exit(record *r, struct ucontext *u, int code)
{
    r_SYSCALL_NR(r) = SYS_EXIT; /* which may stand for another call */
    if (r_REGISTERED(r))
        report(r, u, KIND_ENDING, 0, 0);
    block_all();
    drop_table(r);
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

/* The kernel gets the mask without RES, and VBLOCKED is RES of it until the call is over. */
static void with_mask(record *r, struct ucontext *u, int argument, u64 user, u64 size, int pair)
{
    u64 mask, was = mask_of(r, u), *scratch = (u64 *)r_OWN_SCRATCH(r);
    if (!user || size != 8 || get(&mask, user, 8)) {
        run(r, u); /* Linux refuses it, or there is none. */
        return;
    }
    r_UMASK_SAVED(r) = was;
    if (r_PENDING(r) & ~mask) {
        set_mask(r, u, mask);
        r_UMASK_VALID(r) = 1;
        u->g[RAX] = -EINTR;
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

/* A reserved signal of `set` that waits is taken by rt_sigtimedwait. */
static int take(record *r, struct ucontext *u, u64 set)
{
    u64 found = r_PENDING(r) & set;
    struct info in;
    if (!found)
        return 0;
    int sig = __builtin_ctzll(found) + 1;
    forget(r, sig, &in);
    u->g[RAX] = u->g[RSI] && put(u->g[RSI], &in, sizeof in) ? -EFAULT : sig;
    return 1;
}

static void sys_sigtimedwait(record *r, struct ucontext *u)
{
    u64 set, *scratch = (u64 *)r_OWN_SCRATCH(r);
    if (u->g[R10] != 8 || get(&set, u->g[RDI], 8) || !(set & RES)) {
        run(r, u);
        return;
    }
    if (take(r, u, set))
        return;
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
    set |= r_PENDING(r);
    put(u->g[RDI], &set, size);
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

/* A signal that no handler of the program saw: the call goes on, which a signal has ended. */
static void wait_again(record *r, struct ucontext *u, u32 kind)
{
    u64 *g = u->g;
    if (g[RIP] != r_SYSCALL_AT(r) + SYSCALL_LENGTH || g[RAX] != (u64)-EINTR)
        return;
    if (kind == SIGNALS_WANTED && take(r, u, r_OWN_TEMPORARY(r)))
        return;
    if (kind == TEMPORARY_MASK && r_UMASK_VALID(r)) {
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

/* What the program's filters say of a call. The supervisor asks them: the kernel has judged with ours
 * as well, and only the strictest answer counts. False: it has been answered. */
static int judged(record *r, struct ucontext *u, struct info *in)
{
    if (!is_confined(r))
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
        }
    } else if (native_trapped(r, u, g[RIP] - SYSCALL_LENGTH)) {
        return;
    }
    report(r, u, KIND_SYSCALL, SIGSYS, in);
}

/* ---- The handler ---- */

/* The program's call in the thread's own context is over, or has to begin again: RIP goes back to
 * where the program believes to be. */
static void out_of_block(record *r, struct ucontext *u)
{
    u64 *g = u->g;
    int in_block = g[RIP] - block_of(r) < BLOCK_STRIDE, exits = g[RIP] == (u64)gate_exit;
    int begins = g[RIP] == call_in_block(r);
    if (!in_block && !exits)
        return;
    if (r_OWN_ARGUMENT(r))
        g[r_OWN_ARGUMENT(r) - 1] = r_OWN_ARGUMENT_WAS(r);
    r_OWN_ARGUMENT(r) = 0;
    waited(r, u, in_block && !begins && g[RAX] == (u64)-EINTR);
    if (begins) {
        g[RIP] = r_SYSCALL_AT(r);
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

static int is_reported(record *r, const struct ucontext *u, int sig, const struct info *in)
{
    u64 ip = u->g[RIP];
    if (r_INSIDE(r) || native_inside(r) || is_ours(in) ||
        (ip >= BASE && ip < RECORDS + (u64)RECORDS_MAX * RECORD_STRIDE))
        return 1;
    return (RES & BIT(sig)) && in->code > 0 && sig != SIGSYS && is_special(u, sig);
}

/* A signal while the stub itself runs: only reserved ones can come. */
static void nested(record *r, struct ucontext *u, int sig, struct info *in)
{
    u64 ip = u->g[RIP];
    if (in->code > 0) {
        if (ip == (u64)copy_bytes && (sig == SIGSEGV || sig == SIGBUS)) {
            u->g[RIP] = (u64)copy_fault;
        } else if (ip == (u64)user_called && sig == SIGSYS) {
            move(r_OWN_TRAP_INFO(r), in, 128);
            r_OWN_TRAPPED(r) = 1;
        } else {
            by_default(u, sig, in);
        }
        return;
    }
    if (is_interrupt(sig, in))
        r_OWN_INTERRUPTED(r) = 1;
    else
        keep(r, sig, in);
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

static void arrived(record *r, struct ucontext *u, int sig, struct info *in)
{
    int seccomp = sig == SIGSYS && in->code == SI_CODE_SECCOMP, stepping = r_STEPPING(r);
    if (stepping)
        stopped_stepping(r, u);
    if (seccomp && in->err == TRAP_DATA) {
        if (r_INSIDE(r) || native_inside(r)) /* There it is no call: it is #UD. */
            report(r, u, KIND_SYSCALL, sig, in);
        else
            trapped(r, u, in);
        return;
    }
    if (!stepping && in->code > 0 && (sig == SIGILL || sig == SIGSEGV) && native_exception(r, u))
        return;
    if (u->g[RIP] == (u64)gate_exit && sig == SIGSEGV && in->code > 0) {
        out_of_block(r, u);
        return;
    }
    if (u->g[RIP] == (u64)enclu_trap && sig == SIGSEGV && in->code > 0) {
        u->g[RIP] = s_AEP;
        report(r, u, KIND_ENCLU_TRAP, sig, in);
        return;
    }
    u32 waiting = r_OWN_WAITING(r);
    out_of_block(r, u);
    if (seccomp)
        ((struct seccomp_info *)in)->call_addr = u->g[RIP];
    if (is_interrupt(sig, in))
        report(r, u, KIND_INTERRUPT, sig, in);
    else if (stepping || is_reported(r, u, sig, in))
        report(r, u, KIND_SIGNAL, sig, in);
    else if (waiting == SIGNALS_WANTED && (RES & r_OWN_TEMPORARY(r) & BIT(sig)) && in->code <= 0)
        keep(r, sig, in);
    else
        deliver(r, u, sig, in, 0);
    if (waiting)
        wait_again(r, u, waiting);
}

/* What came while the stub ran. Signals are sent again: each comes with a frame of its own. */
static void leftover(record *r, struct ucontext *u)
{
    u64 due;
    r_OWN_DUE(r) = 0;
    while (r_OWN_INTERRUPTED(r)) {
        r_OWN_INTERRUPTED(r) = 0;
        report(r, u, KIND_INTERRUPT, 0, 0);
    }
    while ((due = r_PENDING(r) & ~r_VBLOCKED(r))) {
        int sig = __builtin_ctzll(due) + 1;
        struct info in;
        block_all();
        forget(r, sig, &in);
        queue_self(sig, &in);
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
    r_FS(r) = fs_base();
    r_GS(r) = gs_base();
    arrived(r, u, sig, in);
    leftover(r, u);
    return 0;
}
