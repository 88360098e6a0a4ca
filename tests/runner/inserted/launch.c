/*
 * Runs a program with the vDSO image, the stub and the mailboxes in place before its first instruction.
 *
 * usage: launch VDSO-FILE STUB-FILE BOX-FD PROGRAM [ARGUMENT...]
 * Writes a line with the program's pid and the address of its real vDSO, and waits for a line on
 * stdin, until which VDSO-FILE must have been written. The end of the program is its own.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#define BASE 0x7e8000000000ul
#define VDSO (BASE + 0x1000)
#define STUB (BASE + 0x8000)
#define BOX (BASE + 0x40000)
#define BOX_SIZE 0x31000

static pid_t child;

static void must(int good, const char *what)
{
	if (!good) {
		perror(what);
		exit(3);
	}
}

static void stop_after(enum __ptrace_request request)
{
	int status;

	must(ptrace(request, child, 0, 0) == 0, "ptrace");
	must(waitpid(child, &status, 0) == child && WIFSTOPPED(status), "stop");
}

static uint64_t peek(uint64_t address)
{
	return ptrace(PTRACE_PEEKDATA, child, address, 0);
}

/* mmap in the child, by a system call instruction put where it stands. */
static void inject_mmap(uint64_t address, size_t size, int prot, int flags, int fd)
{
	struct user_regs_struct saved, regs;
	uint64_t word;

	must(ptrace(PTRACE_GETREGS, child, 0, &saved) == 0, "GETREGS");
	word = peek(saved.rip);
	must(ptrace(PTRACE_POKEDATA, child, saved.rip, (word & ~0xfffful) | 0x050f) == 0, "POKE");
	regs = saved;
	regs.rax = SYS_mmap;
	regs.orig_rax = -1;
	regs.rdi = address;
	regs.rsi = size;
	regs.rdx = prot;
	regs.r10 = flags | MAP_FIXED_NOREPLACE;
	regs.r8 = fd;
	regs.r9 = 0;
	must(ptrace(PTRACE_SETREGS, child, 0, &regs) == 0, "SETREGS");
	stop_after(PTRACE_SINGLESTEP);
	must(ptrace(PTRACE_GETREGS, child, 0, &regs) == 0, "GETREGS");
	must(regs.rax == address, "injected mmap");
	must(ptrace(PTRACE_POKEDATA, child, saved.rip, word) == 0, "POKE");
	saved.orig_rax = -1;
	must(ptrace(PTRACE_SETREGS, child, 0, &saved) == 0, "SETREGS");
}

/* Where the value of AT_SYSINFO_EHDR is: after argv and envp on the first stack. */
static uint64_t sysinfo_ehdr(void)
{
	struct user_regs_struct regs;
	uint64_t at;

	must(ptrace(PTRACE_GETREGS, child, 0, &regs) == 0, "GETREGS");
	at = regs.rsp + 8 * (peek(regs.rsp) + 2);
	while (peek(at))
		at += 8;
	for (at += 8; peek(at) != AT_SYSINFO_EHDR; at += 16)
		must(peek(at) != AT_NULL, "AT_SYSINFO_EHDR");
	return at + 8;
}

static void map_file(int fd, uint64_t address)
{
	struct stat status;

	must(fstat(fd, &status) == 0, "fstat");
	inject_mmap(address, status.st_size, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd);
}

int main(int argc, char **argv)
{
	int vdso = open(argv[1], O_RDONLY), stub = open(argv[2], O_RDONLY), status;
	uint64_t at;

	must(argc > 4 && vdso >= 0 && stub >= 0, "arguments");
	child = fork();
	if (child == 0) {
		ptrace(PTRACE_TRACEME, 0, 0, 0);
		execv(argv[4], argv + 4);
		_exit(3);
	}
	/* Without PTRACE_O_TRACEEXEC: a signal, after the system call and before the first instruction. */
	must(waitpid(child, &status, 0) == child && WIFSTOPPED(status), "exec");
	at = sysinfo_ehdr();
	printf("%d %lu\n", child, (unsigned long)peek(at));
	fflush(stdout);
	must(getchar() == '\n', "stdin");
	map_file(vdso, VDSO);
	map_file(stub, STUB);
	inject_mmap(BOX, BOX_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, atoi(argv[3]));
	must(ptrace(PTRACE_POKEDATA, child, at, VDSO) == 0, "POKE");
	must(ptrace(PTRACE_DETACH, child, 0, 0) == 0, "DETACH");
	must(waitpid(child, &status, 0) == child, "wait");
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
