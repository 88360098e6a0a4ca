/*
 * The names that programs look for: character devices with major 10, whatever system call asks.
 */
#include "host.h"

#include <sys/syscall.h>
#include <sys/sysmacros.h>

static void is_device(const char *name, const char *how, mode_t mode, dev_t rdev)
{
    CHECK(S_ISCHR(mode), "%s, %s: mode %o is no character device", name, how, mode);
    CHECK(major(rdev) == 10, "%s, %s: major %u", name, how, major(rdev));
    ok("%s of %s", how, name);
}

static void look(const char *name)
{
    struct statx x;
    struct stat st;

    DO(stat(name, &st));
    is_device(name, "stat", st.st_mode, st.st_rdev);
    DO(lstat(name, &st));
    is_device(name, "lstat", st.st_mode, st.st_rdev);
    DO(fstatat(AT_FDCWD, name, &st, 0));
    is_device(name, "fstatat", st.st_mode, st.st_rdev);
    DO(syscall(SYS_stat, name, &st));
    is_device(name, "system call 4", st.st_mode, st.st_rdev);
    DO(statx(AT_FDCWD, name, 0, STATX_BASIC_STATS, &x));
    is_device(name, "statx", x.stx_mode, makedev(x.stx_rdev_major, x.stx_rdev_minor));
    DO(access(name, F_OK));
    DO(access(name, R_OK | W_OK));
    DO(faccessat(AT_FDCWD, name, R_OK, 0));
    ok("access of %s", name);

    int fd = DO(open(name, O_RDWR | O_CLOEXEC));
    DO(fstat(fd, &st));
    is_device(name, "fstat", st.st_mode, st.st_rdev);
    SAME(DO(fcntl(fd, F_GETFD)) & FD_CLOEXEC, FD_CLOEXEC);
    int copy = DO(dup(fd));
    SAME(DO(fcntl(copy, F_GETFD)) & FD_CLOEXEC, 0);
    DO(close(fd));
    DO(close(copy));
    fd = DO(syscall(SYS_open, name, O_RDONLY));
    DO(close(fd));
    ok("open of %s", name);
}

int main(void)
{
    look("/dev/sgx_enclave");
    look("/dev/sgx_provision");
    SAME(access("/dev/sgx_vepc", F_OK), -1);
    SAME(errno, ENOENT);

    int fd = DO(open("/dev/sgx_provision", O_RDWR));
    uint64_t zeros[8] = {0};
    SAME(ioctl(fd, SGX_IOC_ENCLAVE_CREATE, zeros), -1);
    SAME(errno, ENOTTY);
    SAME((long)mmap(NULL, PAGE_SIZE, PROT_READ, MAP_SHARED, fd, 0), -1L);
    SAME(errno, ENODEV);
    ok("/dev/sgx_provision has neither ioctl nor mmap");
    return 0;
}
