/*
 * Builds an enclave from the two files that `softsgx sign` writes: the SGXS stream says which pages
 * there are and what is in them, the SIGSTRUCT is what EINIT wants to see. Blocks of 64 bytes:
 *
 *   "ECREATE"   SSAFRAMESIZE at byte 8, SIZE at byte 12
 *   "EADD"      offset of the page at byte 8, SECINFO.FLAGS at byte 16; then its chunks:
 *   "EEXTEND"   offset of 256 bytes at byte 8; the bytes follow, and are measured
 *   "UNMEASRD"  the same, but they are not measured
 *
 * A step that fails returns -1 and leaves errno, and in e->step what was tried.
 */
#ifndef EDMM_LOAD_H
#define EDMM_LOAD_H

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sgx.h"

#define THREADS_MAX 64
#define RUNS_MAX 512

/* Pages one behind the other with the same rights: what one mmap covers. */
struct page_run {
    uint64_t offset, length;
    int prot;
};

struct enclave {
    int fd;
    uint64_t base, size; /* ELRANGE */
    uint64_t end;        /* offset behind the last page: the first hole */
    uint64_t pages;
    uint64_t tcs[THREADS_MAX];
    int threads;
    struct page_run runs[RUNS_MAX];
    int run_count;
    uint64_t attributes, xfrm; /* for the SECS; set before enclave_create to ask for others */
    uint32_t miscselect;
    const uint8_t *sgxs;
    size_t sgxs_size;
    const char *step;
};

struct sgxs_block {
    char tag[8];
    union {
        struct {
            uint32_t ssaframesize;
            uint64_t size;
        } __attribute__((packed)) ecreate;
        struct {
            uint64_t offset, flags;
        } eadd;
        struct {
            uint64_t offset;
        } chunk;
        uint8_t bytes[56];
    };
};

#define CHUNK_SIZE 256UL

static inline bool is_block(const struct sgxs_block *block, const char *tag)
{
    return !strncmp(block->tag, tag, sizeof(block->tag));
}

static inline uint64_t page_up(uint64_t x)
{
    return (x + PAGE_SIZE - 1) & -PAGE_SIZE;
}

/* A whole file in memory, on a page of its own; NULL with errno. */
static inline const void *read_file(const char *path, size_t *size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    void *at = MAP_FAILED;

    if (fd < 0)
        return NULL;
    if (!fstat(fd, &st) && st.st_size > 0) {
        *size = st.st_size;
        at = mmap(NULL, *size, PROT_READ, MAP_PRIVATE, fd, 0);
    } else if (!errno) {
        errno = ENODATA;
    }
    close(fd);
    return at == MAP_FAILED ? NULL : at;
}

/* Opens the device and reads what the enclave is like. */
static inline int enclave_open(struct enclave *e, const char *sgxs)
{
    memset(e, 0, sizeof(*e));
    e->attributes = SGX_ATTR_MODE64BIT;
    e->xfrm = SGX_XFRM_LEGACY;
    e->step = sgxs;
    e->sgxs = read_file(sgxs, &e->sgxs_size);
    if (!e->sgxs)
        return -1;

    const struct sgxs_block *first = (const struct sgxs_block *)e->sgxs;

    if (e->sgxs_size < sizeof(*first) || !is_block(first, "ECREATE")) {
        errno = ENOEXEC;
        return -1;
    }
    e->size = first->ecreate.size;
    e->step = "open /dev/sgx_enclave";
    e->fd = open("/dev/sgx_enclave", O_RDWR | O_CLOEXEC);
    return e->fd < 0 ? -1 : 0;
}

/* Takes a range of addresses that is aligned to its size: twice as much, and the rest given back. */
static inline int enclave_reserve(struct enclave *e)
{
    e->step = "reserve ELRANGE";

    uint8_t *at = mmap(NULL, 2 * e->size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                       -1, 0);

    if (at == MAP_FAILED)
        return -1;
    e->base = ((uint64_t)at + e->size - 1) & -e->size;
    if (e->base > (uint64_t)at)
        munmap(at, e->base - (uint64_t)at);
    munmap((void *)(e->base + e->size), (uint64_t)at + e->size - e->base);
    return 0;
}

static inline int enclave_create(struct enclave *e)
{
    static struct sgx_secs secs __attribute__((aligned(PAGE_SIZE)));
    const struct sgxs_block *first = (const struct sgxs_block *)e->sgxs;
    struct sgx_enclave_create create = {.src = (uint64_t)&secs};

    memset(&secs, 0, sizeof(secs));
    secs.size = e->size;
    secs.base = e->base;
    secs.ssaframesize = first->ecreate.ssaframesize;
    secs.miscselect = e->miscselect;
    secs.attributes = e->attributes;
    secs.xfrm = e->xfrm;
    e->step = "CREATE";
    return ioctl(e->fd, SGX_IOC_ENCLAVE_CREATE, &create);
}

