/*
 * Finds __vdso_sgx_enter_enclave: the vDSO's ELF header is in the auxiliary vector, its symbols
 * are in the hash table of its dynamic section.
 */
#ifndef EDMM_VDSO_H
#define EDMM_VDSO_H

#include <elf.h>
#include <stddef.h>
#include <string.h>
#include <sys/auxv.h>

#include "sgx.h"

#define VDSO_ENTER "__vdso_sgx_enter_enclave"

static inline uint32_t elf_hash(const char *name)
{
    uint32_t hash = 0;

    for (; *name; name++) {
        hash = (hash << 4) + (unsigned char)*name;
        hash = (hash ^ (hash >> 24 & 0xf0)) & 0x0fffffff;
    }
    return hash;
}

/* The vDSO, or NULL. */
static inline const Elf64_Ehdr *vdso_header(void)
{
    return (const Elf64_Ehdr *)getauxval(AT_SYSINFO_EHDR);
}

/* The symbol in the vDSO at `ehdr`, through PT_DYNAMIC and DT_HASH; NULL if there is none. */
static inline const Elf64_Sym *vdso_symbol(const Elf64_Ehdr *ehdr, const char *name,
                                           uintptr_t *bias)
{
    const char *file = (const char *)ehdr;
    const Elf64_Phdr *phdr = (const Elf64_Phdr *)(file + ehdr->e_phoff);
    const Elf64_Dyn *dynamic = NULL;
    const Elf64_Sym *symbols = NULL;
    const uint32_t *hash = NULL;
    const char *names = NULL;

    for (int i = 0; i < ehdr->e_phnum; i++) {
        if (phdr[i].p_type == PT_LOAD && phdr[i].p_offset == 0)
            *bias = (uintptr_t)file - phdr[i].p_vaddr;
        if (phdr[i].p_type == PT_DYNAMIC)
            dynamic = (const Elf64_Dyn *)(file + phdr[i].p_offset);
    }
    for (; dynamic && dynamic->d_tag != DT_NULL; dynamic++) {
        uintptr_t at = *bias + dynamic->d_un.d_ptr;

        if (dynamic->d_tag == DT_HASH)
            hash = (const uint32_t *)at;
        else if (dynamic->d_tag == DT_SYMTAB)
            symbols = (const Elf64_Sym *)at;
        else if (dynamic->d_tag == DT_STRTAB)
            names = (const char *)at;
    }
    if (!hash || !symbols || !names)
        return NULL;

    const uint32_t *buckets = hash + 2, *chain = buckets + hash[0];

    for (uint32_t i = buckets[elf_hash(name) % hash[0]]; i != STN_UNDEF; i = chain[i])
        if (symbols[i].st_shndx != SHN_UNDEF && !strcmp(names + symbols[i].st_name, name))
            return &symbols[i];
    return NULL;
}

/* The function that enters enclaves, or NULL. */
static inline sgx_enter_enclave_t vdso_enter(void)
{
    const Elf64_Ehdr *ehdr = vdso_header();
    uintptr_t bias = 0;
    const Elf64_Sym *symbol = ehdr ? vdso_symbol(ehdr, VDSO_ENTER, &bias) : NULL;

    return symbol ? (sgx_enter_enclave_t)(bias + symbol->st_value) : NULL;
}

/*
 * Calls the vDSO function: RDI for the enclave, the leaf, the run. After an asynchronous exit R12
 * to R15 are zero (SDM 3D, AEX) and the vDSO function leaves it at that, so they are kept here.
 */
__attribute__((naked, noinline, unused)) static int
call_enclave(uint64_t rdi, unsigned leaf, struct sgx_enclave_run *run, sgx_enter_enclave_t enter)
{
    (void)rdi;
    (void)leaf;
    (void)run;
    (void)enter;
    __asm__("push %r12\n\t"
            "push %r13\n\t"
            "push %r14\n\t"
            "push %r15\n\t"
            "push %rdx\n\t" /* the seventh argument */
            "mov %rcx, %rax\n\t"
            "mov %esi, %ecx\n\t"
            "xor %esi, %esi\n\t"
            "xor %edx, %edx\n\t"
            "xor %r8d, %r8d\n\t"
            "xor %r9d, %r9d\n\t"
            "call *%rax\n\t"
            "add $8, %rsp\n\t"
            "pop %r15\n\t"
            "pop %r14\n\t"
            "pop %r13\n\t"
            "pop %r12\n\t"
            "ret");
}

#endif
