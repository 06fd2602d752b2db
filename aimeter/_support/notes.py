"""What a caller notes, as plain values: copied when it is given, so that whatever the object does costs its note alone."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Iterable, Mapping
from itertools import islice

_DEEPEST, _MOST, _LONGEST = 20, 1_000, 10_000
"""Levels and values that are kept of a note, and characters of a text in it."""
_LONGEST_OF_ALL = 100_000
"""Characters that are kept of all texts in a note."""

class_name: Callable[[type], str] = type.__dict__["__name__"].__get__
"""Returns a class's name, whatever its metaclass makes of that."""

_LONGEST_INTEGER_BITS = 1024
"""No other reader of JSON takes more than a double holds; Python stops at 4300 digits."""


def plain(value: object) -> object:
    """Return a copy of a note made of None, bool, int, float, str, lists and dicts, bounded in size.

    What is deeper, longer or holds itself ends in an ellipsis; what raises is named by its type. A KeyboardInterrupt
    passes: it is Ctrl-C.
    """
    return _plain(value, frozenset(), _Left())


def text(value: object) -> str:
    """Return an object as text of bounded length."""
    if type(value) is str:
        value = value if len(value) <= _LONGEST else f"{value[:_LONGEST]}…"
        return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode()
    try:
        return text(str.__str__(value) if isinstance(value, str) else f"{value!s:.{_LONGEST}}")
    except (Exception, SystemExit, GeneratorExit):  # noqa: BLE001 - the caller's own code
        return f"<{class_name(type(value))}>"


def raised(error: BaseException) -> str:
    """Return what somebody else's code raised as text of bounded length, whatever it does when it is shown."""
    try:
        return f"{error!r:.{_LONGEST}}"
    except BaseException:  # noqa: BLE001 - the same code
        return f"<{class_name(type(error))}>"


class _Left:
    """What of a note may still be kept."""

    __slots__ = ("characters", "values")

    def __init__(self) -> None:
        self.values, self.characters = _MOST, _LONGEST_OF_ALL

    def text(self, value: object) -> str:
        """Return an object as text, and count its characters."""
        found = text(value)
        self.characters -= len(found)
        return found if self.characters >= 0 else "…"


def _plain(value: object, inside: frozenset[int], left: _Left) -> object:
    left.values -= 1
    if left.values < 0 or id(value) in inside or len(inside) == _DEEPEST:
        return "…"
    kind = type(value)
    if value is None or kind is bool:
        return value
    if kind is str:
        return left.text(value)
    try:
        return _copy(value, inside | {id(value)}, left)
    except (Exception, SystemExit, GeneratorExit):  # noqa: BLE001 - the caller's own code
        return f"<{class_name(kind)}>"


def _copy(value: object, inside: frozenset[int], left: _Left) -> object:
    # Methods of the built-in types themselves: a subclass may do anything.
    if isinstance(value, str):
        return left.text(value)
    if isinstance(value, int):
        return _integer(int.__int__(value))
    if isinstance(value, float):
        return _finite(float.__float__(value))
    if isinstance(value, dict):
        return _pairs(dict.items(value), inside, left)
    if isinstance(value, list):
        return [_plain(one, inside, left) for one in islice(list.__iter__(value), left.values + 1)]
    if isinstance(value, tuple):
        return [_plain(one, inside, left) for one in islice(tuple.__iter__(value), left.values + 1)]
    if isinstance(value, Mapping):
        return _pairs(value.items(), inside, left)
    if isinstance(value, numbers.Integral):
        return _integer(int(value))
    if isinstance(value, numbers.Real):
        return _finite(float(value))
    return left.text(value)


def _pairs(items: Iterable[tuple[object, object]], inside: frozenset[int], left: _Left) -> object:
    return {left.text(key): _plain(one, inside, left) for key, one in islice(items, left.values + 1)}


def _integer(value: int) -> object:
    bits = value.bit_length()
    return value if bits <= _LONGEST_INTEGER_BITS else f"<integer of {bits} bits>"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
