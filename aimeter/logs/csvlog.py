"""The log as CSV: RFC 4180 in UTF-8, for spreadsheets, pandas and DuckDB alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aimeter._support.machine import WHOLE
from aimeter.logs.encode import CSV_HEADER, csv_fields, csv_lines
from aimeter.logs.filelog import Conflict, FileLog
from aimeter.record import COLUMNS

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from aimeter.record import Record


class CsvLayout:
    """One record a line, under a header with the names of the columns."""

    header = CSV_HEADER
    newline = b"\r\n"

    def lines(self, records: Sequence[Record]) -> list[bytes]:
        """Return each record as one CSV line."""
        return csv_lines(records)

    def is_ours(self, first: bytes) -> bool:
        """Tell whether the names are exactly ours; an editor's BOM or line end is forgiven."""
        first = first.removeprefix(b"\xef\xbb\xbf")
        if not first.endswith(b"\n"):
            return self.header.startswith(first)
        return csv_fields(first) == list(COLUMNS)

    def is_whole(self, last: bytes) -> bool:
        """Tell whether the last column, the machine, is there in its whole length."""
        if last.endswith(b"\r"):
            return True
        fields = csv_fields(last)
        return fields == list(COLUMNS) or (len(fields) == len(COLUMNS) and bool(WHOLE.fullmatch(fields[-1])))


class CsvLog(FileLog):
    """Append records to a CSV file, with a header once however many processes begin it together.

    See `FileLog` for the arguments and errors.
    """

    def __init__(self, path: str | os.PathLike[str], *, conflict: Conflict = "error") -> None:
        super().__init__(path, CsvLayout(), conflict)
