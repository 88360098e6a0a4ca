"""Exceptions inside an enclave that the vDSO reports. Linux 6.12, arch/x86/kernel/traps.c."""

# Vector -> whether the error code of the hardware is passed on.
FIXED_UP = {0: False, 4: False, 5: False, 6: False, 9: False, 10: True, 11: True}
FIXED_UP |= {12: True, 13: True, 16: False, 17: True, 19: False}
