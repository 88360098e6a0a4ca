"""The kernel's own SGX driver: Linux's C code, unmodified, as a task of the simulator.

`build.py` makes a driver object from a source tree (`tree.py`, `debian.py`), against the headers
below `c/`; `manifest.py` is what an object says of itself. `arena.py` holds a loaded object and the
stacks of its tasks.
"""
