/*
 * Fills the x87 and SSE state, waits until the 4 bytes at a, in host memory, are not 0, and says in
 * bits of the result what is not as it was: 1 XMM, 2 MXCSR, 4 control word, 8 stack of the x87.
 */
#include "inside.h"

static uint8_t before[256] __attribute__((aligned(16)));
static uint8_t after[256] __attribute__((aligned(16)));

static uint64_t through(volatile uint32_t *flag)
{
    uint32_t mxcsr = FP_MXCSR, mxcsr_after = 0, mxcsr_found = 0;
    uint16_t cw = FP_CW, cw_after = 0;
    double one = 0, pi = 0;
    uint64_t wrong = 0;

    for (int i = 0; i < 256; i++)
        before[i] = i * 7 + 1;
    __asm__ volatile("stmxcsr %[found]\n\t"
                     "fninit\n\tfldpi\n\tfld1\n\tfldcw %[cw]\n\tldmxcsr %[mxcsr]\n\t"
                     "movdqa 0(%[from]), %%xmm0\n\tmovdqa 16(%[from]), %%xmm1\n\t"
                     "movdqa 32(%[from]), %%xmm2\n\tmovdqa 48(%[from]), %%xmm3\n\t"
                     "movdqa 64(%[from]), %%xmm4\n\tmovdqa 80(%[from]), %%xmm5\n\t"
                     "movdqa 96(%[from]), %%xmm6\n\tmovdqa 112(%[from]), %%xmm7\n\t"
                     "movdqa 128(%[from]), %%xmm8\n\tmovdqa 144(%[from]), %%xmm9\n\t"
                     "movdqa 160(%[from]), %%xmm10\n\tmovdqa 176(%[from]), %%xmm11\n\t"
                     "movdqa 192(%[from]), %%xmm12\n\tmovdqa 208(%[from]), %%xmm13\n\t"
                     "movdqa 224(%[from]), %%xmm14\n\tmovdqa 240(%[from]), %%xmm15\n\t"
                     "1: pause\n\tcmpl $0, (%[flag])\n\tje 1b\n\t"
                     "movdqa %%xmm0, 0(%[to])\n\tmovdqa %%xmm1, 16(%[to])\n\t"
                     "movdqa %%xmm2, 32(%[to])\n\tmovdqa %%xmm3, 48(%[to])\n\t"
                     "movdqa %%xmm4, 64(%[to])\n\tmovdqa %%xmm5, 80(%[to])\n\t"
                     "movdqa %%xmm6, 96(%[to])\n\tmovdqa %%xmm7, 112(%[to])\n\t"
                     "movdqa %%xmm8, 128(%[to])\n\tmovdqa %%xmm9, 144(%[to])\n\t"
                     "movdqa %%xmm10, 160(%[to])\n\tmovdqa %%xmm11, 176(%[to])\n\t"
                     "movdqa %%xmm12, 192(%[to])\n\tmovdqa %%xmm13, 208(%[to])\n\t"
                     "movdqa %%xmm14, 224(%[to])\n\tmovdqa %%xmm15, 240(%[to])\n\t"
                     "stmxcsr %[mxcsr_after]\n\tfnstcw %[cw_after]\n\t"
                     "fstpl %[one]\n\tfstpl %[pi]\n\tfninit\n\tldmxcsr %[found]\n\t"
                     : [mxcsr_after] "=m"(mxcsr_after), [cw_after] "=m"(cw_after),
                       [one] "=m"(one), [pi] "=m"(pi), [found] "+m"(mxcsr_found)
                     : [from] "r"(before), [to] "r"(after), [flag] "r"(flag), [cw] "m"(cw),
                       [mxcsr] "m"(mxcsr)
                     : "memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6",
                       "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14",
                       "xmm15", "st");
    for (int i = 0; i < 256; i++)
        wrong |= before[i] != after[i];
    wrong |= (mxcsr_after != FP_MXCSR) << 1;
    wrong |= (cw_after != FP_CW) << 2;
    wrong |= (one != 1.0 || pi < 3.1415926535 || pi > 3.1415926536) << 3;
    return wrong;
}

__attribute__((used)) void serve(struct call *call)
{
    call->result = through((volatile uint32_t *)call->a);
}
