"""What comes to a log from now on, wherever the file is moved meanwhile."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from aimeter.logs.read import Log

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
