/* Reserved signals that were sent: what waits for a thread and for its process, and who takes it.
 *
 * The kernel finds reserved signals open in every thread, so it gives one of the process to any. If
 * that thread blocks it, as the program believes, it waits where every thread of the process finds
 * it (PROCESS), and a thread that has it open is told to look: by INTERRUPT_SIGNAL with LOOK_VALUE.
 * Whoever blocks what waits for the process looks for another thread, and whoever opens it takes
 * it: each first says what it does and then looks at what the other has said.
 *
 * What waits is kept without a lock, since signals come at any instruction of the stub: a number is
 * claimed in `busy` until its siginfo is read, and is in `ready` once that is complete.
 */

struct waiting {
    u64 ready, busy;
    struct info infos[RESERVED_COUNT];
};

_Static_assert(sizeof(struct waiting) == WAITING_SIZE, "systrap_layout.py");

static int slot_of(int sig)
{
    int slot = 0;
    for (u64 below = RES & (BIT(sig) - 1); below; below &= below - 1)
        slot++;
    return slot;
}

static struct waiting *of_thread(record *r)
{
    return (struct waiting *)r_WAITING(r);
}

static struct waiting *of_process(record *r)
{
    return (struct waiting *)t_WAITING(r_PROCESS(r));
}

static u64 ready(struct waiting *w)
{
    return __atomic_load_n(&w->ready, __ATOMIC_SEQ_CST);
}

/* Another one of the same number is lost, as in the kernel; of a timer it counts as overrun. */
static void put_waiting(struct waiting *w, int sig, const struct info *in)
{
    struct info *kept = &w->infos[slot_of(sig)];
    if (__atomic_fetch_or(&w->busy, BIT(sig), __ATOMIC_SEQ_CST) & BIT(sig)) {
        if (in->code == SI_TIMER && kept->code == SI_TIMER && kept->pid == in->pid)
            kept->uid += in->uid + 1; /* si_timerid and si_overrun */
        return;
    }
    move(kept, in, sizeof *in);
    __atomic_fetch_or(&w->ready, BIT(sig), __ATOMIC_SEQ_CST);
}

/* False: another thread was faster. */
static int take_waiting(struct waiting *w, int sig, struct info *in)
{
    if (!(__atomic_fetch_and(&w->ready, ~BIT(sig), __ATOMIC_SEQ_CST) & BIT(sig)))
        return 0;
    move(in, &w->infos[slot_of(sig)], sizeof *in);
    __atomic_fetch_and(&w->busy, ~BIT(sig), __ATOMIC_SEQ_CST);
    return 1;
}

static void drop_waiting(struct waiting *w, u64 set)
{
    struct info dropped;
    for (u64 left; (left = ready(w) & set);)
        take_waiting(w, __builtin_ctzll(left) + 1, &dropped);
}

/* What the thread would take: unblocked, or awaited by rt_sigtimedwait. */
static u64 taken_by(record *r)
{
    return RES & (~r_VBLOCKED(r) | r_WANTED(r));
}

static int tell_to_look(record *r)
{
    struct info in = {.sig = INTERRUPT_SIGNAL, .code = SI_QUEUE, .value = LOOK_VALUE};
    r_OWN_LOOK(r) = 1;
    return OWN(SYS_RT_TGSIGQUEUEINFO, r_PID(r), r_TID(r), INTERRUPT_SIGNAL, &in) == 0;
}

/* This thread takes none of `set`: if a signal of it waits for the process, perhaps another does. */
static void hand_over(record *r, u64 set)
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    set &= ready(of_process(r));
    for (u32 i = 0, top = s_TOP; set && i < top && i < RECORDS_MAX; i++) {
        record *o = record_at(i);
        if (!*used_of(i) || o == r || r_PROCESS(o) != r_PROCESS(r) || !r_TID(o))
            continue;
        if ((taken_by(o) & set) && tell_to_look(o))
            set &= ~taken_by(o);
    }
}

/* Says whether a signal is of a thread or of the process: its code, or `marked` calls. */
static int is_of_thread(struct info *in)
{
    u32 *mark = (u32 *)((u8 *)in + MARK_AT), who = mark[1];
    if (mark[0] != MARK)
        return in->code == SI_TKILL;
    mark[0] = mark[1] = 0;
    return who == MARK_THREAD;
}

/* A reserved signal has come that was sent. One of the process that this thread takes is its own from
 * here on: no other that looks may get it. */
static void note(record *r, int sig, struct info *in)
{
    struct waiting *own = of_thread(r);
    int mine = is_of_thread(in) || (taken_by(r) & BIT(sig) & ~own->busy);
    put_waiting(mine ? own : of_process(r), sig, in);
    r_OWN_DUE(r) = 1;
}

/* Linux 6.12, kernel/signal.c, next_signal: exceptions first, then by number. */
static int first_of(u64 set)
{
    u64 exceptions = set & ~BIT(INTERRUPT_SIGNAL);
    return __builtin_ctzll(exceptions ? exceptions : set) + 1;
}

/* ---- Exceptions, and what only looks like one ----
 *
 * A signal that was sent may have the code of an exception: a process may send itself anything, and
 * exit signals and those of descriptors have codes of their own. The kernel keeps number, error code
 * and CR2 of the last exception for the frame, and siginfo says where that was.
 */
static int is_exception(const struct ucontext *u, int sig, const struct info *in)
{
    const struct seccomp_info *call = (const struct seccomp_info *)in;
    const u64 *g = u->g;
    u64 address = call->call_addr; /* si_addr, too */
    if (in->code <= 0 || !(RES & BIT(sig)) || sig == INTERRUPT_SIGNAL)
        return 0;
    if (in->code == SI_KERNEL)
        return !address;
    switch (sig) {
    case SIGSYS:
        return address == g[RIP] && call->nr == (int)g[RAX];
    case SIGSEGV:
    case SIGBUS:
        return address == (g[TRAPNO] == PAGE_FAULT ? g[CR2] : 0);
    default:
        return address == g[RIP];
    }
}
