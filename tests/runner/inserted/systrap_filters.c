/* Filters of the program's own that trap calls: also those that our filter traps, too. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

static long at;

static void trapped(int sig, siginfo_t *in, void *context)
{
    ucontext_t *u = context;
    long *g = (long *)u->uc_mcontext.gregs;
    printf("signal %d: code %d errno %d call %d arch %x here %d %d rax %ld\n", sig, in->si_code,
           in->si_errno, in->si_syscall, in->si_arch, (long)in->si_call_addr == at,
           g[REG_RIP] == at, g[REG_RAX]);
    g[REG_RAX] = -1000 - in->si_syscall;
}

static long call(long nr, long a, long b, long c)
{
    long result;
    __asm__ volatile("leaq 1f(%%rip), %%rcx; movq %%rcx, %1; syscall; 1:"
                     : "=a"(result), "=m"(at)
                     : "0"(nr), "D"(a), "S"(b), "d"(c)
                     : "rcx", "r11", "memory");
    return result;
}

static int install(int nr, unsigned action)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, action),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {4, code};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

int main(void)
{
    struct sigaction a = {.sa_sigaction = trapped, .sa_flags = SA_SIGINFO};
    sigaction(SIGSYS, &a, 0);
    setvbuf(stdout, 0, _IOFBF, 1 << 16);
    printf("%d\n", install(SYS_getppid, SECCOMP_RET_TRAP | 7));
    printf("%ld\n", call(SYS_getppid, 0, 0, 0));
    printf("%d\n", install(SYS_openat, SECCOMP_RET_TRAP | 8));
    printf("%ld\n", call(SYS_openat, AT_FDCWD, (long)"/etc/passwd", 0));
    printf("%d\n", install(SYS_read, SECCOMP_RET_ERRNO | 99));
    printf("%ld\n", call(SYS_read, 0, 0, 0));
    printf("%d\n", install(SYS_mprotect, SECCOMP_RET_ERRNO | 98));
    printf("%ld\n", call(SYS_mprotect, 0, 0, 0));
    printf("%d\n", install(SYS_rt_sigsuspend, SECCOMP_RET_TRAP | 9));
    printf("%ld\n", call(SYS_rt_sigsuspend, 0, 8, 0));
    fflush(stdout);
    return 0;
}
