"""Records kept in memory, the newest only."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aimeter.record import Record


class MemorySink:
    """Keep the newest `most` records; older ones make room, so memory is bounded."""

    def __init__(self, most: int = 10_000) -> None:
        self.lost_rows = 0
        self.last_fault = ""
        self._lock = threading.RLock()  # a signal handler may come while this very thread holds it
        self._records: deque[Record] = deque(maxlen=most)

    @property
    def records(self) -> tuple[Record, ...]:
        """The records held now, oldest first."""
        with self._lock:
            return tuple(self._records)

    def write(self, records: Sequence[Record]) -> None:
        """Keep the records."""
        with self._lock:
            self._records.extend(records)

    def keep(self, most: int) -> None:
        """Keep the newest `most` records from now on."""
        with self._lock:
            self._records = deque(self._records, maxlen=most)

    def reopen(self) -> None:
        """Start empty in a forked child: the records are of the parent's calls."""
        self._lock = threading.RLock()
        self._records.clear()

    def close(self) -> None:
        """Do nothing: the records stay readable."""
