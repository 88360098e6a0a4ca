"""What the stub of the supervisor without a tracer shares with it: addresses, records, numbers.

The stub is systrap.c and systrap.S; `make asm` makes their header of this module. A *record* is the
shared memory of one thread. A thread that waits in the stub's signal handler is *held*: its state
is in its record, and its registers are in the kernel's own signal frame there.

A state word is a shared futex and goes as in box.py: IDLE -> REQUEST by the thread, -> TAKEN and
-> REPLY by the supervisor, -> IDLE by the thread.

The supervisor must not trust what it reads here: the program can write to all of it.
"""

from typing import Final

from softsgx.runner.inserted.layout import BASE, BOX_SIZE, SLOTS_SIZE
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.structure import Structure, raw, u32, u64

# The stub's image, R-X. A seccomp filter tells calls by the address of their instruction:
SYSTRAP_CODE: Final = BASE + 0x1000_0000
# The stub's own calls.
GATE_OWN: Final = SYSTRAP_CODE
# Calls made for the program. Of both, filters of ours and of the program let everything pass: those
# of the program have been asked where it made the call.
GATE_USER: Final = SYSTRAP_CODE + PAGE_SIZE
# Every call from here traps.
GATE_EXIT: Final = SYSTRAP_CODE + 2 * PAGE_SIZE
SYSTRAP_CODE_SIZE: Final = 0x40000

RECORDS_MAX: Final = 8192

# A block per record, in the class of GATE_USER: its `syscall` is made in the thread's own context.
SYSTRAP_BLOCKS: Final = SYSTRAP_CODE + SYSTRAP_CODE_SIZE
BLOCK_STRIDE: Final = 64
BLOCK_INT80: Final = 32  # within it, an `int 0x80` for the program's own: calls of i386
SYSTRAP_BLOCKS_SIZE: Final = RECORDS_MAX * BLOCK_STRIDE

# Shared with the supervisor: the control area, then the records. Its first page is a file that
# programs cannot write to, its second one that all share, the rest one of each address space.
RECORDS: Final = BASE + 0x2000_0000
RECORD_STRIDE: Final = 0x8000
SYSTRAP_CONTROL_SIZE: Final = 0x400_0000
SYSTRAP_CONTROL: Final = RECORDS - SYSTRAP_CONTROL_SIZE
SYSTRAP_SHARED_SIZE: Final = SYSTRAP_CONTROL_SIZE + RECORDS_MAX * RECORD_STRIDE

# The file of an address space: its parts at the offsets that they have from SYSTRAP_CONTROL, then
# what is mapped at BOX, then what is mapped at NATIVE_SLOTS.
SPACE_AT: Final = 2 * PAGE_SIZE
SPACE_BOX_AT: Final = SYSTRAP_SHARED_SIZE
SPACE_SLOTS_AT: Final = SPACE_BOX_AT + BOX_SIZE
SPACE_FILE_SIZE: Final = SPACE_SLOTS_AT + SLOTS_SIZE

# First argument of brk(2) by which a forked process asks for its own file; the others are FAMILY,
# its record, what of its stack is in use, and SERIAL. The result is a descriptor.
FORKED_CALL: Final = 0x5347_4652 << 32

# Action tables: those of the threads that share signal handlers. As many as records.
TABLE_STRIDE: Final = 0x1000
ACTION_STRIDE: Final = 32
SIGNALS: Final = 64

assert SYSTRAP_BLOCKS + SYSTRAP_BLOCKS_SIZE <= SYSTRAP_CONTROL
assert RECORDS % (RECORDS_MAX * RECORD_STRIDE) == 0, "the stub compares the upper bits"

# SECCOMP_RET_DATA of our filters' SECCOMP_RET_TRAP; the siginfo has it as si_errno. Any other value
# comes from a filter of the program, which gets the signal.
TRAP_DATA: Final = 0x5347

# The supervisor's own signal has si_code SI_QUEUE and this value; any signal with TOKEN_CODE as its
# si_code is reported as it is. A real-time signal: of a number below 32 the kernel keeps one
# pending for a thread, so one of the program would be lost beside it; and gdb knows no SIGSTKFLT.
# One from the middle, since programs take SIGRTMIN, SIGRTMAX and their neighbours.
INTERRUPT_SIGNAL: Final = 55
INTERRUPT_VALUE: Final = 0x5347_5847
# With this value: another thread has found something for this one that waits for the process.
LOOK_VALUE: Final = 0x5347_4C4B
TOKEN_CODE: Final = -0x736778

# RECORD.KIND: what a request is.
KIND_SYSCALL: Final = 2
KIND_SIGNAL: Final = 3
KIND_CALLED: Final = 4
KIND_EXIT: Final = 5
KIND_NEW: Final = 6
KIND_STEPPED: Final = 7
KIND_INTERRUPT: Final = 8
KIND_ENDING: Final = 9
KIND_ENCLU_TRAP: Final = 10
KIND_JUDGE: Final = 11

