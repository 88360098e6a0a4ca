"""Why something was refused, and what to do about it. Nothing here changes the machine.

From the bottom up: `history` remembers who changed what last; `facts` has what every layer says of
one address at one moment; `plans` are the steps that make a page usable; `access_advice`,
`leaf_advice` (with `leaf_texts`) and `calls` have the advice for an access, a leaf and a call;
`explainer` listens for refusals and puts the explanations together. `unfinished`, which uses only
`history` and `facts`, lists what a program left undone. tests/tidy/rooms.py enforces this order.
"""
