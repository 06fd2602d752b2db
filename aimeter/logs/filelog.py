"""A log in a file: rows become lines, faults of the disk are outlived."""

from __future__ import annotations

import errno
import threading
from collections import deque
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, get_args

from aimeter._support.log import warn_once
from aimeter.errors import ConfigurationError, LogSchemaError, did_you_mean
from aimeter.logs.appendfile import AppendFile, Layout

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from aimeter.record import Record

Conflict = Literal["error", "new_file"]
"""What to do about a file that holds something else: refuse, or write to ``calls-2.csv`` beside it."""

KEPT_ROWS = 10_000
"""Rows held back, at most, while the disk takes none; beyond that the oldest are given up and counted."""

_DENIED = (
    "permission is denied",
    "Choose another path, or allow it: chmod u+rw '{path}'; chmod u+wx '{folder}'",
)
_FAULTS = {
    errno.ENOENT: ("its folder does not exist", "Create it: mkdir -p '{folder}'"),
    errno.ENOTDIR: ("a part of the path is not a folder", "Choose another path"),
    errno.EISDIR: ("it is a folder", "Name a file in it, such as '{path}/calls.csv'"),
    errno.EACCES: _DENIED,
    errno.EPERM: _DENIED,
    errno.EROFS: ("the file system is read-only", "Choose another path, or mount it again for writing"),
    errno.ENOSPC: ("the disk is full", "Free some space: df -h '{folder}'"),
    errno.EDQUOT: ("the disk quota is used up", "Free some space, or have the quota raised"),
    errno.EFBIG: (
        "it has reached the limit of a file's size",
        "Move it away, and a new one is begun; see ulimit -f",
    ),
    errno.ENAMETOOLONG: ("its name is too long", "Choose a shorter one"),
}


def explain(fault: OSError | LogSchemaError, path: Path) -> tuple[str, str]:
    """Return what is wrong with a path and what mends it, in words fit for a log line."""
    if isinstance(fault, LogSchemaError):
        return str(fault), "Move that file away, and a new log is begun"
    reason, remedy = _FAULTS.get(fault.errno or 0, (fault.strerror or str(fault), "Choose another path"))
    return reason, remedy.format(path=path, folder=path.parent)


def _absolute(path: str | os.PathLike[str]) -> Path:
    """Return the path so that a later change of the working folder does not move the log."""
    message = f"{path!r} is no path for a log. Give the name of a file, such as 'calls.csv'."
    try:
        absolute = Path(path).expanduser().absolute()
    except (TypeError, RuntimeError, OSError) as fault:
        raise ConfigurationError(message) from fault
    if "\0" in str(absolute):
        raise ConfigurationError(message)
    return absolute


class RowLayout(Layout, Protocol):
    """How records are laid out as lines."""

    def lines(self, records: Sequence[Record]) -> list[bytes]:
        """Return each record as one whole line with its line end."""
        ...


class FileLog:
    """Append each record as one line to a file that other processes may append to as well.

    The file is created with the first row. A log that is deleted or rotated away is begun anew; a folder that
    is removed is not, because that would undo somebody's clean-up: the rows wait for it. While rows cannot be
    written, up to `KEPT_ROWS` of them are held back, and every `write` and `close` tries again.

    Args:
        path: Where the log is; ``~`` is the home folder.
        layout: How a record becomes a line.
        conflict: What to do if the file holds something else than such a log.

    Raises:
        LogSchemaError: The file holds something else.
        ConfigurationError: The path cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str], layout: RowLayout, conflict: Conflict = "error") -> None:
        if conflict not in get_args(Conflict):
            message = f"conflict={conflict!r} is not known.{did_you_mean(str(conflict), get_args(Conflict))}"
            raise ConfigurationError(message)
        self.lost_rows = 0
        self.last_fault = ""
        self._asked = _absolute(path)
        self._layout = layout
        self._conflict = conflict
        self._lock = threading.Lock()
        self._held_back: deque[bytes] = deque()
        self._told: set[object] = set()
        try:
            self._file = self._usable_file()
        except LogSchemaError as fault:
            message = (
                f"{fault}. Rows of different kinds are never mixed: choose another path, move the file away, "
                f'or set log_conflict="new_file" (AIMETER_LOG_CONFLICT=new_file) to write to '
                f"{self._beside(2).name} beside it."
            )
            raise LogSchemaError(message) from None
        except OSError as fault:
            reason, remedy = explain(fault, self._asked)
            message = f"The log {self._asked} cannot be written: {reason}. {remedy}."
            raise ConfigurationError(message) from fault

    @property
    def path(self) -> Path:
        """The file that rows go to: the one asked for, or the new one beside it."""
        return self._file.path

    def write(self, records: Sequence[Record]) -> None:
        """Append the records, after those that an earlier fault held back. Never raises."""
        with self._lock:
            self._held_back.extend(self._lines(records))
            if self._held_back:
                self._append()

    def reopen(self) -> None:
        """Open the file anew in a forked child; the rows held back are the parent's to write."""
        self._lock = threading.Lock()
        self._file.close()
        self._held_back.clear()
        self.lost_rows = 0

    def close(self) -> None:
        """Try once more to write what is held back, and release the file."""
        with self._lock:
            if self._held_back:
                self._append()
                self._give_up(len(self._held_back))
            self._file.close()
            if self.lost_rows:
                self._tell("lost", f"aimeter lost {self.lost_rows} rows of its log {self.path}.")

    def _lines(self, records: Sequence[Record]) -> list[bytes]:
        try:
            return self._layout.lines(records)
        except BaseException:  # noqa: BLE001  a row holds the caller's objects
            return self._lines_of_each(records)

    def _lines_of_each(self, records: Sequence[Record]) -> list[bytes]:
        lines = []
        for record in records:
            try:
                lines += self._layout.lines([record])
            except BaseException as fault:  # noqa: BLE001  a row holds the caller's objects; none may stop the others
                self.lost_rows += 1
                self.last_fault = f"a row of {record.name!r} cannot be put into text: {fault!r}"
                self._tell(type(fault), f"aimeter: {self.last_fault}.")
        return lines

    def _append(self) -> None:
        try:
            try:
                self._file.append(self._held_back)
            except LogSchemaError:
                self._file.close()
                self._file = self._usable_file()
                self._file.append(self._held_back)
        except (OSError, LogSchemaError) as fault:
            self._file.close()
            self._give_up(len(self._held_back) - KEPT_ROWS)
            self.last_fault, remedy = explain(fault, self.path)
            self._tell(
                self.last_fault,
                f"aimeter cannot write to its log {self.path}: {self.last_fault}. {remedy}. "
                f"Up to {KEPT_ROWS} rows are held back until it works again.",
            )
        else:
            self.last_fault = ""

    def _give_up(self, rows: int) -> None:
        for _ in range(rows):
            self._held_back.popleft()
            self.lost_rows += 1

    def _tell(self, kind: object, message: str) -> None:
        """Log each kind of fault once: a full disk is no reason to fill another one."""
        warn_once(message, kind, said=self._told)

    def _beside(self, number: int) -> Path:
        return self._asked.with_name(f"{self._asked.stem}-{number}{self._asked.suffix}")

    def _usable_file(self) -> AppendFile:
        """Return the file asked for or, if that holds something else and it is so wished, one beside it."""
        for number in count(1):
            file = AppendFile(self._asked if number == 1 else self._beside(number), self._layout)
            try:
                file.check()
            except LogSchemaError:
                file.close()
                if self._conflict == "error":
                    raise
            else:
                return file
        raise AssertionError  # pragma: no cover  count() does not end
