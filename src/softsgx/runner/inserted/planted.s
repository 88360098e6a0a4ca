# System calls of a new program that another process traces, on the supervisor's behalf. Planted
# where the program's first brk(NULL) returns, and then copied to the gate; position-independent.
# The kernel has left in RCX where the call returns to, and in R11 the flags.

        .intel_syntax noprefix
        .text
planted:
        lea     rsp, [rsp - RED_ZONE]
        push    rcx
        push    r11
        push    rax
        push    rdx
        push    rbx
        push    rbp
        push    rsi
        push    rdi
        push    r8
        push    r9
        push    r10
        push    r12
        push    r13
        push    r14
        push    r15

# brk(NULL, result, , number of the command) waits in a notification. When it is answered, the next
# command is at `command`.
serve:
        mov     rsi, rax
        mov     r10, [rip + command]
        xor     edi, edi
        mov     eax, SYS_BRK
        syscall
        mov     rax, [rip + command + 16]
        mov     rdi, [rip + command + 24]
        mov     rsi, [rip + command + 32]
        mov     rdx, [rip + command + 40]
        mov     r10, [rip + command + 48]
        mov     r8, [rip + command + 56]
        mov     r9, [rip + command + 64]
        syscall
        jmp     [rip + command + 8]

# Where the stub begins the program.
unplanted:
        pop     r15
        pop     r14
        pop     r13
        pop     r12
        pop     r10
        pop     r9
        pop     r8
        pop     rdi
        pop     rsi
        pop     rbp
        pop     rbx
        pop     rdx
        pop     rax
        popfq
        ret     RED_ZONE

        .balign 8
# Its number, where to go on after the call, the number of the call, its arguments.
command: .fill  9, 8, 0
planted_end:
