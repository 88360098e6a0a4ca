/*
 * Five mistakes of enclave code that an attacker finds by choosing when it is interrupted. With
 * -DREPAIRED each of them is repaired.
 *
 *     gcc -std=gnu11 -O2 -nostdlib -static-pie -fpie -fno-stack-protector -fcf-protection=none \
 *         -Wl,-z,max-page-size=4096,-z,noexecstack -o attacks attacks.c
 *
 * Below its TCS a thread counts its entries that have left the stack of the host for their own. One
 * that counts itself too early is open to SmashEx (Cui et al., 2021).
 */
#define COUNTER "-8(%r8)"
#ifdef REPAIRED
#define ENTERED ""
#define SWITCHED "incl " COUNTER "\n\t"
#else
#define ENTERED "incl " COUNTER "\n\t"
#define SWITCHED ""
#endif
#define LEAVING "decl " COUNTER "\n\t"
#include "entry.h"

#define PAGE __attribute__((aligned(4096)))
#define SSA_RSP (2 * 4096 - 184 + 4 * 8) /* from the TCS: GPRSGX.RSP of the first SSA frame */

enum { RELEASE, USE, RELEASE_PAGES, USE_PAGES, WRITE_PAIR, READ_PAIR, COPY, RUN, HANDLE, RELEASE_PAUSE };

static volatile int lock;

static void acquire(void)
{
#ifdef REPAIRED
    while (__atomic_exchange_n(&lock, 1, __ATOMIC_ACQUIRE))
        __asm__ volatile("pause");
#endif
}

static void release(void)
{
#ifdef REPAIRED
    __atomic_store_n(&lock, 0, __ATOMIC_RELEASE);
#endif
}

/* Use after free: an object is freed before the pointer to it is cleared. */
struct object {
    uint64_t live;
};
static struct {
    volatile struct object object;
    volatile uint64_t used; /* in place of a pointer, which would need a relocation */
} near = {{1}, 1};

/* AsyncShock (Weichbrodt et al., 2016): the same, with the pointer in a page of its own. */
static PAGE volatile struct object far = {1};
PAGE volatile uint64_t far_used[512] = {1};

static void free_object(volatile struct object *object, volatile uint64_t *used)
{
    acquire();
    object->live = 0;
    *used = 0;
    release();
}

static __attribute__((noinline)) void free_with_pause(void)
{
    acquire();
    near.object.live = 0;
    __asm__ volatile("pause");
    near.used = 0;
    release();
}

/* 1: the object was used after it was freed. */
static uint64_t use_object(volatile struct object *object, volatile uint64_t *used)
{
    uint64_t freed;

    acquire();
    freed = *used && !object->live;
    release();
    return freed;
}

/* Torn update: two words that belong together. */
static volatile uint64_t low, high;

static void write_pair(uint64_t value)
{
    acquire();
    low = value;
    high = value;
    release();
}

static uint64_t read_pair(void)
{
    uint64_t torn;

    acquire();
    torn = low != high;
    release();
    return torn;
}

/* Time of check, time of use: a length in host memory is checked, and read again. */
struct message {
    uint64_t length;
    uint8_t bytes[32];
};
static struct {
    uint8_t bytes[16];
    volatile uint8_t behind[16];
} buffer;

/* 1: it wrote behind its buffer. */
static uint64_t copy(volatile struct message *message)
{
    uint64_t length = message->length;

    if (length > sizeof(buffer.bytes))
        return 0;
#ifndef REPAIRED
    length = message->length;
#endif
    for (uint64_t i = 0; i < length && i < sizeof(buffer); i++)
        ((volatile uint8_t *)&buffer)[i] = message->bytes[i];
    return buffer.behind[0];
}

/* An exception handler leaves a record below the stack that it interrupted, as a signal does. */
volatile uint64_t secret;

static uint64_t handle(uint64_t tcs)
{
    uint64_t stack = *(volatile uint64_t *)(tcs + SSA_RSP);

    if (*(volatile int *)(tcs - 8) < 2) /* the handler itself, and what it interrupted */
        return 1;
    *(volatile uint64_t *)(stack - 128 - 8) = 0x5ec2e7;
    return 0;
}

__attribute__((used)) uint64_t serve(uint64_t value, uint64_t what, uint64_t host, uint64_t to,
                                     uint64_t tcs)
{
    (void)to;
    switch (what) {
    case RELEASE:
        free_object(&near.object, &near.used);
        return 0;
    case RELEASE_PAUSE:
        free_with_pause();
        return 0;
    case USE:
        return use_object(&near.object, &near.used);
    case RELEASE_PAGES:
        free_object(&far, far_used);
        return 0;
    case USE_PAGES:
        return use_object(&far, far_used);
    case WRITE_PAIR:
        write_pair(value);
        return 0;
    case READ_PAIR:
        return read_pair();
    case COPY:
        return copy((volatile struct message *)host);
    case RUN: /* 1: someone has written where only the enclave may write */
        return secret != 0;
    default:
        return handle(tcs);
    }
}
