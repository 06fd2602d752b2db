"""When a call began and ended, and how: its state, which nobody but the call itself and attribution changes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from aimeter._calls.holders import FORGOTTEN, references_of

if TYPE_CHECKING:
    from aimeter._calls.protocols import Host
    from aimeter.record import Record


class Stamped:
    """What a call knows of its own begin and end."""

    __slots__ = (
        "__weakref__", "_by_hand", "_closed", "_end", "_error", "_held", "_id", "_meter", "_put", "_record", "_start", "_status",
        "_thread"
    )  # fmt: skip

    _meter: Host
    _start: float | None
    _end: float | None
    # These start out unset and are read with a default: creating a call stays cheap.
    _by_hand: bool
    _closed: bool
    _error: str | None
    _held: int
    """How many references aimeter itself holds while the call is open: that of the queue, until attribution has it."""
    _id: str
    _put: Callable[[Any], None]
    _record: Record
    _status: str
    _thread: threading.Thread | None

    @property
    def meter(self) -> Host:
        """The meter that the call belongs to."""
        return self._meter

    @property
    def thread(self) -> str:
        """Name of the thread that began the call; empty if Python does not know the thread."""
        thread: threading.Thread | None = getattr(self, "_thread", None)
        return "" if thread is None else thread.name

    @property
    def ended(self) -> bool:
        """Whether the end has been stamped."""
        return self._end is not None

    @property
    def settled(self) -> Record | None:
        """The final row, if it is there yet; never waits."""
        return getattr(self, "_record", None)

    @property
    def call_id(self) -> str:
        """Unique identifier of the call, as in its row."""
        try:
            return self._id
        except AttributeError:
            fresh = self._meter.next_id()
        try:
            return self._id  # of another thread, or a signal handler, that asked meanwhile
        except AttributeError:
            self._id = fresh
        return fresh

    @property
    def status(self) -> str:
        """``open``, ``ok``, ``error`` or ``closed``."""
        given: str | None = getattr(self, "_status", None)
        if given is not None:
            return given
        if self._end is None:
            return "open"
        return "ok" if self.error_type is None else "error"

    @property
    def error_type(self) -> str | None:
        """Name of the exception that ended the call."""
        return getattr(self, "_error", None)

    @property
    def start_s(self) -> float:
        """Start on the sampler's monotonic clock; minus infinity before the call began."""
        return -float("inf") if self._start is None else self._start

    @property
    def end_s(self) -> float:
        """End on the sampler's monotonic clock; infinity while the call is open."""
        return float("inf") if self._end is None else self._end

    @property
    def duration_s(self) -> float:
        """Seconds from start to end, or until now."""
        if self._start is None:
            return 0.0
        return (self._meter.sampler.now() if self._end is None else self._end) - self._start

    @property
    def foreign(self) -> bool:
        """Whether the call is not for this process to settle: the one that it was forked from began it."""
        return getattr(self, "_put", None) is not self._meter.sampler.enqueue

    @property
    def closed(self) -> bool:
        """Whether attribution has closed the call; later events of it mean nothing."""
        return getattr(self, "_closed", False)

    def mark_closed(self) -> None:
        """Note that attribution has closed the call."""
        self._closed = True

    def hold(self, references: int) -> None:
        """Note how many references to the call attribution holds."""
        self._held = references

    @property
    def by_hand(self) -> bool:
        """Whether nobody held the call when it began: it is to be ended by way of `current_call`."""
        return getattr(self, "_by_hand", False)

    def strangers(self) -> int:
        """Return how many references to the call there are beside those of aimeter itself; to be called as ``one.call.…``."""
        return references_of(self) - FORGOTTEN - self._held
