/*
 * A host thread that blocks SIGBUS touches enclave memory that the driver cannot provide: it dies
 * of the signal, handler or not, as with every exception of a blocked signal.
 *
 * The story: the signal stayed pending, and the access was retried forever.
 */
#include "host.h"

#include <sys/wait.h>

static void handler(int number)
{
    _exit(number);
}

int main(void)
{
    int status, fd = DO(open("/dev/sgx_enclave", O_RDWR));
    volatile char *page = DO(mmap(NULL, PAGE_SIZE, PROT_READ, MAP_SHARED, fd, 0));

    for (int blocked = 0; blocked < 2; blocked++) {
        pid_t pid = DO(fork());

        if (pid == 0) {
            sigset_t set;

            alarm(20);
            signal(SIGBUS, handler);
            sigemptyset(&set);
            if (blocked)
                sigaddset(&set, SIGBUS);
            DO(sigprocmask(SIG_SETMASK, &set, NULL));
            (void)*page;
            _exit(0);
        }
        SAME(DO(waitpid(pid, &status, 0)), pid);
        if (blocked)
            SAME(WIFSIGNALED(status) ? WTERMSIG(status) : 0, SIGBUS);
        else
            SAME(WEXITSTATUS(status), SIGBUS);
    }
    ok("a blocked SIGBUS");
    return 0;
}
