/* A supervisor of a page for the stub's tests: what the real one does to start programs, and the
 * simplest answers.
 *
 * harness IMAGE PROGRAM ARGUMENTS... : IMAGE is the stub and its blocks; HARNESS_NOTE=1 prints
 * requests.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>
#include "harness.h"

static int note, opens, exits, memory, image;
static long image_size;
static char *shared;
#define CONTROL32(at) (*(volatile uint32_t *)(shared + (at)))
#define STATE(i) (*(volatile uint32_t *)(shared + SHARED_STATES + 4 * (i)))
#define USED(i) (*(volatile uint32_t *)(shared + SHARED_USED + 4 * (i)))
#define TABLE(i) (*(volatile uint32_t *)(shared + SHARED_TABLES + (long)TABLE_STRIDE * (i)))
static char *record(int i)
{
    return shared + SYSTRAP_CONTROL_SIZE + (long)RECORD_STRIDE * i;
}
#define R32(i, at) (*(volatile uint32_t *)(record(i) + (at)))
#define R64(i, at) (*(volatile uint64_t *)(record(i) + (at)))

static struct sock_filter code[128];
static int length;
static void put(uint16_t op, uint32_t k, int t, int f)
{
    code[length++] = (struct sock_filter){op, t, f, k};
}

static int filter(void)
{
    static const int traps[] = {SYS_rt_sigaction, SYS_rt_sigprocmask, SYS_sigaltstack,
                                SYS_rt_sigreturn, SYS_clone,          SYS_fork,
                                SYS_vfork,        SYS_clone3,         SYS_exit,
                                SYS_exit_group,   SYS_arch_prctl,     SYS_rt_sigsuspend,
                                SYS_ppoll,        SYS_pselect6,       SYS_epoll_pwait,
                                SYS_epoll_pwait2, SYS_io_pgetevents,  SYS_rt_sigtimedwait,
                                SYS_rt_sigpending, SYS_rt_sigqueueinfo, SYS_rt_tgsigqueueinfo};
    int n = sizeof traps / sizeof *traps + (opens ? 3 : 0);
    put(BPF_LD | BPF_W | BPF_ABS, 4, 0, 0);
    put(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0);
    put(BPF_RET | BPF_K, SECCOMP_RET_ALLOW, 0, 0);
    /* From GATE_EXIT everything traps; from our other pages nothing does. */
    put(BPF_LD | BPF_W | BPF_ABS, 12, 0, 0);
    put(BPF_JMP | BPF_JEQ | BPF_K, (uint64_t)SYSTRAP_CODE >> 32, 0, 6);
    put(BPF_LD | BPF_W | BPF_ABS, 8, 0, 0);
    put(BPF_JMP | BPF_JGE | BPF_K, (uint32_t)SYSTRAP_CODE, 0, 4);
    put(BPF_JMP | BPF_JGE | BPF_K, (uint32_t)(SYSTRAP_BLOCKS + SYSTRAP_BLOCKS_SIZE), 3, 0);
    put(BPF_JMP | BPF_JGE | BPF_K, (uint32_t)GATE_EXIT, 0, 1);
    put(BPF_JMP | BPF_JGE | BPF_K, (uint32_t)GATE_EXIT + 4096, 0, n + 6);
    put(BPF_RET | BPF_K, SECCOMP_RET_ALLOW, 0, 0);
    put(BPF_LD | BPF_W | BPF_ABS, 0, 0, 0);
    put(BPF_JMP | BPF_JEQ | BPF_K, SYS_execve, 1, 0);
    put(BPF_JMP | BPF_JEQ | BPF_K, SYS_execveat, 0, 1);
    put(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF, 0, 0);
    for (unsigned i = 0; i < sizeof traps / sizeof *traps; i++)
        put(BPF_JMP | BPF_JEQ | BPF_K, traps[i], --n + 1, 0);
    if (opens) {
        put(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat, --n + 1, 0);
        put(BPF_JMP | BPF_JEQ | BPF_K, SYS_read, --n + 1, 0);
        put(BPF_JMP | BPF_JEQ | BPF_K, SYS_mprotect, --n + 1, 0);
    }
    put(BPF_RET | BPF_K, SECCOMP_RET_ALLOW, 0, 0);
    put(BPF_RET | BPF_K, SECCOMP_RET_TRAP | TRAP_DATA, 0, 0);
    struct sock_fprog p = {length, code};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &p);
}

static int claim(volatile uint32_t *(*at)(int))
{
    for (int i = 0; i < RECORDS_MAX; i++)
        if (__sync_bool_compare_and_swap(at(i), 0, 1))
            return i;
    fprintf(stderr, "harness: nothing free\n");
    exit(3);
}
static volatile uint32_t *used_at(int i)
{
    return &USED(i);
}
static volatile uint32_t *table_at(int i)
{
    return &TABLE(i);
}

static void free_record(int i)
{
    long t = (R64(i, RECORD_TABLE) - SYSTRAP_CONTROL - SHARED_TABLES) / TABLE_STRIDE;
    if (t >= 0 && t < RECORDS_MAX)
        __sync_fetch_and_sub(table_at(t), 1);
    USED(i) = 0;
}

/* Records of processes that are no more; of `pid` all, if it has executed a program, but `but`. */
static void collect(int pid, int but)
{
    for (int i = 0; i < RECORDS_MAX; i++)
        if (USED(i) && i != but && R32(i, RECORD_PID)) {
            int p = R32(i, RECORD_PID);
            if (p == pid || (kill(p, 0) && errno == ESRCH))
                free_record(i);
        }
}

static long injected(int pid, struct user_regs_struct r, long nr, long a, long b, long c, long d,
                     long e, long f)
{
    int st, came = 0;
    r.orig_rax = -1, r.rax = nr, r.rdi = a, r.rsi = b, r.rdx = c, r.r10 = d, r.r8 = e, r.r9 = f;
    ptrace(PTRACE_SETREGS, pid, 0, &r);
    do {
        ptrace(PTRACE_CONT, pid, 0, 0);
        waitpid(pid, &st, __WALL);
        if (!WIFSTOPPED(st)) {
            fprintf(stderr, "harness: lost %d: %x\n", pid, st);
            return -1;
        }
        if (!(st >> 16) && WSTOPSIG(st) != SIGTRAP)
            came = WSTOPSIG(st);
    } while (st >> 8 != SIGTRAP);
    if (came) /* It is the program's. */
        syscall(SYS_tgkill, pid, pid, came);
    ptrace(PTRACE_GETREGS, pid, 0, &r);
    return r.rax;
}

static void inject(int pid)
{
    struct user_regs_struct r;
    char name[64], path[64];
    ptrace(PTRACE_GETREGS, pid, 0, &r);
    sprintf(name, "/proc/%d/mem", pid);
    int m = open(name, O_RDWR | O_CLOEXEC);
    unsigned char old[3], new[3] = {0x0f, 5, 0xcc};
    if (pread(m, old, 3, r.rip) != 3 || pwrite(m, new, 3, r.rip) != 3)
        perror("harness: mem");
    long at = (r.rsp - 1024) & ~15L;
    for (int k = 0; k < 2; k++) {
        int fd = k ? memory : image;
        sprintf(path, "/proc/%d/fd/%d", getpid(), fd);
        pwrite(m, path, 64, at);
        long f = injected(pid, r, SYS_open, at, (k ? O_RDWR : O_RDONLY) | O_CLOEXEC, 0, 0, 0, 0);
        long got = k ? injected(pid, r, SYS_mmap, SYSTRAP_CONTROL, SYSTRAP_SHARED_SIZE,
                                PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED_NOREPLACE, f, 0)
                     : injected(pid, r, SYS_mmap, SYSTRAP_CODE, image_size, PROT_READ | PROT_EXEC,
                                MAP_PRIVATE | MAP_FIXED_NOREPLACE, f, 0);
        if (f < 0 || got != (k ? SYSTRAP_CONTROL : SYSTRAP_CODE))
            fprintf(stderr, "harness: open %ld mmap %lx\n", f, got);
        injected(pid, r, SYS_close, f, 0, 0, 0, 0, 0);
    }
    pwrite(m, old, 3, r.rip);
    int i = claim(used_at), t = claim(table_at);
    collect(pid, i);
    memset(record(i), 0, RECORD_STACK);
    R64(i, RECORD_TABLE) = SYSTRAP_CONTROL + SHARED_TABLES + (long)t * TABLE_STRIDE;
    R64(i, RECORD_PROCESS) = R64(i, RECORD_TABLE);
    memset(shared + SHARED_TABLES + (long)t * TABLE_STRIDE + 4, 0, TABLE_STRIDE - 4);
    R64(i, RECORD_ENTRY) = r.rip;
    r.rdi = RECORDS + (long)i * RECORD_STRIDE;
    r.rip = LABEL_init;
    r.orig_rax = -1;
    ptrace(PTRACE_SETREGS, pid, 0, &r);
    close(m);
    if (ptrace(PTRACE_DETACH, pid, 0, 0))
        perror("harness: detach");
}

static int listener;
static void on_exec(void)
{
    struct seccomp_notif q = {0};
    struct seccomp_notif_resp a;
    int st;
    if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &q))
        return;
    int t = q.pid, ok = !ptrace(PTRACE_SEIZE, t, 0, PTRACE_O_TRACEEXEC);
    if (!ok)
        fprintf(stderr, "harness: seize %d: %s\n", t, strerror(errno));
    a = (struct seccomp_notif_resp){q.id, 0, ok ? 0 : -EPERM,
                                    ok ? SECCOMP_USER_NOTIF_FLAG_CONTINUE : 0};
    ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &a);
    if (!ok)
        return;
    ptrace(PTRACE_INTERRUPT, t, 0, 0);
    while (waitpid(t, &st, __WALL) == t && WIFSTOPPED(st)) {
        if (st >> 8 == (SIGTRAP | PTRACE_EVENT_EXEC << 8)) {
            ptrace(PTRACE_SYSCALL, t, 0, 0);
            waitpid(t, &st, __WALL);
            inject(t);
            return;
        }
        if (st >> 16) { /* exec has failed */
            ptrace(PTRACE_DETACH, t, 0, 0);
            return;
        }
        ptrace(PTRACE_CONT, t, 0, WSTOPSIG(st)); /* a signal, before exec has begun */
    }
}

/* Whether the file that is opened is the one that shall end the harness. */
static int dies(int i)
{
    char path[13] = {0}, name[64];
    uint64_t *g = (uint64_t *)(record(i) + (R64(i, RECORD_FRAME) & (RECORD_STRIDE - 1)) + 40);
    sprintf(name, "/proc/%d/mem", R32(i, RECORD_PID));
    int m = open(name, O_RDONLY | O_CLOEXEC);
    int got = pread(m, path, 12, g[9]) == 12; /* RSI */
    close(m);
    return got && !strncmp(path, "/etc/hostname", 12);
}

static uint64_t *registers(int i)
{
    return (uint64_t *)(record(i) + (R64(i, RECORD_FRAME) & (RECORD_STRIDE - 1)) + 40);
}

enum { RDI = 8, RAX = 13, RIP = 16 };

static int out_info(int i)
{
    long info = R64(i, RECORD_INFO) & (RECORD_STRIDE - 1);
    memcpy(record(i) + RECORD_OUT_INFO, record(i) + info, 128);
    R64(i, RECORD_OUT_SET) = 0;
    return COMMAND_DELIVER;
}

