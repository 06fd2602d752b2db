"""Reading logs back, row by row, whatever has happened to them."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, BinaryIO, Protocol, TypeVar

from aimeter._support.machine import WHOLE
from aimeter.errors import ConfigurationError, LogSchemaError, did_you_mean
from aimeter.logs.decode import MALFORMED, record_from_csv, record_from_json
from aimeter.logs.encode import csv_fields
from aimeter.logs.opened import GZIP, PIECE_BYTES, unpacked, watched
from aimeter.logs.seen import Seen
from aimeter.record import COLUMNS, FIRST_COLUMNS

if TYPE_CHECKING:
    from aimeter.record import Record

_BOM = b"\xef\xbb\xbf"
_PARQUET = b"PAR1"
_PROBLEMS_TOLD = 10
_WHOLE_ENDS = {"aimeter_version": re.compile(".+"), "pue_source": re.compile(".+"), "machine": WHOLE}
"""What the last column of each schema holds if its line is whole; of what stood last before, a cut costs no number."""

LONGEST_LINE_BYTES = 16 * 1024 * 1024
"""More than a row's notes come to at their longest; a longer line is no row."""
_ENDLESS_BYTES = 1024**3
"""What comes behind so many bytes without a line end is not waited for."""

_MOST_COPIED_BYTES = 1024**3
"""Of what can be read once only; never more than half of what is free in the temporary folder."""
_MOST_COPIED_LINES = 10_000_000
"""As many rows are longer than those bytes: it stops only what is no log, such as ``yes``."""

LogPath = str | os.PathLike[str]


class Log(os.PathLike[str]):
    """A log by its path. What can be read once only, such as a pipe, is kept as a temporary file meanwhile.

    Attributes:
        path: The path.
        begin: How many bytes of it are not read, but for the header: whole lines.
        cut: The number of the first line that was not copied, if what came by a pipe was too long, and why.
        seen: Told up to which byte a file has been read, if anybody wants to know.
    """

    def __init__(self, path: LogPath, begin: int = 0) -> None:
        self.path = Path(path)
        self.begin = begin
        self.cut: tuple[int, str] | None = None
        self.seen: Callable[[int], None] | None = None
        self._copy: IO[bytes] | None = None

    def __fspath__(self) -> str:
        return str(self.path)

    __str__ = __fspath__

    def is_parquet(self) -> bool:
        """Tell whether it is a file of Parquet, by its first bytes."""
        if not self.path.is_file():  # a pipe can be read once only, and not from its end
            return False
        with self.path.open("rb") as file:
            file.seek(0)
            return file.read(len(_PARQUET)) == _PARQUET

    def open(self) -> BinaryIO:
        """Open it at its begin, as often as need be.

        Raises:
            OSError: It cannot be read.
            LogSchemaError: It can be read once only, and is no aimeter log.
        """
        if self._copy is not None:
            return unpacked(Path(self._copy.name).open("rb"))
        log = self.path.open("rb")
        if stat.S_ISREG(os.fstat(log.fileno()).st_mode):
            if self.seen is not None:
                log.close()
                return unpacked(watched(self.path, self.seen))
            return unpacked(log)
        with log:
            self._copy = self._copied(log)
        return self.open()

    def _copied(self, log: BinaryIO) -> IO[bytes]:
        piece = log.readline(LONGEST_LINE_BYTES)
        if not piece.startswith(GZIP):
            _columns(self.path, piece)  # no log, and perhaps a device without an end
        copy = tempfile.NamedTemporaryFile(prefix="aimeter-")  # noqa: SIM115 - kept as long as this is
        most_bytes = min(_MOST_COPIED_BYTES, shutil.disk_usage(Path(copy.name).parent).free // 2)
        copied = lines = without_end = 0
        while piece and without_end < _ENDLESS_BYTES:
            if copied + len(piece) > most_bytes or lines > _MOST_COPIED_LINES:
                reason = (
                    f"what follows is not read: of a pipe, {copied / 1e6:.0f} MB or {lines:,} lines are kept"
                )
                self.cut = lines + 1, reason
                break
            copy.write(piece)
            copied += len(piece)
            lines += piece.count(b"\n")
            without_end = 0 if b"\n" in piece else without_end + len(piece)
            piece = log.read(PIECE_BYTES)
        copy.flush()
        return copy


def _lines(log: BinaryIO) -> Iterator[bytes | str]:
    """Yield each line, or what is wrong with one that is too long; what has no end is not read to it."""
    try:
        yield from _whole_lines(log)
    except EOFError as torn:
        yield str(torn)


def _whole_lines(log: BinaryIO) -> Iterator[bytes | str]:
    while line := log.readline(LONGEST_LINE_BYTES + 1):
        if len(line) <= LONGEST_LINE_BYTES:
            yield line
            continue
        passed = len(line)
        while line and not line.endswith(b"\n") and passed < _ENDLESS_BYTES:
            line = log.readline(PIECE_BYTES)
            passed += len(line)
        if passed >= _ENDLESS_BYTES:
            yield "the line has no end, and what follows is not read"
            return
        yield "the line is too long to be a row"


class _Row(Protocol):
    @property
    def call_id(self) -> str: ...
    @property
    def start(self) -> str: ...


R = TypeVar("R", bound=_Row)


class Rows(Iterator[R], ABC):
    """The rows of some logs, one at a time, in constant memory.

    Args:
        paths: The logs.
        run: Give only those that have this as ``aimeter.run`` in `meta`; by default all.
        once: Give each call once, also if it stands in several logs, such as a log and a copy of its first days.

    Attributes:
        paths: The logs.
        rows: Rows given so far.
        repeated: Rows so far that were left out, as their call had been given.
        skipped: Lines so far that are no whole row: torn, glued together or foreign.
        problems: Where the first ten of them are, and what is wrong: ``calls.csv:17: 12 columns, not 42``.
    """

    def __init__(self, paths: Iterable[Log], run: str | None = None, *, once: bool = True) -> None:
        self.paths = tuple(paths)
        self._run = run
        self._calls = Seen() if once else None
        self._reads = 0
        self.rows = 0
        self.repeated = 0
        self.skipped = 0
        self.problems: list[str] = []
        self._rows = self._read_all(self.paths)

    @abstractmethod
    def _of_csv(self, fields: Sequence[str], columns: list[str]) -> R:
        """Return the row in the fields of a line, or raise one of `MALFORMED`."""

    @abstractmethod
    def _of_json(self, document: object) -> R:
        """Return the row in a decoded line of JSON, or raise one of `MALFORMED`."""

    def __next__(self) -> R:
        row = next(self._rows)
        while self._calls is not None and self._calls.again(row.call_id, row.start, self._reads):
            self.repeated += 1
            row = next(self._rows)
        self.rows += 1
        return row

    def _read_all(self, paths: Iterable[Log]) -> Iterator[R]:
        for self._reads, path in enumerate(paths):
            if path.is_parquet():
                yield from self._parquet_rows(path)
                continue
            with path.open() as log:
                if path.cut is not None:  # told before all that is wrong with single lines
                    self._skip(path, *path.cut)
                columns = _columns(path.path, log.readline(LONGEST_LINE_BYTES))
                log.seek(path.begin)
                if columns is None:
                    yield from self._json_rows(path, log)
                else:
                    yield from self._csv_rows(path, log, columns)

    def _skip(self, path: Log, number: int, reason: object) -> None:
        self.skipped += 1
        if len(self.problems) < _PROBLEMS_TOLD:
            self.problems.append(f"{path}:{number}: {str(reason)[:100]}")

    def _csv_rows(self, path: Log, log: BinaryIO, columns: list[str]) -> Iterator[R]:
        known_end = ""
        whole = _WHOLE_ENDS.get(columns[-1])
        meta = columns.index("meta")
        for number, line in enumerate(_lines(log), 1):
            if isinstance(line, str):
                self._skip(path, number, line)
                continue
            fields = self._fields(line.removeprefix(_BOM) if number == 1 else line)
            if fields in ([""], columns):
                continue  # a blank line ends a torn one; where files cannot be locked a header may come twice
            if len(fields) != len(columns):
                self._skip(path, number, f"{len(fields)} columns, not {len(columns)}")
                continue
            # An editor may have removed the last line's end. A later schema's last column is the same in most rows.
            ended = line.endswith((b"\n", b"\r")) or (
                whole.fullmatch(fields[-1]) if whole else fields[-1] == known_end
            )
            if not ended:
                self._skip(path, number, "the line has no end, and its last column may be cut")
                continue
            try:
                if self._run and not self._is_of_run(json.loads(fields[meta])):
                    continue
                row = self._of_csv(fields, columns)
            except MALFORMED as fault:
                self._skip(path, number, fault)
                continue
            known_end = fields[-1]
            yield row

    _fields = staticmethod(csv_fields)

    def _parquet_rows(self, path: Log) -> Iterator[R]:
        from aimeter.logs import parquet  # noqa: PLC0415 - needs an extra

        columns = list(parquet.types(path.path))
        meta = columns.index("meta")
        number, fields = 0, iter(parquet.rows(path.path))
        while True:
            number += 1
            try:
                row = next(fields, None)
                if row is None:
                    return
                if self._run and not self._is_of_run(json.loads(row[meta])):
                    continue
                yield self._of_csv(row, columns)
            except EOFError as torn:
                self._skip(path, number, torn)
                return
            except MALFORMED as fault:
                self._skip(path, number, fault)

    def _json_rows(self, path: Log, log: BinaryIO) -> Iterator[R]:
        for number, line in enumerate(_lines(log), 1):
            if isinstance(line, str):
                self._skip(path, number, line)
                continue
            if not line.strip():
                continue
            try:
                document = json.loads(line)
                # What is no object is told below.
                if isinstance(document, dict) and self._run and not self._is_of_run(document.get("meta")):
                    continue
                row = self._of_json(document)
            except MALFORMED as fault:
                self._skip(path, number, fault)
                continue
            yield row

    def _is_of_run(self, meta: object) -> bool:
        ours = meta.get("aimeter") if isinstance(meta, dict) else None
        return isinstance(ours, dict) and ours.get("run") == self._run


class ReadResult(Rows["Record"]):
    """The records of some logs; see `Rows`."""

    _places: tuple[list[str], list[int | None]] = [], []

    def _of_csv(self, fields: Sequence[str], columns: list[str]) -> Record:
        known, places = self._places
        if known is not columns:
            places = [columns.index(column) if column in columns else None for column in COLUMNS]
            self._places = columns, places
        return record_from_csv(fields, places)

    def _of_json(self, document: object) -> Record:
        return record_from_json(document)


def columns(log: Log) -> list[str] | None:
    """Return the names of a CSV log's columns, or None for JSON Lines.

    Raises:
        LogSchemaError: It is neither, or a schema that this version cannot read.
        OSError: It cannot be read.
    """
    with log.open() as file:
        return _columns(log.path, file.readline(LONGEST_LINE_BYTES))


def _columns(path: Path, first: bytes) -> list[str] | None:
    """Return the names in a CSV log's header, its first line, or None for JSON Lines; by content, so a log may be renamed.

    Raises:
        LogSchemaError: It is neither, or a schema that this version cannot read.
    """
    first = first.removeprefix(_BOM)
    if not first:
        return list(COLUMNS)
    if first.startswith(b"{"):
        try:
            present = json.loads(first)
        except MALFORMED:  # a torn first line says nothing about the others
            return None
    else:
        present = csv_fields(first)
    _check(path, present)
    return None if first.startswith(b"{") else present


def _check(path: Path, present: Collection[str]) -> None:
    missing = [column for column in FIRST_COLUMNS if column not in present]
    if missing:
        message = (
            f"{path} is no aimeter log that this version can read: its first line lacks {len(missing)} "
            f"columns, such as {missing[0]}. Check the path, or upgrade aimeter if a newer version wrote it."
        )
        raise LogSchemaError(message)


def read(paths: LogPath | Iterable[LogPath], *, once: bool = True) -> ReadResult:
    """Read one log or several, one after another; each call once, unless told otherwise.

    They are CSV, JSON Lines, either of them packed by gzip, or Parquet (extra ``report``), as their content tells.

    Rows of other schemas are read by the names of their columns: of earlier ones what is missing is empty, of
    later ones what this version does not know is left out.

    Raises:
        ConfigurationError: A path names no readable file.
        LogSchemaError: A file is no aimeter log. Raised at once, before any record is given.
    """
    return ReadResult(readable(paths), once=once)


def readable(paths: LogPath | Iterable[LogPath]) -> list[Log]:
    """Return logs by their paths, each looked into.

    Raises:
        ConfigurationError: As `read`.
        LogSchemaError: As `read`.
    """
    given = [paths] if isinstance(paths, str | os.PathLike) else paths
    found = [path if isinstance(path, Log) else Log(path) for path in given]
    for path in found:
        try:
            if path.is_parquet():
                from aimeter.logs import parquet  # noqa: PLC0415 - needs an extra

                _check(path.path, parquet.types(path.path))
                continue
            columns(path)
        except EOFError as fault:
            message = f"The log {path} cannot be read: {fault}."
            raise ConfigurationError(message) from fault
        except OSError as fault:
            message = f"The log {path} cannot be read: {fault.strerror}.{_near(path.path)}"
            raise ConfigurationError(message) from fault
    return found


def _near(path: Path) -> str:
    try:
        return did_you_mean(path.name, (entry.name for entry in path.parent.iterdir()))
    except OSError:
        return ""
