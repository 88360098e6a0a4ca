/*
 * The host touches enclave memory: what its handler sees, for every state of the page, rights of
 * the area, and kind of access. One row each: signal, si_code, si_addr, REG_ERR, REG_TRAPNO,
 * REG_CR2, addresses as offsets in the page; and whether the enclave has the page then.
 * tests/runner/test_host_faults.py has the table, from the rules of Linux.
 *
 * The story: a write to a page mapped read-only, or a call into one mapped rw-, came as SI_KERNEL
 * with address 0, and the page was added.
 *
 * enclave: ops size=0x4000000
 */
#include "host.h"

#include <setjmp.h>

enum state {
    FRESH,     /* a hole before INIT */
    CAPPED,    /* added before INIT without rights, into an area that was there */
    ADDED,     /* added before INIT with all rights, not touched */
    HOLE,      /* a hole after INIT */
    UNTOUCHED, /* present in the enclave, not in the page table */
    PRESENT,   /* in both */
    DENIED,    /* in both; the EPCM has no rights left for it */
    TRIMMED,   /* in both; PT_TRIM */
    REMOVED,   /* it was, and is no more */
    EVICTED,   /* in the enclave, written to main memory; in a run of its own */
    STATES
};
static const char *const states[STATES] = {
    "fresh", "capped", "added", "hole", "untouched", "present", "denied", "trimmed", "removed",
    "evicted"};
static const int areas[] = {0, PROT_READ, PROT_WRITE, PROT_RW, PROT_READ | PROT_EXEC, PROT_RWX};
#define AREAS (sizeof(areas) / sizeof(areas[0]))

static struct enclave e, young; /* one is initialised, the other never */
static struct sgx_enclave_run run;
static uint64_t next_page, next_young = PAGE_SIZE;
static uint8_t other[2 * PAGE_SIZE];
static uint8_t source[PAGE_SIZE] __attribute__((aligned(PAGE_SIZE)));

static sigjmp_buf back;
static volatile int got_signal;
static siginfo_t got_info;
static greg_t got_regs[NGREG];

static void handler(int number, siginfo_t *info, void *context)
{
    got_signal = number;
    got_info = *info;
    memcpy((void *)got_regs, ((ucontext_t *)context)->uc_mcontext.gregs, sizeof(got_regs));
    siglongjmp(back, 1);
}

/* Accesses. `at` is the first byte of the page; the page before it can be read and written. */
static void read1(uint8_t *at)
{
    (void)*(volatile uint8_t *)(at + 5);
}

static void write1(uint8_t *at)
{
    *(volatile uint8_t *)(at + 5) = 0;
}

static void fetch(uint8_t *at)
{
    ((void (*)(void))(at + 5))();
}

static void atomic(uint8_t *at)
{
    __atomic_fetch_add((uint32_t *)(at + 8), 1, __ATOMIC_SEQ_CST);
}

static void read_across(uint8_t *at)
{
    (void)*(volatile uint64_t *)(at - 3);
}

static void write_across(uint8_t *at)
{
    *(volatile uint64_t *)(at - 3) = 0;
}

static void move(uint8_t *to, const uint8_t *from, size_t count)
{
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
}

static void string_from(uint8_t *at)
{
    move(other, at, 16);
}

static void string_to(uint8_t *at)
{
    move(at, other, 16);
}

static void compare(uint8_t *at)
{
    __asm__ volatile("cmpl $1, 32(%0)" : : "r"(at) : "cc", "memory");
}

static void push(uint8_t *at)
{
    uint64_t rsp;

    __asm__ volatile("mov %%rsp, %0\n\tlea 64(%1), %%rsp\n\tpush %1\n\tmov %0, %%rsp"
                     : "=&r"(rsp) : "r"(at) : "memory");
}

static void sse_read(uint8_t *at)
{
    __asm__ volatile("movdqu 7(%0), %%xmm0" : : "r"(at) : "xmm0", "memory");
}

static void sse_write(uint8_t *at)
{
    __asm__ volatile("movdqu %%xmm0, 7(%0)" : : "r"(at) : "memory");
}

