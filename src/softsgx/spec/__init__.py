"""What the manual lays down as data: structures, numbers, bits, tables. No behaviour.

One module per subject; import from the module (`from softsgx.spec.paging import SECINFO`).
"""
