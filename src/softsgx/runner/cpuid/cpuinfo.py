"""/proc/cpuinfo as a supervised program sees it: it must not contradict CPUID."""

from __future__ import annotations

from softsgx.runner.cpuid.cpu_features import flag_is_hidden
from softsgx.runner.cpuid.cpuid import LEAF_SGX, CpuidPolicy
from softsgx.spec.cpuid import LEAF7_EBX_SGX, LEAF7_ECX_SGX_LC


def cpuinfo_text(real: str, policy: CpuidPolicy) -> str:
    """The text of /proc/cpuinfo, from the real one. Lines, order and spacing stay."""
    return "".join(_line(line, policy) for line in real.splitlines(keepends=True))


def _line(line: str, policy: CpuidPolicy) -> str:
    name, colon, value = line.partition(":")
    end = "\n" if line.endswith("\n") else ""
    value = value.strip()
    match name.strip():
        case "flags":
            value = _flags(value, policy)
        case "cpuid level" if value.isdecimal():
            value = str(max(int(value), LEAF_SGX))
        case "vendor_id" if policy.vendor is not None:
            value = policy.vendor.decode("latin-1")
        case _:
            return line
    return f"{name}{colon} {value}{end}"


def _flags(value: str, policy: CpuidPolicy) -> str:
    flags = [flag for flag in value.split() if flag not in ("sgx", "sgx_lc")]
    if policy.engine == "unicorn":
        flags = [flag for flag in flags if not flag_is_hidden(flag)]
    leaf7 = policy.part.cpuid(7, 0, policy.sections)
    flags += ["sgx"] if leaf7.ebx & LEAF7_EBX_SGX else []
    flags += ["sgx_lc"] if leaf7.ecx & LEAF7_ECX_SGX_LC else []
    return " ".join(flags)
