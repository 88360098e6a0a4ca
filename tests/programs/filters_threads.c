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

int main(void)
{
    ENDS(all_threads, EXITED(3));
    ENDS(one_thread, EXITED(3));
    ENDS(the_confined_thread_opens, EXITED(3));
    ENDS(new_threads_inherit, EXITED(3));
    ENDS(one_thread_is_killed, EXITED(3));
    return 0;
}
