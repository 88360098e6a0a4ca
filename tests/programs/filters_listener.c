/*
 * A listener of the program's own: a parent answers system calls of its child.
 *
 * supervisors: ptrace
 */
#include "filters.h"

#include <sys/ioctl.h>
#include <sys/socket.h>

static void send_descriptor(int through, int fd)
{
    char byte = 0, control[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec data = {&byte, 1};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = control,
                             .msg_controllen = sizeof(control)};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);

    *header = (struct cmsghdr){CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
    memcpy(CMSG_DATA(header), &fd, sizeof(fd));
    HOLDS(sendmsg(through, &message, 0) == 1);
}

static int receive_descriptor(int through)
{
    char byte, control[CMSG_SPACE(sizeof(int))];
    struct iovec data = {&byte, 1};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = control,
                             .msg_controllen = sizeof(control)};
    int fd;

    HOLDS(recvmsg(through, &message, 0) == 1);
    memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(fd));
    return fd;
}

static int child(int through)
{
    struct sock_filter filter[] = {ONLY_X86_64, EQUAL(SYS_getppid, 1, 0), EQUAL(SYS_getuid, 0, 1),
                                   RETURN(SECCOMP_RET_USER_NOTIF), ALLOW};
    int listener = install(SECCOMP_FILTER_FLAG_NEW_LISTENER, PROGRAM(filter));

    HOLDS(listener > 2);
    HOLDS(install(SECCOMP_FILTER_FLAG_NEW_LISTENER, PROGRAM(filter)) == -1 && errno == EBUSY);
    cpuid();
    send_descriptor(through, listener);
    close(listener);
    HOLDS(syscall(SYS_getppid) == 4711);
    HOLDS(syscall(SYS_getuid) == -1 && errno == EXDEV);
    HOLDS(syscall(SYS_getuid) == getuid());
    cpuid();
    return 3;
}

static void answer_next(int listener, int number, pid_t from, struct seccomp_notif_resp answer)
{
    struct seccomp_notif notified = {0};

    HOLDS(ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &notified) == 0);
    HOLDS(notified.data.nr == number && (pid_t)notified.pid == from);
    HOLDS(notified.data.arch == AUDIT_ARCH_X86_64);
    answer.id = notified.id;
    HOLDS(ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &answer) == 0);
}

#ifndef SECCOMP_USER_NOTIF_FLAG_CONTINUE
#define SECCOMP_USER_NOTIF_FLAG_CONTINUE 1
#endif

/* The kernel takes both; softsgx, which would have to ask the listener itself, not the second. */
static int of_long_filters(void)
{
    struct sock_filter end[] = {ON(SYS_getppid, SECCOMP_RET_USER_NOTIF)};
    long result = install_long(SECCOMP_FILTER_FLAG_NEW_LISTENER, 4096, end, 4);

    HOLDS(result > 0 || errno == EINVAL);
    if (result < 0)
        HOLDS(install_long(SECCOMP_FILTER_FLAG_NEW_LISTENER, 4000, end, 4) > 0);
    return 3;
}

int main(void)
{
    int ends_[2], status, listener;
    pid_t pid;

    ENDS(of_long_filters, EXITED(3));
    HOLDS(socketpair(AF_UNIX, SOCK_STREAM, 0, ends_) == 0);
    pid = fork();
    if (!pid)
        _exit(child(ends_[1]));
    listener = receive_descriptor(ends_[0]);
    answer_next(listener, SYS_getppid, pid, (struct seccomp_notif_resp){.val = 4711});
    answer_next(listener, SYS_getuid, pid, (struct seccomp_notif_resp){.error = -EXDEV});
    /* Two of them: HOLDS compares the results of two calls. */
    answer_next(listener, SYS_getuid, pid,
                (struct seccomp_notif_resp){.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE});
    answer_next(listener, SYS_getuid, pid,
                (struct seccomp_notif_resp){.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE});
    HOLDS(waitpid(pid, &status, 0) == pid && status == EXITED(3));
    printf("ok a listener answers\n");
    return 0;
}
