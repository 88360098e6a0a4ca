/*
 * The vDSO function as programs find it that read DT_GNU_HASH alone: ld.so, dlvsym, and a reader
 * of their own; and the notes, from which programs take the version of the kernel.
 *
 * enclave: ops
 */
#include "host.h"

#include <dlfcn.h>
#include <link.h>
#include <sys/auxv.h>
#include <sys/utsname.h>

static const Elf64_Dyn *dynamic;

static uint64_t tag(int64_t wanted)
{
    for (const Elf64_Dyn *dyn = dynamic; dyn->d_tag; dyn++)
        if (dyn->d_tag == wanted)
            return dyn->d_un.d_ptr;
    FAIL("no dynamic tag %#lx", (unsigned long)wanted);
}

static uint32_t gnu_hash(const char *name)
{
    uint32_t h = 5381;

    while (*name)
        h = h * 33 + (unsigned char)*name++;
    return h;
}

/* As a loader does: the Bloom filter, a bucket, its chain. */
static const Elf64_Sym *look_up(uint64_t base, const char *name)
{
    const uint32_t *head = (const uint32_t *)(base + tag(DT_GNU_HASH)), h = gnu_hash(name);
    const uint64_t *bloom = (const uint64_t *)(head + 4);
    const uint32_t *buckets = (const uint32_t *)(bloom + head[2]), *chains = buckets + head[0];
    const Elf64_Sym *symbols = (const Elf64_Sym *)(base + tag(DT_SYMTAB));
    const char *names = (const char *)base + tag(DT_STRTAB);
    uint64_t word = bloom[h / 64 % head[2]];
    uint32_t at = buckets[h % head[0]];

    if (!(word >> h % 64 & 1) || !(word >> (h >> head[3]) % 64 & 1) || !at)
        return NULL;
    for (;; at++) {
        uint32_t chain = chains[at - head[1]];

        if ((chain | 1) == (h | 1) && !strcmp(names + symbols[at].st_name, name))
            return &symbols[at];
        if (chain & 1)
            return NULL;
    }
}

static void notes(const char *at, const char *end)
{
    struct utsname u;
    unsigned major, minor;
    int version = 0, build_id = 0;

    while (at + sizeof(Elf64_Nhdr) <= end) {
        const Elf64_Nhdr *note = (const Elf64_Nhdr *)at;
        const char *name = at + sizeof(*note), *said = name + ((note->n_namesz + 3) & ~3U);

        if (!strcmp(name, "Linux") && note->n_type == 0) {
            DO(uname(&u));
            SAME(sscanf(u.release, "%u.%u", &major, &minor), 2);
            SAME(*(const uint32_t *)said >> 8, major << 8 | minor);
            version = 1;
        }
        if (!strcmp(name, "GNU") && note->n_type == NT_GNU_BUILD_ID) {
            SAME(note->n_descsz, 20);
            build_id = 1;
        }
        at = said + ((note->n_descsz + 3) & ~3U);
    }
    CHECK(at == end && version && build_id, "version %d, build id %d", version, build_id);
    ok("notes: version of the kernel, build id");
}

/* What ld.so has listed as an object without a file, or one with the vDSO's name. */
static int listed(struct dl_phdr_info *info, size_t size, void *arg)
{
    (void)size;
    for (int i = 0; i < info->dlpi_phnum; i++)
        if (info->dlpi_phdr[i].p_type == PT_LOAD
            && info->dlpi_addr + info->dlpi_phdr[i].p_vaddr == *(uint64_t *)arg) {
            *(uint64_t *)arg = 0;
            return 1;
        }
    return 0;
}

int main(int argc, char **argv)
{
    struct sgx_enclave_run run = {0};
    struct enclave e;
    uint64_t base = getauxval(AT_SYSINFO_EHDR), seen = base;
    const Elf64_Ehdr *header = (const Elf64_Ehdr *)base;
    const Elf64_Phdr *segments = (const Elf64_Phdr *)(base + header->e_phoff);
    int noted = 0;

    CHECK(base, "no vDSO");
    for (int i = 0; i < header->e_phnum; i++)
        if (segments[i].p_type == PT_DYNAMIC)
            dynamic = (const Elf64_Dyn *)(base + segments[i].p_vaddr);
    for (int i = 0; i < header->e_phnum; i++)
        if (segments[i].p_type == PT_NOTE) {
            const char *at = (const char *)base + segments[i].p_vaddr;

            notes(at, at + segments[i].p_memsz);
            noted++;
        }
    SAME(noted, 1);
    const Elf64_Sym *found = look_up(base, VDSO_ENTER);

    CHECK(found, "not in DT_GNU_HASH");
    CHECK(!look_up(base, "__vdso_no_such_function"), "what is not there was found");
    ok("found by DT_GNU_HASH");
    dl_iterate_phdr(listed, &seen);
    SAME(seen, 0);
    ok("ld.so lists the image");
    void *handle = dlopen("linux-vdso.so.1", RTLD_LAZY | RTLD_NOLOAD);

    CHECK(handle, "dlopen: %s", dlerror());
    SAME(dlvsym(handle, VDSO_ENTER, "LINUX_2.6"), base + found->st_value);
    SAME(dlsym(handle, VDSO_ENTER), base + found->st_value);
    CHECK(!dlvsym(handle, VDSO_ENTER, "LINUX_2.7"), "a version that is not there");
    ok("dlvsym finds the same, by the right version only");
    start(&e, argc, argv);
    SAME(vdso_function, base + found->st_value);
    run.tcs = e.tcs[0];
    SAME(ask(&run, OP_COUNT, 10, 0, 0), 0);
    ok("and it enters");
    return 0;
}
