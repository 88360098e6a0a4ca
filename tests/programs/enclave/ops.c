/* The enclave of most programs: small operations, one per call (lib/calls.h). */
#include "inside.h"

static uint8_t buffer[BUFFER_PAGES * PAGE_SIZE] __attribute__((aligned(PAGE_SIZE)));
static volatile uint32_t lock;
static volatile uint64_t total;
static volatile uint64_t turn;

static void pause(void)
{
    __asm__ volatile("pause" ::: "memory");
}

/* Two registers that count together, whatever interrupts them; 1 if one of them was changed. */
static uint64_t wait(volatile uint32_t *flag)
{
    uint64_t up = 0, down = 0;

    while (!*flag) {
        __asm__ volatile("inc %0\n\tdec %1\n\tpause" : "+r"(up), "+r"(down) : : "cc");
    }
    return up + down != 0;
}

static uint64_t count(uint64_t rounds)
{
    uint64_t up = 0, down = 0;

    while (up != rounds)
        __asm__ volatile("inc %0\n\tdec %1" : "+r"(up), "+r"(down) : : "cc");
    return up + down != 0;
}

/* Not an atomic addition: only the lock makes it right. */
static void add_locked(uint64_t times)
{
    while (times--) {
        while (__atomic_exchange_n(&lock, 1, __ATOMIC_ACQUIRE))
            while (lock)
                pause();
        total = total + 1;
        __atomic_store_n(&lock, 0, __ATOMIC_RELEASE);
    }
}

/* The simplest of locks: no PAUSE, no queue, and no hint to the host that it is taken. */
__attribute__((noinline)) static uint32_t try_lock(volatile uint32_t *word)
{
    return !__atomic_exchange_n(word, 1, __ATOMIC_ACQUIRE);
}

static void grow(struct call *call)
{
    struct sgx_secinfo secinfo = {.flags = call->b};

    for (uint64_t page = call->a; page != call->a + call->c * PAGE_SIZE; page += PAGE_SIZE) {
        while (!try_lock(&lock))
            ;
        call->result |= enclu(EACCEPT, &secinfo, page, 0);
        total = total + 1;
        __atomic_store_n(&lock, 0, __ATOMIC_RELEASE);
    }
}

static void accept_each(struct call *call)
{
    uint64_t refused = 0, sum = 0, at = call->a, flags = call->b, end = at + call->c * PAGE_SIZE;

    for (; at < end; at += PAGE_SIZE) {
        struct sgx_secinfo secinfo = {.flags = flags};
        uint64_t status = enclu(EACCEPT, &secinfo, at, 0);

        refused += status != 0;
        sum += status;
    }
    call->c = refused;
    call->result = sum;
}

static void answer(volatile uint64_t *word, uint64_t times)
{
    while (times--) {
        while (*word % 2 == 0)
            ;
        *word = *word + 1;
    }
}

static void meet(uint64_t side, uint64_t rounds)
{
    for (uint64_t i = 0; i < rounds; i++) {
        while (turn % 2 != side)
            pause();
        turn = turn + 1;
    }
}

static void spin(struct call *call)
{
    volatile uint64_t *word = (volatile uint64_t *)call->a;
    volatile uint32_t *stop = (volatile uint32_t *)call->b;
    uint64_t i = 0;

    while (!*stop) {
        if (call->op == OP_SPIN_WRITE)
            *word = ++i;
        else
            i |= *word;
    }
    call->result = i;
}

static void bases(struct call *call)
{
    uint64_t word, fs, gs;

    __asm__ volatile("mov %%fs:0, %0" : "=r"(word));
    __asm__ volatile("rdfsbase %0" : "=r"(fs));
    __asm__ volatile("rdgsbase %0" : "=r"(gs));
    call->a = word;
    call->b = fs;
    call->c = gs;
}

static uint64_t outside_stack(struct gprsgx *frame)
{
    uint64_t rsp = frame->ursp;

    frame->ursp = 0;
    return rsp;
}

static void work(struct call *call)
{
    uint32_t mxcsr;

    switch (call->op) {
    case OP_WAIT:
        call->result = wait((volatile uint32_t *)call->a);
        break;
    case OP_TELL:
        *(volatile uint32_t *)call->a = 1;
        call->result = wait((volatile uint32_t *)call->b);
        break;
    case OP_COUNT:
        call->result = count(call->a);
        break;
    case OP_SPIN_WRITE:
    case OP_SPIN_READ:
        spin(call);
        break;
    case OP_LOCKED:
        add_locked(call->a);
        break;
    case OP_ATOMIC:
        for (uint64_t i = 0; i < call->a; i++)
            __atomic_fetch_add(&total, 1, __ATOMIC_RELAXED);
        break;
    case OP_GROW:
        grow(call);
        break;
    case OP_ACCEPT_EACH:
        accept_each(call);
        break;
    case OP_ANSWER:
        answer((volatile uint64_t *)call->a, call->b);
        break;
    case OP_TOTAL:
        call->result = total;
        break;
    case OP_MEET:
        meet(call->a, call->b);
        call->result = turn;
        break;
    case OP_MXCSR:
        __asm__ volatile("stmxcsr %0" : "=m"(mxcsr));
        call->result = mxcsr;
        break;
    case OP_BASES:
        bases(call);
        break;
    case OP_STACK:
        call->result = outside_stack((struct gprsgx *)(call->a + 2 * 4096) - 1);
        break;
    default:
        __builtin_trap();
    }
}

__attribute__((used)) void serve(struct call *call)
{
    volatile uint64_t *word = (volatile uint64_t *)call->a;
    struct sgx_secinfo secinfo = {.flags = call->b};
    uint64_t to = call->a, from = call->b, length = call->c;

    switch (call->op) {
    case OP_NOP:
        break;
    case OP_BUFFER:
        call->result = (uint64_t)buffer;
        break;
    case OP_READ:
        call->result = *word;
        break;
    case OP_WRITE:
        *word = call->b;
        break;
    case OP_COPY:
        __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(length) : : "memory");
        break;
    case OP_ACCEPT:
        call->result = enclu(EACCEPT, &secinfo, call->a, 0);
        break;
    case OP_EXTEND:
        enclu(EMODPE, &secinfo, call->a, 0);
        break;
    case OP_ACCEPTCOPY:
        call->result = enclu(EACCEPTCOPY, &secinfo, call->a, call->c);
        break;
    case OP_CALL:
        call->result = ((uint64_t(*)(void))call->a)();
        break;
    default:
        work(call);
    }
}
