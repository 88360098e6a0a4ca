"""Real processes: the supervisor, and what it puts into every process that it supervises.

`layout` says which addresses those are. The vDSO (`vdso`) exports `__vdso_sgx_enter_enclave`, whose
ENCLU is a jump to the stub (`stub`), which hands the thread's registers to the supervisor through
a mailbox in shared memory (`box`, `mailboxes`) and waits there for the answer.
"""
