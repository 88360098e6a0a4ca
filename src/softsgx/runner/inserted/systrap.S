// The stub's assembler part: the gates, where threads start and end, the way of the vDSO's ENCLU to
// the supervisor, copies of the program's memory. The names in capitals: systrap_layout.py.
//
// systrap.ld puts each section on its place: what a seccomp filter does with a call depends on the
// page of its instruction.

#include "systrap.h"

        .intel_syntax noprefix

// ---- GATE_OWN: the stub's own calls -------------------------------------------------------------
        .section .gate_own, "ax"

        .macro  take_arguments
        mov     rax, rdi
        mov     rdi, rsi
        mov     rsi, rdx
        mov     rdx, rcx
        mov     r10, r8
        mov     r8, r9
        .endm

// Part of the file R13 over what is mapped there.
        .macro  map     place, size, offset
        mov     eax, SYS_MMAP
        movabs  rdi, \place
        mov     esi, \size
        mov     edx, PROT_RW
        mov     r10d, SHARED_FIXED
        mov     r8, r13
        mov     r9d, \offset
        syscall
        cmp     rax, rdi
        jne     gone
        .endm

// long own_call(number, a, b, c, d, e, f)
        .globl  own_call
own_call:
        take_arguments
        mov     r9, [rsp + 8]
        syscall
        ret

// Where the kernel delivers every signal. handler(signal, info, ucontext) is true if this is not
// the outermost handler of the thread. The kernel leaves RFLAGS.AC as the program had it.
        .globl  entered, tail, tail_end, restorer
entered:
        pushfq
        test    dword ptr [rsp], RFLAGS_AC
        jnz     unaligned
call_handler:
        call    handler
        add     rsp, 16                 // RSP = ucontext
        test    eax, eax
        jnz     restorer

// Whether something has come in the meantime. If it comes later than that, `nested` begins here
// again, so nothing is pushed, and RSP stays.
tail:
        mov     rax, rsp
        and     rax, -RECORD_STRIDE
        cmp     dword ptr [rax + RECORD_OWN_DUE], 0
        jne     again
        mov     rax, SYS_RT_SIGRETURN
        syscall
tail_end:
        hlt
again:
        mov     rdi, rsp
        call    finish
        jmp     tail

unaligned:
        and     dword ptr [rsp], ~RFLAGS_AC
        popfq
        sub     rsp, 8
        jmp     call_handler

// Debuggers know a signal frame by these instructions.
restorer:
        mov     rax, SYS_RT_SIGRETURN
        syscall
        hlt

// After exec. RDI = record, RSP = the program's; signals as the program has them.
        .globl  init
init:
        mov     r12, rdi
        mov     rsi, rsp
        lea     rsp, [rdi + RECORD_STRIDE]
        call    prepare

// Where a new thread begins, too. R12 = record, with the frame to begin with; all signals blocked.
        .globl  start, moved
start:
        mov     rsp, [r12 + RECORD_START_FRAME]
        cmp     dword ptr [r12 + RECORD_SERIAL], 0
        je      here

// A forked process has its maker's file mapped, with its own record and stack in it. The supervisor
// copies these to the same places in a new file: from there on the process shares nothing.
        mov     eax, SYS_BRK
        movabs  rdi, FORKED_CALL
        mov     rsi, [rip + shared + SHARED_FAMILY]
        mov     rdx, r12
        mov     r10, rsp
        mov     r8d, [r12 + RECORD_SERIAL]
        syscall
moved:
        mov     r13, rax
        test    rax, rax
        js      gone
        map     (SYSTRAP_CONTROL+SPACE_AT), (SYSTRAP_SHARED_SIZE-SPACE_AT), SPACE_AT
        map     BOX, BOX_SIZE, SPACE_BOX_AT
        cmp     dword ptr [rip + shared + SHARED_HAS_SLOTS], 0
        je      own_file
        map     NATIVE_SLOTS, SLOTS_SIZE, SPACE_SLOTS_AT
