"""A sink by somebody else, told in a thread of its own: while it hangs, others have their rows.

The thread begins with rows to write and ends when there are none. Rows wait in a bounded queue, in order and in the
batches in which they were settled.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from aimeter._support.clocks import time
from aimeter._support.notes import class_name, raised

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aimeter.record import Record
    from aimeter.sinks.base import Sink

PATIENCE_S = 1.0
"""A sink that takes longer for one batch is waited for no more."""

MOST_WAITING = 10_000
"""Rows that wait for a sink; each batch counts as one more."""

WarnOnce = Callable[[str, str], None]
S = TypeVar("S")


def tell(sink: S, what: Callable[[S], None], warn_once: WarnOnce) -> None:
    """Have a sink do something, whatever it raises."""
    try:
        what(sink)
    except BaseException as error:  # noqa: BLE001 - the one boundary: a sink by somebody else may raise anything
        kind = class_name(type(sink))
        warn_once(f"sink {kind}", f"the sink {kind} raised {raised(error)}.")


class Apart:
    """A sink that tells another one in a thread, and never waits for it for long.

    Args:
        sink: The other one.
        warn_once: Logs a warning, once for each key.

    Attributes:
        sink: The other one.
    """

    def __init__(self, sink: Sink, warn_once: WarnOnce) -> None:
        self.sink, self._warn_once = sink, warn_once
        self._dropped = 0
        self._begin()

    def _begin(self) -> None:
        self._changed = (
            threading.Condition()
        )  # its lock is reentrant: a sink may give rows by what it does itself
        self._queue: deque[Sequence[Record] | None] = deque()
        """Batches to write; None is to close."""
        self._waiting = 0
        self._thread: threading.Thread | None = None
        self._began_s = 0.0
        """When the thread began with what it is at."""

    @property
    def lost_rows(self) -> int:
        """Rows that the other sink gave up, or that found no place in the queue."""
        return self._dropped + self.sink.lost_rows

    @property
    def last_fault(self) -> str:
        """What the other sink says."""
        return self.sink.last_fault

    def write(self, records: Sequence[Record]) -> None:
        """Have records written. A queue that is full is waited for, unless it does not move."""
        self._give(records)

    def close(self) -> None:
        """Have the sink closed once all is written."""
        self._give(None)

    def reopen(self) -> None:
        """In a forked child: the thread is not there, and what waits is the parent's to write."""
        self._begin()
        tell(self.sink, lambda sink: sink.reopen(), self._warn_once)

    def wait(self, timeout_s: float) -> None:
        """Wait until all is written, for at most `timeout_s`; not at all for a sink that hangs."""
        with self._changed:
            if self._thread is not threading.current_thread() and not self._hangs():
                self._changed.wait_for(lambda: self._thread is None, timeout_s)
                self._hangs()  # so that it is said

    def _give(self, records: Sequence[Record] | None) -> None:
        size = _size(records)
        with self._changed:
            if self._queue and not records and self._queue[-1] == records:
                return
            if not (self._has_room(size) or self._hangs() or self._thread is threading.current_thread()):
                self._changed.wait_for(lambda: self._has_room(size), PATIENCE_S)
            if not self._has_room(size):
                self._dropped += len(records or ())
                return
            self._queue.append(records)
            self._waiting += size
            if self._is_at_work() or self._starts():
                return
        self._work()

    def _has_room(self, size: int) -> bool:
        return not self._queue or self._waiting + size <= MOST_WAITING

    def _is_at_work(self) -> bool:
        return self._thread is not None and self._thread.is_alive()  # something may have killed it

    def _hangs(self) -> bool:
        hangs = self._thread is not None and time.monotonic() - self._began_s >= PATIENCE_S
        if hangs:
            kind = class_name(type(self.sink))
            message = f"the sink {kind} takes longer than {PATIENCE_S:g} s: its rows wait, at most {MOST_WAITING:,}."
            self._warn_once(f"slow sink {id(self)}", message)
        return hangs

    def _starts(self) -> bool:
        """Start the thread; False where none can be had, as at the end of the interpreter."""
        if sys.is_finalizing():
            return False
        self._began_s = time.monotonic()
        self._thread = threading.Thread(target=self._work, name="aimeter-sink", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            self._thread = None
            return False
        return True

    def _work(self) -> None:
        while True:
            with self._changed:
                self._began_s = time.monotonic()
                if not self._queue:
                    self._thread = None
                    self._changed.notify_all()
                    return
                records = self._queue.popleft()
                self._waiting -= _size(records)
                self._changed.notify_all()
            if records is None:
                tell(self.sink, lambda sink: sink.close(), self._warn_once)
            else:
                tell(self.sink, lambda sink, rows=records: sink.write(rows), self._warn_once)  # type: ignore[misc]


def _size(records: Sequence[Record] | None) -> int:
    return 1 + len(records or ())
