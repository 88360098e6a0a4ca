/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The machine below: nodes, CPUID, MSRs, exceptions in ENCLS, hashes, initialisation. */
#ifndef SOFTSGX_MACHINE_H
#define SOFTSGX_MACHINE_H
#include "sched.h"

/* One NUMA node. */
typedef struct { unsigned long bits; } nodemask_t;
#define numa_node_id() 0
#define node_isset(n, mask) (((mask).bits >> (n)) & 1)
#define node_set(n, mask) ((void)((mask).bits |= 1UL << (n)))
#define next_node_in(n, mask) ((void)(n), 0)
#define num_possible_nodes() 1
#define NUMA_NO_NODE (-1)
#define phys_to_target_node(p) ((void)(p), 0)
#define numa_map_to_online_node(n) (n)
#define for_each_online_node(n) for ((n) = 0; (n) < 1; (n)++)
#define node_state(n, s) 1

void cpuid_count(u32 leaf, u32 subleaf, u32 *, u32 *, u32 *, u32 *);
enum { X86_FEATURE_SGX, X86_FEATURE_SGX_LC, X86_FEATURE_SGX1, X86_FEATURE_SGX2, X86_FEATURE_OSXSAVE };
extern unsigned long k_features;
#define cpu_feature_enabled(f) ((bool)((k_features >> (f)) & 1))
#define boot_cpu_has(f) cpu_feature_enabled(f)
#define MSR_IA32_SGXLEPUBKEYHASH0 0x8c
void wrmsrl(unsigned int, u64);
#define wrmsrq(msr, value) wrmsrl(msr, value) /* its name from 6.16 on */

#define X86_TRAP_UD 6
#define X86_TRAP_GP 13
#define X86_TRAP_PF 14

/* An ENCLS instruction, where it goes on after an exception, and what is done with that. */
struct k_extable { int instruction, fixup, type; };
#define EX_TYPE_FAULT_SGX 1
#define _ASM_EXTABLE_TYPE(from, to, type) \
	".pushsection k_extable, \"a\"\n\t" \
	".balign 4\n\t" \
	".long (" #from ") - .\n\t" \
	".long (" #to ") - .\n\t" \
	".long " K_STRING(type) "\n\t" \
	".popsection\n"

#define MF_ACTION_REQUIRED 2
#define EXPORT_SYMBOL(s)
#define EXPORT_SYMBOL_GPL(s)
#define device_initcall(f) int k_initcall(void); int k_initcall(void) { return f(); }

struct crypto_shash { int unused; };
struct shash_desc { struct crypto_shash *tfm; };
#define CRYPTO_ALG_ASYNC 0x80
#define SHASH_DESC_ON_STACK(n, t) struct shash_desc n##_, *n = &n##_
struct crypto_shash *crypto_alloc_shash(const char *, u32, u32);
static inline void crypto_free_shash(struct crypto_shash *t) { (void)t; }
int crypto_shash_digest(struct shash_desc *, const u8 *, unsigned int, u8 *);
void sha256(const u8 *, unsigned int, u8 *);
#endif
