"""Rows of Parquet, as ``aimeter export --parquet`` writes it: given as those of CSV are, so that they are read alike."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from aimeter.errors import ConfigurationError
from aimeter.logs.engine import connected, duckdb, file

_BLOCK_ROWS = 1000
_TORN = "it cannot be read as Parquet"


def source(path: Path) -> str:
    """Return the rows of a file in SQL, without what the names of its folders say."""
    return f"read_parquet({file(path)}, hive_partitioning=false)"


def types(path: Path) -> dict[str, str]:
    """Return the columns of a file, and the type of each.

    Raises:
        ConfigurationError: The engine is not installed, or this is no whole file.
    """
    with connected() as engine:
        try:
            found = engine.execute(f"DESCRIBE FROM {source(path)}").fetchall()
        except duckdb().Error as error:
            message = f"The log {path} cannot be read: {_TORN}."
            raise ConfigurationError(message) from error
    return {name: kind for name, kind, *_ in found}


def rows(path: Path) -> Iterator[list[str]]:
    """Yield each row as the fields that it has in a CSV log.

    Raises:
        EOFError: What follows cannot be read.
    """
    fields = ", ".join(f"COALESCE({_text(name, kind)}, '')" for name, kind in types(path).items())
    with connected() as engine:
        try:
            found = engine.execute(f"SELECT {fields} FROM {source(path)}")  # noqa: S608 - path and columns are quoted
            while block := found.fetchmany(_BLOCK_ROWS):
                yield from map(list, block)
        except duckdb().Error as error:
            raise EOFError(_TORN) from error


def _text(name: str, kind: str) -> str:
    column = f'''"{name.replace('"', '""')}"'''
    if kind.startswith("TIMESTAMP"):
        return f"strftime({column} AT TIME ZONE 'UTC', '%Y-%m-%dT%H:%M:%S.%fZ')"
    return f"CAST({column} AS VARCHAR)"