static int simple(int i, int kind)
{
    if (kind == KIND_NEW) { /* its maker waits for it */
        R32(i, RECORD_REGISTERED) = 1;
        syscall(SYS_futex, &R32(i, RECORD_REGISTERED), FUTEX_WAKE, 1, NULL, NULL, 0);
    }
    if (kind == KIND_SIGNAL)
        return out_info(i);
    if (kind != KIND_SYSCALL)
        return COMMAND_GO;
    R32(i, RECORD_WANT_EXIT) = exits;
    return COMMAND_RUN;
}

/* What a held thread can be told beside: a call, a stop at the handler's first instruction, a step.
 * Each thread is asked for its tid first; then as `simple`, with a step before the handler begins.
 */
static int tricks(int i, int kind)
{
    static int asked[RECORDS_MAX], stepped[RECORDS_MAX];
    if (kind == KIND_CALLED && R64(i, RECORD_CALL_RESULT) != R32(i, RECORD_TID))
        fprintf(stderr, "harness: tid %ld\n", (long)R64(i, RECORD_CALL_RESULT));
    if (kind == KIND_CALLED)
        return simple(i, asked[i]);
    if (kind == KIND_STEPPED) {
        stepped[i] = 1;
        R64(i, RECORD_NATIVE) = registers(i)[RIP];
        return COMMAND_STEP;
    }
    if (stepped[i] && kind == KIND_SIGNAL) {
        uint64_t moved = registers(i)[RIP] - R64(i, RECORD_NATIVE);
        stepped[i] = 0;
        if (R32(i, RECORD_SIGNAL) != SIGTRAP)
            return out_info(i); /* Another signal came before the step. */
        if (moved == 0 || moved > 15)
            fprintf(stderr, "harness: a step came to nothing\n");
        return COMMAND_GO;
    }
    if (kind == KIND_SIGNAL) {
        out_info(i);
        return COMMAND_DELIVER_STOP;
    }
    if (kind != KIND_SYSCALL && kind != KIND_NEW)
        return COMMAND_GO;
    asked[i] = kind;
    R64(i, RECORD_CALL_NR) = SYS_gettid;
    return COMMAND_CALL;
}

/* A read of descriptor 99 is to be repeated, and SIGUSR1 comes before that; then it is made. */
static int repeated(int i, int kind)
{
    static int done;
    if (kind != KIND_SYSCALL)
        return simple(i, kind);
    if (R64(i, RECORD_SYSCALL_NR) != SYS_read || registers(i)[RDI] != 99) {
        done = 0;
        return simple(i, kind);
    }
    done = !done;
    if (!done)
        return simple(i, kind);
    R32(i, RECORD_RESTART) = 1;
    registers(i)[RIP] -= 2;
    syscall(SYS_tgkill, R32(i, RECORD_PID), R32(i, RECORD_TID), SIGUSR1);
    return COMMAND_GO;
}

static void answer(int i)
{
    int kind = R32(i, RECORD_KIND);
    if (note)
        fprintf(stderr, "harness: %d: kind %d signal %d\n", i, kind, R32(i, RECORD_SIGNAL));
    if (kind == KIND_SYSCALL && getenv("HARNESS_DIE") && dies(i))
        kill(getpid(), SIGKILL);
    R32(i, RECORD_COMMAND) = getenv("HARNESS_TRICKS")    ? tricks(i, kind)
                             : getenv("HARNESS_RESTART") ? repeated(i, kind)
                                                         : simple(i, kind);
    STATE(i) = REPLY;
    syscall(SYS_futex, &STATE(i), FUTEX_WAKE, 1, 0, 0, 0);
}

