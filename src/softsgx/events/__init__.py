"""What a machine tells while it runs: the events of processor and memory, and those of the kernel.

Only record types, so that those who emit them and those who read them need not know each other.
`sim.events` has the log, which takes any NamedTuple, and the events of scheduling.
"""
