"""What comes to a log from now on, wherever the file is moved meanwhile, and which of it is of one run."""

from __future__ import annotations

import os
import stat
from array import array
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from aimeter.logs.read import Log, ReadResult, readable
from aimeter.logs.recompute import times

if TYPE_CHECKING:
    from aimeter.record import Record

_MARK_BYTES = 4096
_BLOCK_BYTES = 64 * 1024


class Since:
    """Notes how far a log goes now. The file is held open, so that it can be read where it was rotated away.

    Args:
        path: The log, which may not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._held: BinaryIO | None = None
        self._begin = 0
        self._mark = b""
        with suppress(OSError):
            if stat.S_ISREG(path.stat().st_mode):
                self._held = path.open("rb")
                self._begin = _end_of_lines(self._held)
                self._mark = self._before_begin()

    def logs(self) -> list[Log]:
        """Return what there is to read: from that place on, or all of a file that has taken the other one's place."""
        found: list[Log] = []
        begin = 0
        if self._held is not None:
            held = os.fstat(self._held.fileno())
            # What was cut off may have grown again: then other bytes stand before that place.
            begin = self._begin if held.st_size >= self._begin and self._before_begin() == self._mark else 0
            with suppress(OSError):
                named = self._path.stat()
                if (named.st_dev, named.st_ino) == (held.st_dev, held.st_ino):
                    return [Log(self._path, begin)]
            found = [_Held(self._path, begin, self._held)]
        if self._path.exists():
            found.append(Log(self._path))
        return found

    def close(self) -> None:
        """Let go of the file."""
        if self._held is not None:
            self._held.close()

    def _before_begin(self) -> bytes:
        if self._held is None:
            return b""
        first = max(self._begin - _MARK_BYTES, 0)
        self._held.seek(first)
        return self._held.read(self._begin - first)


class _Held(Log):
    """A log that has lost its name."""

    def __init__(self, path: Path, begin: int, file: BinaryIO) -> None:
        super().__init__(path, begin)
        self._file = file

    def open(self) -> BinaryIO:
        """Open it at its begin; readers share the place they are at, so one is to be done before the next begins."""
        copy = os.fdopen(os.dup(self._file.fileno()), "rb")
        copy.seek(0)
        return copy


def _end_of_lines(file: BinaryIO) -> int:
    """Return where the last whole line ends: what stands behind may be torn, and is removed by the next writer then."""
    end = file.seek(0, os.SEEK_END)
    while end:
        first = max(end - _BLOCK_BYTES, 0)
        file.seek(first)
        line_feed = file.read(end - first).rfind(b"\n")
        if line_feed >= 0:
            return first + line_feed + 1
        end = first
    return 0


class OfRun(ReadResult):
    """The records of one run among those of some logs, by what they have as ``aimeter.run`` in `meta`.

    Attributes:
        begins_s: When each began that was given so far, in seconds since 1970, if the row says.
        ends_s: When it ended.

    Raises:
        ConfigurationError: A log cannot be read.
        LogSchemaError: A file is no aimeter log.
    """

    def __init__(self, paths: Iterable[Log], run: str) -> None:
        super().__init__(readable(paths))
        self._run = run
        self.begins_s, self.ends_s = array("d"), array("d")

    def __next__(self) -> Record:
        while True:
            record = super().__next__()
            ours = record.meta.get("aimeter")
            if isinstance(ours, dict) and ours.get("run") == self._run:
                with suppress(ValueError):
                    begin_s, end_s = times(record)
                    self.begins_s.append(begin_s)
                    self.ends_s.append(end_s)
                return record
