/*
 * All the ways that a path can lead to a node, and what opening answers for each flag.
 *
 * The story: only the four absolute names were known. A symbolic link was ENOENT, O_CREAT through
 * one made a file in /dev, and O_EXCL, O_DIRECTORY and O_PATH opened the device.
 */
#include "host.h"

#include <limits.h>
#include <linux/openat2.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <sys/xattr.h>

#define NODE "/dev/sgx_enclave"

static struct stat node;

static void opens(int fd, const char *how)
{
    struct stat st;

    CHECK(fd >= 0, "%s: %s", how, strerror(errno));
    SAME(ioctl(fd, SGX_IOC_ENCLAVE_INIT, NULL), -1);
    SAME(errno, EINVAL); /* no enclave has been created */
    DO(fstat(fd, &st));
    SAME(st.st_ino, node.st_ino);
    DO(close(fd));
    ok("opened by %s", how);
}

static void is_node(const char *path)
{
    char target[64];
    struct statx x;
    struct stat st;
    int fd = open(path, O_RDWR);

    opens(fd, path);
    DO(stat(path, &st));
    SAME(st.st_rdev, node.st_rdev);
    SAME(st.st_ino, node.st_ino);
    DO(statx(AT_FDCWD, path, 0, STATX_BASIC_STATS, &x));
    SAME(makedev(x.stx_rdev_major, x.stx_rdev_minor), node.st_rdev);
    DO(access(path, R_OK | W_OK));
    DO(lstat(path, &st));
    if (S_ISLNK(st.st_mode)) {
        CHECK(readlink(path, target, sizeof(target)) > 0, "%s", strerror(errno));
        SAME(open(path, O_RDWR | O_NOFOLLOW), -1);
        SAME(errno, ELOOP);
        SAME(open(path, O_RDWR | O_CREAT | O_EXCL, 0600), -1);
        SAME(errno, EEXIST);
    } else {
        SAME(readlink(path, target, sizeof(target)), -1);
        SAME(errno, EINVAL);
        SAME(st.st_rdev, node.st_rdev);
    }
}

static void flag(const char *name, int flags, int wanted)
{
    int fd = open(NODE, flags, 0600);

    if (wanted) {
        SAME(fd, -1);
        CHECK(errno == wanted, "%s: %s", name, strerror(errno));
    } else {
        opens(fd, name);
    }
    ok("open with %s", name);
}

static long open2(uint64_t flags, uint64_t mode, uint64_t resolve, const char *path)
{
    struct open_how how = {.flags = flags, .mode = mode, .resolve = resolve};

    return syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof(how));
}

static void only_a_path(void)
{
    char byte, self[32];
    struct stat st;
    int fd = DO(open(NODE, O_PATH | O_CLOEXEC | O_RDWR));

    SAME(DO(fcntl(fd, F_GETFD)), FD_CLOEXEC);
    SAME(DO(fcntl(fd, F_GETFL)), O_PATH);
    SAME(ioctl(fd, SGX_IOC_ENCLAVE_INIT, NULL), -1);
    SAME(errno, EBADF);
    SAME((long)mmap(NULL, PAGE_SIZE, PROT_READ, MAP_SHARED, fd, 0), -1);
    SAME(errno, EBADF);
    SAME(read(fd, &byte, 1), -1);
    SAME(errno, EBADF);
    SAME(ftruncate(fd, 0), -1);
    SAME(errno, EBADF);
    DO(syscall(SYS_fstat, fd, &st));
    SAME(st.st_rdev, node.st_rdev);
    int copy = DO(dup(fd));
    DO(fstat(copy, &st));
    SAME(st.st_rdev, node.st_rdev);
    snprintf(self, sizeof(self), "/proc/self/fd/%d", copy);
    opens(open(self, O_RDWR), "the name of an O_PATH descriptor");
    DO(close(fd));
    DO(close(copy));
    ok("O_PATH");
}

static void descriptor_names(void)
{
    char self[32], target[64];
    int fd = DO(open(NODE, O_RDWR));

    snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
    ssize_t length = DO(readlink(self, target, sizeof(target) - 1));
    target[length] = 0;
    CHECK(!strcmp(target, NODE), "%s", target);
    SAME(DO(readlink(self, target, 4)), 4);
    SAME(memcmp(target, "/dev", 4), 0);
    is_node("/dev/../dev/sgx_enclave");
    snprintf(self, sizeof(self), "/dev/fd/%d", fd);
    opens(open(self, O_RDWR), "/dev/fd");
    DO(close(fd));
    ok("names in /proc/self/fd");
}

