"""What `track` may be given, checked when it is called."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import TypedDict

from aimeter._support.notes import text
from aimeter.errors import did_you_mean
from aimeter.record import COUNTS
from aimeter.sensors.base import KINDS


class Counts(TypedDict, total=False):
    """What a call produced or consumed, each 0 or more."""

    items: float
    images: float
    tokens_in: float
    tokens_out: float
    steps: float
    audio_s: float


def checked(given: Counts) -> dict[str, float | None]:
    """Return counts, all of them numbers of Python's own.

    Raises:
        TypeError: If a count is unknown or no number.
        ValueError: If a count is negative or not finite.
    """
    counts: dict[str, float | None] = given  # type: ignore[assignment]
    for key, value in counts.items():
        if key not in _KNOWN:
            message = (
                f"track() got an unknown count {key!r}: choose among {', '.join(COUNTS)}, or add a note() "
                f"inside the block.{did_you_mean(key, COUNTS)}"
            )
            raise TypeError(message)
        if value.__class__ is not int or not 0 <= value <= _MOST_EXACT:  # most are plain whole numbers
            counts[key] = check_count(key, value)
    return counts


_KNOWN = frozenset(COUNTS)
_MOST_EXACT = 2**53


def check_weight(value: object) -> float:
    """Return `value` if it can be a weight.

    Raises:
        TypeError: If it is not a number.
        ValueError: If it is not between 0.001 and 1,000.
    """
    value = _plain(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        message = f"weight must be a number, not {value!r}"
        raise TypeError(message)
    if 1e-3 <= value <= 1e3:  # noqa: PLR2004 - as said above
        return float(value)
    message = (
        f"weight must lie between 0.001 and 1000, not {value!r}: it is relative to that of other calls, 1"
    )
    raise ValueError(message)


_DEVICE = re.compile(
    r"(?P<id>(gpu|cpu|dram|other)(:(0|[1-9][0-9]*)(:(GPU|MIG)-[0-9a-fA-F-]*)?)?)~?|(?P<uuid>(GPU|MIG)-[0-9a-zA-Z/-]+)"
)


def check_devices(value: object) -> frozenset[str]:
    """Return `value`, one name or several, as a set if each can be of a device.

    Raises:
        TypeError: If it is neither text nor a collection of texts.
        ValueError: If it is empty, or a name cannot be of a device.
    """
    given = [*value] if isinstance(value, Iterable) and not isinstance(value, str) else [value]
    names = [name for name in given if isinstance(name, str)]
    if len(names) < len(given):
        message = f"devices must be names such as 'gpu:0' or ['gpu:0', 'cpu'], not {value!r}"
        raise TypeError(message)
    matches = {name: _DEVICE.fullmatch(name) for name in names}
    wrong = [name for name, match in matches.items() if match is None]
    if wrong or not names:
        what = f"unknown device {wrong[0]!r}" if wrong else "devices is empty"
        message = (
            f"{what}: name a kind (gpu, cpu, dram, other), an id as in the row's devices (gpu:0, cpu:1) or the "
            f"head of a GPU's UUID (GPU-1a2b).{did_you_mean(wrong[0], KINDS) if wrong else ''}"
        )
        raise ValueError(message)
    # A row's devices have the head of the UUID behind the id, and a mark behind those that are shared.
    return frozenset(
        match["uuid"] or ":".join(match["id"].split(":")[:2])
        for match in matches.values()
        if match is not None
    )


def check_count(key: str, value: object) -> float:
    """Return `value` if it can be a count.

    Raises:
        TypeError: If it is not a number.
        ValueError: If it is negative or not finite.
    """
    number = value if isinstance(value, float) or value.__class__ is int else _number(key, value)
    if 0 <= number <= _MOST:  # not NaN, not infinite, and not an integer beyond what a float can hold
        return number
    message = f"the count {key!r} must be 0 or more and finite, not {value!r}"
    raise ValueError(message)


_MOST = sys.float_info.max


def _number(key: str, value: object) -> float:
    """Return a number of NumPy or torch as Python's own; text and None are slips."""
    value = _plain(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        message = f"the count {key!r} must be a number"
        raise TypeError(message)
    return value


def _plain(value: object) -> object:
    """Return what a scalar of NumPy or torch holds, and anything else as it is."""
    with suppress(AttributeError, ValueError, RuntimeError):
        return value.item()  # type: ignore[attr-defined]
    return value


def noted(model: object) -> dict[str, object] | None:
    """Return the note of a model's name."""
    if model is None:
        return None
    return {"model": model if model.__class__ is str else text(model)}
