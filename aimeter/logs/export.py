"""Writing records to a file of their own, whole or not at all."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from aimeter._support import files
from aimeter.errors import ConfigurationError
from aimeter.logs.encode import CSV_HEADER, csv_lines, json_lines

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Sequence

    from aimeter.record import Record

_BLOCK_ROWS = 1000


def export_csv(records: Iterable[Record], path: str | os.PathLike[str]) -> int:
    """Write the records to a CSV file, replacing what is there, and return how many they are.

    The file is written beside its place and moved there when it is complete and on disk. rename(2) is atomic:
    a reader sees the old file or the new one, never a part.

    Raises:
        ConfigurationError: The folder does not exist, or the path is a folder, a device or a pipe.
        OSError: The disk did not take it; the old file is untouched.
    """
    return _export(records, path, CSV_HEADER, csv_lines)


def export_log(records: Iterable[Record], path: str | os.PathLike[str]) -> int:
    """Write the records as `export_csv` does, or as JSON Lines if the name ends in ``.jsonl`` or ``.ndjson``.

    Raises:
        ConfigurationError: As `export_csv`.
        OSError: As `export_csv`.
    """
    if Path(path).suffix.lower() in {".jsonl", ".ndjson"}:
        return _export(records, path, b"", json_lines)
    return export_csv(records, path)


def checked_target(path: str | os.PathLike[str], sources: Iterable[str | os.PathLike[str]] = ()) -> Path:
    """Return the file that may be written or replaced, with links followed.

    Args:
        path: As the user names it.
        sources: What is read meanwhile, and must not be replaced.

    Raises:
        ConfigurationError: Its folder does not exist, or it is a folder, a device or a pipe, or one of the sources.
    """
    target = Path(path).expanduser().resolve()  # through a link to the file itself
    if not target.parent.is_dir():
        message = f"The folder {target.parent} does not exist. Create it: mkdir -p '{target.parent}'."
        raise ConfigurationError(message)
    if target.is_dir():
        message = f"{target} is a folder. Name a file in it, such as '{target / 'calls.csv'}'."
        raise ConfigurationError(message)
    if target.exists() and not target.is_file():
        message = f"{target} is no regular file, and would be replaced. Name a file."
        raise ConfigurationError(message)
    if target.exists() and any(Path(one).exists() and target.samefile(one) for one in sources):
        message = f"{target} is what is read, and would be replaced. Name another file."
        raise ConfigurationError(message)
    return target


def _export(
    records: Iterable[Record],
    path: str | os.PathLike[str],
    header: bytes,
    lines: Callable[[Sequence[Record]], list[bytes]],
) -> int:
    target = checked_target(path)
    rows = 0
    with files.replacing(target) as file:
        file.write(header)
        remaining = iter(records)
        while block := list(islice(remaining, _BLOCK_ROWS)):
            file.writelines(lines(block))
            rows += len(block)
    return rows