static void masked_write(uint8_t *at)
{
    __asm__ volatile("pcmpeqd %%xmm0, %%xmm0\n\tmaskmovdqu %%xmm0, %%xmm0"
                     : : "D"(at) : "xmm0", "memory");
}

static void lookup(uint8_t *at)
{
    __asm__ volatile("mov $3, %%al\n\txlatb" : : "b"(at) : "al", "memory");
}

__attribute__((target("avx"))) static void avx_read(uint8_t *at)
{
    __asm__ volatile("vmovdqu 7(%0), %%ymm0\n\tvzeroupper" : : "r"(at) : "xmm0", "memory");
}

__attribute__((target("avx"))) static void avx_write(uint8_t *at)
{
    __asm__ volatile("vmovdqu %%ymm0, 7(%0)\n\tvzeroupper" : : "r"(at) : "memory");
}

#define ACCESS(name) {#name, name}
static const struct {
    const char *name;
    void (*run)(uint8_t *);
} accesses[] = {
    ACCESS(read1), ACCESS(write1), ACCESS(fetch), ACCESS(atomic), ACCESS(read_across),
    ACCESS(write_across), ACCESS(string_from), ACCESS(string_to), ACCESS(compare), ACCESS(push),
    ACCESS(sse_read), ACCESS(sse_write), ACCESS(masked_write), ACCESS(lookup), ACCESS(avx_read),
    ACCESS(avx_write),
};
#define ACCESSES (sizeof(accesses) / sizeof(accesses[0]))

static void add(uint64_t offset, uint64_t rights)
{
    DO(enclave_add_page(&young, source, offset, SGX_PT_REG | rights, false));
}

/* On a stack of its own: one access has RSP in the page. */
static void handle_aside(int number)
{
    static uint8_t stack[1 << 16];
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    stack_t aside = {.ss_sp = stack, .ss_size = sizeof(stack)};

    DO(sigaltstack(&aside, NULL));
    DO(sigaction(number, &action, NULL));
}

/* A page in a state; the page before it can be read and written. */
static uint8_t *page_in(enum state state, int area)
{
    struct enclave *of = state <= ADDED ? &young : &e;
    uint64_t *next = state <= ADDED ? &next_young : &next_page, first = *next;
    uint64_t offset = first + PAGE_SIZE, page = of->base + offset;
    volatile uint8_t *at = (volatile uint8_t *)page;

    *next += 2 * PAGE_SIZE;
    CHECK(*next < of->size, "ELRANGE is too small");
    DO(enclave_map_range(of, first, PAGE_SIZE, PROT_RW));
    if (state <= ADDED) {
        add(first, RW);
        DO(enclave_map_range(of, offset, PAGE_SIZE, area));
        if (state != FRESH)
            add(offset, state == ADDED ? RWX : 0);
        return (uint8_t *)at;
    }
    if (state != HOLE) {
        DO(enclave_map_range(of, offset, PAGE_SIZE, PROT_RW));
        *at = 1; /* EAUG */
    }
    if (state >= DENIED && state != EVICTED)
        SAME(ask(&run, OP_ACCEPT, page, RW | SGX_PT_REG | SGX_PENDING, 0), 0);
    if (state == DENIED)
        DO(restrict_page(of, page, 0));
    if (state == TRIMMED || state == REMOVED)
        DO(modify_page(of, page, PT_TRIM));
    if (state == REMOVED) {
        SAME(ask(&run, OP_ACCEPT, page, SGX_PT_TRIM | SGX_MODIFIED, 0), 0);
        DO(remove_page(of, page));
    }
    if (state == UNTOUCHED || state == HOLE || state == REMOVED)
        DO(enclave_map_range(of, offset, PAGE_SIZE, area));
    else
        DO(mprotect((void *)page, PAGE_SIZE, area));
    return (uint8_t *)at;
}

