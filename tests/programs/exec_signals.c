/*
 * Signals while a program is executed. The story: the supervisor prepares a new program while the
 * call waits, and a signal with a handler breaks that off; the call is made again. softsgx printed a
 * line for each time, and in the end took a program for one that it did not follow.
 *
 * enclave: ops
 */
#include "host.h"

#include <sys/wait.h>

#define TIMES 60
#define BETWEEN_US 200 /* With signals that come much faster, exec gets nowhere: docs/run.md. */

static void come(int number)
{
    (void)number;
}

static void execute(char **argv, const char *last)
{
    struct sigaction action = {.sa_handler = come, .sa_flags = SA_RESTART};
    char *again[] = {"/proc/self/exe", argv[1], argv[2], (char *)last, NULL};

    sigaction(SIGWINCH, &action, NULL); /* Ignored in the new program, unless that handles it. */
    execv(again[0], again);
    _exit(127);
}

static int until_ended(pid_t child)
{
    int status;

    while (DO(waitpid(child, &status, WNOHANG)) == 0) {
        kill(child, SIGWINCH);
        usleep(BETWEEN_US);
    }
    return status;
}

int main(int argc, char **argv)
{
    struct enclave e;

    CHECK(argc >= 3, "arguments");
    if (!strcmp(argv[argc - 1], "short"))
        return 7;
    start(&e, argc, argv);
    if (!strcmp(argv[argc - 1], "last"))
        return 8;
    for (int i = 0; i < TIMES; i++) {
        pid_t child = DO(fork());

        if (child == 0)
            execute(argv, i ? "short" : "last");
        int status = until_ended(child);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == (i ? 7 : 8), "%d: %#x", i, status);
    }
    ok("%d programs were executed while signals came", TIMES);
    return 0;
}
