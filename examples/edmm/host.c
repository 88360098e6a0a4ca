/*
 * One page of enclave memory from its first touch to its removal, told step by step.
 *
 *   host ENCLAVE.sgxs ENCLAVE.sig
 *
 * Two threads, each with a TCS of its own: the `worker` gets into trouble, the `manager` repairs it
 * from inside. One waits while the other has a request, so the story is always the same. Every
 * value that is printed is compared with what SDM 3D and Linux 6.12 say; the first that differs
 * ends the story with exit code 1.
 */
#include <pthread.h>
#include <semaphore.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "load.h"
#include "request.h"
#include "sgx.h"
#include "vdso.h"

#define VALUE 0x1122334455667788UL
#define OTHER 0x8877665544332211UL
#define RW (SGX_R | SGX_W)
#define RX (SGX_R | SGX_X)
#define RWX (SGX_R | SGX_W | SGX_X)

/* Error codes of page faults: of the page tables, and of the EPCM. */
#define WRITE_REFUSED (PFEC_P | PFEC_W | PFEC_U)
#define FETCH_REFUSED (PFEC_P | PFEC_I | PFEC_U)

/* mov $42, %eax; ret. A variable, so that it is in host memory and not in an instruction. */
static const uint8_t code[] = {0xb8, 42, 0, 0, 0, 0xc3};

static struct enclave enclave;
static sgx_enter_enclave_t enter;
static struct hand {
    struct sgx_enclave_run run;
    unsigned leaf;
    struct request *request;
    sem_t todo, done;
} worker, manager;
static uint64_t page, offset; /* the page of the story: its address, its offset in the enclave */
static int steps;

static void step(const char *title)
{
    printf("\n%2d  %s\n", ++steps, title);
}

/* One line of the story; it has to be true. */
__attribute__((format(printf, 2, 3))) static void tell(bool true_, const char *format, ...)
{
    char line[256];
    va_list args;

    va_start(args, format);
    vsnprintf(line, sizeof(line), format, args);
    va_end(args);
    printf("    %s\n", line);
    if (true_)
        return;
    fflush(stdout);
    fprintf(stderr, "edmm: step %d: not what the manual and the kernel say: %s\n", steps, line);
    exit(1);
}

static void must(int failed, const char *what)
{
    if (!failed)
        return;
    fflush(stdout);
    fprintf(stderr, "edmm: %s: %s\n", what, strerror(errno));
    exit(1);
}

/*
 * A host thread that enters its TCS. EENTER and ERESUME are one call at one place of its stack: an
 * enclave leaves with the stack pointer that it was entered with. What the vDSO function returns
 * says nothing of the enclave, the fields of `run` do.
 */
static void *work(void *argument)
{
    struct hand *hand = argument;

    for (;;) {
        while (sem_wait(&hand->todo))
            ;
        int got = call_enclave((uint64_t)hand->request, hand->leaf, &hand->run, enter);

        if (got) {
            fprintf(stderr, "edmm: step %d: the vDSO function returned %d\n", steps, got);
            exit(1);
        }
        sem_post(&hand->done);
    }
    return NULL;
}

static void hire(struct hand *hand, uint64_t tcs)
{
    pthread_t thread;

    hand->run.tcs = tcs;
    sem_init(&hand->todo, 0, 0);
    sem_init(&hand->done, 0, 0);
    errno = pthread_create(&thread, NULL, work, hand);
    must(errno, "pthread_create");
}

/* EENTER with a request, or ERESUME of the one that did not come to its end. */
static void go(struct hand *hand, unsigned leaf, struct request *request)
{
    hand->run.exception_vector = hand->run.exception_error_code = 0;
    hand->run.exception_addr = 0;
    hand->leaf = leaf;
    hand->request = request;
    sem_post(&hand->todo);
    while (sem_wait(&hand->done))
        ;
}

static void left(const struct hand *hand, const char *what)
{
    const struct sgx_enclave_run *run = &hand->run;

    if (run->function == EEXIT)
        tell(true, "%s", what);
    else
        tell(false, "%s: vector %u, error code %#x, address %#lx", what, run->exception_vector,
             run->exception_error_code, (unsigned long)run->exception_addr);
}

static void faulted(const struct hand *hand, unsigned code_wanted, const char *what)
{
    const struct sgx_enclave_run *run = &hand->run;

    tell(run->function == ERESUME && run->exception_vector == VECTOR_PF &&
             run->exception_error_code == code_wanted && run->exception_addr == page,
         "%s: function %u, vector %u, error code %#x, address base + %#lx", what, run->function,
         run->exception_vector, run->exception_error_code,
         (unsigned long)(run->exception_addr - enclave.base));
}

static void accept(uint64_t flags, uint64_t status, const char *flags_text)
{
    struct request request = {.what = ASK_ACCEPT, .address = page, .value = flags};

    go(&manager, EENTER, &request);
    tell(manager.run.function == EEXIT && request.result == status,
         "manager: EACCEPT(%s) answers %lu, to be %lu", flags_text, (unsigned long)request.result,
         (unsigned long)status);
}

static void extend(uint64_t flags, const char *flags_text)
{
    struct request request = {.what = ASK_EXTEND, .address = page, .value = flags};
    char line[64];

    go(&manager, EENTER, &request);
    snprintf(line, sizeof(line), "manager: EMODPE(%s) done", flags_text);
    left(&manager, line);
}

static void reads(uint64_t wanted)
{
    struct request request = {.what = ASK_READ, .address = page};

    go(&manager, EENTER, &request);
    tell(manager.run.function == EEXIT && request.result == wanted,
         "manager: reads %#lx, to be %#lx", (unsigned long)request.result, (unsigned long)wanted);
}

static void restricted(uint64_t permissions, int error, const char *text)
{
    struct sgx_enclave_restrict_permissions arg = {
        .offset = offset, .length = PAGE_SIZE, .permissions = permissions};

    errno = 0;
    ioctl(enclave.fd, SGX_IOC_ENCLAVE_RESTRICT_PERMISSIONS, &arg);
    tell(errno == error && arg.result == 0 && arg.count == (error ? 0 : PAGE_SIZE),
         "kernel: RESTRICT_PERMISSIONS(%s): errno %d, result %lu, count %lu", text, errno,
         (unsigned long)arg.result, (unsigned long)arg.count);
}

static void removed(int error)
{
    struct sgx_enclave_remove_pages arg = {.offset = offset, .length = PAGE_SIZE};

    errno = 0;
    ioctl(enclave.fd, SGX_IOC_ENCLAVE_REMOVE_PAGES, &arg);
    tell(errno == error && arg.count == (error ? 0 : PAGE_SIZE),
         "kernel: REMOVE_PAGES: errno %d, count %lu", errno, (unsigned long)arg.count);
}

static void build(const char *sgxs, const char *sig)
{
    size_t size;
    const uint8_t *sigstruct = read_file(sig, &size);

    step("An enclave is built: ECREATE, EADD and EEXTEND for each page, EINIT.");
    must(!sigstruct, sig);

    int failed = enclave_load(&enclave, sgxs, sig);

    must(failed, enclave.step);
    tell(enclave.threads >= 2, "%lu pages, %d threads; EINIT accepts the signature",
         (unsigned long)enclave.pages, enclave.threads);
    printf("    MRENCLAVE ");
    for (int i = 0; i < 32; i++)
        printf("%02x", sigstruct[SIGSTRUCT_ENCLAVEHASH + i]);
    printf("\n");
    enter = vdso_enter();
    tell(enter != NULL, "the vDSO has %s", VDSO_ENTER);
    hire(&worker, enclave.tcs[0]);
    hire(&manager, enclave.tcs[1]);
    offset = enclave.end;
    page = enclave.base + offset;
    tell(offset + PAGE_SIZE <= enclave.size, "the hole of this story is at base + %#lx",
         (unsigned long)offset);
    must(enclave_map_range(&enclave, offset, PAGE_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC),
         "mmap of the hole");
    tell(true, "kernel: mmap(RWX) of the hole: nothing is there, so nothing limits the rights");
}

