# The native engine's way into an enclave: from wherever a thread is to the enclave's registers.
#
# A thread arrives at `enter` with RBX = its slot, every other register dead. First it makes the
# system calls that the supervisor has listed (pages of the enclave to be mapped, protected or
# hidden), then it takes the registers of the slot. The symbols in capitals come from slots.py.
#
# The thread can be stopped anywhere. SLOT_STAGE tells whose FS and GS bases it has; until `inside`
# nothing of the enclave has been executed.

        .intel_syntax noprefix
        .text
enter:
# Exceptions of the enclave are signals that only the supervisor sees. One that is blocked would
# make the kernel change the program's handler and mask.
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
inside:
