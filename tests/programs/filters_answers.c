/*
 * What a filter says counts also where softsgx looks at the same call: exec, which it follows,
 * PTRACE_TRACEME, which it watches for, and a trap that looks like one of its own.
 */
#include "filters.h"

#include <sys/ptrace.h>

static int traced_exec(void)
{
    char *arguments[] = {"true", NULL};

    INSTALL(ONLY_X86_64, EQUAL(SYS_execve, 1, 0), EQUAL(SYS_execveat, 0, 1),
            RETURN(SECCOMP_RET_TRACE), ALLOW);
    HOLDS(execv("/bin/true", arguments) == -1 && errno == ENOSYS);
    HOLDS(syscall(SYS_execveat, -1, "/bin/true", arguments, NULL, 0) == -1 && errno == ENOSYS);
    return 3;
}

static int logged_exec(void)
{
    INSTALL(ONLY_X86_64, EQUAL(SYS_execve, 0, 1), RETURN(SECCOMP_RET_LOG), ALLOW);
    execl("/bin/sh", "sh", "-c", "exit 3", NULL);
    return 4;
}

static int refused_trace(void)
{
    int status;
    pid_t child;

    INSTALL(ONLY_X86_64, EQUAL(SYS_ptrace, 0, 1), FAILS(EXDEV), ALLOW);
    child = vfork();
    if (!child)
        _exit(ptrace(PTRACE_TRACEME, 0, NULL, NULL) == -1 && errno == EXDEV ? 5 : 6);
    HOLDS(waitpid(child, &status, 0) == child && status == EXITED(5));
    HOLDS(ptrace(PTRACE_TRACEME, 0, NULL, NULL) == -1 && errno == EXDEV);
    return 3;
}

static volatile int data, number;

static void trapped(int signal, siginfo_t *info, void *context)
{
    (void)signal, (void)context;
    data = info->si_errno;
    number = info->si_syscall;
}

static int trap_with_any_data(void)
{
    struct sigaction action = {.sa_sigaction = trapped, .sa_flags = SA_SIGINFO};

    HOLDS(sigaction(SIGSYS, &action, NULL) == 0);
    INSTALL(ONLY_X86_64, EQUAL(SYS_getppid, 1, 0), EQUAL(SYS_sigaltstack, 0, 1),
            RETURN(SECCOMP_RET_TRAP | 0x5347), ALLOW);
    syscall(SYS_getppid);
    HOLDS(data == 0x5347 && number == SYS_getppid);
    syscall(SYS_sigaltstack, NULL, NULL);
    HOLDS(data == 0x5347 && number == SYS_sigaltstack);
    return 3;
}

int main(void)
{
    ENDS(trap_with_any_data, EXITED(3));
    ENDS(logged_exec, EXITED(3));
    ENDS(traced_exec, EXITED(3));
    ENDS(refused_trace, EXITED(3));
    return 0;
}
