"""Every refusal that a program meets is explained: every rule, every errno, random programs."""
