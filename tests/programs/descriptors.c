/*
 * One open of the device is one enclave, by whatever descriptor it is reached, and it lives as long
 * as a descriptor or a mapping of it.
 *
 * enclave: ops
 */
#include "host.h"

#include <sys/socket.h>
#include <sys/wait.h>

static void pass(int socket, int fd)
{
    char byte = 'x', room[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec iov = {&byte, 1};
    struct msghdr message = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof(room)};
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);

    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(head), &fd, sizeof(fd));
    SAME(DO(sendmsg(socket, &message, 0)), 1);
}

static int passed(int socket)
{
    char byte, room[CMSG_SPACE(sizeof(int))];
    struct iovec iov = {&byte, 1};
    struct msghdr message = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof(room)};
    int fd;

    SAME(DO(recvmsg(socket, &message, 0)), 1);
    CHECK(CMSG_FIRSTHDR(&message), "no descriptor came");
    memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(fd));
    return fd;
}

int main(int argc, char **argv)
{
    struct sgx_enclave_run run = {0};
    struct enclave e;
    int ends[2], status;

    start(&e, argc, argv);
    run.tcs = e.tcs[0];
    uint64_t buffer = ask(&run, OP_BUFFER, 0, 0, 0);

    int other = DO(dup(e.fd));
    DO(close(e.fd));
    e.fd = other;
    DO(restrict_page(&e, buffer, SGX_R));
    SAME(ask(&run, OP_ACCEPT, buffer, SGX_R | SGX_PT_REG | SGX_PR, 0), 0);
    ok("a descriptor made by dup");

    DO(socketpair(AF_UNIX, SOCK_STREAM, 0, ends));
    pid_t child = DO(fork());
    if (child == 0) {
        e.fd = passed(ends[1]);
        DO(restrict_page(&e, buffer + PAGE_SIZE, SGX_R));
        _exit(0);
    }
    pass(ends[0], e.fd);
    SAME(DO(waitpid(child, &status, 0)), child);
    SAME(status, 0);
    SAME(ask(&run, OP_ACCEPT, buffer + PAGE_SIZE, SGX_R | SGX_PT_REG | SGX_PR, 0), 0);
    ok("a descriptor passed to another process");

    int second = DO(open("/dev/sgx_enclave", O_RDWR));
    uint64_t zeros[8] = {0};
    SAME(ioctl(second, SGX_IOC_ENCLAVE_ADD_PAGES, zeros), -1);
    SAME(errno, EINVAL);
    DO(close(second));
    DO(close(e.fd));
    SAME(ask(&run, OP_READ, buffer, 0, 0), 0);
    ok("all descriptors closed: the mappings keep the enclave");
    return 0;
}
