"""One file to which many processes append whole lines at the same time.

How it is kept whole:

- A write holds whole lines only and goes to the end of the file (``O_APPEND``: POSIX.1-2017, write(2)), so
  lines of two writers never mix. It takes all the lines there are, up to 64 KiB: each system call gives up
  the interpreter's lock, which a busy caller then keeps for up to 5 ms (`sys.getswitchinterval`), so a call
  for each line would mean a few hundred lines a second.
- While writing, the process holds an advisory lock on the log itself (`aimeter._support.files`), which the kernel releases
  with the process: there is no lock file, and nothing can go stale. Under the lock the file is checked to be
  the one that the path still names, gets its header if it is empty, and loses a torn last line.
- Where the lock cannot be had (a file system without locks, a holder that is stopped), lines are appended all
  the same, and a torn last line is closed with a line break instead of being removed: nothing that another
  process has written is lost.
- A line torn by a full disk is cut off at once, and is still in the caller's hands to be written later.

A kill can tear a line only between two pages of one write (`generic_perform_write` in Linux's mm/filemap.c):
at most the very last line, which the next writer of the file removes.
"""

from __future__ import annotations

import errno
import math
import os
import stat
import tempfile
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from aimeter._support import files
from aimeter._support.clocks import time
from aimeter._support.log import logger
from aimeter.errors import LogSchemaError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_BLOCK_BYTES = 64 * 1024
_LOCK_PATIENCE_S = 1.0
_LOCK_PAUSE_S = 0.002
_TORN_PAUSE_S = 0.02
_REOPENINGS = 10


class Layout(Protocol):
    """What the file needs to know of the lines in it. Each holds exactly one line feed, at its end."""

    header: bytes
    """The first line of every file, with its line end; empty if there is none."""
    newline: bytes

    def is_ours(self, first: bytes) -> bool:
        """Tell whether a file with this first line (cut short if it lacks its line end) is such a log."""
        ...

    def is_whole(self, last: bytes) -> bool:
        """Tell whether a last line without its line end is known to be complete."""
        ...


class AppendFile:
    """The file at `path`, created when the first line is appended. Used by one thread at a time."""

    def __init__(self, path: Path, layout: Layout, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self.path = path
        self._layout = layout
        self._sleep = sleep
        self._fd: int | None = None
        self._identity: tuple[int, int]
        """Device and inode of the file that is open."""
        self._known_size = math.inf
        """The file was at least this large, and known to be ours; infinite before the first look."""
        self._patience_s = _LOCK_PATIENCE_S

    def check(self) -> None:
        """Prove that lines can be appended here, leaving nothing behind, and repair a torn last line.

        Raises:
            OSError: The path cannot be written.
            LogSchemaError: The file holds something else.
        """
        try:
            self.path.stat()
        except FileNotFoundError:
            with tempfile.TemporaryFile(dir=Path(os.path.realpath(self.path)).parent):
                pass
        else:
            self.append(deque())

    def append(self, lines: deque[bytes]) -> None:
        """Append the lines, taking each out of `lines` once it is written.

        Raises:
            OSError: What is left in `lines` could not be written, and no part of it stays in the file.
            LogSchemaError: The file holds something else; nothing was written.
        """
        fd, size, locked = self._current()
        try:
            lead = self._lead(fd, size, locked=locked)
            self._known_size = size
            while lead or lines:
                self._append_block(fd, lead, lines)
                lead = b""
        finally:
            if locked:
                files.unlock(fd)

    def close(self) -> None:
        """Let go of the file; the next `append` opens it again."""
        fd, self._fd = self._fd, None
        self._known_size = math.inf
        if fd is not None:
            with suppress(OSError):  # close(2) may report a fault of an earlier write; the descriptor is gone
                os.close(fd)

    def _current(self) -> tuple[int, int, bool]:
        """Open and lock the file that the path names now: its descriptor, its size, and if it is locked."""
        for _ in range(_REOPENINGS):
            fd = self._open()
            locked = self._lock(fd)
            with suppress(FileNotFoundError):
                named = self.path.stat()
                if (named.st_dev, named.st_ino) == self._identity:
                    return fd, named.st_size, locked
            self.close()  # deleted or rotated away; closing unlocks
        raise OSError(errno.EAGAIN, "the file is replaced again and again")

    def _open(self) -> int:
        """Return the descriptor, opened if need be."""
        if self._fd is not None:
            with suppress(OSError):
                held = os.fstat(self._fd)
                if (held.st_dev, held.st_ino) == self._identity:
                    return self._fd
            # A program that becomes a daemon closes all descriptors; the number may be another file's.
            self._fd = None
            self._known_size = math.inf
        fd = os.open(self.path, files.APPEND, 0o666)
        opened = os.fstat(fd)
        if not stat.S_ISREG(opened.st_mode):
            os.close(fd)
            raise OSError(errno.ENOTSUP, "it is not a regular file")
        self._fd = fd
        self._identity = opened.st_dev, opened.st_ino
        return fd

    def _lock(self, fd: int) -> bool:
        waited_s = 0.0
        try:
            while not files.lock(fd):
                if waited_s >= self._patience_s:
                    self._patience_s = 0.0  # the holder is stopped: do not wait for it again and again
                    return False
                self._sleep(_LOCK_PAUSE_S)
                waited_s += _LOCK_PAUSE_S
        except OSError:  # this file system, or this platform, has no locks
            return False
        self._patience_s = _LOCK_PATIENCE_S
        return True

    def _lead(self, fd: int, size: int, *, locked: bool) -> bytes:
        """Return what must come before the next line: nothing, the header or a line break."""
        if size == 0:
            return self._layout.header
        if self._known_size > size:
            self._recognise(fd)
        if files.read_at(fd, 1, size - 1) == b"\n":
            return b""
        last = _last_line(fd, size)
        if self._layout.is_whole(last):
            return b"\n" if last.endswith(b"\r") else self._layout.newline
        if locked and self._cut(fd, size, len(last)):
            logger.warning(
                "aimeter removed the torn last line (%d bytes) of its log %s.", len(last), self.path
            )
            return b"" if size > len(last) else self._layout.header
        return self._layout.newline

    def _recognise(self, fd: int) -> None:
        first, line_feed, _ = files.read_at(fd, _BLOCK_BYTES, 0).partition(b"\n")
        if not self._layout.is_ours(first + line_feed):
            start = first[:40].decode("utf-8", "backslashreplace").strip()
            message = f"{self.path} is no aimeter log of this schema: it begins with {start!r}"
            raise LogSchemaError(message)

    def _cut(self, fd: int, size: int, torn: int) -> bool:
        """Remove a torn end, unless it changes: then someone is writing it just now, without the lock."""
        self._sleep(_TORN_PAUSE_S)
        try:
            if os.fstat(fd).st_size != size:
                return False
            os.ftruncate(fd, size - torn)
        except OSError:  # an append-only file (chattr +a) cannot be cut
            return False
        return True

    def _append_block(self, fd: int, lead: bytes, lines: deque[bytes]) -> None:
        data = b"".join((lead, *_first(lines, _BLOCK_BYTES)))
        done = 0
        try:
            while done < len(data):
                done += os.write(fd, data[done:])
        finally:
            whole = done if done == len(data) else data.rfind(b"\n", 0, done) + 1
            for _ in range(data.count(b"\n", 0, whole) - lead.count(b"\n")):
                lines.popleft()
            if whole < done:
                _take_back(fd, done - whole)
            self._known_size += whole


def _first(lines: Iterable[bytes], most_bytes: int) -> list[bytes]:
    """Return the first lines, at least one if there is any, until they are `most_bytes` long."""
    taken = []
    length = 0
    for line in lines:
        taken.append(line)
        length += len(line)
        if length >= most_bytes:
            break
    return taken


def _last_line(fd: int, size: int) -> bytes:
    """Return what follows the last line feed."""
    data = b""
    start = size
    while start and b"\n" not in data:
        length = min(start, _BLOCK_BYTES)
        start -= length
        data = files.read_at(fd, length, start) + data
    return data.rpartition(b"\n")[2]


def _take_back(fd: int, torn: int) -> None:
    """Cut off the part of a line that was just written, unless another writer has appended to it since."""
    with suppress(OSError):  # then it stays, and the next writer repairs it
        end = os.lseek(fd, 0, os.SEEK_CUR)
        if os.fstat(fd).st_size == end:
            os.ftruncate(fd, end - torn)
