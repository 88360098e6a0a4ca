/*
 * An enclave to be explored: two ways to accept a page, of which one has a race.
 *
 *     gcc -std=gnu11 -O2 -nostdlib -static-pie -fpie -fno-stack-protector -fcf-protection=none \
 *         -Wl,-z,max-page-size=4096,-z,noexecstack -o enclave enclave.c
 */
#include "entry.h"

struct secinfo {
    uint64_t flags;
    uint64_t reserved[7];
} __attribute__((aligned(64)));

static uint64_t eaccept(uint64_t page)
{
    struct secinfo secinfo = {.flags = REG_PENDING_RW};
    uint64_t status = EACCEPT;

    __asm__ volatile(".byte 0x0f, 0x01, 0xd7"
                     : "+a"(status)
                     : "b"(&secinfo), "c"(page)
                     : "memory", "cc");
    return status;
}

static int lock, accepted;

/* One thread accepts the page, the others see that it is there. */
static uint64_t accept_once(uint64_t page)
{
    uint64_t status = 0;

    while (__atomic_exchange_n(&lock, 1, __ATOMIC_ACQUIRE))
        __asm__ volatile("pause");
    if (!accepted) {
        status = eaccept(page);
        accepted = !status;
    }
    __atomic_store_n(&lock, 0, __ATOMIC_RELEASE);
    return status;
}

__attribute__((used)) uint64_t serve(uint64_t page, uint64_t what, uint64_t host)
{
    switch (what) {
    case 0: /* each thread accepts by itself: SDM 3D, EACCEPT; no two at one page */
        return eaccept(page);
    case 1:
        return accept_once(page);
    case 2: /* use the page: the first touch ends in an exception, which the host brings back */
        *(volatile uint64_t *)page += 1;
        return 0;
    case 3: /* to and from memory of the host */
        *(volatile uint64_t *)host = *(volatile uint64_t *)host * 2 + page;
        return 0;
    case 4: /* wait for what never comes */
        while (!*(volatile int *)&accepted)
            __asm__ volatile("pause");
        return 0;
    default:
        for (;;)
            __asm__ volatile("");
    }
}
