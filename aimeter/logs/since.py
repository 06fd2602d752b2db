"""What comes to a log from now on, wherever the file is moved meanwhile."""

from __future__ import annotations

import io
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from aimeter.logs.read import Log

_MARK_BYTES = 4096
_BLOCK_BYTES = 64 * 1024
_MOST_TAKEN_BYTES = 16 * 1024 * 1024


class Since:
    """Notes how far a log goes now. The file is held open, so that it can be read where it was rotated away.

    Args:
        path: The log, which may not be there yet.
        whole: Begin where the log does.
    """

    def __init__(self, path: Path, *, whole: bool = False) -> None:
        self._path = path
        self._held: BinaryIO | None = None
        self._begin = 0
        self._mark = b""
        self._hold(whole=whole)

    def logs(self) -> list[Log]:
        """Return what there is to read: from that place on, or all of a file that has taken the other one's place."""
        if self._held is not None and self._still_named(self._held):
            return [Log(self._path, self._begin_of(self._held))]
        found: list[Log] = []
        if self._held is not None:
            found = [_Held(self._path, self._begin_of(self._held), self._held)]
        if self._path.exists():
            found.append(Log(self._path))
        return found

    def take(self) -> list[Log]:
        """Return the whole lines that have come since the last time, or some MB of them, and go on behind them."""
        if self._held is not None:
            found = self._take(self._held)
            if found or self._still_named(self._held):
                return found
            self.close()
        self._hold(whole=True)
        return [] if self._held is None else self._take(self._held)

    def close(self) -> None:
        """Let go of the file."""
        if self._held is not None:
            self._held.close()
            self._held = None

    def _hold(self, *, whole: bool) -> None:
        with suppress(OSError):
            if stat.S_ISREG(self._path.stat().st_mode):
                self._held = self._path.open("rb")
                self._begin = 0 if whole else _end_of_lines(self._held)
                self._mark = self._before_begin()

    def _take(self, held: BinaryIO) -> list[Log]:
        self._begin = begin = self._begin_of(held)
        held.seek(0)
        header = held.readline() if begin else b""
        held.seek(begin)
        piece = held.read(_MOST_TAKEN_BYTES)
        piece = piece[: piece.rfind(b"\n") + 1]
        self._begin += len(piece)
        self._mark = self._before_begin()
        # Lines of JSON need no header.
        return [_Piece(self._path, (b"" if header.startswith(b"{") else header) + piece)] if piece else []

    def _still_named(self, held: BinaryIO) -> bool:
        """Tell whether the file has kept its name."""
        try:
            named, ours = self._path.stat(), os.fstat(held.fileno())
        except OSError:
            return False
        return (named.st_dev, named.st_ino) == (ours.st_dev, ours.st_ino)

    def _begin_of(self, held: BinaryIO) -> int:
        """Return where to begin. What was cut off may have grown again: then other bytes stand before that place."""
        size = os.fstat(held.fileno()).st_size
        return self._begin if size >= self._begin and self._before_begin() == self._mark else 0

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


class _Piece(Log):
    """A piece of a log, with the log's header before it."""

    def __init__(self, path: Path, content: bytes) -> None:
        super().__init__(path)
        self._content = content

    def open(self) -> BinaryIO:
        """Open it at its begin."""
        return io.BytesIO(self._content)


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
