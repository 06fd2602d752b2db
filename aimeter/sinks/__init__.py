"""Destinations of settled records: one file each."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from aimeter.errors import ConfigurationError
from aimeter.logs.csvlog import CsvLog
from aimeter.logs.filelog import Conflict, FileLog
from aimeter.logs.jsonl import JsonLinesLog
from aimeter.sinks.base import Sink
from aimeter.sinks.memory import MemorySink

if TYPE_CHECKING:
    import os

__all__ = ["Conflict", "CsvLog", "FileLog", "JsonLinesLog", "MemorySink", "Sink", "open_log"]

JSON_LINES_SUFFIXES = frozenset({".jsonl", ".ndjson"})


OTHER_SUFFIXES = frozenset(
    {".json", ".parquet", ".gz", ".zst", ".zip", ".xlsx", ".db", ".sqlite", ".feather"}
)
"""Names that promise something else than a log is."""


def open_log(path: str | os.PathLike[str], conflict: Conflict = "error") -> FileLog:
    """Open the log at `path`: JSON Lines if its name ends in ``.jsonl`` or ``.ndjson``, otherwise CSV.

    Raises:
        LogSchemaError: The file holds something else, and `conflict` is ``error``.
        ConfigurationError: The path cannot be written, or its name promises another format.
    """
    suffix = Path(path).suffix.lower()
    if suffix in OTHER_SUFFIXES:
        message = f"{path}: no log is written as {suffix}. Name it .csv, or .jsonl for JSON Lines."
        raise ConfigurationError(message)
    if suffix in JSON_LINES_SUFFIXES:
        return JsonLinesLog(path, conflict=conflict)
    return CsvLog(path, conflict=conflict)
