# The block hook of the reference engine: called by the emulator at the start of every block with
# rdi = emulator, rsi = address, rcx = Control (blocks.py, whose offsets these are).
#
# Assembled by hand into blocks.py: as hook.s && objcopy -O binary; a test compares.

        .intel_syntax noprefix
        .text
hook:
        mov     rax, [rcx]              # Control.doorbell
        mov     eax, [rax]
        cmp     eax, [rcx + 8]          # .seen
        jne     rung
        sub     dword ptr [rcx + 12], 1 # .budget
        js      used_up
        mov     eax, esi                # the slot of the table of known blocks
        mov     r8d, esi
        shr     r8d, 12
        xor     eax, r8d
        movzx   eax, ax
        mov     r9, [rcx + 40]          # .table
        mov     r8, [r9 + rax*8]
        cmp     r8, rsi
        je      go_on
        btr     r8, 63                  # known, and behind a PAUSE?
        cmp     r8, rsi
        jne     unknown
        sub     dword ptr [rcx + 32], 1 # .pauses
        js      spins
go_on:  ret
unknown:
        jmp     [rcx + 24]              # .unknown
rung:   mov     dword ptr [rcx + 36], 1 # .reason
        jmp     [rcx + 16]              # .stop
used_up:
        mov     dword ptr [rcx + 36], 2
        jmp     [rcx + 16]
spins:  mov     dword ptr [rcx + 36], 3
        jmp     [rcx + 16]
