/* Calls that the supervisor has the thread repeat, with a signal in between: reads of
 * descriptor 99. Under the harness alone; natively no signal comes. */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static volatile int seen;

static void handle(int sig)
{
    seen = sig;
}

static void attempt(const char *name, void *handler, int flags)
{
    struct sigaction a = {.sa_handler = handler, .sa_flags = flags};
    char text[8] = "";
    sigaction(SIGUSR1, &a, 0);
    seen = 0;
    syscall(SYS_openat, -1, "", 0); /* Tells the harness that another attempt begins. */
    long result = syscall(SYS_read, 99, text, 3);
    printf("%s: %ld errno %d %s seen %d\n", name, result, result < 0 ? errno : 0, text, seen);
}

int main(void)
{
    int pipes[2];
    setvbuf(stdout, 0, _IOFBF, 1 << 16);
    if (pipe(pipes) || dup2(pipes[0], 99) != 99 || write(pipes[1], "abcdefghi", 9) != 9)
        return 1;
    attempt("interrupted", handle, 0);
    attempt("restarted", handle, SA_RESTART);
    attempt("ignored", (void *)SIG_IGN, 0);
    attempt("interrupted", handle, SA_RESETHAND);
    return 0;
}
