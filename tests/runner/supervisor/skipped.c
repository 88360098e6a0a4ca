/*
 * What a tracer from outside needs to play this: a signal that is sent drops the SIGSYS of a call.
 * The handler of SIGUSR1 prints where its frame is and where it returns to, and waits.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

static volatile int here, sent;

static void waits(int number, siginfo_t *info, void *frame)
{
    (void)number, (void)info;
    here++;
    dprintf(1, "%d %lu %lu\n", getpid(), (unsigned long)frame, ((unsigned long *)frame)[-1]);
    for (;;)
        ;
}

static void comes(int number, siginfo_t *info, void *frame)
{
    (void)number, (void)frame;
    sent += info->si_code == SI_TKILL;
}

int main(void)
{
    struct sigaction action = {.sa_sigaction = waits, .sa_flags = SA_SIGINFO};

    sigaction(SIGUSR1, &action, NULL);
    action.sa_sigaction = comes;
    sigaction(SIGSYS, &action, NULL);
    raise(SIGUSR1);
    dprintf(1, "the handler returned, %d came, %d was sent\n", here, sent);
    return 0;
}
