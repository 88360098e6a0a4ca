"""States: what a scenario will do next, as a digest of 128 bits.

Two points of an execution at which everything reachable from the scenario and its tasks is alike
have the same future. `digest` reduces that to bytes, `graph` is what the search knows of it.
"""
