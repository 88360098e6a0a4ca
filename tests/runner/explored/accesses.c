/* Instructions that access memory in different ways; tests/runner/explored/test_points.py. */
#include "entry.h"

#define CROSSING 4092 /* a quadword here lies in two pages */

__attribute__((aligned(4096))) volatile uint64_t x, y, z;
__attribute__((aligned(4096))) volatile uint8_t area[8192];
volatile uint64_t pair[2] __attribute__((aligned(16)));

/* What the tests step through. */
__attribute__((noinline, used)) uint64_t stepped(uint64_t value)
{
    x = value;
    y = x + 1;
    return y;
}

__attribute__((used)) uint64_t serve(uint64_t value, uint64_t what, uint64_t host, uint64_t to_host,
                                     uint64_t tcs)
{
    uint64_t found = 0, count = value;
    void *to = (void *)host;
    const void *from = (const void *)area;

    (void)to_host;
    switch (what) {
    case 0: /* loads and stores, but not at once */
        __asm__ volatile("addq $1, %0" : "+m"(x));
        return x;
    case 1: /* at once */
        __asm__ volatile("lock addq $1, %0" : "+m"(x));
        return x;
    case 2: /* loads and pushes */
        __asm__ volatile("pushq %1\n\tpopq %0" : "=r"(found) : "m"(x));
        return found;
    case 3: /* an unaligned store in two pages, and the load of it */
        *(volatile uint64_t *)(area + CROSSING) = value;
        return *(volatile uint64_t *)(area + CROSSING);
    case 4: /* one store of 16 bytes */
        __asm__ volatile("movq %1, %%xmm0\n\tpunpcklqdq %%xmm0, %%xmm0\n\tmovaps %%xmm0, %0"
                         : "=m"(pair)
                         : "r"(value)
                         : "xmm0");
        return 0;
    case 5: /* 1: two halves that were not stored together */
        __asm__ volatile("movaps %1, %%xmm0\n\tmovq %%xmm0, %0\n\tpunpckhqdq %%xmm0, %%xmm0\n\t"
                         "movq %%xmm0, %2"
                         : "=r"(found), "+m"(pair), "=r"(value)
                         :
                         : "xmm0");
        return found != value;
    case 6: /* element by element, to host memory */
        __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
        return count;
    case 7:
        x = 1;
        return y;
    case 8:
        y = 1;
        return x;
    case 9:
        return stepped(value);
    case 10: /* a wait without PAUSE */
        while (!x)
            ;
        return x;
    case 11:
        x = value;
        return 0;
    case 12: /* exchanges, which is at once without a prefix, too */
        __asm__ volatile("xchgq %0, %1" : "+r"(value), "+m"(x));
        return value;
    case 13: /* copies between two objects: a load and a store */
        __asm__ volatile("cld\n\tmovsq" : "+D"(to), "+S"(from) : : "memory");
        return 0;
    case 14: /* one PAUSE between two stores, of which the second never leaves y behind x */
        x = value;
        __asm__ volatile("pause");
        y = value;
        return 0;
    case 15: /* counts in memory only */
        __asm__ volatile("1: addq $1, %0\n\tcmpq $3, %0\n\tjb 1b" : "+m"(x) : : "cc");
        return x;
    case 16: /* a wait with PAUSE */
        while (!x)
            __asm__ volatile("pause");
        return x;
    case 17: /* an exception, and its handler, which goes on behind it: RIP of the first SSA frame */
        __asm__ volatile("ud2");
        return 0;
    case 18:
        *(volatile uint64_t *)(tcs + 2 * 4096 - 184 + 17 * 8) += 2;
        return 0;
    default:
        return x != y;
    }
}
