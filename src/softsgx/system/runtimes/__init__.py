"""A small trusted memory manager, with the published orders of a permission change.

`manager.py` is the enclave's side, `untrusted.py` the host's, `orders.py` the three orders.
"""

from softsgx.system.enclave import EnclaveAbort
from softsgx.system.runtimes.manager import TrustedManager
from softsgx.system.runtimes.orders import ORDERS, Enarx, Gramine, IntelEmm

__all__ = ["ORDERS", "Enarx", "EnclaveAbort", "Gramine", "IntelEmm", "TrustedManager"]
