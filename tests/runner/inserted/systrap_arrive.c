/* Maps the stub's image and the records (two paths), then lets a tracer jump to the vDSO's way. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "harness.h"

int main(int argc, char **argv)
{
    long size = lseek(open(argv[1], O_RDONLY), 0, SEEK_END);
    char *code = mmap((void *)SYSTRAP_CODE, size, PROT_READ | PROT_EXEC,
                      MAP_PRIVATE | MAP_FIXED_NOREPLACE, open(argv[1], O_RDONLY), 0);
    char *shared = mmap((void *)SYSTRAP_CONTROL, SYSTRAP_SHARED_SIZE, PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_FIXED_NOREPLACE, open(argv[2], O_RDWR), 0);
    char *stack = mmap((void *)0x20000000, 8192, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    if (argc != 3 || code != (char *)SYSTRAP_CODE || shared != (char *)SYSTRAP_CONTROL ||
        stack != (char *)0x20000000)
        return 1;
    syscall(SYS_arch_prctl, 0x1001, RECORDS);
    if (read(0, &argc, 1) != 1)
        return 2;
    for (;;)
        __asm__ volatile("int3");
}
