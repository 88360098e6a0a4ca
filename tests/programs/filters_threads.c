/*
 * Filters of one thread, and of all by TSYNC: who has which.
 */
#include "filters.h"

#include <fcntl.h>
#include <pthread.h>

#define DENY_GETPPID                                                                               \
    (struct sock_filter[]){ONLY_X86_64, EQUAL(SYS_getppid, 0, 1), FAILS(EXDEV), ALLOW}
#define LENGTH 7

static pthread_barrier_t barrier;
static volatile pid_t other;

static int denied(void)
{
    return syscall(SYS_getppid) == -1 && errno == EXDEV;
}

static long set(unsigned flags)
{
    return install(flags, &(struct sock_fprog){LENGTH, DENY_GETPPID});
}

static pthread_t start(void *(*what)(void *))
{
    pthread_t thread;

    pthread_barrier_init(&barrier, NULL, 2);
    HOLDS(pthread_create(&thread, NULL, what, NULL) == 0);
    return thread;
}

static void meet(void)
{
    pthread_barrier_wait(&barrier);
}

static void *asked_twice(void *unused)
{
    other = syscall(SYS_gettid);
    HOLDS(!denied());
    meet();
    meet();
    cpuid();
    HOLDS(denied());
    HOLDS(prctl(PR_GET_SECCOMP) == 2);
    HOLDS(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1);
    return unused;
}

static int all_threads(void)
{
    pthread_t thread = start(asked_twice);

    meet();
    HOLDS(set(SECCOMP_FILTER_FLAG_TSYNC) == 0);
    meet();
    HOLDS(pthread_join(thread, NULL) == 0);
    cpuid();
    HOLDS(denied());
    return 3;
}

/* A second thread filters itself alone. */
static void *confined(void *unused)
{
    other = syscall(SYS_gettid);
    HOLDS(set(0) == 0);
    cpuid();
    HOLDS(denied());
    meet();
    meet();
    HOLDS(denied());
    cpuid();
    return unused;
}

static int one_thread(void)
{
    pthread_t thread = start(confined);

    meet();
    cpuid();
    HOLDS(!denied());
    HOLDS(set(SECCOMP_FILTER_FLAG_TSYNC) == other); /* it has one that this one has not */
    HOLDS(!denied());
    HOLDS(set(SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_TSYNC_ESRCH) == -1);
    HOLDS(errno == ESRCH);
    HOLDS(!denied());
    /* What the run watches for later must not bring the filters of one thread to the other. */
    HOLDS(open("/dev/sgx_enclave", O_RDWR) >= 0 || errno == ENOENT);
    HOLDS(!denied());
    HOLDS(set(0) == 0);
    HOLDS(denied());
    meet();
    HOLDS(pthread_join(thread, NULL) == 0);
    return 3;
}

static void *opens(void *unused)
{
    HOLDS(set(0) == 0);
    HOLDS(open("/dev/sgx_enclave", O_RDWR) >= 0 || errno == ENOENT);
    HOLDS(denied());
    meet();
    meet();
    return unused;
}

static int the_confined_thread_opens(void)
{
    pthread_t thread = start(opens);

    meet();
    HOLDS(!denied());
    HOLDS(set(SECCOMP_FILTER_FLAG_TSYNC) > 0);
    meet();
    HOLDS(pthread_join(thread, NULL) == 0);
    HOLDS(set(SECCOMP_FILTER_FLAG_TSYNC) == 0);
    HOLDS(denied());
    return 3;
}

static void *child_of_the_confined(void *unused)
{
    HOLDS(denied());
    cpuid();
    HOLDS(prctl(PR_GET_SECCOMP) == 2);
    return unused;
}

static int new_threads_inherit(void)
{
    pthread_t thread;

    HOLDS(set(0) == 0);
    HOLDS(pthread_create(&thread, NULL, child_of_the_confined, NULL) == 0);
    HOLDS(pthread_join(thread, NULL) == 0);
    HOLDS(set(SECCOMP_FILTER_FLAG_TSYNC) == 0);
    return 3;
}

static void *killed(void *unused)
{
    struct sock_filter filter[] = {LOAD(nr), EQUAL(SYS_getppid, 0, 1),
                                   RETURN(SECCOMP_RET_KILL_THREAD), ALLOW};

    HOLDS(install(0, PROGRAM(filter)) == 0);
    cpuid();
    syscall(SYS_getppid);
    _exit(4);
    return unused;
}

static int one_thread_is_killed(void)
{
    pthread_t thread = start(killed);

    HOLDS(pthread_join(thread, NULL) == 0);
    HOLDS(!denied());
    return 3;
}

/* The same for calls about signals, which softsgx may answer in the process: by whose filters? */
static int no_stack(void)
{
    return syscall(SYS_sigaltstack, NULL, NULL) == -1 && errno == EXDEV;
}

static void *with_no_stack(void *unused)
{
    HOLDS(no_stack());
    return unused;
}

static void *with_a_stack(void *unused)
{
    HOLDS(!no_stack());
    return unused;
}

static volatile int confined_there;

/* Its first call that concerns softsgx comes when another thread has a filter. */
static void *quiet(void *unused)
{
    while (!confined_there)
        usleep(100);
    HOLDS(!no_stack());
    return unused;
}

static void *without_stack(void *unused)
{
    pthread_t thread;

    INSTALL(ONLY_X86_64, EQUAL(SYS_sigaltstack, 0, 1), FAILS(EXDEV), ALLOW);
    HOLDS(no_stack());
    HOLDS(pthread_create(&thread, NULL, with_no_stack, NULL) == 0);
    HOLDS(pthread_join(thread, NULL) == 0);
    meet();
    meet();
    return unused;
}

static int each_by_its_own(void)
{
    pthread_t silent, thread, last;

    HOLDS(pthread_create(&silent, NULL, quiet, NULL) == 0);
    thread = start(without_stack);
    meet();
    confined_there = 1;
    HOLDS(!no_stack());
    HOLDS(pthread_create(&last, NULL, with_a_stack, NULL) == 0);
    HOLDS(pthread_join(last, NULL) == 0);
    HOLDS(pthread_join(silent, NULL) == 0);
    meet();
    HOLDS(pthread_join(thread, NULL) == 0);
    HOLDS(!no_stack());
    return 3;
}

static void *quiet_and_free(void *unused)
{
    while (!confined_there)
        usleep(100);
    HOLDS(!denied());
    return unused;
}

/* The other thread has made no call that softsgx sees. What the run watches for, once a node is
 * open, must not bring it the filter of this one. */
static int beside_a_quiet_thread(void)
{
    pthread_t silent;

    HOLDS(pthread_create(&silent, NULL, quiet_and_free, NULL) == 0);
    usleep(10000);
    HOLDS(set(0) == 0);
    HOLDS(open("/dev/sgx_enclave", O_RDWR) >= 0 || errno == ENOENT);
    HOLDS(denied());
    confined_there = 1;
    HOLDS(pthread_join(silent, NULL) == 0);
    return 3;
}

int main(void)
{
    ENDS(each_by_its_own, EXITED(3));
    ENDS(beside_a_quiet_thread, EXITED(3));
    ENDS(all_threads, EXITED(3));
    ENDS(one_thread, EXITED(3));
    ENDS(the_confined_thread_opens, EXITED(3));
    ENDS(new_threads_inherit, EXITED(3));
    ENDS(one_thread_is_killed, EXITED(3));
    return 0;
}
