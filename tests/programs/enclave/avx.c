/* Adds four 8-byte numbers at a to four at b, both in host memory, by AVX2; the sums go to a. */
#include "inside.h"

__attribute__((used)) void serve(struct call *call)
{
    __asm__ volatile("vmovdqu (%0), %%ymm0\n\t"
                     "vmovdqu (%1), %%ymm1\n\t"
                     "vpaddq %%ymm1, %%ymm0, %%ymm2\n\t"
                     "vmovdqu %%ymm2, (%0)\n\t"
                     "vzeroupper"
                     :
                     : "r"(call->a), "r"(call->b)
                     : "memory", "xmm0", "xmm1", "xmm2");
    call->result = call->a;
}