# RECORD.COMMAND: what a held thread does next.
COMMAND_GO: Final = 0
COMMAND_CALL: Final = 1
COMMAND_CALL_USER: Final = 2
COMMAND_RUN: Final = 3
COMMAND_DELIVER: Final = 4
COMMAND_DELIVER_STOP: Final = 5
COMMAND_STEP: Final = 6
COMMAND_SERVE: Final = 7

# RECORD.OUT_SET.
OUT_ERR_SET: Final = 1
OUT_TRAPNO_SET: Final = 2
OUT_CR2_SET: Final = 4

# Signals 4, 5, 7, 8, 11, 31 and 55, which the stub handles whatever the program says: bit n - 1.
RESERVED_SIGNALS: Final = 0x0040_0000_4000_04D8
RESERVED_COUNT: Final = RESERVED_SIGNALS.bit_count()

# What waits of them: masks of those that are ready and of those whose siginfo is in use, and the
# siginfo of each in the order of the numbers.
INFO_SIZE: Final = 128
WAITING_SIZE: Final = 16 + RESERVED_COUNT * INFO_SIZE

# In the siginfo that a program gives rt_sigqueueinfo or rt_tgsigqueueinfo with a reserved number:
# MARK and which of the two it was, where no siginfo has anything and the kernel copies it.
MARK_AT: Final = 40
MARK: Final = 0x5347_5155
MARK_PROCESS: Final = 1
MARK_THREAD: Final = 2


PASSES_SIZE: Final = 64  # bits for the numbers of system calls


class SHARED(Structure, size=SYSTRAP_CONTROL_SIZE, align=PAGE_SIZE):
    """The control area.

    The first page, which programs cannot write to: SLEEPING, SPIN as in box.py. SUPERVISOR: its pid
    as the program sees it, or 0. HAS_ENCLAVE: not 0 as soon as a process of the run has mapped an
    enclave. HAS_SLOTS: not 0 if slots of the native engine are mapped. AEP: address of the vDSO's
    ENCLU. OWNER: 0, or a word of the supervisor's robust list, with its tid: the kernel marks it
    when the supervisor dies, also for pid namespaces in which the supervisor has no pid.

    The second page, of all: DOORBELL as in box.py. Whoever writes there can only delay others.

    The rest is one address space's. FAMILY: its number, or 0 if all share one file, as in a test.
    NONCE: the supervisor reads it through a process to know that this file is mapped there. TOP:
    above the highest record that was ever taken. REPORTS and MAILS count requests. FORKS counts
    forks. STATES[i] is for requests out of the handler, MAIL_STATES[i] for those of the vDSO's
    ENCLU; USED[i] is 1 if record i is taken (compare and exchange).
    """

    SLEEPING: int = u32(0x40)
    SPIN: int = u32(0x80)
    SUPERVISOR: int = u64(0x88)
    HAS_ENCLAVE: int = u32(0xA0)
    HAS_SLOTS: int = u32(0xA4)
    AEP: int = u64(0xB0)
    OWNER: int = u32(0xC0)
    DOORBELL: int = u32(0x1000)
    FAMILY: int = u64(0x2000)
    NONCE: int = u64(0x2008)
    TOP: int = u32(0x2010)
    REPORTS: int = u32(0x2040)
    MAILS: int = u32(0x2080)
    FORKS: int = u32(0x20C0)
    STATES: bytes = raw(0x3000, 4 * RECORDS_MAX)
    MAIL_STATES: bytes = raw(0xB000, 4 * RECORDS_MAX)
    USED: bytes = raw(0x13000, 4 * RECORDS_MAX)
    TABLES: bytes = raw(0x20000, TABLE_STRIDE * RECORDS_MAX)


class TABLE(Structure, size=TABLE_STRIDE, align=PAGE_SIZE):
    """Actions of all signals: handler, flags, restorer and mask of signal n at ACTIONS + 32 * n.

    COUNT: how many records use it, 0 if it is free. LOCK: held for a few instructions. CONFINED:
    not 0 if one of these threads has a seccomp filter of the program's, which judges its calls.
    UNTOLD: the last default action of the process is for a signal that the supervisor did not send.
    WAITING: what waits for the process, as in RECORD.
    """

    COUNT: int = u32(0x00)
    LOCK: int = u32(0x04)
    CONFINED: int = u32(0x08)
    UNTOLD: int = u32(0x0C)
    ACTIONS: bytes = raw(0x40, ACTION_STRIDE * (SIGNALS + 1))
    WAITING: bytes = raw(0x900, WAITING_SIZE)


