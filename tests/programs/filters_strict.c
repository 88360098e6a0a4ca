/*
 * SECCOMP_MODE_STRICT: read, write, _exit and sigreturn; anything else is SIGKILL.
 */
#include "filters.h"

#include <pthread.h>
#include <x86intrin.h>

static int pipes[2];
static volatile int handled;

static void handler(int number)
{
    (void)number;
    handled = 1;
}

static void strict(void)
{
    HOLDS(pipe(pipes) == 0);
    signal(SIGUSR1, handler);
    HOLDS(prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) == 0);
}

static void leave(int code)
{
    syscall(SYS_exit, code);
}

static int what_is_allowed(void)
{
    char byte = 0;

    strict();
    HOLDS(write(pipes[1], "x", 1) == 1);
    HOLDS(read(pipes[0], &byte, 1) == 1 && byte == 'x');
    HOLDS(read(-1, &byte, 1) == -1 && errno == EBADF);
    cpuid();
    leave(3);
    return 4;
}

static int by_seccomp(void)
{
    HOLDS(syscall(SYS_seccomp, SECCOMP_SET_MODE_STRICT, 0, NULL) == 0);
    leave(3);
    return 4;
}

static int exit_group(void)
{
    strict();
    return 4;
}

static int asking_for_the_mode(void)
{
    strict();
    prctl(PR_GET_SECCOMP);
    leave(4);
    return 4;
}

static int another_filter(void)
{
    struct sock_filter filter[] = {ALLOW};

    strict();
    syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, PROGRAM(filter));
    leave(4);
    return 4;
}

static int a_call_that_stops(void)
{
    strict();
    syscall(SYS_openat, -100, "/dev/null", 0);
    leave(4);
    return 4;
}

/* The parent signals while the child reads, whose handler returns by sigreturn. */
static int signals(void)
{
    int status;
    pid_t child;

    HOLDS(pipe(pipes) == 0);
    signal(SIGUSR1, handler);
    child = fork();
    if (!child) {
        char byte;

        HOLDS(prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) == 0);
        HOLDS(write(pipes[1], "x", 1) == 1);
        while (!handled)
            read(-1, &byte, 1);
        leave(5);
    }
    char byte;

    HOLDS(read(pipes[0], &byte, 1) == 1);
    HOLDS(kill(child, SIGUSR1) == 0);
    HOLDS(waitpid(child, &status, 0) == child);
    return WEXITSTATUS(status);
}

static int the_time_stamp_counter(void)
{
    __rdtsc();
    strict();
    __rdtsc();
    leave(4);
    return 4;
}

static void *one_thread(void *unused)
{
    HOLDS(prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) == 0);
    syscall(SYS_getppid); /* ends this thread alone */
    _exit(4);
    return unused;
}

static int of_one_thread(void)
{
    pthread_t thread;

    HOLDS(pthread_create(&thread, NULL, one_thread, NULL) == 0);
    HOLDS(pthread_join(thread, NULL) == 0);
    HOLDS(prctl(PR_GET_SECCOMP) == 0);
    HOLDS(getppid() > 0);
    return 3;
}

int main(void)
{
    if (prctl(PR_GET_SECCOMP)) {
        printf("ok in a container whose filter excludes this mode\n");
        return 0;
    }
    ENDS(what_is_allowed, EXITED(3));
    ENDS(by_seccomp, EXITED(3));
    ENDS(exit_group, KILLED(SIGKILL));
    ENDS(asking_for_the_mode, KILLED(SIGKILL));
    ENDS(another_filter, KILLED(SIGKILL));
    ENDS(a_call_that_stops, KILLED(SIGKILL));
    ENDS(signals, EXITED(5));
    ENDS(the_time_stamp_counter, KILLED(SIGSEGV));
    ENDS(of_one_thread, EXITED(3));
    return 0;
}