static void *serve(void *unused)
{
    for (;;) {
        uint32_t rings = CONTROL32(SHARED_DOORBELL);
        int some = 0;
        for (int i = 0; i < RECORDS_MAX; i++)
            if (STATE(i) == REQUEST) {
                STATE(i) = 2;
                answer(i);
                some = 1;
            }
        if (some)
            continue;
        CONTROL32(SHARED_SLEEPING) = 1;
        __sync_synchronize();
        if (rings == CONTROL32(SHARED_DOORBELL))
            syscall(SYS_futex, &CONTROL32(SHARED_DOORBELL), FUTEX_WAIT, rings, 0, 0, 0);
        CONTROL32(SHARED_SLEEPING) = 0;
    }
    return unused;
}

/* Interrupts every thread again and again, which no program notices. */
static void *storm(void *unused)
{
    for (;;) {
        usleep(atoi(getenv("HARNESS_STORM")));
        for (int i = 0; i < RECORDS_MAX; i++) {
            siginfo_t in = {.si_code = SI_QUEUE, .si_pid = getpid()};
            in.si_value.sival_ptr = (void *)INTERRUPT_VALUE;
            R32(i, RECORD_INTERRUPT) = 1;
            if (USED(i) && R32(i, RECORD_PID) && R32(i, RECORD_TID))
                syscall(SYS_rt_tgsigqueueinfo, R32(i, RECORD_PID), R32(i, RECORD_TID),
                        INTERRUPT_SIGNAL, &in);
        }
    }
    return unused;
}

/* The kernel marks SHARED.OWNER when the main thread dies. */
static void own(void)
{
    static struct {
        void *next;
        long offset;
        void *pending;
    } head;
    static void *node = &head;
    head.next = &node;
    head.offset = shared + SHARED_OWNER - (char *)&node;
    CONTROL32(SHARED_OWNER) = syscall(SYS_gettid);
    syscall(SYS_set_robust_list, &head, sizeof head);
}

int main(int argc, char **argv)
{
    (void)argc;
    note = getenv("HARNESS_NOTE") != 0;
    opens = getenv("HARNESS_OPENS") != 0;
    exits = getenv("HARNESS_EXITS") != 0;
    image = open(argv[1], O_RDONLY | O_CLOEXEC);
    image_size = lseek(image, 0, SEEK_END);
    memory = memfd_create("records", MFD_CLOEXEC);
    if (ftruncate(memory, SYSTRAP_SHARED_SIZE))
        perror("harness: ftruncate");
    shared = mmap(0, SYSTRAP_SHARED_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
    CONTROL32(SHARED_SPIN) = 100;
    *(volatile uint64_t *)(shared + SHARED_SUPERVISOR) = getpid();
    own();
    if (getenv("HARNESS_ENCLAVE"))
        CONTROL32(SHARED_HAS_ENCLAVE) = 1;
    volatile int *both = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    both[0] = -1;
    int child = syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, 0, 0, 0), st = 0;
    if (!child) {
        int l = filter();
        if (l < 0) {
            perror("harness: seccomp");
            _exit(125);
        }
        both[0] = l;
        execvp(argv[2], argv + 2);
        perror(argv[2]);
        _exit(127);
    }
    pthread_t thread;
    pthread_create(&thread, 0, serve, 0);
    if (getenv("HARNESS_STORM"))
        pthread_create(&thread, 0, storm, 0);
    while (both[0] == -1)
        usleep(50);
    listener = both[0];
    for (int round = 0;; round++) {
        struct pollfd p = {listener, POLLIN, 0};
        poll(&p, 1, 20);
        if (p.revents & POLLIN)
            on_exec();
        else if (waitpid(child, &st, WNOHANG) == child ||
                 (p.revents & POLLHUP && waitpid(child, &st, 0) == child))
            break;
        if (round % 64 == 63)
            collect(-1, -1);
    }
    if (WIFSIGNALED(st))
        fprintf(stderr, "harness: killed by %d\n", WTERMSIG(st));
    return WIFEXITED(st) ? WEXITSTATUS(st) : 128 + WTERMSIG(st);
}
