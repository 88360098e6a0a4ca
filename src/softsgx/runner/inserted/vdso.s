# __vdso_sgx_enter_enclave, from its contract: leaf in ECX, the run structure as the first argument
# on the stack; RDI, RSI, RDX, R8, R9 and what else is not named go to the enclave as they are.
# The symbols in capitals are those of linux/uapi.py (struct sgx_enclave_run) and spec/leaves.py.

        .intel_syntax noprefix
        .text
function:
        .cfi_startproc
        endbr64
        push    rbp
        .cfi_def_cfa_offset 16
        .cfi_offset rbp, -16
        mov     rbp, rsp
        .cfi_def_cfa_register rbp
        push    rbx
        .cfi_offset rbx, -24

# Also where a handler that asks for another entry continues, its answer in ECX.
again:
        lea     eax, [rcx - EENTER]
        cmp     eax, ERESUME - EENTER
        ja      refuse
        mov     rbx, [rbp + 16]
        mov     eax, RUN_RESERVED
1:      cmp     qword ptr [rbx + rax], 0
        jne     refuse
        add     eax, 8
        cmp     eax, RUN_SIZE
        jb      1b

        mov     rbx, [rbx + RUN_TCS]
        mov     eax, ecx
        lea     rcx, [rip + enclu]
# ENCLU has three bytes, and the enclave returns after the third. The label is the AEP as well, so
# it can be run again with EAX = ERESUME.
enclu:
        jmp     jump
        nop
        mov     rbx, [rbp + 16]
        mov     dword ptr [rbx + RUN_FUNCTION], EEXIT

# RBX = run structure.
outcome:
        mov     rax, [rbx + RUN_USER_HANDLER]
        test    rax, rax
        jnz     handler
# RBX is taken from where the enclave left RSP, as the kernel's function does.
back:
        pop     rbx
        .cfi_remember_state
        leave
        .cfi_def_cfa rsp, 8
        ret
        .cfi_restore_state

refuse:
        mov     eax, -EINVAL
        jmp     back

# To STUB; vdso.py writes the distance.
jump:
        .byte   0xe9
        .long   0

# After a fix-up: RDI = vector, RSI = error code, RDX = address, EAX = leaf.
exception:
        mov     rbx, [rbp + 16]
        mov     [rbx + RUN_FUNCTION], eax
        mov     [rbx + RUN_EXCEPTION_VECTOR], di
        mov     [rbx + RUN_EXCEPTION_ERROR_CODE], si
        mov     [rbx + RUN_EXCEPTION_ADDR], rdx
        jmp     outcome

# handler(rdi, rsi, rdx, rsp, r8, r9, run) with an aligned stack, and RSP put back afterwards.
handler:
        mov     rcx, rsp
        and     rsp, -16
        sub     rsp, 16
        mov     [rsp], rbx
        mov     rbx, rcx
        cld
        call    rax
        mov     rsp, rbx
        test    eax, eax
        jle     back
        mov     ecx, eax
        jmp     again
        .cfi_endproc
function_end:
