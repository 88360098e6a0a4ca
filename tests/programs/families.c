/*
 * Threads and processes made in every way: those that share the address space share the enclave's
 * mappings, and no others do. clone(2) makes both, and its flags need not be what the ptrace event
 * suggests.
 *
 * The story: where kcmp(2) is refused, as by the default profile of containers, threads were taken
 * for forked processes, in silence, and saw an enclave of their own.
 *
 * enclave: ops threads=2
 */
#include "host.h"

#include <linux/sched.h>
#include <sched.h>
#include <pthread.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>

extern char **environ;
static struct enclave e;
static uint64_t buffer;
static char stack[65536] __attribute__((aligned(16)));

/* A change of its own mappings, without the heap and the locks of libc. */
static int unmap(void *page)
{
    return munmap(page, PAGE_SIZE) ? 1 : 0;
}

static void *unmap_thread(void *page)
{
    SAME(unmap(page), 0);
    return NULL;
}

static void ended(pid_t child)
{
    int status;

    SAME(DO(waitpid(child, &status, __WALL)), child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the child ended with %#x", status);
}

static pid_t clone3(uint64_t flags, uint64_t exit_signal)
{
    struct clone_args args = {.flags = flags, .exit_signal = exit_signal};

    return syscall(SYS_clone3, &args, sizeof(args));
}

/* Whether the page is still there for an enclave thread of this process. */
static void page_is(struct sgx_enclave_run *run, uint64_t page, int there, const char *what)
{
    struct call call = {OP_READ, page, 0, 0, 0};

    go(run, EENTER, &call);
    if (there != (run->function == EEXIT))
        FAIL("%s: function %u, vector %u", what, run->function, run->exception_vector);
    if (!there) {
        SAME(run->exception_vector, VECTOR_PF);
        /* The frame of that exception is left: back to the first one by mapping the page again. */
        uint64_t *again = mmap((void *)page, PAGE_SIZE, PROT_RW, MAP_SHARED | MAP_FIXED, e.fd, 0);
        SAME(again, page);
        go(run, ERESUME, NULL);
        LEFT(run);
    }
    ok("%s", what);
}

int main(int argc, char **argv)
{
    struct sgx_enclave_run run = {0};
    pthread_t thread;
    pid_t child;

    start(&e, argc, argv);
    run.tcs = e.tcs[0];
    buffer = ask(&run, OP_BUFFER, 0, 0, 0);
    void *page = (void *)buffer;
    SAME(ask(&run, OP_READ, buffer, 0, 0), 0);

    SAME(pthread_create(&thread, NULL, unmap_thread, page), 0);
    SAME(pthread_join(thread, NULL), 0);
    page_is(&run, buffer, 0, "a thread unmaps for its process");

    child = DO(fork());
    if (child == 0)
        _exit(unmap(page));
    ended(child);
    page_is(&run, buffer, 1, "fork: a process of its own");

    child = DO(vfork());
    if (child == 0)
        _exit(unmap(page));
    ended(child);
    page_is(&run, buffer, 0, "vfork: the parent's memory");

    child = DO(clone(unmap, stack + sizeof(stack), CLONE_VM | SIGCHLD, page));
    ended(child);
    page_is(&run, buffer, 0, "clone with CLONE_VM and SIGCHLD, an event of fork");

    child = DO(clone(unmap, stack + sizeof(stack), CLONE_VM, page));
    ended(child);
    page_is(&run, buffer, 0, "clone with CLONE_VM and no signal, an event of clone");

    child = DO(clone(unmap, stack + sizeof(stack), 0, page));
    ended(child);
    page_is(&run, buffer, 1, "clone without anything, an event of clone");

    child = DO(clone(unmap, stack + sizeof(stack), CLONE_VFORK | SIGCHLD, page));
    ended(child);
    page_is(&run, buffer, 1, "clone with CLONE_VFORK alone, an event of vfork");

    child = clone3(CLONE_VFORK, SIGCHLD);
    if (child == 0)
        _exit(unmap(page));
    if (child > 0) {
        ended(child);
        page_is(&run, buffer, 1, "clone3 with CLONE_VFORK alone");
        child = clone3(0, 0);
        if (child == 0)
            _exit(unmap(page));
        ended(child);
        page_is(&run, buffer, 1, "clone3 without a signal");
    } else {
        CHECK(errno == ENOSYS || errno == EPERM, "clone3: %s", strerror(errno));
    }

    char *const command[] = {"true", NULL};
    SAME(posix_spawnp(&child, "true", NULL, NULL, command, environ), 0);
    ended(child);
    page_is(&run, buffer, 1, "posix_spawn: a program of its own");
    SAME(pthread_create(&thread, NULL, unmap_thread, page), 0);
    SAME(pthread_join(thread, NULL), 0);
    page_is(&run, buffer, 0, "a thread, after all of them");
    return 0;
}
