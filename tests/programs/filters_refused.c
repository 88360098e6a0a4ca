/*
 * seccomp(2) and prctl(2) refuse what the kernel refuses, in its order, and say the mode.
 */
#include "filters.h"

#include <sys/mman.h>

#define FILTER(...) (&(struct sock_fprog){                                                         \
    sizeof((struct sock_filter[]){__VA_ARGS__}) / sizeof(struct sock_filter),                      \
    (struct sock_filter[]){__VA_ARGS__}})

static int outside; /* the mode that was inherited */

static void refused(int line, long result, int wanted)
{
    if (result != -1 || errno != wanted)
        SAY_FAIL("line %d: %ld, errno %d, to be %d", line, result, errno, wanted);
}
#define REFUSED(result, wanted) refused(__LINE__, result, wanted)
#define SET(flags, program) syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, program)

static int arguments(void)
{
    struct sock_fprog *good = FILTER(ALLOW), *bad = FILTER(LOAD_AT(3), ALLOW);
    struct sock_fprog none = {0, good->filter}, null = {1, NULL}, nowhere = {1, (void *)16};
    struct sock_fprog long_ = {4097, good->filter};

    HOLDS(prctl(PR_GET_SECCOMP) == outside);
    HOLDS(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    REFUSED(syscall(SYS_seccomp, 99, 0, NULL), EINVAL);
    REFUSED(SET(1 << 20, good), EINVAL);
    REFUSED(SET(1 << 20, (void *)16), EINVAL);
    REFUSED(SET(SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_NEW_LISTENER, good), EINVAL);
    REFUSED(SET(SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, good), EINVAL);
    REFUSED(SET(0, NULL), EFAULT);
    REFUSED(SET(0, (void *)16), EFAULT);
    REFUSED(SET(0, &none), EINVAL);
    REFUSED(SET(0, &null), EINVAL);
    REFUSED(SET(0, &nowhere), EFAULT);
    REFUSED(SET(0, &long_), EINVAL);
    REFUSED(SET(0, bad), EINVAL);
    REFUSED(SET(0, FILTER(LOAD_AT(64), ALLOW)), EINVAL);
    REFUSED(SET(0, FILTER(ALLOW, LOAD(nr))), EINVAL);             /* does not end */
    REFUSED(SET(0, FILTER(EQUAL(0, 0, 1), ALLOW)), EINVAL);       /* ends behind the end */
    REFUSED(SET(0, FILTER(BPF_STMT(BPF_JMP | BPF_JA, 1), ALLOW)), EINVAL);
    REFUSED(SET(0, FILTER(BPF_STMT(BPF_JMP | BPF_JA, -1), ALLOW)), EINVAL);
    REFUSED(SET(0, FILTER(BPF_STMT(BPF_LD | BPF_MEM, 1), ALLOW)), EINVAL);
    REFUSED(SET(0, FILTER(BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 0), ALLOW)), EINVAL);
    REFUSED(SET(0, FILTER(BPF_STMT(BPF_ALU | BPF_DIV | BPF_K, 0), ALLOW)), EINVAL);
    REFUSED(SET(0, FILTER(BPF_STMT(BPF_ALU | BPF_MOD | BPF_K, 2), ALLOW)), EINVAL);
    REFUSED(prctl(PR_SET_SECCOMP, 3, good), EINVAL);
    REFUSED(prctl(PR_SET_SECCOMP, 0), EINVAL);
    REFUSED(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, NULL), EFAULT);
    REFUSED(syscall(SYS_seccomp, SECCOMP_SET_MODE_STRICT, 1, NULL), EINVAL);
    REFUSED(syscall(SYS_seccomp, SECCOMP_SET_MODE_STRICT, 0, good), EINVAL);
    HOLDS(prctl(PR_GET_SECCOMP) == outside);
    HOLDS(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, good) == 0);
    HOLDS(prctl(PR_GET_SECCOMP) == 2);
    HOLDS(SET(SECCOMP_FILTER_FLAG_LOG | SECCOMP_FILTER_FLAG_SPEC_ALLOW, good) == 0);
    HOLDS(SET(SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_TSYNC_ESRCH, good) == 0);
    REFUSED(prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT), EINVAL);
    REFUSED(syscall(SYS_seccomp, SECCOMP_SET_MODE_STRICT, 0, NULL), EINVAL);
    return 3;
}

/* The last page of memory has all of a filter but its end. */
static int partly_readable(void)
{
    char *page = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct sock_filter filter[] = {LOAD(nr), ALLOW};
    struct sock_fprog program = {2, (void *)(page + 4096 - sizeof(filter[0]))};

    HOLDS(page != MAP_FAILED && munmap(page + 4096, 4096) == 0);
    HOLDS(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    memcpy(program.filter, filter, sizeof(filter[0]));
    REFUSED(SET(0, &program), EFAULT);
    program.filter--;
    memcpy(program.filter, filter, sizeof(filter));
    HOLDS(SET(0, &program) == 0);
    return 3;
}

static int no_new_privs(void)
{
    struct sock_fprog *good = FILTER(ALLOW), *bad = FILTER(LOAD(nr));

    if (prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0))
        return 3; /* in a container, say */
    REFUSED(prctl(PR_GET_NO_NEW_PRIVS, 1, 0, 0, 0), EINVAL);
    REFUSED(prctl(PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0), EINVAL);
    if (geteuid() == 0)
        HOLDS(setresuid(65534, 65534, 65534) == 0);
    REFUSED(SET(0, good), EACCES);
    REFUSED(SET(0, bad), EACCES);
    REFUSED(SET(0, NULL), EFAULT);
    REFUSED(SET(1 << 20, good), EINVAL);
    HOLDS(prctl(PR_GET_SECCOMP) == outside);
    HOLDS(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    HOLDS(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1);
    REFUSED(SET(0, bad), EINVAL);
    HOLDS(SET(0, good) == 0);
    return 3;
}

static int privileged(void)
{
    int before = prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0);
    long result = SET(0, FILTER(ALLOW));

    HOLDS(result == 0 || (errno == EACCES && !before)); /* as CAP_SYS_ADMIN is there, or not */
    HOLDS(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == before);
    return 3;
}

static int questions(void)
{
    uint32_t action = SECCOMP_RET_TRAP;
    struct seccomp_notif_sizes sizes;

    HOLDS(syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) == 0);
    action = 0x00010000;
    REFUSED(syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action), EOPNOTSUPP);
    HOLDS(syscall(SYS_seccomp, SECCOMP_GET_NOTIF_SIZES, 0, &sizes) == 0);
    HOLDS(sizes.seccomp_data == sizeof(struct seccomp_data));
    return 3;
}

int main(void)
{
    outside = prctl(PR_GET_SECCOMP);
    ENDS(arguments, EXITED(3));
    ENDS(partly_readable, EXITED(3));
    ENDS(no_new_privs, EXITED(3));
    ENDS(privileged, EXITED(3));
    ENDS(questions, EXITED(3));
    return 0;
}
