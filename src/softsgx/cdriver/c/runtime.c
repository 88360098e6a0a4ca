/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * Tasks, switches, requests, ENCLS, and what becomes of a fault. Nothing here may run while the
 * caller's stack is not the thread's own, except what a task itself calls.
 */
#include "runtime.h"

struct k_task k_tasks[K_TASKS], *k_running;
u64 k_inject;			/* whether allocations have to ask if they fail */
u64 k_booting;			/* no ENCLS but EREMOVE has been executed since the reset */
unsigned long k_features;
static u64 k_host_sp;

/* Mapped by the loader; see link.ld. */
extern char k_stacks[];

void k_switch(u64 *old, u64 new);
void k_switched(void);
void k_entry(void);
void k_trapped(void);
__asm__(
	".text\n"
	".globl k_switch, k_switched, k_entry, k_encls, k_trapped\n"
	"k_switch:\n"
	"	push %rbp; push %rbx; push %r12; push %r13; push %r14; push %r15\n"
	"	mov %rsp, (%rdi)\n"
	"	mov %rsi, %rsp\n"
	"k_switched:\n"
	"	pop %r15; pop %r14; pop %r13; pop %r12; pop %rbx; pop %rbp\n"
	/* Nothing of the other side: k_encls stores what is in these registers. */
	"	xor %eax, %eax; xor %ecx, %ecx; xor %edx, %edx; xor %esi, %esi; xor %edi, %edi\n"
	"	xor %r8d, %r8d; xor %r9d, %r9d; xor %r10d, %r10d; xor %r11d, %r11d\n"
	"	ret\n"
	"k_entry:\n"
	"	xor %ebp, %ebp\n"
	"	call k_main\n"
	"	ud2\n"
	/* As if ENCLS had called it. All registers are kept; the answer is put in the saved ones. */
	"k_encls:\n"
	"k_trapped:\n"
	"	pushfq\n"
	"	push %rax; push %rbx; push %rcx; push %rdx; push %rsi; push %rdi\n"
	"	push %r8; push %r9; push %r10; push %r11\n"
	"	mov %rsp, %rdi\n"
	"	mov %rsp, %rbx\n"
	"	and $-16, %rsp\n"
	"	call k_serve_encls\n"
	"	mov %rbx, %rsp\n"
	"	pop %r11; pop %r10; pop %r9; pop %r8\n"
	"	pop %rdi; pop %rsi; pop %rdx; pop %rcx; pop %rbx; pop %rax\n"
	"	popfq\n"
	"	ret\n");

void k_main(void)
{
	struct k_task *t = k_running;
	const u64 *c = t->call;

	t->argument[0] = t->function(c[0], c[1], c[2], c[3], c[4]);
	t->operation = K_RETURNED;
	k_switch(&t->sp, k_host_sp);
}

/* Run a task until its next request; what it asks for is in its first words. */
u64 k_resume(struct k_task *t, u64 answer)
{
	t->answer = answer;
	k_running = t;
	k_switch(&k_host_sp, t->sp);
	k_running = NULL;
	k_host_sp = 0;	/* a state has nothing of its caller's */
	return t->operation;
}

/* Prepare a free task; its first k_resume() calls the function. */
void k_prepare(struct k_task *t, void *function, struct task_struct *thread, struct mm_struct *mm,
	       unsigned int personality)
{
	u64 *top = (u64 *)(k_stacks + (t - k_tasks + 1) * K_STACK_SIZE);
	struct vm_area_struct area = { 0 };

	/* What a task has not written yet must not be what the one before it has left. */
	memset((char *)top - K_STACK_SIZE + PAGE_SIZE, 0, K_STACK_SIZE - PAGE_SIZE);
	if (t->called_with_area)
		area = t->areas[0];
	memset(t, 0, sizeof(*t));
	t->areas[0] = area;
	t->function = function;
	t->own.mm = mm;
	t->own.personality = personality;
	t->thread = thread ? thread : &t->own;
	*--top = 0;
	*--top = (u64)k_entry;
	top -= 6;
	memset(top, 0, 48);
	t->sp = (u64)top;
}

/* The area that a caller passes to the driver; a task has one. */
struct vm_area_struct *k_caller_area(struct k_task *t)
{
	t->called_with_area = 1;
	return &t->areas[0];
}

