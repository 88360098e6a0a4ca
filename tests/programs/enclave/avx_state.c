/*
 * Fills the sixteen YMM registers, waits until the 4 bytes at a, in host memory, are not 0, and says
 * how many of their bytes are not as they were.
 *
 * cc: -mavx
 */
#include "inside.h"

static uint8_t before[512] __attribute__((aligned(32)));
static uint8_t after[512] __attribute__((aligned(32)));

#define ALL(DO)                                                                                    \
    DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11) DO(12) DO(13) DO(14) \
    DO(15)
#define LOAD(n) "vmovdqa 32*" #n "(%[from]), %%ymm" #n "\n\t"
#define STORE(n) "vmovdqa %%ymm" #n ", 32*" #n "(%[to])\n\t"
#define CLOBBER(n) "xmm" #n,

__attribute__((used)) void serve(struct call *call)
{
    uint64_t wrong = 0;

    for (int i = 0; i < 512; i++)
        before[i] = i * 7 + 1;
    __asm__ volatile(ALL(LOAD) "1: pause\n\tcmpl $0, (%[flag])\n\tje 1b\n\t" ALL(STORE)
                     :
                     : [from] "r"(before), [to] "r"(after), [flag] "r"(call->a)
                     : ALL(CLOBBER) "memory", "cc");
    for (int i = 0; i < 512; i++)
        wrong += before[i] != after[i];
    call->result = wrong;
}
