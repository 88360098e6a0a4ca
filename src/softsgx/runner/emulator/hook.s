# The block hook of the reference engine: called by the emulator at the start of every block with
# RDI = emulator, RSI = address, EDX = size of the block in bytes, RCX = Control (control.py, whose
# names are the symbols in capitals). It returns, and the block executes, or it jumps to a function
# with the same arguments: to uc_emu_stop, or to Python for a block that is not known.

        .intel_syntax noprefix
        .text
hook:
        mov     rax, [rcx + DOORBELL]
        mov     eax, [rax]
        cmp     eax, [rcx + SEEN]
        jne     rung
        sub     dword ptr [rcx + QUANTUM], 1
        js      look
        cmp     rsi, [rcx + WATCHED]
        je      revisited
known:
        mov     eax, esi                # the slot of the table of known blocks
        mov     r8d, esi
        shr     r8d, 12
        xor     eax, r8d
        movzx   r9d, ax
        mov     r8, [rcx + KNOWN]
        mov     r8, [r8 + r9*8]
        cmp     r8, rsi
        jne     not_plain
        ret
not_plain:
        mov     r10, r8
        shl     r10, 2
        shr     r10, 2
        cmp     r10, rsi
        jne     changing
flags:                                  # of a known block, in the two highest bits of R8
        shl     r8, 1
        jnc     not_after_pause
        sub     dword ptr [rcx + PAUSES], 1
        js      pauses
not_after_pause:
        test    r8, r8
        js      spinner
        ret

# Blocks of pages that can be written: known as long as their bytes are those that were scanned.
changing:
        and     r9d, CHANGING_MASK
        shl     r9d, CHANGING_SHIFT
        add     r9, [rcx + CHANGING]
        cmp     rsi, [r9 + CHANGING_ADDRESS]
        jne     unknown
        mov     eax, [r9 + CHANGING_SIZE]
        mov     r8d, [r9 + CHANGING_TAIL]
        lea     r10d, [rax + r8]
        cmp     r10d, edx               # the emulator may execute less of it, to be exact
        jb      unknown
        mov     r11, [r9 + CHANGING_SAVED]
        mov     r10, [r9 + CHANGING_MEMORY]
        call    compare
        jne     unknown
        mov     eax, r8d                # the part in the second page
        mov     r10, [r9 + CHANGING_SECOND]
        call    compare
        jne     unknown
        mov     r8, [r9 + CHANGING_FLAGS]
        jmp     flags
unknown:
        jmp     [rcx + UNKNOWN]

# ZF = whether EAX bytes at R10 and at R11 are equal; both pointers advance.
compare:
        push    rbx
qwords:
        sub     eax, 8
        jb      rest
        mov     rbx, [r10]
        cmp     rbx, [r11]
        jne     differ
        add     r10, 8
        add     r11, 8
        jmp     qwords
rest:
        add     eax, 8
last_bytes:
        sub     eax, 1
        jb      same
        mov     bl, [r10]
        cmp     bl, [r11]
        jne     differ
        add     r10, 1
        add     r11, 1
        jmp     last_bytes
same:
        cmp     eax, eax
differ:
        pop     rbx
        ret

# A quantum of blocks is used up: is the slice over, by blocks or by time? If not, does the code
# spin? To find out, watch whether this block begins again with the same registers.
look:
        mov     eax, [rcx + LEFT]
        test    eax, eax
        jle     used_up
        mov     r8d, QUANTUM_BLOCKS
        cmp     eax, r8d
        cmovl   r8d, eax
        sub     eax, r8d
        mov     [rcx + LEFT], eax
        add     [rcx + QUANTUM], r8d
        push    rdi
        push    rsi
        push    rdx
        push    rcx
        push    rbx
        mov     rbx, rcx
        mov     edi, CLOCK_MONOTONIC
        lea     rsi, [rbx + TIME]
        call    [rbx + CLOCK]
        imul    rax, [rbx + TIME], 1000000000
        add     rax, [rbx + TIME + 8]
        cmp     rax, [rbx + DEADLINE]
        pop     rbx
        pop     rcx
        pop     rdx
        pop     rsi
        pop     rdi
        jae     used_up
        sub     dword ptr [rcx + UNWATCHED], 1
        jns     known
        mov     dword ptr [rcx + UNWATCHED], 0
        mov     dword ptr [rcx + REVISITS], REVISITS_MAX
        mov     [rcx + WATCHED], rsi
        call    registers
        call    remember
        jmp     known

# A block where code was found to spin is watched from its first visit on. But its code may also be
# working: then the block is not watched for a while.
spinner:
        sub     dword ptr [rcx + RESTING], 1
        jns     executes
        mov     dword ptr [rcx + RESTING], 0
        cmp     rsi, [rcx + WATCHED]    # it was just compared
        je      executes
        mov     dword ptr [rcx + REVISITS], REVISITS_SPINNER
        mov     [rcx + WATCHED], rsi
        call    registers
        call    remember
executes:
        ret

revisited:
        call    registers
        lea     r8, [rcx + NOW]
        lea     r9, [rcx + WAS]
        mov     eax, REGISTERS
one:
        mov     r10, [r8 + rax*8 - 8]
        cmp     r10, [r9 + rax*8 - 8]
        jne     moved
        sub     eax, 1
        jne     one
        mov     dword ptr [rcx + REASON], SPIN
        jmp     [rcx + STOP]
moved:
        call    remember
        sub     dword ptr [rcx + REVISITS], 1
        jns     known
        mov     qword ptr [rcx + WATCHED], 0
        mov     dword ptr [rcx + RESTING], RESTING_VISITS
        jmp     known

# Read the registers of the emulator into NOW. All arguments of the hook are kept.
registers:
        push    rdi
        push    rsi
        push    rdx
        push    rcx
        mov     rsi, [rcx + IDS]
        mov     rdx, [rcx + POINTERS]
        mov     rax, [rcx + READ]
        mov     ecx, REGISTERS
        call    rax
        pop     rcx
        pop     rdx
        pop     rsi
        pop     rdi
        ret

# Copy NOW to WAS.
remember:
        mov     eax, REGISTERS
copy:
        mov     r8, [rcx + rax*8 + NOW - 8]
        mov     [rcx + rax*8 + WAS - 8], r8
        sub     eax, 1
        jne     copy
        ret

rung:
        mov     dword ptr [rcx + REASON], RUNG
        jmp     [rcx + STOP]
used_up:
        mov     dword ptr [rcx + REASON], USED_UP
        jmp     [rcx + STOP]
pauses:
        mov     dword ptr [rcx + REASON], PAUSED
        jmp     [rcx + STOP]

# The hook of instructions that the emulator does not have: RDI = emulator, RSI = Control. It says
# that the instruction has been dealt with, so that the emulator stops without an error.
invalid:
        mov     dword ptr [rsi + INVALID], 1
        sub     rsp, 8
        call    [rsi + STOP]
        add     rsp, 8
        mov     eax, 1
        ret
