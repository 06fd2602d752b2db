"""The table that a process ends with: the calls of every meter whose setting `summary` asks for it."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from aimeter._support import stderr

if TYPE_CHECKING:
    from aimeter.record import Record
    from aimeter.report.tally import Tally

_MOST_NAMES = 10_000
"""Names told apart: memory is bounded, although a name may be made up for each call."""

_lock = threading.RLock()  # meters have samplers of their own at times, and then settle at the same time
_tally: Tally | None = None


def prepare() -> None:
    """Load all that the table needs: what is imported at exit changes how a program ends that was interrupted."""
    from aimeter.report.drawing import drawn  # noqa: PLC0415 - keeps the import light
    from aimeter.report.tally import Tally  # noqa: PLC0415 - likewise

    drawn(Tally().summary())


def add(record: Record, *, after_parent: bool) -> None:
    """Count a call in; `after_parent` as in `aimeter.report.tally.Tally.add`."""
    from aimeter.report.tally import Tally  # noqa: PLC0415 - is loaded

    global _tally  # noqa: PLW0603 - one a process
    with _lock:
        if _tally is None:
            _tally = Tally(_MOST_NAMES)
        _tally.add(record, after_parent=after_parent)


def show() -> None:
    """Write the table on standard error, if there are calls that it has not shown yet."""
    global _tally
    with _lock:
        tally, _tally = _tally, None
    if tally is not None:
        from aimeter.report.drawing import drawn  # noqa: PLC0415 - is loaded

        stderr.tell(f"aimeter: calls of process {os.getpid()}\n{drawn(tally.summary())}")


def after_fork() -> None:
    """In a forked child: its calls are its own, those so far are the parent's to tell."""
    global _lock, _tally  # noqa: PLW0603 - the parent's lock may be held by a thread that is not here
    _lock = threading.RLock()
    _tally = None
