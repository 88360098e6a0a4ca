/*
 * Enters the stub and the vDSO function with registers that the test chooses, and prints the result.
 *
 * usage: harness VDSO-FILE STUB-FILE BOX-FD FUNCTION TARGET
 * Commands on stdin, one byte each, are documented at their functions; answers go to stdout.
 */
#define _GNU_SOURCE
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>
#include <fcntl.h>

#define BASE 0x7e8000000000ul
#define VDSO (BASE + 0x1000)
#define STUB (BASE + 0x8000)
#define BOX (BASE + 0x40000)
#define BOX_SIZE 0x31000
#define STACK 0x20000000ul
#define STACK_SIZE 8192ul

/* RAX RCX RDX RBX RSP RBP RSI RDI R8..R15 RFLAGS RIP, then an FXSAVE64 image. */
struct state {
	uint64_t r[18];
	uint64_t pad[2];
	uint8_t fx[512];
} __attribute__((aligned(16)));

struct state in, out;
uint64_t target;
uint64_t own_rsp;
int trap_first;
void raw_enter(void);
void landing(void);

/* Nothing but `in` when it jumps to `target`; everything to `out` when something comes to `landing`. */
__asm__(".intel_syntax noprefix\n"
	".globl raw_enter, landing\n"
	"raw_enter:\n"
	"push rbx; push rbp; push r12; push r13; push r14; push r15\n"
	"mov [rip+own_rsp], rsp\n"
	"fxrstor64 [rip+in+160]\n"
	"cmp dword ptr [rip+trap_first], 0\n"
	"je 1f\n"
	"int3\n"
	"1: push qword ptr [rip+in+128]\n"
	"popfq\n"
	"mov rax, [rip+in]; mov rcx, [rip+in+8]; mov rdx, [rip+in+16]; mov rbx, [rip+in+24]\n"
	"mov rbp, [rip+in+40]; mov rsi, [rip+in+48]; mov rdi, [rip+in+56]\n"
	"mov r8, [rip+in+64]; mov r9, [rip+in+72]; mov r10, [rip+in+80]; mov r11, [rip+in+88]\n"
	"mov r12, [rip+in+96]; mov r13, [rip+in+104]; mov r14, [rip+in+112]; mov r15, [rip+in+120]\n"
	"mov rsp, [rip+in+32]\n"
	"jmp [rip+target]\n"
	"landing:\n"
	"mov [rip+out], rax; mov [rip+out+8], rcx; mov [rip+out+16], rdx; mov [rip+out+24], rbx\n"
	"mov [rip+out+32], rsp\n"
	"mov [rip+out+40], rbp; mov [rip+out+48], rsi; mov [rip+out+56], rdi\n"
	"mov [rip+out+64], r8; mov [rip+out+72], r9; mov [rip+out+80], r10; mov [rip+out+88], r11\n"
	"mov [rip+out+96], r12; mov [rip+out+104], r13; mov [rip+out+112], r14; mov [rip+out+120], r15\n"
	"mov rsp, [rip+own_rsp]\n"
	"pushfq\n"
	"pop qword ptr [rip+out+128]\n"
	"push 2\n"
	"popfq\n"
	"fxsave64 [rip+out+160]\n"
	"push 0x1f80\n"
	"ldmxcsr [rsp]\n"
	"pop rax\n"
	"fninit\n"
	"pop r15; pop r14; pop r13; pop r12; pop rbp; pop rbx\n"
	"ret\n"
	".att_syntax\n");

static void must(int good, const char *what)
{
	if (!good) {
		perror(what);
		exit(3);
	}
}

static void get(void *data, size_t size)
{
	must(fread(data, 1, size, stdin) == size, "read");
}

static void put(const void *data, size_t size)
{
	must(fwrite(data, 1, size, stdout) == size, "write");
}

/* The answer to a raw entry: `out`, and the stack that RSP pointed into. */
static void put_out(void)
{
	put(&out, sizeof(out));
	put((void *)STACK, STACK_SIZE);
	fflush(stdout);
}

/* 'r': struct state in, answered by put_out(). 't' the same, after a breakpoint trap. */
static void raw(int trap)
{
	get(&in, sizeof(in));
	memset((void *)STACK, 0xa5, STACK_SIZE);
	trap_first = trap;
	raw_enter();
	put_out();
}

