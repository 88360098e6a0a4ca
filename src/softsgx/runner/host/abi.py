"""Numbers that programs and the kernel agree on, and that the supervisor uses, each once.

System calls are in `nr`, requests of ptrace in `ptrace`; what the model of the kernel has as well
(PROT_*, MAP_*, SI_KERNEL, the codes of SIGSEGV) is in `linux.uapi` and `linux.process`.
"""

from typing import Final

from softsgx.linux.uapi import (
    MAP_ANONYMOUS,
    MAP_FIXED,
    MAP_FIXED_NOREPLACE,
    MAP_NORESERVE,
    MAP_PRIVATE,
    MAP_SHARED,
    PROT_EXEC,
    PROT_READ,
    PROT_WRITE,
)

SYSCALL_LENGTH: Final = 2  # of the instruction, and of int 0x80

# x86-64 psABI, 3.2.2 "The Stack Frame".
RED_ZONE: Final = 128

# Linux 6.12, arch/x86/include/asm/segment.h.
USER_CS: Final = 0x33
USER_DS: Final = 0x2B
USER_RFLAGS: Final = 0x202  # IF, and bit 1, which is always set

# Linux 6.12, include/uapi/linux/auxvec.h.
AT_NULL: Final = 0
AT_HWCAP2: Final = 26
AT_SYSINFO_EHDR: Final = 33

# Linux 6.12, include/uapi/linux/fcntl.h.
AT_FDCWD: Final = -100
AT_SYMLINK_NOFOLLOW: Final = 0x100
AT_SYMLINK_FOLLOW: Final = 0x400
AT_EMPTY_PATH: Final = 0x1000

# Linux 6.12, include/uapi/linux/limits.h.
PATH_MAX: Final = 4096

# Linux 6.12, include/uapi/linux/prctl.h.
PR_SET_PDEATHSIG: Final = 1
PR_GET_SECCOMP: Final = 21
PR_SET_SECCOMP: Final = 22
PR_SET_TSC: Final = 26
PR_TSC_SIGSEGV: Final = 2
PR_SET_NO_NEW_PRIVS: Final = 38
PR_SET_PTRACER: Final = 0x59616D61
PR_GET_NO_NEW_PRIVS: Final = 39

# The rest of the legacy region of an XSAVE image belongs to software: the kernel writes there.
XSAVE_SOFTWARE: Final = 464

# Linux 6.12, arch/x86/include/uapi/asm/prctl.h.
ARCH_SET_GS: Final = 0x1001
ARCH_GET_GS: Final = 0x1004
ARCH_GET_CPUID: Final = 0x1011
ARCH_SET_CPUID: Final = 0x1012

# Linux 6.12, include/uapi/linux/seccomp.h, include/uapi/linux/audit.h.
SECCOMP_MODE_STRICT: Final = 1
SECCOMP_MODE_FILTER: Final = 2
SECCOMP_SET_MODE_STRICT: Final = 0
SECCOMP_SET_MODE_FILTER: Final = 1
SECCOMP_FILTER_FLAG_TSYNC: Final = 1
SECCOMP_FILTER_FLAG_NEW_LISTENER: Final = 8
SECCOMP_RET_KILL_THREAD: Final = 0
SECCOMP_RET_TRAP: Final = 0x0003_0000
SECCOMP_RET_ERRNO: Final = 0x0005_0000
SECCOMP_RET_USER_NOTIF: Final = 0x7FC0_0000
SECCOMP_RET_TRACE: Final = 0x7FF0_0000
SECCOMP_RET_LOG: Final = 0x7FFC_0000
SECCOMP_RET_ALLOW: Final = 0x7FFF_0000
SECCOMP_USER_NOTIF_FLAG_CONTINUE: Final = 1
SECCOMP_ADDFD_FLAG_SEND: Final = 2
SECCOMP_IOCTL_NOTIF_RECV: Final = 0xC050_2100
SECCOMP_IOCTL_NOTIF_SEND: Final = 0xC018_2101
SECCOMP_IOCTL_NOTIF_ADDFD: Final = 0x4018_2103
SECCOMP_RET_ACTION_FULL: Final = 0xFFFF_0000
SECCOMP_RET_DATA: Final = 0xFFFF
AUDIT_ARCH_I386: Final = 0x4000_0003
AUDIT_ARCH_X86_64: Final = 0xC000_003E

# Linux 6.12, include/uapi/linux/sched.h.
CLONE_VM: Final = 0x100
CLONE_VFORK: Final = 0x4000
CLONE_THREAD: Final = 0x10000
CLONE_UNTRACED: Final = 0x800000

# Linux 6.12, include/uapi/linux/bpf_common.h.
BPF_MAXINSNS: Final = 4096

# Linux 6.12, include/uapi/linux/capability.h.
CAP_SYS_ADMIN: Final = 21

# Linux 6.12, include/uapi/linux/futex.h.
FUTEX_WAIT: Final = 0
FUTEX_WAKE: Final = 1

# Linux 6.12, include/uapi/asm-generic/signal-defs.h and siginfo.h.
SIG_DFL: Final = 0
SIG_IGN: Final = 1
SIG_UNBLOCK: Final = 1
SA_SIGINFO: Final = 4
SA_RESTORER: Final = 0x0400_0000
SI_USER: Final = 0
SI_TIMER: Final = -2
SI_TKILL: Final = -6
SI_SYS_SECCOMP: Final = 1  # SYS_SECCOMP, of SIGSYS

# Linux 6.12, include/uapi/linux/inotify.h.
IN_DELETE_SELF: Final = 0x400

# Linux 6.11, include/uapi/linux/fs.h.
PROCMAP_QUERY: Final = 0xC068_6611
PROCMAP_QUERY_COVERING_OR_NEXT_VMA: Final = 0x10

# Linux 6.12, include/uapi/linux/fcntl.h.
F_SEAL_FUTURE_WRITE: Final = 0x10

# Linux 6.3, include/uapi/linux/memfd.h.
MFD_NOEXEC_SEAL: Final = 8

# What is mapped in a program, never over what is there.
PROT_RW: Final = PROT_READ | PROT_WRITE
PROT_RX: Final = PROT_READ | PROT_EXEC
PRIVATE_NOREPLACE: Final = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE
SHARED_NOREPLACE: Final = MAP_SHARED | MAP_FIXED_NOREPLACE
SHARED_FIXED: Final = MAP_SHARED | MAP_FIXED | MAP_NORESERVE
PRIVATE_NORESERVE: Final = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE
