/*
 * Signals interrupt ADD_PAGES, and no other ioctl: Linux 6.12, sgx/ioctl.c. After the first page it
 * returns 0, with what was done in `count`; before it EINTR, or it is restarted (SA_RESTART). What
 * was done stays, so a loop adds each page once, and measures as if nothing had come.
 *
 * The story: the ioctl ran to its end, and a timer of the program stood still meanwhile.
 *
 * enclave: ops heap_pages=800
 */
#include "host.h"

#include <pthread.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>

#define PAGES 1024UL

static volatile int handled;
static volatile int sent;
static volatile bool stop;
static pthread_t target;
static int storm_signal;
static int partial, interrupted;

static void count(int number)
{
    (void)number;
    handled = handled + 1;
}

static void on(int number, void (*handler)(int), int flags)
{
    struct sigaction action = {.sa_handler = handler, .sa_flags = flags};

    DO(sigaction(number, &action, NULL));
}

static void *storm(void *unused)
{
    sigset_t all;

    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, NULL);
    while (!stop) {
        if (storm_signal < 0)
            kill(getpid(), -storm_signal);
        else
            pthread_kill(target, storm_signal);
        sent = sent + 1;
        usleep(200);
    }
    return unused;
}

/* A storm for this thread, or with a negative number for the process. */
static pthread_t begin(int number)
{
    pthread_t thread;

    storm_signal = number;
    stop = false;
    handled = partial = interrupted = sent = 0;
    target = pthread_self();
    SAME(pthread_create(&thread, NULL, storm, NULL), 0);
    while (!sent)
        usleep(100);
    return thread;
}

static void end(pthread_t thread)
{
    stop = true;
    SAME(pthread_join(thread, NULL), 0);
}

/* As runtimes do it: go on after what was done. */
static void add_all(struct enclave *of, const uint8_t *src, uint64_t offset, uint64_t length,
                    uint64_t flags, bool measure)
{
    struct sgx_secinfo secinfo = {.flags = flags};
    struct sgx_enclave_add_pages add = {(uint64_t)src, offset, length, (uint64_t)&secinfo,
                                        measure ? SGX_PAGE_MEASURE : 0, 0};

    while (add.length) {
        add.count = -1;
        if (ioctl(of->fd, SGX_IOC_ENCLAVE_ADD_PAGES, &add)) {
            CHECK(errno == EINTR, "errno %d (%s)", errno, strerror(errno));
            SAME(add.count, 0);
            interrupted++;
            continue;
        }
        CHECK(add.count && add.count % PAGE_SIZE == 0 && add.count <= add.length, "count %#lx",
              (unsigned long)add.count);
        partial += add.count < add.length;
        add.src += add.count;
        add.offset += add.count;
        add.length -= add.count;
    }
}

static struct enclave created(const char *sgxs)
{
    struct enclave e;

    CHECK(!enclave_open(&e, sgxs), "%s", strerror(errno));
    e.size = 1UL << 28;
    CHECK(!enclave_reserve(&e) && !enclave_create(&e), "%s", strerror(errno));
    return e;
}

static uint8_t *source(uint64_t pages)
{
    uint8_t *at = DO(mmap(NULL, pages * PAGE_SIZE, PROT_RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));

    for (uint64_t i = 0; i < pages; i++)
        at[i * PAGE_SIZE] = i;
    return at;
}

static void storms(const char *sgxs)
{
    const uint8_t *src = source(PAGES);
    struct enclave e = created(sgxs);
    struct itimerval often = {{0, 2000}, {0, 2000}}, never = {0};
    uint64_t done;
    pthread_t thread;

    on(SIGALRM, count, SA_RESTART);
    DO(setitimer(ITIMER_REAL, &often, NULL));
    handled = 0;
    add_all(&e, src, 0, PAGES * PAGE_SIZE, SGX_PT_REG | RW, false);
    DO(setitimer(ITIMER_REAL, &never, NULL));
    CHECK(handled && partial, "%d handled, %d partial", handled, partial);
    SAME(interrupted, 0);
    ok("a timer: each page once");

    on(SIGUSR1, count, SA_RESTART);
    thread = begin(SIGUSR1);
    add_all(&e, src, PAGES * PAGE_SIZE, PAGES * PAGE_SIZE, SGX_PT_REG | RW, false);
    end(thread);
    CHECK(handled && partial, "%d handled, %d partial", handled, partial);
    SAME(interrupted, 0);
    ok("signals to the thread, SA_RESTART: no EINTR");

    on(SIGUSR1, count, 0);
    thread = begin(SIGUSR1);
    for (done = 2 * PAGES; !interrupted && done < 8 * PAGES; done += 16)
        add_all(&e, src, done * PAGE_SIZE, 16 * PAGE_SIZE, SGX_PT_REG | RW, false);
    end(thread);
    CHECK(interrupted, "never in %lu pages", (unsigned long)(done - 2 * PAGES));
    ok("signals to the thread, no SA_RESTART: EINTR before the first page");
}

static void unheard(const char *name, struct enclave *e, int number)
{
    static uint64_t next;
    pthread_t thread = begin(number);

    add_all(e, source(512), next, 512 * PAGE_SIZE, SGX_PT_REG | RW, false);
    next += 512 * PAGE_SIZE;
    end(thread);
    SAME(partial, 0);
    SAME(interrupted, 0);
    ok("%s: not interrupted", name);
}

static void not_for_us(const char *sgxs)
{
    struct enclave e = created(sgxs);
    sigset_t set;

    on(SIGUSR2, SIG_IGN, 0);
    unheard("a signal that is ignored", &e, SIGUSR2);
    unheard("one that is ignored by default", &e, SIGWINCH);
    unheard("SIGCHLD of the process", &e, -SIGCHLD);
    on(SIGUSR1, count, 0);
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    DO(sigprocmask(SIG_BLOCK, &set, NULL));
    unheard("one that is blocked", &e, SIGUSR1);
    DO(sigprocmask(SIG_UNBLOCK, &set, NULL));
}

/* The pages of a stream, as many as possible in one call; INIT compares the measurement. */
static struct enclave built(const char *sgxs, const char *sigstruct)
{
    struct enclave e;
    size_t size;
    const void *sig = read_file(sigstruct, &size);
    const struct sgxs_block *block, *last;
    uint8_t *run = source(4096);
    uint64_t first = 0, length = 0, flags = 0;
    bool measured = false;

    CHECK(sig && !enclave_open(&e, sgxs), "%s", strerror(errno));
    CHECK(!enclave_reserve(&e) && !enclave_create(&e), "%s", strerror(errno));
    block = (const struct sgxs_block *)e.sgxs + 1;
    last = (const struct sgxs_block *)(e.sgxs + e.sgxs_size);
    while (block < last) {
        const struct sgxs_block *page = block++;
        uint8_t bytes[PAGE_SIZE] = {0};
        bool extend = false;

        while (block < last && !is_block(block, "EADD")) {
            extend |= is_block(block, "EEXTEND");
            memcpy(bytes + block->chunk.offset % PAGE_SIZE, block + 1, CHUNK_SIZE);
            block += 1 + CHUNK_SIZE / sizeof(*block);
        }
        if (length && (page->eadd.offset != first + length || page->eadd.flags != flags ||
                       extend != measured)) {
            add_all(&e, run, first, length, flags, measured);
            length = 0;
        }
        if (!length)
            first = page->eadd.offset;
        flags = page->eadd.flags;
        measured = extend;
        memcpy(run + length, bytes, PAGE_SIZE);
        length += PAGE_SIZE;
        enclave_note_page(&e, page->eadd.offset, page->eadd.flags);
    }
    add_all(&e, run, first, length, flags, measured);
    DO(enclave_init(&e, sig));
    CHECK(!enclave_map(&e), "%s", strerror(errno));
    return e;
}

static void whole_ones(struct enclave *e)
{
    struct sgx_enclave_restrict_permissions restrict_ = {0};
    pthread_t thread;

    DO(enclave_map_range(e, e->end, 64 * PAGE_SIZE, PROT_RW));
    for (int i = 0; i < 64; i++) {
        struct sgx_enclave_run run = {.tcs = e->tcs[0]};
        uint64_t page = e->base + e->end + i * PAGE_SIZE;

        SAME(ask(&run, OP_ACCEPT, page, RW | SGX_PT_REG | SGX_PENDING, 0), 0);
    }
    thread = begin(SIGUSR1);
    for (int i = 0; i < 8; i++) {
        restrict_ = (struct sgx_enclave_restrict_permissions){
            .offset = e->end, .length = 64 * PAGE_SIZE, .permissions = SGX_R};
        DO(ioctl(e->fd, SGX_IOC_ENCLAVE_RESTRICT_PERMISSIONS, &restrict_));
        SAME(restrict_.count, 64 * PAGE_SIZE);
    }
    end(thread);
    CHECK(handled, "no signal");
    ok("RESTRICT_PERMISSIONS does not look for signals");
}

#define COPIES 24

static void send_fd(int to, int fd)
{
    char byte = 0, control[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec part = {&byte, 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control,
                             .msg_controllen = sizeof(control)};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);

    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &fd, sizeof(fd));
    SAME(DO(sendmsg(to, &message, 0)), 1);
}

static int receive_fd(int from)
{
    char byte, control[CMSG_SPACE(sizeof(int))];
    struct iovec part = {&byte, 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control,
                             .msg_controllen = sizeof(control)};
    int fd;

    while (recvmsg(from, &message, 0) < 0)
        SAME(errno, EINTR);
    memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(fd));
    return fd;
}

/* A process that was given the descriptor: its first call is ADD_PAGES. */
static void passed(const char *sgxs)
{
    int ends[2], status;
    pid_t pid;

    DO(socketpair(AF_UNIX, SOCK_STREAM, 0, ends));
    pid = DO(fork());
    if (!pid) {
        const uint8_t *src = source(16);
        struct enclave e = {0};
        pthread_t thread = begin(SIGUSR1);

        for (int i = 0; i < COPIES; i++) {
            e.fd = receive_fd(ends[1]);
            add_all(&e, src, i * 16 * PAGE_SIZE, 16 * PAGE_SIZE, SGX_PT_REG | RW, false);
        }
        end(thread);
        _exit(0);
    }
    struct enclave e = created(sgxs);

    for (int i = 0; i < COPIES; i++)
        send_fd(ends[0], e.fd);
    SAME(DO(waitpid(pid, &status, 0)), pid);
    SAME(status, 0);
    ok("descriptors from another process");
}

int main(int argc, char **argv)
{
    struct enclave e;
    pthread_t thread;

    CHECK(argc >= 3, "arguments");
    storms(argv[1]);
    not_for_us(argv[1]);
    enter = vdso_enter();
    on(SIGUSR1, count, 0);
    passed(argv[1]);
    thread = begin(SIGUSR1);
    e = built(argv[1], argv[2]);
    end(thread);
    CHECK(handled && partial, "%d handled, %d partial", handled, partial);
    ok("the same MRENCLAVE");
    whole_ones(&e);
    return 0;
}