class RECORD(Structure, size=RECORD_STRIDE, align=PAGE_SIZE):
    """One thread. NUMBER is its index, TID and PID are as it sees them itself.

    FRAME and INFO: address of the held thread's struct ucontext and siginfo, of the signal SIGNAL.
    FS and GS: bases, loaded again when the thread goes on. NEXT: where its block jumps. VBLOCKED:
    reserved signals that the program believes blocked. VSS_*: the program's alternate stack.
    INSIDE, STEPPING, WANT_EXIT, REGISTERED: flags. RESTART: RIP is at SYSCALL_AT to be repeated,
    with SYSCALL_NR and SYSCALL_ARGS: the supervisor may have changed those for one attempt.
    SERIAL: not 0 in the first thread of a forked process, which goes on in a file of its own; its
    maker waits until REGISTERED has that value. KNOWN: nothing is left to do at KIND_NEW.
    PASSES: a bit for each call that the thread's filters allow whatever its arguments are.
    OUT_*: what COMMAND_DELIVER delivers. MAILBOX and MAILBOX_FX: registers in the order of
    `spec.registers` and FXSAVE64 image of the vDSO's ENCLU. WAITING: reserved signals that were
    sent and wait until the program takes them; PROCESS: the table with those of the process.
    WANTED: those that rt_sigtimedwait awaits. INTERRUPT: the supervisor has sent its signal. What
    begins with OWN_ is the stub's alone. STACK: the alternate stack.
    """

    NUMBER: int = u32(0x000)
    KIND: int = u32(0x004)
    COMMAND: int = u32(0x008)
    FLAGS_IN: int = u32(0x00C)
    SIGNAL: int = u32(0x010)
    TID: int = u32(0x014)
    PID: int = u32(0x018)
    PARENT: int = u32(0x01C)
    FRAME: int = u64(0x020)
    INFO: int = u64(0x028)
    FS: int = u64(0x030)
    GS: int = u64(0x038)
    NEXT: int = u64(0x040)
    TABLE: int = u64(0x048)
    VBLOCKED: int = u64(0x050)
    VSS_SP: int = u64(0x058)
    VSS_FLAGS: int = u32(0x060)
    VSS_SIZE: int = u64(0x068)
    CALL_NR: int = u64(0x070)
    CALL_ARGS: bytes = raw(0x078, 6 * 8)
    CALL_RESULT: int = u64(0x0A8)
    INSIDE: int = u32(0x0B0)
    STEPPING: int = u32(0x0B4)
    RESTART: int = u32(0x0B8)
    WANT_EXIT: int = u32(0x0BC)
    SYSCALL_AT: int = u64(0x0C0)
    SYSCALL_NR: int = u64(0x0C8)
    UMASK_SAVED: int = u64(0x0E0)
    UMASK_VALID: int = u32(0x0E8)
    KNOWN: int = u32(0x0EC)
    CHILD_FLAGS: int = u64(0x0F0)
    ENTRY: int = u64(0x0F8)
    START_FRAME: int = u64(0x100)
    REAL_SS: bytes = raw(0x108, 24)
    SERIAL: int = u32(0x120)
    REGISTERED: int = u32(0x124)
    EXITCODE: int = u32(0x128)
    INTERRUPT: int = u32(0x12C)
    PROCESS: int = u64(0x130)
    WANTED: int = u64(0x138)
    PASSES: bytes = raw(0x140, PASSES_SIZE)
    OUT_INFO: bytes = raw(0x180, 128)
    OUT_ERR: int = u64(0x200)
    OUT_TRAPNO: int = u64(0x208)
    OUT_CR2: int = u64(0x210)
    OUT_SET: int = u64(0x218)
    NATIVE: bytes = raw(0x240, 0x80)
    SYSCALL_ARGS: bytes = raw(0x2C0, 6 * 8)
    MAILBOX: bytes = raw(0x400, 18 * 8)
    MAILBOX_FX: bytes = raw(0x4C0, 512)
    WAITING: bytes = raw(0x700, WAITING_SIZE)
    OWN_INTERRUPTED: int = u32(0xB00)
    OWN_TRAPPED: int = u32(0xB04)
    OWN_ARGUMENT: int = u32(0xB08)
    OWN_ARGUMENT_WAS: int = u64(0xB10)
    OWN_MAIL_WORD: int = u64(0xB18)
    OWN_CLEAR: int = u32(0xB20)
    OWN_BLIND: int = u32(0xB24)
    OWN_TF: int = u32(0xB28)
    OWN_EXEC: int = u32(0xB2C)
    OWN_DUE: int = u32(0xB30)
    OWN_WAITING: int = u32(0xB34)
    OWN_TEMPORARY: int = u64(0xB38)
    OWN_REWOUND: int = u64(0xB40)
    OWN_FP: int = u64(0xB48)
    OWN_EXCEPTION: bytes = raw(0xB50, 24)
    OWN_LOOK: int = u32(0xB68)
    OWN_SENT: int = u32(0xB6C)
    OWN_I386: int = u32(0xB70)
    OWN_TOLD: int = u32(0xB74)
    OWN_TRAP_INFO: bytes = raw(0xB80, 128)
    OWN_SCRATCH: bytes = raw(0xC00, 0x200)
    STACK: bytes = raw(0x1000, RECORD_STRIDE - 0x1000)


SHARED_AT: Final = {field.name: field.offset for field in SHARED.FIELDS}
TABLE_AT: Final = {field.name: field.offset for field in TABLE.FIELDS}
RECORD_AT: Final = {field.name: field.offset for field in RECORD.FIELDS}
