/*
 * What calls on a descriptor of a node answer, however the program came by the descriptor: the
 * node is a character device without read, write, llseek, fsync, fallocate, splice. Linux 6.12,
 * fs/.
 *
 * The story: a memfd stands for it, and that could be seen: ftruncate, fallocate, fsync, lseek and
 * splice succeeded, and on a copy of the descriptor read and write did, too. With a path as its
 * argument the program asks another such device of the machine, without the supervisor: the table
 * was checked that way.
 */
#include "host.h"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <sys/xattr.h>

#define FIONREAD 0x541B
#define FIOQSIZE 0x5460
#define FS_IOC_GETFLAGS_ 0x80086601
#define TCGETS 0x5401

static char bytes[64];
static struct iovec iov = {bytes, sizeof(bytes)};
static int pipe_in, pipe_out, file;

#define TABLE(_)                                                                                   \
    /* name, call, errno when opened for reading and writing, for reading, for writing */          \
    _(read, read(fd, bytes, 1), EINVAL, EINVAL, EBADF)                                             \
    _(read of nothing, read(fd, bytes, 0), EINVAL, EINVAL, EBADF)                                  \
    _(readv, readv(fd, &iov, 1), EINVAL, EINVAL, EBADF)                                            \
    _(pread64, pread(fd, bytes, 1, 0), EINVAL, EINVAL, EBADF)                                      \
    _(pread64 before 0, pread(fd, bytes, 1, -1), EINVAL, EINVAL, EINVAL)                           \
    _(preadv, preadv(fd, &iov, 1, 0), EINVAL, EINVAL, EBADF)                                       \
    _(preadv2, preadv2(fd, &iov, 1, 0, 0), EINVAL, EINVAL, EBADF)                                  \
    _(preadv2 here, preadv2(fd, &iov, 1, -1, 0), EINVAL, EINVAL, EBADF)                            \
    _(write, write(fd, bytes, 1), EINVAL, EBADF, EINVAL)                                           \
    _(write of nothing, write(fd, bytes, 0), EINVAL, EBADF, EINVAL)                                \
    _(writev, writev(fd, &iov, 1), EINVAL, EBADF, EINVAL)                                          \
    _(pwrite64, pwrite(fd, bytes, 1, 0), EINVAL, EBADF, EINVAL)                                    \
    _(pwritev, pwritev(fd, &iov, 1, 0), EINVAL, EBADF, EINVAL)                                     \
    _(pwritev2, pwritev2(fd, &iov, 1, 0, 0), EINVAL, EBADF, EINVAL)                                \
    _(ftruncate, ftruncate(fd, 0), EINVAL, EINVAL, EINVAL)                                         \
    _(fallocate, fallocate(fd, 0, 0, PAGE_SIZE), ENODEV, EBADF, ENODEV)                            \
    _(fallocate of nothing, fallocate(fd, 0, 0, 0), EINVAL, EINVAL, EINVAL)                        \
    _(fallocate PUNCH_HOLE, fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 1),       \
      ENODEV, EBADF, ENODEV)                                                                       \
    _(fallocate PUNCH_HOLE alone, fallocate(fd, FALLOC_FL_PUNCH_HOLE, 0, 1), EOPNOTSUPP,           \
      EOPNOTSUPP, EOPNOTSUPP)                                                                      \
    _(fsync, fsync(fd), EINVAL, EINVAL, EINVAL)                                                    \
    _(fdatasync, fdatasync(fd), EINVAL, EINVAL, EINVAL)                                            \
    _(sync_file_range, sync_file_range(fd, 0, 0, 2), ESPIPE, ESPIPE, ESPIPE)                       \
    _(sync_file_range flags, sync_file_range(fd, 0, 0, 8), EINVAL, EINVAL, EINVAL)                 \
    _(readahead, readahead(fd, 0, 1), EINVAL, EINVAL, EBADF)                                       \
    _(posix_fadvise, syscall(SYS_fadvise64, fd, 0, 0, POSIX_FADV_RANDOM), 0, 0, 0)                 \
    _(sendfile to it, sendfile(fd, file, NULL, 1), EINVAL, EBADF, EINVAL)                          \
    _(sendfile from it, sendfile(file, fd, NULL, 1), EINVAL, EINVAL, EBADF)                        \
    _(splice to it, splice(pipe_out, NULL, fd, NULL, 1, 0), EINVAL, EBADF, EINVAL)                 \
    _(splice from it, splice(fd, NULL, pipe_in, NULL, 1, 0), EINVAL, EINVAL, EBADF)                \
    _(splice of nothing, splice(fd, NULL, pipe_in, NULL, 0, 0), 0, 0, 0)                           \
    _(copy_file_range to it, copy_file_range(file, NULL, fd, NULL, 1, 0), EINVAL, EINVAL, EINVAL)  \
    _(copy_file_range from it, copy_file_range(fd, NULL, file, NULL, 1, 0), EINVAL, EINVAL,        \
      EINVAL)                                                                                      \
    _(vmsplice, vmsplice(fd, &iov, 1, 0), EBADF, EBADF, EBADF)                                     \
    _(tee, tee(fd, fd, 1, 0), EINVAL, any, any)                                                    \
    _(flock, flock(fd, LOCK_EX | LOCK_NB), 0, 0, 0)                                                \
    _(flock to unlock, flock(fd, LOCK_UN), 0, 0, 0)                                                \
    _(fchdir, fchdir(fd), ENOTDIR, ENOTDIR, ENOTDIR)                                               \
    _(getdents64, syscall(SYS_getdents64, fd, bytes, 64), ENOTDIR, ENOTDIR, ENOTDIR)               \
    _(listen, listen(fd, 1), ENOTSOCK, ENOTSOCK, ENOTSOCK)                                         \
    _(F_ADD_SEALS, fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL), EINVAL, EPERM, EINVAL)                     \
    _(F_GET_SEALS, fcntl(fd, F_GET_SEALS), EINVAL, EINVAL, EINVAL)                                 \
    _(F_NOTIFY, fcntl(fd, F_NOTIFY, 1), ENOTDIR, ENOTDIR, ENOTDIR)                                 \
    _(F_SETLEASE, fcntl(fd, F_SETLEASE, F_WRLCK), EINVAL, EINVAL, EINVAL)                          \
    _(F_GETPIPE_SZ, fcntl(fd, F_GETPIPE_SZ), EBADF, EBADF, EBADF)                                  \
    _(F_SETLK for reading, lock(fd, F_RDLCK), 0, 0, EBADF)                                         \
    _(F_SETLK for writing, lock(fd, F_WRLCK), 0, EBADF, 0)                                         \
    _(F_SETFL O_DIRECT, fcntl(fd, F_SETFL, O_DIRECT), EINVAL, EINVAL, EINVAL)                      \
    _(FIONREAD, ioctl(fd, FIONREAD, bytes), ENOTTY, ENOTTY, ENOTTY)                                \
    _(FIOQSIZE, ioctl(fd, FIOQSIZE, bytes), ENOTTY, ENOTTY, ENOTTY)                                \
    _(FS_IOC_GETFLAGS, ioctl(fd, FS_IOC_GETFLAGS_, bytes), ENOTTY, ENOTTY, ENOTTY)                 \
    _(TCGETS, ioctl(fd, TCGETS, bytes), ENOTTY, ENOTTY, ENOTTY)                                    \
    _(fgetxattr, fgetxattr(fd, "user.any", bytes, 8), ENODATA, ENODATA, ENODATA)                   \
    _(fsetxattr, fsetxattr(fd, "user.any", "1", 1, 0), EPERM, EPERM, EPERM)                        \
    _(fremovexattr, fremovexattr(fd, "user.any"), EPERM, EPERM, EPERM)                             \
    _(epoll_ctl, epoll_add(fd), EPERM, EPERM, EPERM)

