"""One file per leaf; each reads like its page in the manual.

A body takes the logical processor and RBX, RCX, RDX. It returns a `Status`, or None if the leaf
does not write RAX; a fault is raised before anything is changed. Checks stand in the manual's
order, one rule id each; the comment after the id is what docs/spec-map.md shows.
"""