/* 'k': as 'r', but in a child, which is another thread for the stub. */
static void forked(void)
{
	pid_t child;

	get(&in, sizeof(in));
	memset((void *)STACK, 0xa5, STACK_SIZE);
	trap_first = 0;
	child = fork();
	must(child >= 0, "fork");
	if (child == 0) {
		raw_enter();
		put_out();
		_exit(0);
	}
	must(waitpid(child, NULL, 0) == child, "waitpid");
}

static void on_sigsys(int number, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;

	(void)number;
	out.r[17] = (uint64_t)info->si_call_addr;
	uc->uc_mcontext.gregs[REG_RIP] = (uint64_t)landing;
}

/* 'f': from now on int 0x80 continues at landing, with out.RIP where it was. Answered by a byte. */
static void filter(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_I386, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { 4, code };
	struct sigaction action = { .sa_sigaction = on_sigsys, .sa_flags = SA_SIGINFO | SA_ONSTACK };
	static uint8_t stack[65536];
	stack_t alternate = { .ss_sp = stack, .ss_size = sizeof(stack) };

	must(sigaltstack(&alternate, NULL) == 0, "sigaltstack");
	must(sigaction(SIGSYS, &action, NULL) == 0, "sigaction");
	must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0, "no_new_privs");
	must(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0, "seccomp");
	put("f", 1);
	fflush(stdout);
}

struct run {
	uint64_t tcs;
	uint32_t function;
	uint16_t vector, error_code;
	uint64_t addr, user_handler, user_data;
	uint8_t reserved[216];
};
typedef int (*enter_t)(uint64_t, uint64_t, uint64_t, unsigned, uint64_t, uint64_t, struct run *);
static enter_t enter;

struct call {
	uint64_t rdi, rsi, rdx, leaf, r8, r9;
	uint64_t handled, answers[8]; /* 1: with a handler, which answers these, then 0 */
	struct run run;
};
struct seen {
	uint64_t rdi, rsi, rdx, rsp, r8, r9, run_matches, frame, rflags;
};
struct answer {
	int64_t result;
	uint64_t rbx, rbp, run_address;
	struct run run;
	uint64_t calls;
	struct seen seen[8];
};
static struct call call;
static struct answer answer;
uint64_t frame, rflags;

int handler(uint64_t rdi, uint64_t rsi, uint64_t rdx, uint64_t rsp, uint64_t r8, uint64_t r9,
	    struct run *run)
{
	uint64_t i = answer.calls++;

	answer.seen[i] = (struct seen){ rdi, rsi, rdx, rsp, r8, r9, run == &call.run, frame, rflags };
	return (int)call.answers[i];
}

/* Notes RSP + 8, where its stack argument is, and the flags, and continues as `handler`. */
void handler_entry(void);
int64_t call_enter(enter_t, struct call *, struct run *, uint64_t *kept);
__asm__(".intel_syntax noprefix\n"
	"handler_entry:\n"
	"lea rax, [rsp+8]\n"
	"mov [rip+frame], rax\n"
	"pushfq\n"
	"pop qword ptr [rip+rflags]\n"
	"jmp handler\n"
	/* A call with known RBX and RBP, and what they are afterwards. */
	"call_enter:\n"
	"push rbx; push rbp; push r12; push r13; push r14; push r15\n"
	"push rcx; push rdx\n"
	"mov rax, rdi\n"
	"mov r10, rsi\n"
	"mov rdi, [r10]; mov rsi, [r10+8]; mov rdx, [r10+16]; mov rcx, [r10+24]\n"
	"mov r8, [r10+32]; mov r9, [r10+40]\n"
	"mov rbx, 0x1122334455667788; mov rbp, 0x99aabbccddeeff00\n"
	"call rax\n"
	"pop rdx; pop rcx\n"
	"mov [rcx], rbx; mov [rcx+8], rbp\n"
	"movsxd rax, eax\n"
	"pop r15; pop r14; pop r13; pop r12; pop rbp; pop rbx\n"
	"ret\n"
	".att_syntax\n");