enum { any = -1 };

static int lock(int fd, short type)
{
    struct flock flock = {.l_type = type, .l_whence = SEEK_SET, .l_len = 1};

    int result = fcntl(fd, F_SETLK, &flock), error = errno;

    flock.l_type = F_UNLCK;
    DO(fcntl(fd, F_SETLK, &flock));
    errno = error;
    return result;
}

static int epoll_add(int fd)
{
    struct epoll_event event = {.events = EPOLLIN};
    int set = DO(epoll_create1(EPOLL_CLOEXEC));
    int result = epoll_ctl(set, EPOLL_CTL_ADD, fd, &event), error = errno;

    DO(close(set));
    errno = error;
    return result;
}

static int node_seeks; /* another device may have llseek */

static void answers(const char *node, const char *how, int fd, int mode)
{
#define ROW(name, call, both, reading, writing)                                                    \
    {                                                                                              \
        int wanted = mode == O_RDWR ? (both) : mode == O_RDONLY ? (reading) : (writing);           \
        long result = (call);                                                                      \
                                                                                                   \
        CHECK(wanted == any || (wanted ? result == -1 && errno == wanted : result >= 0),           \
              "%s, %s, mode %d, " #name ": %ld, %s", node, how, mode, result, strerror(errno));    \
    }
    TABLE(ROW)

    if (!node_seeks) {
        SAME(lseek(fd, 0, SEEK_CUR), -1);
        SAME(errno, ESPIPE);
        SAME(lseek(fd, 0, 99), -1);
        SAME(errno, EINVAL);
    }
    int flags = DO(fcntl(fd, F_GETFL));
    SAME(flags & O_ACCMODE, mode);
    DO(fcntl(fd, F_SETFL, O_NONBLOCK));
    SAME(DO(fcntl(fd, F_GETFL)), flags | O_NONBLOCK);
    int off = 0;
    DO(ioctl(fd, FIONBIO, &off));
    SAME(DO(fcntl(fd, F_GETFL)), flags);
    struct pollfd poll_it = {fd, POLLIN | POLLOUT, 0};
    SAME(DO(poll(&poll_it, 1, 0)), 1);
    SAME(poll_it.revents, POLLIN | POLLOUT);

    struct stat st, seen;
    struct statfs fs;
    DO(syscall(SYS_fstat, fd, &st));
    CHECK(S_ISCHR(st.st_mode) && st.st_size == 0 && st.st_nlink == 1, "mode %o", st.st_mode);
    DO(stat(node, &seen));
    SAME(st.st_rdev, seen.st_rdev);
    SAME(st.st_ino, seen.st_ino);
    SAME(st.st_dev, seen.st_dev);
    DO(fstatfs(fd, &fs));
    ok("%s, %s, mode %d", node, how, mode);
}

static int passed(int fd)
{
    char byte = 'x', room[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec one = {&byte, 1};
    struct msghdr message = {
        .msg_iov = &one, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof(room)};
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    int ends[2], got;

    DO(socketpair(AF_UNIX, SOCK_STREAM, 0, ends));
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(head), &fd, sizeof(fd));
    SAME(DO(sendmsg(ends[0], &message, 0)), 1);
    SAME(DO(recvmsg(ends[1], &message, 0)), 1);
    memcpy(&got, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(got));
    DO(close(ends[0]));
    DO(close(ends[1]));
    return got;
}

static void all_ways(const char *node, int supervised)
{
    char self[32];
    int status;

    for (int mode = O_RDONLY; mode <= O_RDWR; mode++) {
        int fd = DO(open(node, mode | O_CLOEXEC));

        answers(node, "open", fd, mode);
        DO(close(fd));
    }
    int fd = DO(open(node, O_RDWR)), copy = DO(dup(fd));
    answers(node, "dup", copy, O_RDWR);
    int again = DO(dup(copy));
    DO(close(fd));
    DO(close(copy));
    answers(node, "dup of a dup", again, O_RDWR);
    SAME(DO(dup2(again, 100)), 100);
    answers(node, "dup2", 100, O_RDWR);
    SAME(DO(dup3(again, 101, O_CLOEXEC)), 101);
    answers(node, "dup3", 101, O_RDWR);
    answers(node, "F_DUPFD", fd = DO(fcntl(again, F_DUPFD, 110)), O_RDWR);
    answers(node, "F_DUPFD_CLOEXEC", fd = DO(fcntl(fd, F_DUPFD_CLOEXEC, 110)), O_RDWR);
    pid_t child = DO(fork());
    if (child == 0) {
        answers(node, "in a child", again, O_RDWR);
        answers(node, "dup in a child", dup(fd), O_RDWR);
        _exit(0);
    }
    SAME(DO(waitpid(child, &status, 0)), child);
    SAME(status, 0);
    struct stat st;
    int got = passed(again);
    ioctl(got, SGX_IOC_ENCLAVE_INIT, NULL);
    answers(node, "passed by a socket, after its first ioctl", got, O_RDWR);
    DO(fstat(got = passed(again), &st));
    answers(node, "passed by a socket, after fstat", got, O_RDWR);
    if (supervised) {
        char name[16];

        snprintf(name, sizeof(name), "%d", again);
        child = DO(fork());
        if (child == 0) {
            DO(execl("/proc/self/exe", "device_calls", node, name, NULL));
        }
        SAME(DO(waitpid(child, &status, 0)), child);
        SAME(status, 0);
    }
    snprintf(self, sizeof(self), "/proc/self/fd/%d", again);
    int reopened = DO(open(self, O_RDONLY));
    answers(node, "opened by its descriptor's name", reopened, O_RDONLY);
    DO(close_range(3 + 3, ~0U, 0));
    if (!supervised)
        return;
    int neither = DO(open(node, 3)); /* neither reading nor writing */
    SAME(read(neither, bytes, 1), -1);
    SAME(errno, EBADF);
    SAME(write(neither, bytes, 1), -1);
    SAME(errno, EBADF);
    DO(close(neither));
}

/* Numbers that were a node's once are any file's afterwards. */
static void ordinary_again(const char *node)
{
    int fd = DO(open(node, O_RDWR));

    DO(close(fd));
    SAME(DO(open("/proc/self/exe", O_RDONLY)), fd);
    SAME(DO(read(fd, bytes, 4)), 4);
    SAME(memcmp(bytes, "\177ELF", 4), 0);
    SAME(DO(lseek(fd, 0, SEEK_CUR)), 4);
    DO(close(fd));
    ok("a number that was a node's is an ordinary file's");
}

/* More numbers than have a filter of their own. */
static void many(const char *node)
{
    int fds[40];

    for (int i = 0; i < 40; i++)
        fds[i] = DO(open(node, O_RDWR));
    for (int i = 0; i < 40; i++) {
        SAME(read(fds[i], bytes, 1), -1);
        SAME(errno, EINVAL);
        SAME(ftruncate(fds[i], 0), -1);
        SAME(errno, EINVAL);
        DO(close(fds[i]));
    }
    SAME(DO(write(file, "any", 3)), 3);
    ok("forty descriptors");
}

int main(int argc, char **argv)
{
    int ends[2];

    DO(pipe(ends));
    pipe_out = ends[0];
    pipe_in = ends[1];
    SAME(DO(write(pipe_in, "data", 4)), 4);
    file = DO(memfd_create("file", 0));
    SAME(DO(write(file, "data", 4)), 4);
    DO(lseek(file, 0, SEEK_SET));
    if (argc > 2) {
        answers(argv[1], "kept over exec", atoi(argv[2]), O_RDWR);
        return 0;
    }
    if (argc > 1) {
        node_seeks = 1;
        all_ways(argv[1], 0);
        return 0;
    }
    all_ways("/dev/sgx_enclave", 1);
    all_ways("/dev/sgx_provision", 1);
    ordinary_again("/dev/sgx_enclave");
    many("/dev/sgx_enclave");
    return 0;
}