int main(void)
{
    char directory[] = "/tmp/softsgx-XXXXXX", target[PATH_MAX];
    struct statfs fs;
    char byte;

    DO(stat(NODE, &node));
    SAME(major(node.st_rdev), 10);
    CHECK(mkdtemp(directory), "%s", strerror(errno));
    DO(chdir(directory));
    DO(symlink(NODE, "link"));
    DO(symlink("link", "chain"));
    DO(symlink("/dev", "dir"));
    DO(symlink("dir/sgx_enclave", "through"));
    DO(symlink("loop", "loop"));

    is_node(NODE);
    is_node("/dev/sgx/enclave");
    is_node("//dev/./sgx_enclave");
    is_node("link");
    is_node("chain");
    is_node("dir/sgx_enclave");
    is_node("through");
    snprintf(target, sizeof(target), "%s/chain", directory);
    is_node(target);
    SAME(open("loop", O_RDWR), -1);
    SAME(errno, ELOOP);
    SAME(open("dir/sgx_vepc", O_RDWR), -1);
    SAME(errno, ENOENT);

    int dev = DO(open("/dev", O_PATH | O_DIRECTORY)), here = DO(open(".", O_PATH));
    opens(openat(dev, "sgx_enclave", O_RDWR), "openat(/dev)");
    opens(openat(here, "chain", O_RDWR), "openat of a link");
    DO(chdir("/dev"));
    is_node("sgx_enclave");
    DO(fchdir(here));
    CHECK(realpath("through", target) && !strcmp(target, NODE), "realpath: %s", target);

    flag("O_CREAT", O_RDWR | O_CREAT, 0);
    flag("O_CREAT | O_EXCL", O_RDWR | O_CREAT | O_EXCL, EEXIST);
    flag("O_EXCL", O_RDWR | O_EXCL, 0);
    flag("O_DIRECTORY", O_RDONLY | O_DIRECTORY, ENOTDIR);
    flag("O_DIRECTORY | O_CREAT", O_RDONLY | O_DIRECTORY | O_CREAT, EINVAL);
    flag("O_TMPFILE", O_RDWR | O_TMPFILE, ENOTDIR);
    flag("O_DIRECT", O_RDWR | O_DIRECT, EINVAL);
    flag("O_TRUNC", O_RDWR | O_TRUNC, 0);
    flag("O_NOFOLLOW", O_RDWR | O_NOFOLLOW, 0);
    flag("O_NONBLOCK", O_RDWR | O_NONBLOCK, 0);
    opens(open("link", O_RDWR | O_CREAT, 0600), "O_CREAT through a link");
    opens(open2(O_RDWR, 0, 0, NODE), "openat2");
    opens(open2(O_RDWR, 0, RESOLVE_NO_SYMLINKS, NODE), "openat2, RESOLVE_NO_SYMLINKS");
    SAME(open2(O_RDWR, 0, RESOLVE_NO_SYMLINKS, "link"), -1);
    SAME(errno, ELOOP);
    SAME(open2(O_RDWR, 0, RESOLVE_BENEATH, NODE), -1);
    SAME(errno, EXDEV);
    SAME(open2(O_RDWR | 1ULL << 40, 0, 0, NODE), -1);
    SAME(errno, EINVAL);
    SAME(open2(O_RDWR, 0600, 0, NODE), -1);
    SAME(errno, EINVAL);
    SAME(open2(O_PATH | O_RDWR, 0, 0, NODE), -1);
    SAME(errno, EINVAL);
    only_a_path();
    descriptor_names();

    DO(statfs(NODE, &fs));
    SAME(getxattr(NODE, "user.any", &byte, 1), -1);
    SAME(errno, ENODATA);
    SAME(DO(listxattr(NODE, NULL, 0)) >= 0, 1);
    ok("statfs, getxattr, listxattr");

    for (const char *const *name = (const char *const[]){"link", "chain", "dir", "through", "loop", NULL};
         *name; name++)
        DO(unlink(*name));
    DO(rmdir(directory));
    return 0;
}
