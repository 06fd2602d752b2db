"""Whose calls are metered: the objects that were attached, or all that is instrumented."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from aimeter._calls.protocols import Host


class Session(NamedTuple):
    """How the calls of an attached object, or of all that is instrumented, are metered.

    Attributes:
        source: Gives the meter when a call begins.
        name: Name of the rows; by default one that the adapter finds.
        model: Name of the model; by default one that the adapter finds.
        parts: Tell the parts of a call apart by child rows, where that is cheap.
        steps: A child row for each step.
        explicit: The object was attached itself.
    """

    source: Callable[[], Host]
    name: str | None = None
    model: str | None = None
    parts: bool = True
    steps: bool = False
    explicit: bool = False


class Attached(NamedTuple):
    """An object whose calls are metered; it is not kept alive."""

    subject: weakref.ref[Any]
    session: Session


attached: dict[int, Attached] = {}
"""By identity: an object may define equality as it likes, or be unhashable."""

instrumented: list[Session] = []
"""At most one: that of `aimeter.instrument`."""


def session_of(subject: object) -> Session | None:
    """Return how calls of an object are metered, or None if they are not."""
    own = attached.get(id(subject))
    if own is not None:
        return own.session
    return instrumented[0] if instrumented else None
