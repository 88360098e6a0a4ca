"""The type of what serves a request."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Handlers = Mapping[str, Callable[..., Any]]
"""By the name of the operation: gets the call and its arguments, returns the answer or `Steps`."""
