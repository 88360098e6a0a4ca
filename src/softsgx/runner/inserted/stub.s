# The stub: from an ENCLU of the vDSO function to the supervisor and back.
#
# A thread arrives at `arrive` by a jump, all registers live, EAX = leaf. Nothing above RSP - 128 is
# written (red zone), and nothing is written through the RSP of the reply, which the enclave may
# have chosen. The symbols in capitals come from layout.py and box.py.
#
# The thread can be stopped by a signal anywhere. stub.py uses the labels below to restore its
# registers then, so a changed instruction here may need a change there.

        .intel_syntax noprefix
        .text
stub:
        .set    control, stub + (BOX - STUB)
        .set    doorbell, control + CONTROL_DOORBELL
        .set    sleeping, control + CONTROL_SLEEPING
        .set    spin_count, control + CONTROL_SPIN
        .set    aep, control + CONTROL_AEP
        .set    tids, control + CONTROL_TIDS
        .set    states, control + CONTROL_STATES
        .set    mailboxes, stub + (BOX_MAILBOXES - STUB)

# Labels of this form name the registers that were pushed before the instruction.
arrive:                         lea     rsp, [rsp - RED_ZONE]
arrive_none:                    push    rax
arrive_rax:                     push    rcx
arrive_rax_rcx:                 push    r11
arrive_rax_rcx_r11:             pushfq
arrive_rax_rcx_r11_rflags:      push    rdx

# Open addressing: probe from tid % 256 until the tid, or a slot never used. If a filter of the
# program refuses gettid, its error number is not in the table, either.
search:
        mov     eax, SYS_GETTID
        syscall
        lea     rdx, [rip + tids]
        movzx   ecx, al
probe:
        cmp     dword ptr [rdx + rcx*4], eax
        je      found
        cmp     dword ptr [rdx + rcx*4], 0
        je      absent
        inc     cl
        cmp     cl, al
        jne     probe

# No mailbox: restore everything, and stop in a way that disturbs no signal.
absent:                         pop     rdx
absent_rax_rcx_r11_rflags:      popfq
absent_rax_rcx_r11:             pop     r11
absent_rax_rcx:                 pop     rcx
absent_rax:                     pop     rax
absent_none:                    lea     rsp, [rsp + RED_ZONE]
int80:                          int     0x80
int80_done:                     int3

# RDX = mailbox. Registers that are neither pushed nor stored yet are not changed, so that one rule
# restores them from anywhere between `search` and `published`.
found:
        imul    edx, ecx, MAILBOX_STRIDE
        lea     rax, [rip + mailboxes]
        add     rdx, rax
        mov     [rdx + BOX_RBX], rbx
        mov     [rdx + BOX_RBP], rbp
        mov     [rdx + BOX_RSI], rsi
        mov     [rdx + BOX_RDI], rdi
        mov     [rdx + BOX_R8], r8
        mov     [rdx + BOX_R9], r9
        mov     [rdx + BOX_R10], r10
        mov     [rdx + BOX_R12], r12
        mov     [rdx + BOX_R13], r13
        mov     [rdx + BOX_R14], r14
        mov     [rdx + BOX_R15], r15
        mov     rax, [rsp]
        mov     [rdx + BOX_RDX], rax
        mov     rax, [rsp + 8]
        mov     [rdx + BOX_RFLAGS], rax
        mov     rax, [rsp + 16]
        mov     [rdx + BOX_R11], rax
        mov     rax, [rsp + 24]
        mov     [rdx + BOX_RCX], rax
        mov     rax, [rsp + 32]
        mov     [rdx + BOX_RAX], rax
        lea     rax, [rsp + 40 + RED_ZONE]
        mov     [rdx + BOX_RSP], rax
        mov     rax, [rip + aep]
        mov     [rdx + BOX_RIP], rax
        fxsave64 [rdx + BOX_FX]
        lea     r11, [rip + states]
        lea     r11, [r11 + rcx*4]
        mov     dword ptr [r11], REQUEST

# From here on the request belongs to the supervisor. RBX = mailbox, RBP = its state word.
published:
        mov     rbx, rdx
        mov     rbp, r11
        lock inc dword ptr [rip + doorbell]
        cmp     dword ptr [rip + sleeping], 0
        je      spin
        mov     eax, SYS_FUTEX
        lea     rdi, [rip + doorbell]
        mov     esi, FUTEX_WAKE
        mov     edx, 1
        syscall
spin:
        mov     ecx, [rip + spin_count]
# The kernel compares with the value that was compared here, so no wake-up is lost.
look:
        mov     edx, [rbp]
        cmp     edx, REPLY
        je      reply
        sub     ecx, 1
        jb      sleep
        pause
        jmp     look
sleep:
        mov     eax, SYS_FUTEX
        mov     rdi, rbp
        mov     esi, FUTEX_WAIT
        xor     r10d, r10d
        syscall
        xor     ecx, ecx
        jmp     look

# RSP points into the mailbox only to load the flags, before RSP itself is loaded.
reply:
        mov     dword ptr [rbp], IDLE
        fxrstor64 [rbx + BOX_FX]
        lea     rax, [rbx - (BOX_MAILBOXES - STUB_BLOCKS)]
        lea     rsp, [rbx + BOX_RFLAGS]
        popfq
        jmp     rax
common_end:

# The code of the first mailbox; the others have the same bytes.
        .org    STUB_BLOCKS - STUB, 0xcc
block:
        .set    box, block + (BOX_MAILBOXES - STUB_BLOCKS)
        mov     rax, [rip + box + BOX_RAX]
        mov     rcx, [rip + box + BOX_RCX]
        mov     rdx, [rip + box + BOX_RDX]
        mov     rbx, [rip + box + BOX_RBX]
        mov     rbp, [rip + box + BOX_RBP]
        mov     rsi, [rip + box + BOX_RSI]
        mov     rdi, [rip + box + BOX_RDI]
        mov     r8, [rip + box + BOX_R8]
        mov     r9, [rip + box + BOX_R9]
        mov     r10, [rip + box + BOX_R10]
        mov     r11, [rip + box + BOX_R11]
        mov     r12, [rip + box + BOX_R12]
        mov     r13, [rip + box + BOX_R13]
        mov     r14, [rip + box + BOX_R14]
        mov     r15, [rip + box + BOX_R15]
        mov     rsp, [rip + box + BOX_RSP]
        jmp     [rip + box + BOX_RIP]
block_end:
