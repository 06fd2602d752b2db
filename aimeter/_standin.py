"""What stands in for public names whose modules cannot be loaded just then, as at the limit of open files.

The program goes on without figures. Whoever asks `aimeter` for the name again gets the real one once it can be had.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from ._support.log import warn_once

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

T = TypeVar("T")


class UnloadedCall:
    """A call that leaves no row and knows no figure, in the place of `aimeter.Call`."""

    def __init__(self, name: str | None) -> None:
        self.name = name
        self.counts: dict[str, float | None] = {}
        self.notes: dict[str, object] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def __call__(self, function: T) -> T:
        """Return the function as it is: it is not metered."""
        return function

    def count(self, **counts: float | None) -> None:
        """Do nothing."""

    def note(self, **notes: object) -> None:
        """Do nothing."""

    def per(self, unit: str) -> None:
        """Return None: it is unknown."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("_"):
            raise AttributeError(name)


def _track(name: object = None, /, **given: object) -> object:
    if name is None:
        frame = sys._getframe(1)  # noqa: SLF001 - inspect.stack() reads source files
        name = f"block at {os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}"  # noqa: PTH119 - loads less
    try:
        real = importlib.import_module("aimeter._api").track
    except OSError:
        return UnloadedCall(name) if isinstance(name, str) else name
    return real(name, **given)


def _nothing(*_: object) -> None:
    """Return what there is of calls before any could be made."""


def _none(*_: object) -> list[object]:
    return []


def _unchanged(subject: T, /, *_: object, **__: object) -> T:
    return subject


_STAND_INS: dict[str, Callable[..., object]] = {
    "attach": _unchanged,
    "current_call": _nothing,
    "detach": _unchanged,
    "flush": _nothing,
    "records": _none,
    "track": _track,
    "uninstrument": _nothing,
}
"""Those that run in the middle of a program's work. Others are asked for figures or settings, and may fail."""


def stand_in(name: str, fault: OSError) -> Callable[..., object]:
    """Return what takes the place of a public name whose module could not be loaded.

    Raises:
        OSError: The fault: nothing can.
    """
    found = _STAND_INS.get(name)
    if found is None:
        raise fault
    warn_once(
        f"aimeter.{name} cannot be loaded ({fault}): what it is used on is not metered.", f"aimeter.{name}"
    )
    return found