static void grow(void)
{
    struct request write = {.what = ASK_WRITE, .address = page, .value = VALUE};
    struct request copy = {
        .what = ASK_COPY, .address = page, .value = (uint64_t)code, .length = sizeof(code)};

    step("The worker touches the hole. The kernel adds a page by EAUG; it waits for consent.");
    go(&worker, EENTER, &write);
    faulted(&worker, WRITE_REFUSED | PFEC_SGX, "worker: write refused, the page is PENDING");

    step("The manager accepts the page, the worker repeats its write.");
    accept(RWX | SGX_PT_REG | SGX_PENDING, SGX_PAGE_ATTRIBUTES_MISMATCH, "rwx REG PENDING");
    accept(RW | SGX_PT_REG | SGX_PENDING, 0, "rw- REG PENDING");
    go(&worker, ERESUME, NULL);
    left(&worker, "worker: the same write goes through");
    reads(VALUE);

    step("The manager writes machine code into the page.");
    go(&manager, EENTER, &copy);
    left(&manager, "manager: mov $42, %eax; ret");
}

static void run_code(const char *what)
{
    struct request call = {.what = ASK_CALL, .address = page};

    go(&manager, EENTER, &call);
    tell(manager.run.function == EEXIT && call.result == 42, "%s: returns %lu, to be 42", what,
         (unsigned long)call.result);
}

static void make_executable(void)
{
    struct request call = {.what = ASK_CALL, .address = page};

    step("The worker calls it. The page is not executable, until the manager says so: EMODPE.");
    go(&worker, EENTER, &call);
    faulted(&worker, FETCH_REFUSED | PFEC_SGX, "worker: fetch refused by the EPCM");
    extend(RX, "r-x");
    go(&worker, ERESUME, NULL);
    left(&worker, "worker: the same call goes through, no system call was needed");
    tell(call.result == 42, "worker: returns %lu, to be 42", (unsigned long)call.result);
}

static void take_w_away(void)
{
    struct request write = {.what = ASK_WRITE, .address = page, .value = OTHER};

    step("The page is writable and executable now. The kernel takes W away, the enclave checks.");
    restricted(RX, 0, "r-x");
    accept(RWX | SGX_PT_REG | SGX_PR, SGX_PAGE_ATTRIBUTES_MISMATCH, "rwx REG PR");
    accept(RX | SGX_PT_REG | SGX_PR, 0, "r-x REG PR");
    run_code("manager: calls the code");

    step("The worker writes, and is refused: by the EPCM, and by the page table, if asked first.");
    go(&worker, EENTER, &write);
    faulted(&worker, WRITE_REFUSED | PFEC_SGX, "worker: write refused by the EPCM");
    must(mprotect((void *)page, PAGE_SIZE, PROT_READ | PROT_EXEC), "mprotect(RX)");
    go(&worker, ERESUME, NULL);
    faulted(&worker, WRITE_REFUSED, "worker: after mprotect(r-x), by the page table");
    must(mprotect((void *)page, PAGE_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC), "mprotect(RWX)");
    go(&worker, ERESUME, NULL);
    faulted(&worker, WRITE_REFUSED | PFEC_SGX, "worker: after mprotect(rwx), by the EPCM again");

    step("W without R is no right a page can have.");
    restricted(SGX_W, EINVAL, "-w-");
}

static void shrink(void)
{
    struct sgx_enclave_modify_types trim = {
        .offset = offset, .length = PAGE_SIZE, .page_type = PT_TRIM};

    step("The page is given back: trimmed by the kernel, accepted inside, removed by the kernel.");
    removed(EPERM);
    errno = 0;
    ioctl(enclave.fd, SGX_IOC_ENCLAVE_MODIFY_TYPES, &trim);
    tell(errno == 0 && trim.count == PAGE_SIZE && trim.result == 0,
         "kernel: MODIFY_TYPES(TRIM): errno %d, result %lu, count %lu", errno,
         (unsigned long)trim.result, (unsigned long)trim.count);
    removed(EPERM);
    accept(SGX_PT_TRIM | SGX_MODIFIED, 0, "--- TRIM MODIFIED");
    removed(0);

    step("The worker still waits with its write. A new page takes it: accepted at first touch.");
    accept(RW | SGX_PT_REG | SGX_PENDING, 0, "rw- REG PENDING");
    reads(0);
    go(&worker, ERESUME, NULL);
    left(&worker, "worker: the write that was refused goes through");
    reads(OTHER);
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: %s ENCLAVE.sgxs ENCLAVE.sig\n", argv[0]);
        return 2;
    }
    build(argv[1], argv[2]);
    grow();
    make_executable();
    take_w_away();
    shrink();
    printf("\nedmm: %d steps, as the manual and the kernel say\n", steps);
    return 0;
}
