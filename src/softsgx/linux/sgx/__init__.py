"""The SGX driver, in the kernel's own file and function names. Linux 6.12, arch/x86/kernel/cpu/sgx.

`encls.py` how one ENCLS ends; `main.py` EPC pages and the reclaimer; `encl.py` enclaves, page
loading, page faults; `ioctl.py` the ioctls; `driver.py` the device node; `v2.py` what the series of
February 2022 did otherwise.
"""
