"""How far a command has come with large logs, and how long the rest will take."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aimeter.logs.read import Log

LEAST_BYTES = 10_000_000
"""Smaller logs are read before anybody asks: it is a second's work."""


class Way:
    """How far into logs one has come that are read one after another, more than once: to see which processes overlap, first.

    Args:
        logs: How many.
    """

    def __init__(self, logs: int) -> None:
        self._ends = [0] * logs

    def come(self, place: int, end: int) -> int:
        """Return how many bytes are read of all, now that the log at a place is read up to an end."""
        if end < self._ends[place]:  # read anew, and those behind it will be
            self._ends[place:] = [0] * (len(self._ends) - place)
        self._ends[place] = end
        return sum(self._ends)


@contextmanager
def progress(logs: Sequence[Log]) -> Iterator[None]:
    """Show how much of logs has been read while they are, on standard error if that is a terminal."""
    sizes = [log.path.stat().st_size for log in logs if log.path.is_file()]
    if sum(sizes) < LEAST_BYTES or not sys.stderr.isatty():
        yield
        return
    from rich.console import Console  # noqa: PLC0415 - for large logs only
    from rich.progress import (  # noqa: PLC0415 - likewise
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("Reading"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task("", total=sum(sizes))
        way = Way(len(logs))

        def seen(place: int, end: int) -> None:
            shown.update(task, completed=way.come(place, end))

        for place, log in enumerate(logs):
            log.seen = partial(seen, place)
        try:
            yield
        finally:
            for log in logs:
                log.seen = None
