"""The package's own tables: CSV files in ``data/``, each value with its year and source."""

from __future__ import annotations

import csv
from pathlib import Path

DATA = Path(__file__).with_name("data")


def rows(path: Path, *needed: str) -> list[dict[str, str]]:
    """Return the rows of a table by column; one that is cut short, or lacks what is needed, is lost, and no other.

    Args:
        path: A CSV file in UTF-8 whose first line names the columns.
        needed: Columns that may not be empty.

    Raises:
        OSError: It cannot be read.
        KeyError: It has no such column.
    """
    with path.open(encoding="utf-8", newline="") as file:
        found = csv.DictReader(file)
        return [row for row in found if None not in row.values() and all(row[key] for key in needed)]