/* RESTRICT of a hole is refused without a code of the leaf. */
static const char *has(enum state state, uint8_t *at)
{
    struct sgx_enclave_restrict_permissions arg = {
        .offset = (uint64_t)at - e.base, .length = PAGE_SIZE, .permissions = RWX};

    if (state <= ADDED)
        return "-";
    if (!ioctl(e.fd, SGX_IOC_ENCLAVE_RESTRICT_PERMISSIONS, &arg) || arg.result || errno == EINVAL)
        return "page";
    return "hole";
}

static long offset_in(const void *address, uint8_t *at)
{
    return (long)((uint64_t)address - (uint64_t)at);
}

static void row(enum state state, int area, unsigned n, uint8_t *at)
{
    got_signal = 0;
    memset(&got_info, 0, sizeof(got_info));
    memset((void *)got_regs, 0, sizeof(got_regs));
    if (!sigsetjmp(back, 1))
        accesses[n].run(at);
    if (got_signal && !got_info.si_addr)
        ok("%s %d %s: %d %d none", states[state], area, accesses[n].name, got_signal,
           got_info.si_code);
    else if (got_signal)
        ok("%s %d %s: %d %d %ld %#llx %lld %ld %s", states[state], area, accesses[n].name,
           got_signal, got_info.si_code, offset_in(got_info.si_addr, at), got_regs[REG_ERR],
           got_regs[REG_TRAPNO], offset_in((void *)got_regs[REG_CR2], at), has(state, at));
    else
        ok("%s %d %s: done %s", states[state], area, accesses[n].name, has(state, at));
    if (state <= ADDED)
        DO(munmap(at - PAGE_SIZE, 2 * PAGE_SIZE));
    else
        DO(munmap(at, PAGE_SIZE));
}

static bool possible(unsigned n)
{
    return strncmp(accesses[n].name, "avx", 3) || __builtin_cpu_supports("avx");
}

/* With a small EPC: all pages, then so many others that those are out. */
static void evicted(void)
{
    static uint8_t *pages[AREAS][ACCESSES];
    uint64_t others = 1500 * PAGE_SIZE;

    for (unsigned area = 0; area < AREAS; area++)
        for (unsigned n = 0; n < ACCESSES; n++)
            pages[area][n] = page_in(EVICTED, areas[area]);
    DO(enclave_map_range(&e, next_page, others, PROT_RW));
    for (uint64_t at = 0; at < others; at += PAGE_SIZE)
        *(volatile uint8_t *)(e.base + next_page + at) = 1;
    for (unsigned area = 0; area < AREAS; area++)
        for (unsigned n = 0; n < ACCESSES; n++)
            if (possible(n))
                row(EVICTED, areas[area], n, pages[area][n]);
}

/* Ordinary memory that forbids everything: which byte the processor names, and how. */
static void control(unsigned n)
{
    uint8_t *at = DO(mmap(NULL, 2 * PAGE_SIZE, PROT_RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));

    at += PAGE_SIZE;
    DO(mprotect(at, PAGE_SIZE, PROT_NONE));
    got_signal = 0;
    if (!sigsetjmp(back, 1))
        accesses[n].run(at);
    ok("control %s: %d %d %ld %#llx", accesses[n].name, got_signal, got_info.si_code,
       offset_in(got_info.si_addr, at), got_regs[REG_ERR]);
}

int main(int argc, char **argv)
{
    start(&e, argc, argv);
    run.tcs = e.tcs[0];
    next_page = e.end;
    CHECK(!enclave_open(&young, argv[1]), "%s", strerror(errno));
    young.size = e.size;
    CHECK(!enclave_reserve(&young) && !enclave_create(&young), "%s", strerror(errno));
    handle_aside(SIGSEGV);
    handle_aside(SIGBUS);
    handle_aside(SIGILL);
    for (unsigned n = 0; n < ACCESSES; n++)
        if (possible(n))
            control(n);
    if (argc > 4) {
        evicted();
        return 0;
    }
    for (int state = 0; state < EVICTED; state++)
        for (unsigned area = 0; area < AREAS; area++)
            for (unsigned n = 0; n < ACCESSES; n++)
                if (possible(n))
                    row(state, areas[area], n, page_in(state, areas[area]));
    return 0;
}
