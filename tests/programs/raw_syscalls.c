/*
 * A static program without any library: every system call is an instruction of its own, the enclave
 * is entered by an ENCLU of its own, and everything it knows of the system is on its first stack.
 *
 * enclave: ops
 * cc: -static -no-pie -fno-pie -nostdlib -ffreestanding -fno-stack-protector
 */
#include <elf.h>
#include <stddef.h>
#include <stdint.h>

#include "calls.h"
#include "sgx.h"

enum { SYS_READ = 0, SYS_WRITE = 1, SYS_OPEN = 2, SYS_LSEEK = 8, SYS_MMAP = 9, SYS_MPROTECT = 10,
       SYS_MUNMAP = 11, SYS_IOCTL = 16, SYS_EXIT_GROUP = 231, SYS_OPENAT = 257 };
#define RDWR 2
#define AT_CWD (-100)
enum { NONE = 0, READ = 1, READ_WRITE = 3 };
enum { SHARED = 1, PRIVATE = 2, FIXED = 0x10, ANONYMOUS = 0x20 };

static long call6(long number, long a, long b, long c, long d, long e, long f)
{
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;

    __asm__ volatile("syscall"
                     : "+a"(number)
                     : "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return number;
}

#define CALL(number, a, b, c) call6(number, (long)(a), (long)(b), (long)(c), 0, 0, 0)

static void say(const char *text)
{
    long length = 0;

    while (text[length])
        length++;
    CALL(SYS_WRITE, 1, text, length);
}

__attribute__((noreturn)) static void fail(const char *what)
{
    say("FAIL ");
    say(what);
    say("\n");
    for (;;)
        CALL(SYS_EXIT_GROUP, 1, 0, 0);
}

/* A system call that has to work. */
static long did(long got, const char *what)
{
    if (got < 0)
        fail(what);
    return got;
}

static const uint8_t *file(const char *path, long *size)
{
    long fd = did(CALL(SYS_OPEN, path, 0, 0), "open of a file");

    *size = did(CALL(SYS_LSEEK, fd, 0, 2), "lseek");
    return (const uint8_t *)did(call6(SYS_MMAP, 0, *size, READ, PRIVATE, fd, 0), "mmap of a file");
}

static int same(const uint8_t *at, const char *tag)
{
    for (int i = 0; i < 8 && (i == 0 || tag[i - 1]); i++)
        if (at[i] != (uint8_t)tag[i])
            return 0;
    return 1;
}

static uint64_t word(const uint8_t *at, int offset)
{
    uint64_t value = 0;

    for (int i = 7; i >= 0; i--)
        value = value << 8 | at[offset + i];
    return value;
}

static uint64_t base, size, tcs;
static long fd;
static uint8_t page[PAGE_SIZE] __attribute__((aligned(4096)));

static void reserve(void)
{
    uint64_t at = did(call6(SYS_MMAP, 0, 2 * size, NONE, PRIVATE | ANONYMOUS, -1, 0), "reserve");

    base = (at + size - 1) & -size;
    if (base > at)
        did(CALL(SYS_MUNMAP, at, base - at, 0), "munmap below");
    did(CALL(SYS_MUNMAP, base + size, at + size - base, 0), "munmap above");
}

static void create(uint32_t ssaframesize)
{
    static struct sgx_secs secs;
    struct sgx_enclave_create arg = {.src = (uint64_t)&secs};

    secs.size = size;
    secs.base = base;
    secs.ssaframesize = ssaframesize;
    secs.attributes = SGX_ATTR_MODE64BIT;
    secs.xfrm = SGX_XFRM_LEGACY;
    did(CALL(SYS_IOCTL, fd, SGX_IOC_ENCLAVE_CREATE, &arg), "CREATE");
}

/* One page, by one ioctl and, after INIT, one mmap. */
static void add(uint64_t offset, uint64_t flags, int measure)
{
    struct sgx_secinfo secinfo = {.flags = flags};
    struct sgx_enclave_add_pages arg = {
        (uint64_t)page, offset, PAGE_SIZE, (uint64_t)&secinfo, measure, 0};

    did(CALL(SYS_IOCTL, fd, SGX_IOC_ENCLAVE_ADD_PAGES, &arg), "ADD_PAGES");
    if (arg.count != PAGE_SIZE)
        fail("ADD_PAGES: count");
    if (flags == SGX_PT_TCS)
        tcs = base + offset;
}

static void map(uint64_t offset, uint64_t flags)
{
    long prot = flags == SGX_PT_TCS ? READ_WRITE : (long)(flags & 7);

    did(call6(SYS_MMAP, base + offset, PAGE_SIZE, NONE, SHARED | FIXED, fd, 0), "mmap");
    did(CALL(SYS_MPROTECT, base + offset, PAGE_SIZE, prot), "mprotect");
}

/* Adds every page of the stream or, after INIT, maps it. */
static void pages(const uint8_t *at, const uint8_t *end, int adding)
{
    while (at < end) {
        uint64_t offset = word(at, 8), flags = word(at, 16);
        int measured = 0;

        if (!same(at, "EADD"))
            fail("the stream");
        for (int i = 0; i < (int)PAGE_SIZE; i++)
            ((volatile uint8_t *)page)[i] = 0;
        for (at += 64; at < end && (same(at, "EEXTEND") || same(at, "UNMEASRD")); at += 320) {
            measured |= same(at, "EEXTEND");
            for (int i = 0; i < 256; i++)
                page[word(at, 8) % PAGE_SIZE + i] = at[64 + i];
        }
        if (adding)
            add(offset, flags, measured);
        else
            map(offset, flags);
    }
}

static uint64_t ask(uint64_t op, uint64_t a, uint64_t b)
{
    struct call call = {op, a, b, 0, 0};
    uint64_t rax = EENTER, rbx = tcs, rcx, rdi = (uint64_t)&call, rsi = 0, rdx = 0;

    __asm__ volatile("lea 1f(%%rip), %%rcx\n1:\t.byte 0x0f, 0x01, 0xd7"
                     : "+a"(rax), "+b"(rbx), "=&c"(rcx), "+D"(rdi), "+S"(rsi), "+d"(rdx)
                     :
                     : "r8", "r9", "r10", "r11", "memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3",
                       "xmm4", "xmm5", "xmm6", "xmm7");
    return call.result;
}

static void look_for_vdso(const uint64_t *stack)
{
    const uint64_t *at = stack + 1 + stack[0] + 1;

    while (*at)
        at++;
    for (at++; at[0] != AT_NULL; at += 2)
        if (at[0] == AT_SYSINFO_EHDR) {
            if ((uint32_t)word((const uint8_t *)at[1], 0) != 0x464c457f)
                fail("no ELF header at AT_SYSINFO_EHDR");
            say("ok the vDSO is in the auxiliary vector\n");
            return;
        }
    fail("no AT_SYSINFO_EHDR");
}

__attribute__((used, noreturn)) void begin(const uint64_t *stack)
{
    const char *const *argv = (const char *const *)(stack + 1);
    struct sgx_enclave_init init;
    long length, sig_length;

    if (stack[0] < 3)
        fail("arguments");
    look_for_vdso(stack);
    const uint8_t *sgxs = file(argv[1], &length);
    init.sigstruct = (uint64_t)file(argv[2], &sig_length);
    size = word(sgxs, 12);
    did(CALL(SYS_OPENAT, AT_CWD, "/dev/sgx_enclave", RDWR), "openat");
    fd = did(CALL(SYS_OPEN, "/dev/sgx_enclave", RDWR, 0), "open");
    reserve();
    create(word(sgxs, 8));
    pages(sgxs + 64, sgxs + length, 1);
    did(CALL(SYS_IOCTL, fd, SGX_IOC_ENCLAVE_INIT, &init), "INIT");
    pages(sgxs + 64, sgxs + length, 0);
    say("ok built by raw system calls\n");
    uint64_t buffer = ask(OP_BUFFER, 0, 0);
    if (buffer < base || buffer >= base + size)
        fail("no address inside");
    ask(OP_WRITE, buffer, 77);
    if (ask(OP_READ, buffer, 0) != 77)
        fail("77 was written, something else was read");
    say("ok entered by an ENCLU of its own\n");
    for (;;)
        CALL(SYS_EXIT_GROUP, 0, 0, 0);
}

__attribute__((naked, used, noreturn)) void _start(void)
{
    __asm__("mov %rsp, %rdi\n\t"
            "and $-16, %rsp\n\t"
            "call begin");
}
