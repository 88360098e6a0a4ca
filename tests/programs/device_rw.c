/*
 * The devices have neither read nor write: EINVAL. Linux 6.12, sgx/driver.c, sgx/main.c.
 */
#include "host.h"

static void read_and_write(const char *name)
{
    int fd = DO(open(name, O_RDWR));
    char byte = 0;

    SAME(read(fd, &byte, 1), -1);
    SAME(errno, EINVAL);
    SAME(write(fd, &byte, 1), -1);
    SAME(errno, EINVAL);
    DO(close(fd));
    ok("%s cannot be read or written", name);
}

int main(void)
{
    read_and_write("/dev/sgx_enclave");
    read_and_write("/dev/sgx_provision");
    return 0;
}
