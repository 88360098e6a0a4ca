/*
 * A runtime that looks the vDSO function up through the section headers, .dynsym and .dynstr; it
 * must find what one finds that goes through the dynamic section.
 *
 * enclave: ops
 */
#include "host.h"

#include <time.h>

static const Elf64_Shdr *section(const Elf64_Ehdr *ehdr, const char *name)
{
    const char *file = (const char *)ehdr;
    const Elf64_Shdr *headers = (const Elf64_Shdr *)(file + ehdr->e_shoff);
    const char *names = file + headers[ehdr->e_shstrndx].sh_offset;

    for (int i = 0; i < ehdr->e_shnum; i++)
        if (!strcmp(names + headers[i].sh_name, name))
            return &headers[i];
    FAIL("no section %s", name);
}

int main(int argc, char **argv)
{
    const Elf64_Ehdr *ehdr = vdso_header();
    struct sgx_enclave_run run = {0};
    const Elf64_Sym *found = NULL;
    struct enclave e;

    CHECK(ehdr && !memcmp(ehdr->e_ident, ELFMAG, SELFMAG), "no vDSO");
    SAME(ehdr->e_ident[EI_CLASS], ELFCLASS64);
    SAME(ehdr->e_shentsize, sizeof(Elf64_Shdr));
    CHECK(ehdr->e_shoff && ehdr->e_shnum && ehdr->e_shstrndx < ehdr->e_shnum, "no sections");
    const Elf64_Shdr *dynsym = section(ehdr, ".dynsym"), *dynstr = section(ehdr, ".dynstr");
    const char *names = (const char *)ehdr + dynstr->sh_offset;
    const Elf64_Sym *symbols = (const Elf64_Sym *)((const char *)ehdr + dynsym->sh_offset);

    SAME(dynsym->sh_type, SHT_DYNSYM);
    for (size_t i = 0; i < dynsym->sh_size / sizeof(*symbols); i++)
        if (!strcmp(names + symbols[i].st_name, VDSO_ENTER))
            found = &symbols[i];
    CHECK(found, "no %s", VDSO_ENTER);
    SAME(ELF64_ST_TYPE(found->st_info), STT_FUNC);
    ok("found through the sections");
    start(&e, argc, argv);
    uintptr_t bias = 0;
    CHECK(vdso_symbol(ehdr, VDSO_ENTER, &bias), "not in DT_HASH");
    SAME(bias + found->st_value, vdso_function);
    enter = (sgx_enter_enclave_t)(bias + found->st_value);
    run.tcs = e.tcs[0];
    SAME(ask(&run, OP_COUNT, 10, 0, 0), 0);
    ok("and entered by");

    const Elf64_Sym *time = vdso_symbol(ehdr, "__vdso_clock_gettime", &bias);
    if (time) {
        struct timespec ts = {0, -1};
        int (*clock)(clockid_t, struct timespec *) =
            (int (*)(clockid_t, struct timespec *))(bias + time->st_value);

        SAME(clock(CLOCK_MONOTONIC, &ts), 0);
        CHECK(ts.tv_nsec >= 0, "no time");
        ok("clock_gettime of the vDSO works");
    }
    return 0;
}
