"""Logs that gzip has packed, read as if they were not."""

from __future__ import annotations

import gzip
import zlib
from typing import BinaryIO, cast


class _Unpacked(gzip.GzipFile):
    """What is in a packed file, which is closed with it."""

    def __init__(self, packed: BinaryIO) -> None:
        self._packed = packed
        super().__init__(fileobj=packed, mode="rb")

    def readline(self, size: int | None = -1) -> bytes:
        """Return the next line.

        Raises:
            EOFError: The file ends in the middle, or is damaged there.
        """
        try:
            return super().readline(-1 if size is None else size)
        except (EOFError, zlib.error, gzip.BadGzipFile) as fault:
            message = "it was packed by gzip and is torn here; what follows is not read"
            raise EOFError(message) from fault

    def close(self) -> None:
        """Close both."""
        super().close()
        self._packed.close()


def unpacked(log: BinaryIO) -> BinaryIO:
    """Return what is in a packed file."""
    return cast("BinaryIO", _Unpacked(log))
