"""A log's file as it is read: from its begin, unpacked if gzip has packed it, and watched if anybody wants to know how far."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

GZIP = b"\x1f\x8b"
"""How a packed file begins: RFC 1952, section 2.3.1."""

PIECE_BYTES = 1024 * 1024


class _Watched(io.FileIO):
    """A file that tells how far it has been read."""

    def __init__(self, path: Path, seen: Callable[[int], None]) -> None:
        super().__init__(path)
        self._seen = seen

    def readinto(self, buffer: WriteableBuffer, /) -> int | None:
        count = super().readinto(buffer)
        self._seen(self.tell())
        return count


def watched(path: Path, seen: Callable[[int], None]) -> BinaryIO:
    """Open a file that tells up to which byte it has been read."""
    return io.BufferedReader(_Watched(path, seen), PIECE_BYTES)


def unpacked(log: BinaryIO) -> BinaryIO:
    """Return an open file, or what is in it if gzip has packed it, as its first bytes tell; from its begin."""
    log.seek(0)  # where /dev/stdin is a copy of a descriptor, it has been read
    packed = log.read(len(GZIP)) == GZIP
    log.seek(0)
    if not packed:
        return log
    from aimeter.logs import packed as gz  # noqa: PLC0415 - few logs are

    return gz.unpacked(log)
