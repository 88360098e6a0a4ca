/* Enclave calls of the native engine that need no supervisor.
 *
 * A thread that is ARMED (native/armed.py) may enter its enclave again as it did last time, and leave
 * it again at an EEXIT that the supervisor has seen. native.s enters from the vDSO; here an ENCLU of
 * the program's own enters, which is a call that our filter traps (`int 0x80` in its place) or an
 * exception, and EEXIT leaves: inside an enclave it is an exception of the real processor.
 *
 * The slot belongs to the supervisor, unless its ARM is CLAIMED or LEAVING.
 */

static u32 swap(u64 slot, u32 from, u32 to)
{
    u32 was = from;
    __atomic_compare_exchange_n(&slot_ARM(slot), &was, to, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    return was;
}

static u64 slot_of_thread(record *r)
{
    u64 slot = *(u64 *)r_NATIVE(r);
    return slot > NATIVE_SLOTS && slot < NATIVE_SLOTS + SLOTS_SIZE && !(slot % SLOT_STRIDE) ? slot : 0;
}

static int is_enclu(u64 at)
{
    u8 code[ENCLU_LENGTH];
    return !copy(code, (void *)at, sizeof code) && code[0] == 0x0f && code[1] == 0x01 && code[2] == 0xd7;
}

static int is_known_exit(u64 slot, u64 at)
{
    const u64 *exits = (const u64 *)slot_EXITS(slot);
    for (int n = 0; n < EXITS_MAX; n++)
        if (exits[n] == at)
            return 1;
    return 0;
}

static int leaves_enclave(record *r, u64 slot, u64 *g)
{
    if ((u32)g[RAX] != EEXIT || g[RBX] >> USER_BITS || !slot_KEPT(slot))
        return 0;
    if (!is_known_exit(slot, g[RIP]) || !is_enclu(g[RIP]) || swap(slot, CLAIMED, LEAVING) != CLAIMED)
        return 0;
    g[RIP] = g[RBX];
    g[RCX] = slot_AEP(slot);
    g[EFL] &= ~(u64)RFLAGS_RF;
    r_FS(r) = slot_HOST_FS(slot);
    r_GS(r) = slot_HOST_GS(slot);
    slot_KEPT(slot) = 0;
    slot_SERVED(slot)++;
    __atomic_store_n(&slot_ARM(slot), ARMED, __ATOMIC_SEQ_CST);
    return 1;
}

/* In the order of spec.registers. */
static void keep_host(u64 slot, const u64 *g, u64 enclu)
{
    static const u8 order[] = {RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15, EFL};
    u64 *host = (u64 *)slot_HOST(slot);
    for (u32 n = 0; n < sizeof order; n++)
        host[n] = g[order[n]];
    host[sizeof order] = enclu;
}

static int enters(record *r, u64 slot, u64 *g, u64 enclu)
{
    if ((u32)g[RAX] != EENTER || slot_TCS(slot) != g[RBX] || slot_AEP(slot) != g[RCX])
        return 0;
    if (g[EFL] & RFLAGS_TF || swap(slot, ARMED, CLAIMED) != ARMED)
        return 0;
    u64 *stack = (u64 *)slot_STACK_AT(slot);
    keep_host(slot, g, enclu);
    slot_HOST_FS(slot) = r_FS(r);
    slot_HOST_GS(slot) = r_GS(r);
    stack[0] = g[RSP];
    stack[1] = g[RBP];
    g[RIP] = slot_ENTRY(slot);
    g[RAX] = slot_CSSA(slot);
    g[RCX] = enclu + ENCLU_LENGTH;
    g[EFL] &= ~(u64)RFLAGS_RF;
    r_FS(r) = slot_FS(slot);
    r_GS(r) = slot_GS(slot);
    __atomic_store_n(&slot_KEPT(slot), 1, __ATOMIC_SEQ_CST);
    return 1;
}

/* KEPT too: the supervisor may just have taken the claim over, and not have set INSIDE yet. */
static int native_inside(record *r)
{
    u64 slot = slot_of_thread(r);
    return slot && (slot_ARM(slot) == CLAIMED || slot_KEPT(slot));
}

static int native_exception(record *r, struct ucontext *u)
{
    u64 slot = slot_of_thread(r), *g = u->g;
    if (!slot)
        return 0;
    if (slot_ARM(slot) == CLAIMED)
        return leaves_enclave(r, slot, g);
    return !r_INSIDE(r) && slot_ARM(slot) == ARMED && is_enclu(g[RIP]) && enters(r, slot, g, g[RIP]);
}

static int native_trapped(record *r, struct ucontext *u, u64 enclu)
{
    u64 slot = slot_of_thread(r);
    return slot && slot_ARM(slot) == ARMED && !r_INSIDE(r) && enters(r, slot, u->g, enclu);
}
