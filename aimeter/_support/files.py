"""Files by each platform's own means: flags of descriptors, reading at a place, an exclusive lock, replacing as a whole."""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

_COMMON = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)

READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | _COMMON
"""Flags of `os.open` to read bytes as they are, in this process only, and not to wait for who writes to a pipe."""

APPEND = os.O_RDWR | os.O_APPEND | os.O_CREAT | _COMMON
"""The same to read, and to write at the end of a file that need not exist."""


_MOST_BYTES = 64 * 1024 * 1024
"""Far more than any file of settings, or of the kernel's, has."""
_PIECE_BYTES = 64 * 1024


def read_whole(path: Path, most_bytes: int = _MOST_BYTES) -> bytes:
    """Return what is in a file; nobody waits for a pipe, and no device without an end is read to it.

    Raises:
        OSError: It cannot be read, is no regular file, or is longer than that.
    """
    fd = os.open(path, READ)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        data = bytearray()
        while piece := os.read(fd, _PIECE_BYTES):  # a read of all that it may have takes as much memory
            data += piece
            if len(data) > most_bytes:
                raise OSError(errno.EFBIG, f"it is longer than {most_bytes:,} bytes")
    finally:
        os.close(fd)
    return bytes(data)


@contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[BinaryIO]:
    """Open a file beside `path` that takes its place when the block ends well, and is gone when it does not.

    rename(2) is atomic: a reader sees the old file or the new one, never a part.

    Args:
        path: The file to replace, or to make; its folder must exist.
        durable: Have the new file on disk (fsync(2)) before it takes the place, as a machine that loses its power
            may otherwise keep an empty one.

    Raises:
        OSError: It cannot be written; the old file is untouched.
    """
    beside = path.with_name(f".{os.urandom(16).hex()}.tmp")
    try:
        with beside.open("xb") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(beside, path)  # noqa: PTH105 - of a pair with fsync
    except BaseException:
        with suppress(OSError):
            beside.unlink()
        raise


def none_can_be_opened() -> bool:
    """Tell whether this process, or the system, has as many files open as it may have."""
    try:
        os.close(os.open(os.devnull, READ))
    except OSError as error:
        return error.errno in {errno.EMFILE, errno.ENFILE}
    return False


def read_at(fd: int, length: int, offset: int) -> bytes:
    """Return up to `length` bytes from `offset`; only one thread may use the descriptor."""
    if sys.platform != "win32" and hasattr(os, "pread"):
        return os.pread(fd, length, offset)
    os.lseek(fd, offset, os.SEEK_SET)
    return os.read(fd, length)


if sys.platform == "win32":
    import msvcrt

    _FAR = 0x7FFFFFFE
    """A byte that is locked on behalf of the file: a lock keeps others from reading what it covers, and the C runtime
    locks within the first 2 GiB only."""

    def lock(fd: int) -> bool:
        """Take the exclusive lock on a file; False if somebody else has it.

        Raises:
            OSError: This file has no locks.
        """
        os.lseek(fd, _FAR, os.SEEK_SET)
        try:
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        except PermissionError:
            return False
        return True

    def unlock(fd: int) -> None:
        """Give the lock back."""
        os.lseek(fd, _FAR, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_UNLCK, 1)

else:
    try:
        import fcntl
    except ImportError:  # WebAssembly has none

        def lock(fd: int) -> bool:
            """Raise OSError: this platform has no locks."""
            message = f"no lock for descriptor {fd} on this platform"
            raise OSError(message)

        def unlock(fd: int) -> None:
            """Do nothing."""

    else:

        def lock(fd: int) -> bool:
            """Take the exclusive lock on a file (flock(2)); False if somebody else has it.

            Raises:
                OSError: This file has no locks: ENOLCK, EOPNOTSUPP, ENOSYS.
            """
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

        def unlock(fd: int) -> None:
            """Give the lock back."""
            fcntl.flock(fd, fcntl.LOCK_UN)