own_file:
        mov     eax, SYS_CLOSE
        mov     edi, r13d
        syscall

here:
        mov     eax, SYS_SIGALTSTACK
        lea     rdi, [r12 + RECORD_REAL_SS]
        xor     esi, esi
        syscall
        mov     rdi, r12
        call    started
        mov     eax, SYS_RT_SIGRETURN
        syscall
        hlt

// void leave(word, code): frees the record whose USED is `word` and ends the thread. All signals
// are blocked: from the store on the stack belongs to somebody else.
        .globl  leave
leave:
        mov     dword ptr [rdi], 0
        mov     edi, esi
        mov     eax, SYS_EXIT
        syscall
        hlt

// ---- From the vDSO's ENCLU to the supervisor ----------------------------------------------------
// A thread arrives by a jump, all registers live, EAX = leaf. Nothing above RSP - 128 is written
// (red zone), and nothing through the RSP of the reply, which the enclave may have chosen. The GS
// base points to the thread's record, unless the program uses GS itself.
//
// A signal anywhere between `arrive` and `depart_end` is reported to the supervisor, which restores
// the registers by the labels: up to `published` as if the ENCLU had not begun, from `reply` on as
// if the reply had been loaded. The names after arrive_ and foreign_ are the registers pushed.
        .globl  arrive, published, reply, depart_end, enclu_trap
arrive:                         lea     rsp, [rsp - RED_ZONE]
arrive_none:                    push    rax
arrive_rax:                     pushfq
arrive_rax_rflags:
        rdgsbase rax
        shr     rax, RECORDS_SHIFT
        cmp     rax, RECORDS_UPPER
        je      mine

foreign:                        popfq
foreign_rax:                    pop     rax
foreign_none:                   lea     rsp, [rsp + RED_ZONE]
// #GP: the handler knows the record, and the frame has all registers.
enclu_trap:
        hlt

// Only RAX and RFLAGS change before `published`.
mine:
        mov     gs:[MAILBOX_RCX], rcx
        mov     gs:[MAILBOX_RDX], rdx
        mov     gs:[MAILBOX_RBX], rbx
        mov     gs:[MAILBOX_RBP], rbp
        mov     gs:[MAILBOX_RSI], rsi
        mov     gs:[MAILBOX_RDI], rdi
        mov     gs:[MAILBOX_R8], r8
        mov     gs:[MAILBOX_R9], r9
        mov     gs:[MAILBOX_R10], r10
        mov     gs:[MAILBOX_R11], r11
        mov     gs:[MAILBOX_R12], r12
        mov     gs:[MAILBOX_R13], r13
        mov     gs:[MAILBOX_R14], r14
        mov     gs:[MAILBOX_R15], r15
        mov     rax, [rsp]
        mov     gs:[MAILBOX_RFLAGS], rax
        mov     rax, [rsp + 8]
        mov     gs:[MAILBOX_RAX], rax
        lea     rax, [rsp + 16 + RED_ZONE]
        mov     gs:[MAILBOX_RSP], rax
        mov     rax, [rip + shared + SHARED_AEP]
        mov     gs:[MAILBOX_RIP], rax
        fxsave64 gs:[RECORD_MAILBOX_FX]
        mov     rax, gs:[RECORD_OWN_MAIL_WORD]
        mov     dword ptr [rax], REQUEST

// From here on the request belongs to the supervisor. RBX = record, RBP = its state word.
published:
        rdgsbase rbx
        mov     rbp, rax
        lock inc dword ptr [rip + shared + SHARED_MAILS]
        lock inc dword ptr [rip + shared + SHARED_DOORBELL]
        cmp     dword ptr [rip + shared + SHARED_SLEEPING], 0
        je      spin
        mov     eax, SYS_FUTEX
        lea     rdi, [rip + shared + SHARED_DOORBELL]
        mov     esi, FUTEX_WAKE
        mov     edx, 1
        syscall
spin:
        mov     r12d, [rip + shared + SHARED_SPIN]
