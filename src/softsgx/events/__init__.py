"""The events of a machine: those of processor and memory, and those of the kernel.

Only record types, so that emitters and readers need not import each other. `sim.events` has the
log, which takes any NamedTuple, and the events of scheduling.
"""