long k_request(enum k_operation op, u64 a, u64 b, u64 c, u64 d, u64 e, u64 f)
{
	struct k_task *t = k_running;

	if (!t)
		return 0;	/* a message of the heap, while no task runs */
	t->operation = op;
	t->argument[0] = a;
	t->argument[1] = b;
	t->argument[2] = c;
	t->argument[3] = d;
	t->argument[4] = e;
	t->argument[5] = f;
	t->frame = (u64)__builtin_frame_address(0);
	k_at_request();
	k_switch(&t->sp, k_host_sp);
	return t->answer;
}

void *k_me(void) { return k_running; }
struct task_struct *k_current(void) { return k_running->thread; }

void k_bug(const char *file, int line)
{
	for (;;)
		k_ask(K_BUG, file, line);
}

void k_unmodelled(const char *what)
{
	for (;;)
		k_ask(K_UNMODELLED, what);
}

/* ENCLS */

struct k_registers { u64 r11, r10, r9, r8, rdi, rsi, rdx, rcx, rbx, rax, flags, rip; };
extern const struct k_extable k_extable_start[], k_extable_end[];
#define ENCLS_FIRST_BYTE 0x0f
#define ENCLS_LENGTH 3
#define CALL_LENGTH 5

#define LEAF_EREMOVE 3

static u64 k_relative(const int *p) { return (u64)p + *p; }
static u64 length(u64 at) { return *(u8 *)at == ENCLS_FIRST_BYTE ? ENCLS_LENGTH : CALL_LENGTH; }

void k_serve_encls(struct k_registers *r)
{
	u64 at = r->rip - CALL_LENGTH;
	const struct k_extable *e;

	for (e = k_extable_start; e < k_extable_end; e++)
		if (k_relative(&e->instruction) == at)
			break;
	if (e == k_extable_end || e->type != EX_TYPE_FAULT_SGX)
		k_unmodelled("ENCLS without an entry of type EX_TYPE_FAULT_SGX in the exception table");
	if (k_booting && r->rax == LEAF_EREMOVE) {
		/* There is nothing in EPC that could be removed. */
		r->rax = 0;
		r->rip = at + length(at);
		return;
	}
	/* The answer is RAX; the second word is RBX, and in bit 63 of RAX whether it was an exception. */
	r->rax = k_ask(K_ENCLS, r->rax, r->rbx, r->rcx, r->rdx, at);
	if (r->rax >> 63) {
		r->rax &= ~(1ULL << 63);
		r->rip = k_relative(&e->fixup);
		return;
	}
	r->rbx = k_running->second;
	r->rip = at + length(at);
}

/* Signals: SIGILL serves ENCLS where it is an instruction; any other fault of a task ends it. */

#define SIGILL 4
enum { GREG_RBP = 10, GREG_RSP = 15, GREG_RIP = 16, GREGS_OFFSET = 40, SI_ADDR = 2, SI_CODE = 2, SIGNALS = 32 };
void (*k_old_handler[SIGNALS])(int, void *, void *);

static void k_default_action(int signal)
{
	u64 action[4] = { 0 };
	long ret = 13;	/* rt_sigaction */

	__asm__ volatile("mov %4, %%r10; syscall" : "+a"(ret)
		: "D"((long)signal), "S"(action), "d"(0L), "r"(8L) : "rcx", "r10", "r11", "memory");
}

void k_on_signal(int signal, u64 *info, char *context)
{
	u64 *reg = (u64 *)(context + GREGS_OFFSET);
	struct k_task *t = k_running;
	u8 *at = (u8 *)reg[GREG_RIP];

	if (!t) {	/* not ours: as it was before; the default action when the fault is taken again */
		if ((u64)k_old_handler[signal] > 1)
			k_old_handler[signal](signal, info, context);
		else
			k_default_action(signal);
		return;
	}
	if (signal == SIGILL && at[0] == ENCLS_FIRST_BYTE && at[1] == 0x01 && at[2] == 0xcf) {
		reg[GREG_RSP] -= 8;
		*(u64 *)reg[GREG_RSP] = reg[GREG_RIP] + CALL_LENGTH;
		reg[GREG_RIP] = (u64)k_trapped;
		return;
	}
	t->operation = K_CRASHED;
	t->argument[0] = signal;
	t->argument[1] = info[SI_ADDR];
	t->argument[2] = reg[GREG_RIP];
	t->argument[3] = ((int *)info)[SI_CODE];
	t->frame = reg[GREG_RBP];
	reg[GREG_RSP] = k_host_sp;
	reg[GREG_RIP] = (u64)k_switched;
}
