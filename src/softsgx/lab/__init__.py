"""Designs of restricting enclave page permissions, compared: what each costs, loses and breaks.

`designs/` has the alternatives, as hooks in the driver, `runtimes.py` the published orders adapted
to them, `workloads/` the programs; `bench.py` measures one combination in virtual time, `failures/`
injects the same failures into every design.
"""
