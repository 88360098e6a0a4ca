"""The same injected failure in every design: what the caller learns, and what is left.

`stage.py` has the machine and what the threads do on it, `scenario.py` what all failures share,
`scenarios.py` and `meeting.py` the failures, `outcome.py` the checkers that turn what happened into
verdicts, `matrix.py` all of them together.
"""