/* 'c': struct call in, struct answer out. */
static void vdso_call(void)
{
	uint64_t kept[2];

	get(&call, sizeof(call));
	memset(&answer, 0, sizeof(answer));
	if (call.handled)
		call.run.user_handler = (uint64_t)handler_entry;
	answer.run_address = (uint64_t)&call.run;
	answer.result = call_enter(enter, &call, &call.run, kept);
	answer.rbx = kept[0];
	answer.rbp = kept[1];
	answer.run = call.run;
	put(&answer, sizeof(answer));
	fflush(stdout);
}

struct loop {
	uint64_t rounds, number, tid, wrong;
	double seconds;
};

/* Enters `rounds` times; the supervisor answers RDI + RSI. */
static void *looper(void *argument)
{
	struct loop *loop = argument;
	struct run run = { .tcs = 0x1000 * loop->number };
	struct timespec from, to;

	loop->tid = syscall(SYS_gettid);
	while (!__atomic_load_n(&trap_first, __ATOMIC_ACQUIRE))
		usleep(100);
	clock_gettime(CLOCK_MONOTONIC, &from);
	for (uint64_t i = 0; i < loop->rounds; i++) {
		uint64_t got, rdi = i, rsi = loop->number, leaf = 2;
		run.user_data = 0;
		/* RDI comes back with the sum. */
		__asm__ volatile("push %[run]\n\tpush %[run]\n\tcall *%[enter]\n\tadd $16, %%rsp"
				 : "=D"(got), "+c"(leaf)
				 : "0"(rdi), "S"(rsi), [run] "r"(&run), [enter] "r"(enter)
				 : "rax", "rdx", "r8", "r9", "r10", "r11", "memory", "cc");
		loop->wrong += got != i + loop->number || run.function != 4;
	}
	clock_gettime(CLOCK_MONOTONIC, &to);
	loop->seconds = to.tv_sec - from.tv_sec + 1e-9 * (to.tv_nsec - from.tv_nsec);
	return NULL;
}

/* 'l': u64 threads, u64 rounds in; the tids out; a byte in to begin; then the loops out. */
static void loops(void)
{
	struct loop loop[8] = { 0 };
	pthread_t thread[8];
	uint64_t threads, rounds;

	get(&threads, 8);
	get(&rounds, 8);
	trap_first = 0;
	for (uint64_t i = 0; i < threads; i++) {
		loop[i].rounds = rounds;
		loop[i].number = i + 1;
		must(pthread_create(&thread[i], NULL, looper, &loop[i]) == 0, "pthread_create");
	}
	for (uint64_t i = 0; i < threads; i++) {
		while (!__atomic_load_n(&loop[i].tid, __ATOMIC_ACQUIRE))
			usleep(100);
		put(&loop[i].tid, 8);
	}
	fflush(stdout);
	getchar();
	__atomic_store_n(&trap_first, 1, __ATOMIC_RELEASE);
	for (uint64_t i = 0; i < threads; i++)
		pthread_join(thread[i], NULL);
	put(loop, threads * sizeof(loop[0]));
	fflush(stdout);
}

static void map_file(const char *path, unsigned long address)
{
	int fd = open(path, O_RDONLY);
	struct stat status;

	must(fd >= 0 && fstat(fd, &status) == 0, path);
	must(mmap((void *)address, status.st_size, PROT_READ | PROT_EXEC,
		  MAP_PRIVATE | MAP_FIXED_NOREPLACE, fd, 0) == (void *)address, path);
	close(fd);
}

int main(int argc, char **argv)
{
	uint64_t where = (uint64_t)landing;

	must(argc == 6, "arguments");
	map_file(argv[1], VDSO);
	map_file(argv[2], STUB);
	must(mmap((void *)BOX, BOX_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED_NOREPLACE,
		  atoi(argv[3]), 0) == (void *)BOX, "box");
	must(mmap((void *)STACK, STACK_SIZE, PROT_READ | PROT_WRITE,
		  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == (void *)STACK, "stack");
	enter = (enter_t)strtoul(argv[4], NULL, 0);
	target = strtoul(argv[5], NULL, 0);
	put(&where, 8);
	fflush(stdout);
	for (;;) {
		switch (getchar()) {
		case 'r':
			raw(0);
			break;
		case 't':
			raw(1);
			break;
		case 'k':
			forked();
			break;
		case 'f':
			filter();
			break;
		case 'c':
			vdso_call();
			break;
		case 'l':
			loops();
			break;
		default:
			return 0;
		}
	}
}