// The kernel compares with the value that was compared here, so no wake-up is lost.
look:
        mov     edx, [rbp]
        cmp     edx, REPLY
        je      reply
        sub     r12d, 1
        jb      sleep
        pause
        jmp     look
sleep:
        mov     eax, SYS_FUTEX
        mov     rdi, rbp
        mov     esi, FUTEX_WAIT
        lea     r10, [rip + second]
        syscall
        xor     r12d, r12d
        cmp     eax, -ETIMEDOUT
        jne     look

// A second without an answer: is the supervisor alive? As check_supervisor in systrap.c.
        test    dword ptr [rip + shared + SHARED_OWNER], FUTEX_OWNER_DIED
        jnz     gone
        cmp     dword ptr [rbx + RECORD_OWN_BLIND], 0
        jne     look
        mov     edi, [rip + shared + SHARED_SUPERVISOR]
        test    edi, edi
        jz      look
        xor     esi, esi
        mov     eax, SYS_KILL
        syscall
        cmp     eax, -ESRCH
        jne     look
gone:
        mov     eax, SYS_GETPID
        syscall
        mov     edi, eax
        mov     esi, SIGKILL
        mov     eax, SYS_KILL
        syscall
        jmp     look

// RSP points into the mailbox only to load the flags, before RSP itself is loaded.
reply:
        mov     dword ptr [rbp], IDLE
        fxrstor64 [rbx + RECORD_MAILBOX_FX]
        lea     rsp, [rbx + MAILBOX_RFLAGS]
        popfq
        mov     rax, gs:[MAILBOX_RAX]
        mov     rcx, gs:[MAILBOX_RCX]
        mov     rdx, gs:[MAILBOX_RDX]
        mov     rbx, gs:[MAILBOX_RBX]
        mov     rbp, gs:[MAILBOX_RBP]
        mov     rsi, gs:[MAILBOX_RSI]
        mov     rdi, gs:[MAILBOX_RDI]
        mov     r8, gs:[MAILBOX_R8]
        mov     r9, gs:[MAILBOX_R9]
        mov     r10, gs:[MAILBOX_R10]
        mov     r11, gs:[MAILBOX_R11]
        mov     r12, gs:[MAILBOX_R12]
        mov     r13, gs:[MAILBOX_R13]
        mov     r14, gs:[MAILBOX_R14]
        mov     r15, gs:[MAILBOX_R15]
        mov     rsp, gs:[MAILBOX_RSP]
        jmp     gs:[MAILBOX_RIP]
depart_end:

        .balign 8
        .globl  second
second: .quad   1, 0

// ---- GATE_USER: calls for the program -----------------------------------------------------------
        .section .gate_user, "ax"

// long user_call(number, a, b, c, d, e, f). If a filter of the program traps the call, SIGSYS comes
// at `user_called`.
        .globl  user_call, user_called
user_call:
        take_arguments
        mov     r9, [rsp + 8]
        syscall
user_called:
        ret

// long clone_call(number, a, b, c, d, e, record): the child goes on at `start` with its record.
        .globl  clone_call
clone_call:
        push    r12
        mov     r12, [rsp + 16]
        take_arguments
        syscall
        test    rax, rax
        jz      start
        pop     r12
        ret

// ---- GATE_EXIT: an exit stop --------------------------------------------------------------------
// #GP, not a call that a filter traps: RAX is the result of the program's call, and a filter that
// looks at the instruction pointer first would cost every other call 0.1 us.
        .section .gate_exit, "ax"
        .globl  gate_exit
gate_exit:
        hlt

        .text
// long copy(to, from, size): 0, or -EFAULT; the handler continues a fault at copy_bytes there.
        .globl  copy, copy_bytes, copy_fault
copy:
        mov     rcx, rdx
copy_bytes:
        rep movsb
        xor     eax, eax
        ret
copy_fault:
        mov     eax, -EFAULT
        cdqe
        ret

        .section .note.GNU-stack, "", @progbits
