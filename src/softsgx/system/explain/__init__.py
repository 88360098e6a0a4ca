"""Why something was refused, and what to do about it. Only listens and looks.

From the bottom up: `history` remembers who changed what last; `facts` is what every layer says of
one address at one moment; `plans` are the steps that make a page usable; `access_advice`,
`leaf_advice` (with `leaf_texts`) and `calls` choose the advice for an access, a leaf or a call;
`explainer` hears the refusals and puts explanations together. `unfinished` stands beside them: what
a program left undone.
"""
