# The native engine's way into an enclave: gives a thread the enclave's registers.
#
# A thread arrives at `enter` with RBX = its slot, every other register dead. First it makes the
# system calls that the supervisor has listed (pages of the enclave to be mapped, protected or
# hidden), then it loads the registers in the slot. The symbols in capitals come from slots.py.
#
# The thread can be stopped anywhere. SLOT_STAGE says whose FS and GS bases it has; until `inside`
# no enclave code has been executed.

        .intel_syntax noprefix
        .text
enter:
        .set    stub, enter + (STUB - NATIVE_CODE)
        .set    aep, enter + (BOX + CONTROL_AEP - NATIVE_CODE)
        .set    table, enter + (NATIVE_SLOTS - NATIVE_CODE)
# Exceptions of the enclave are signals that only the supervisor sees. If such a signal were
# blocked, the kernel would change the program's handler and mask.
        mov     eax, SYS_RT_SIGPROCMASK
        mov     edi, SIG_UNBLOCK
        lea     rsi, [rbx + SLOT_UNBLOCK]
        lea     rdx, [rbx + SLOT_BLOCKED]
        mov     r10d, 8
        syscall
        lea     r12, [rbx + SLOT_OPERATIONS]
        mov     r13d, [rbx + SLOT_COUNT]
operation:
        sub     r13d, 1
        jb      bases
        mov     rax, [r12]
        mov     rdi, [r12 + 8]
        mov     rsi, [r12 + 16]
        mov     rdx, [r12 + 24]
        mov     r10, [r12 + 32]
        mov     r8, [r12 + 40]
        mov     r9, [r12 + 48]
        syscall
        mov     [r12 + 56], rax
        add     r12, OPERATION_SIZE
        jmp     operation
bases:
        rdfsbase rax
        mov     [rbx + SLOT_HOST_FS], rax
        rdgsbase rax
        mov     [rbx + SLOT_HOST_GS], rax
        mov     dword ptr [rbx + SLOT_STAGE], SAVED
        mov     rax, [rbx + SLOT_FS]
        wrfsbase rax
        mov     rax, [rbx + SLOT_GS]
        wrgsbase rax
        mov     eax, [rbx + SLOT_COMPONENTS]
        mov     edx, [rbx + SLOT_COMPONENTS + 4]
        mov     ecx, eax
        or      ecx, edx
        jz      registers
        xrstor64 [rbx + SLOT_XSAVE]
registers:
        mov     dword ptr [rbx + SLOT_STAGE], INSIDE
        lea     rsp, [rbx + SLOT_REGISTERS]
        pop     r15
        pop     r14
        pop     r13
        pop     r12
        pop     r11
        pop     r10
        pop     r9
        pop     r8
        pop     rdi
        pop     rsi
        pop     rbp
        pop     rbx
        pop     rdx
        pop     rcx
        pop     rax
        iretq

# From the vDSO's ENCLU, instead of the stub. If the supervisor has armed this thread for the same
# EENTER as before, it enters without asking, and the supervisor finds that out at the next stop. In
# all other cases the thread goes to the stub with the registers of the ENCLU, except R11,
# arithmetic flags, and those that a system call changes: a C function may change them all.
#
# Up to `claimed` nothing has happened. Up to `saved` a thread that is stopped has its registers
# except RAX, RCX, R11; after that, the slot has them.
arrive:
        cmp     eax, EENTER
        jne     stub
asked:
# Without a tracer, the GS base is the address of the thread's record, which has that of its slot.
        rdgsbase r11
        mov     rax, r11
        shr     rax, RECORDS_SHIFT
        cmp     rax, RECORDS_HIGH
        jne     by_tid
        mov     r11, [r11 + RECORD_SLOT]
        test    r11, r11
        jz      absent
        jmp     slot
by_tid:
        mov     eax, SYS_GETTID
        syscall
        mov     ecx, eax
        and     ecx, TABLE_MASK
        shl     ecx, 4
        lea     r11, [rip + table]
        add     r11, rcx
        cmp     [r11], rax
        jne     absent
        mov     r11, [r11 + 8]
slot:
        cmp     rbx, [r11 + SLOT_TCS]
        jne     absent
        mov     rax, [rip + aep]
        cmp     rax, [r11 + SLOT_AEP]
        jne     absent
        mov     eax, ARMED
        mov     ecx, CLAIMED
        lock cmpxchg dword ptr [r11 + SLOT_ARM], ecx
        je      claimed
absent:
        mov     eax, EENTER
        mov     rcx, [rip + aep]
        jmp     stub
claimed:
        mov     [r11 + HOST_RDX], rdx
        mov     [r11 + HOST_RSP], rsp
        mov     [r11 + HOST_RBP], rbp
        mov     [r11 + HOST_RSI], rsi
        mov     [r11 + HOST_RDI], rdi
        mov     [r11 + HOST_R8], r8
        mov     [r11 + HOST_R9], r9
        mov     [r11 + HOST_R10], r10
        mov     [r11 + HOST_R12], r12
        mov     [r11 + HOST_R13], r13
        mov     [r11 + HOST_R14], r14
        mov     [r11 + HOST_R15], r15
        rdfsbase rax
        mov     [r11 + SLOT_HOST_FS], rax
        rdgsbase rax
        mov     [r11 + SLOT_HOST_GS], rax
        mov     qword ptr [r11 + HOST_RFLAGS], 0
        mov     rax, [rip + aep]
        mov     [r11 + HOST_RIP], rax
        mov     dword ptr [r11 + SLOT_KEPT], 1
saved:
        mov     r12, r11
        mov     rax, [r12 + SLOT_STACK_AT]
        mov     [rax], rsp
        mov     [rax + 8], rbp
        cmp     dword ptr [r12 + SLOT_MASKED], 0
        jne     masked
        mov     eax, SYS_RT_SIGPROCMASK
        mov     edi, SIG_UNBLOCK
        lea     rsi, [r12 + SLOT_UNBLOCK]
        lea     rdx, [r12 + SLOT_BLOCKED]
        mov     r10d, 8
        syscall
masked:
        mov     rax, [r12 + SLOT_FS]
        wrfsbase rax
        mov     rax, [r12 + SLOT_GS]
        wrgsbase rax
        mov     rdi, [r12 + HOST_RDI]
        mov     rsi, [r12 + HOST_RSI]
        mov     rdx, [r12 + HOST_RDX]
        mov     r10, [r12 + HOST_R10]
        mov     rcx, [rip + aep]
        lea     rcx, [rcx + ENCLU_LENGTH]
        mov     eax, [r12 + SLOT_CSSA]
        mov     r11, [r12 + SLOT_ENTRY]
        mov     r12, [r12 + HOST_R12]
        jmp     r11
end:
