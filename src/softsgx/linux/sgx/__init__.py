"""The SGX driver, in the kernel's own file and function names. Linux 6.12, arch/x86/kernel/cpu/sgx.

`encls.py` executes one ENCLS; `main.py` EPC pages and the reclaimer; `encl.py` enclaves, page
loading, page faults; `driver.py` the device node; `ioctl.py` the ioctls that build an enclave,
`edmm.py` those that change it, `page_ioctl.py` what they share; `interface.py` and `v2.py` what the
series of February 2022 did differently.
"""
