"""Designs of restricting enclave page permissions, compared: what each costs, loses and breaks.

`designs/` are the alternatives behind the driver's interface, `runtimes.py` the published orders
adapted to them, `workloads/` the programs; `bench.py` measures one combination in virtual time,
`failures/` injects the same failure into every design.
"""
