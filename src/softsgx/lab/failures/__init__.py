"""The same injected failures in every design: what the caller learns, and what state is left.

`stage.py` has the machine and the actions of threads on it, `injected.py` what all failures have in
common, `catalogue.py` and `meeting.py` the failures, `outcome.py` the checkers that turn facts into
verdicts, `matrix.py` all failures in all designs.
"""