/* ADD_PAGES with the signals that may interrupt it. */
static inline int enclave_add_page(struct enclave *e, const void *page, uint64_t offset,
                                   uint64_t flags, bool measure)
{
    struct sgx_secinfo secinfo = {.flags = flags};
    struct sgx_enclave_add_pages add = {
        .src = (uint64_t)page,
        .offset = offset,
        .length = PAGE_SIZE,
        .secinfo = (uint64_t)&secinfo,
        .flags = measure ? SGX_PAGE_MEASURE : 0,
    };
    int got;

    e->step = "ADD_PAGES";
    do
        got = ioctl(e->fd, SGX_IOC_ENCLAVE_ADD_PAGES, &add);
    while ((got < 0 && errno == EINTR) || (got == 0 && add.count == 0));
    return got;
}

/* What was added, for the mappings: rights of its VMA are those of the page; TCS pages want RW. */
static inline void enclave_note_page(struct enclave *e, uint64_t offset, uint64_t flags)
{
    bool tcs = (flags & 0xff00) == SGX_PT_TCS;
    int prot = tcs ? PROT_READ | PROT_WRITE : (int)(flags & 7);
    struct page_run *last = e->run_count ? &e->runs[e->run_count - 1] : NULL;

    if (tcs && e->threads < THREADS_MAX)
        e->tcs[e->threads++] = e->base + offset;
    if (last && last->prot == prot && last->offset + last->length == offset)
        last->length += PAGE_SIZE;
    else if (e->run_count < RUNS_MAX)
        e->runs[e->run_count++] = (struct page_run){offset, PAGE_SIZE, prot};
    if (offset + PAGE_SIZE > e->end)
        e->end = offset + PAGE_SIZE;
    e->pages++;
}

/* Every page of the stream, in its order, which is that of the measurement. */
static inline int enclave_add(struct enclave *e)
{
    static uint8_t page[PAGE_SIZE] __attribute__((aligned(PAGE_SIZE)));
    const uint8_t *at = e->sgxs + sizeof(struct sgxs_block), *end = e->sgxs + e->sgxs_size;

    while (at < end) {
        const struct sgxs_block *eadd = (const struct sgxs_block *)at;
        unsigned measured = 0, chunks = 0;

        memset(page, 0, sizeof(page));
        e->step = "a page of the stream";
        errno = ENOEXEC;
        if (!is_block(eadd, "EADD"))
            return -1;
        for (at += sizeof(*eadd); at < end; chunks++) {
            const struct sgxs_block *chunk = (const struct sgxs_block *)at;
            bool extend = is_block(chunk, "EEXTEND");

            if (!extend && !is_block(chunk, "UNMEASRD"))
                break;
            memcpy(page + chunk->chunk.offset % PAGE_SIZE, at + sizeof(*chunk), CHUNK_SIZE);
            measured += extend;
            at += sizeof(*chunk) + CHUNK_SIZE;
        }
        /* The ioctl measures whole pages or none. */
        if (measured != 0 && (measured != PAGE_SIZE / CHUNK_SIZE || measured != chunks))
            return -1;
        if (enclave_add_page(e, page, eadd->eadd.offset, eadd->eadd.flags, measured != 0))
            return -1;
        enclave_note_page(e, eadd->eadd.offset, eadd->eadd.flags);
    }
    return 0;
}

static inline int enclave_init(struct enclave *e, const void *sigstruct)
{
    struct sgx_enclave_init init = {.sigstruct = (uint64_t)sigstruct};

    e->step = "INIT";
    return ioctl(e->fd, SGX_IOC_ENCLAVE_INIT, &init);
}

/* Maps enclave pages at their addresses; the driver looks at the address, not at the file offset. */
static inline int enclave_map_range(struct enclave *e, uint64_t offset, uint64_t length, int prot)
{
    void *want = (void *)(e->base + offset);
    void *got = mmap(want, length, prot, MAP_SHARED | MAP_FIXED, e->fd, 0);

    return got == want ? 0 : -1;
}

static inline int enclave_map(struct enclave *e)
{
    e->step = "mmap";
    for (int i = 0; i < e->run_count; i++)
        if (enclave_map_range(e, e->runs[i].offset, e->runs[i].length, e->runs[i].prot))
            return -1;
    return 0;
}

/* All of it: an enclave ready to be entered at e->tcs[0]. */
static inline int enclave_load(struct enclave *e, const char *sgxs, const char *sig)
{
    size_t size = 0;
    const void *sigstruct = read_file(sig, &size);

    if (!sigstruct || size != SIGSTRUCT_SIZE) {
        e->step = sig;
        return -1;
    }
    if (enclave_open(e, sgxs) || enclave_reserve(e) || enclave_create(e) || enclave_add(e))
        return -1;
    if (enclave_init(e, sigstruct))
        return -1;
    return enclave_map(e);
}

#endif
