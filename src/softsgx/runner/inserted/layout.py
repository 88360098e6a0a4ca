"""Addresses of what the supervisor maps into every supervised process, from the bottom up.

The low end of the address space stays free: enclaves may have base 0 and extend over 1 TiB. The
kernel's mmap does not choose addresses here by itself: it begins within 1 TiB of the stack.
ThreadSanitizer refuses programs with mappings outside of its own ranges, of which the highest
begins at 0x7e8000000000. Everything but EPC is within 2 GiB, so that the code reaches it
RIP-relative.
"""

from typing import Final

from softsgx.spec.bits import PAGE_SIZE

BASE: Final = 0x7E80_0000_0000

# One page, R-X, with instructions that the supervisor has the program's threads execute.
GATE: Final = BASE
GATE_CODE: Final = b"\x0f\x05\xcc"  # syscall; int3
GATE_DONE: Final = GATE + 2  # the RIP of a call from there, as filters see it
GATE_INT80: Final = GATE + 16
GATE_INT80_CODE: Final = b"\xcd\x80\xcc"  # int 0x80; int3
GATE_WORD: Final = GATE + PAGE_SIZE - 8  # see families.py

# The vDSO image, R-X.
VDSO: Final = BASE + 0x1000
VDSO_SIZE_MAX: Final = 0x7000

MAILBOXES: Final = 256
# From one mailbox to the next, and also from the code of one mailbox to the code of the next: every
# mailbox is equally far from its code, so the code of all mailboxes has the same bytes.
MAILBOX_STRIDE: Final = 0x300

# The stub, R-X: a page of common code, then the code of each mailbox.
STUB: Final = BASE + 0x8000
STUB_BLOCKS: Final = STUB + PAGE_SIZE
STUB_SIZE: Final = PAGE_SIZE + MAILBOXES * MAILBOX_STRIDE

# Shared with the supervisor, RW: the control page, the mailboxes, and what one injected call reads
# (scratch.py).
BOX: Final = BASE + 0x40000
BOX_MAILBOXES: Final = BOX + PAGE_SIZE
SCRATCH: Final = BOX_MAILBOXES + MAILBOXES * MAILBOX_STRIDE
SCRATCH_SIZE: Final = 9 * PAGE_SIZE  # a filter of 4096 instructions, and what points to it
BOX_SIZE: Final = SCRATCH + SCRATCH_SIZE - BOX

# For the native engine: its code, R-X, and the slots from which native.s loads, one for each thread
# that enters, RW, shared with the supervisor.
NATIVE_CODE: Final = BASE + 0x80000
NATIVE_SLOTS: Final = BASE + 0x100000
SLOT_STRIDE: Final = 0x4000
SLOTS: Final = 1024
SLOTS_SIZE: Final = SLOTS * SLOT_STRIDE

# Up to the end of the records of systrap_layout.py.
END: Final = BASE + 0x3000_0000

# All of EPC, PROT_NONE; single pages are duplicated from here into enclave areas, by way of a place
# of its own for each slot.
NATIVE_EPC: Final = BASE + (1 << 36)
NATIVE_STAGING: Final = NATIVE_EPC - SLOTS * PAGE_SIZE

assert VDSO + VDSO_SIZE_MAX <= STUB
assert STUB + STUB_SIZE <= BOX
assert not SCRATCH % PAGE_SIZE
assert BOX + BOX_SIZE <= NATIVE_CODE
assert NATIVE_SLOTS + SLOTS_SIZE <= END <= NATIVE_STAGING
