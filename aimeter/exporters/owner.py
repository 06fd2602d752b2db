"""Which of several processes speaks for what all of them see: the one that holds a lock, until it ends."""

from __future__ import annotations

import os
import sys
from pathlib import Path

if sys.platform != "win32":
    import fcntl


class Owner:
    """A claim to be the one, which passes on when the process that has it ends, however it does.

    Args:
        path: The file that is locked; None for a process by itself, which is always the one.
    """

    def __init__(self, path: Path | None) -> None:
        self._path, self._pid = path, -1

    @property
    def is_alone(self) -> bool:
        """Whether there are no others."""
        return self._path is None

    def is_mine(self) -> bool:
        """Tell whether this process is the one; it becomes so if no other is."""
        if self._path is None or self._pid == os.getpid():
            return True
        try:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError:
            return False
        try:
            # A lock of the process and not of the open file: a forked child has none, and cannot keep its parent's alive.
            if sys.platform != "win32":  # whose servers have no workers that share a folder
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(file)
            return False
        self._pid = os.getpid()  # and the file stays open, and locked, as long as the process lives
        return True
