"""Where the program is: which call is open in this thread or task, and which meter is the default."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aimeter._calls.protocols import Host

open_call: ContextVar[Any] = ContextVar("aimeter_call", default=None)
"""The innermost open `aimeter.Call` of this thread or task, or None."""

_default: Callable[[], Host] | None = None


def hand_in(source: Callable[[], Host]) -> Callable[[], Host]:
    """Say where the default meter is to be had: `aimeter` does, which stands above all who need it."""
    global _default  # noqa: PLW0603 - there is one default
    _default = source
    return source


def default_meter() -> Host:
    """Return the default meter, whose modules are loaded with the first call: a program is to start at once."""
    assert _default is not None  # noqa: S101 - no module of aimeter is loaded before aimeter itself
    return _default()
