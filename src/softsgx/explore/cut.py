"""How a strategy ends an execution early."""


class Cut(Exception):
    """Raised by a strategy: the rest of this execution would show nothing new."""
