"""A small trusted memory manager, with the published orders of a permission change.

`manager.py` is the enclave's side, `untrusted.py` the host's; `orders.py` has the three orders,
`v2.py` the same for the V2 series.
"""

from softsgx.system.runtimes.manager import TrustedManager
from softsgx.system.runtimes.orders import ORDERS
from softsgx.system.runtimes.v2 import order_of

__all__ = ["ORDERS", "TrustedManager", "order_of"]
