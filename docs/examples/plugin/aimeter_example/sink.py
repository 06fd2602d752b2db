"""A sink: rows in a SQLite database, beside the log or in its place."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from aimeter import Record

_MOST_HELD = 10_000
_log = logging.getLogger(__name__)


class SqliteSink:
    """Inserts some columns of each row; while that fails, the newest rows wait in memory."""

    def __init__(self, path: Path) -> None:
        self.lost_rows, self.last_fault = 0, ""
        self._path, self._held = path, list[Record]()

    def write(self, records: Sequence[Record]) -> None:
        """Insert the rows and those held back, in the background; a fault is logged once, and never raised."""
        self._held += records
        if not self._held:
            return
        rows = [
            (row.call_id, row.name, row.start, row.energy_j, row.error_j, row.co2e_g) for row in self._held
        ]
        try:
            with closing(sqlite3.connect(self._path, timeout=1.0)) as base, base:
                base.execute(
                    "CREATE TABLE IF NOT EXISTS calls"
                    " (call_id TEXT PRIMARY KEY, name TEXT, start TEXT, energy_j REAL, error_j REAL, co2e_g REAL)"
                )
                base.executemany("INSERT OR IGNORE INTO calls VALUES (?, ?, ?, ?, ?, ?)", rows)
        except sqlite3.Error as error:
            fault = f"{self._path}: {error}. Rows wait in memory until it can be written."
            if fault != self.last_fault:
                _log.warning(fault)
            self.last_fault = fault
            self.lost_rows += max(len(self._held) - _MOST_HELD, 0)
            del self._held[:-_MOST_HELD]
        else:
            self._held.clear()
            self.last_fault = ""

    def reopen(self) -> None:
        """Begin anew in a forked child: what was held back is the parent's to write."""
        self._held.clear()

    def close(self) -> None:
        """Write what is held back, if that is possible now."""
        self.write(())
