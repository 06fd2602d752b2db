"""The log as JSON Lines: one object a row, every column in every row."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from aimeter.logs.encode import json_lines
from aimeter.logs.filelog import Conflict, FileLog
from aimeter.record import COLUMNS, SCHEMA

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from aimeter.record import Record

_START = f'{{"schema":{SCHEMA},'.encode()


class JsonLinesLayout:
    """One record a line. There is no header: each row names its columns."""

    header = b""
    newline = b"\n"

    def lines(self, records: Sequence[Record]) -> list[bytes]:
        """Return each record as one line of JSON."""
        return json_lines(records)

    def is_ours(self, first: bytes) -> bool:
        """Tell whether the first row has exactly our columns."""
        if not first.endswith(b"\n"):
            return first.startswith(_START) or _START.startswith(first)
        try:
            row = json.loads(first)
        except (ValueError, RecursionError):
            return False
        return isinstance(row, dict) and row.get("schema") == SCHEMA and set(row) == set(COLUMNS)

    def is_whole(self, last: bytes) -> bool:
        """Tell whether the object is closed."""
        try:
            json.loads(last)
        except (ValueError, RecursionError):
            return False
        return True


class JsonLinesLog(FileLog):
    """Append records to a file of JSON Lines. See `FileLog` for the arguments and errors."""

    def __init__(self, path: str | os.PathLike[str], *, conflict: Conflict = "error") -> None:
        super().__init__(path, JsonLinesLayout(), conflict)
