"""A torn end of a log: mended where it is nobody's any more, and never at the cost of what another writer has written."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import stat
from collections import deque
from pathlib import Path

import pytest

from aimeter.errors import LogSchemaError
from aimeter.logs.appendfile import AppendFile
from aimeter.logs.csvlog import CsvLayout
from aimeter.logs.jsonl import JsonLinesLayout
from aimeter.report import read
from tests.children import descriptors
from tests.records import make_record

LAYOUTS = {"calls.csv": CsvLayout(), "calls.jsonl": JsonLinesLayout()}
OVER = {".csv": b"a table of somebody else\r\n", ".jsonl": b'{"somebody":"else"}\n'}


@pytest.fixture(params=LAYOUTS)
def path(request, tmp_path: Path) -> Path:
    return tmp_path / request.param


def line(path: Path, name: str) -> bytes:
    return LAYOUTS[path.name].lines([make_record(name=name)])[0]


def begun(path: Path, *names: str) -> bytes:
    """Write a log with rows of these names, and return what is in it."""
    content = LAYOUTS[path.name].header + b"".join(line(path, name) for name in names)
    path.write_bytes(content)
    return content


def opened(path: Path, sleep=pytest.fail) -> AppendFile:
    """Return a writer that must not wait, or that does something else in the moments in which it would."""
    return AppendFile(path, LAYOUTS[path.name], sleep=sleep)


def append(file: AppendFile, *names: str) -> None:
    lines = deque(line(file.path, name) for name in names)
    file.append(lines)
    assert not lines


def names(path: Path, skipped: int = 0) -> list[str]:
    result = read(path)
    found = [record.name for record in result]
    assert result.skipped == skipped, result.problems
    return found


def other_writes(path: Path, data: bytes):
    """Return what a writer without the lock does while this one looks at the end of the file."""

    def write(_: float) -> None:
        with path.open("ab") as file:
            file.write(data)

    return write


@pytest.mark.parametrize("cut", [1, 40, -1])
def test_a_line_that_another_completes_meanwhile_is_a_row(path, cut, caplog):
    """Somebody without the lock is in the middle of a line: it is whole a moment later, and stays."""
    whole = line(path, "theirs")
    path.write_bytes(begun(path, "first") + whole[:cut])
    append(opened(path, other_writes(path, whole[cut:])), "mine")
    assert names(path) == ["first", "theirs", "mine"]
    assert not caplog.records


def test_an_end_that_grows_is_not_removed(path, caplog):
    """It grows, but is not whole yet: none of its bytes is lost, and the next row stands on a line of its own."""
    torn = line(path, "theirs")[:80]
    before = begun(path, "first") + torn[:50]
    path.write_bytes(before)
    append(opened(path, other_writes(path, torn[50:])), "mine")
    assert path.read_bytes().startswith(before + torn[50:])
    assert names(path, skipped=1) == ["first", "mine"]
    assert not caplog.records


def test_an_end_that_stays_is_removed_and_told(path, caplog):
    """Nobody goes on with it: after a look of a few hundredths of a second it is gone, and only it."""
    before = begun(path, "first")
    path.write_bytes(before + line(path, "theirs")[:80])
    waits: list[float] = []
    append(opened(path, waits.append), "mine")
    assert path.read_bytes() == before + line(path, "mine")
    assert waits == [pytest.approx(0.02)]
    [record] = caplog.records
    assert (record.levelno, record.name) == (logging.WARNING, "aimeter")
    assert f"(80 bytes) of its log {path}" in record.getMessage()


@pytest.mark.parametrize("kept", [1, 30, -1])
def test_a_torn_header_makes_room_for_a_whole_one(tmp_path, kept):
    """Whoever began the log was killed in its first write: the next row finds the names of its columns above it."""
    path = tmp_path / "calls.csv"
    path.write_bytes(CsvLayout.header[:kept].rstrip(b"\r"))
    append(opened(path, lambda _: None), "mine")
    assert path.read_bytes() == CsvLayout.header + line(path, "mine")


def test_who_may_read_and_write_a_new_log_is_for_the_user_to_say(path):
    """It is made as any other file is: all that the umask leaves, and nothing to execute."""
    mask = os.umask(0o022)
    try:
        append(opened(path), "first")
    finally:
        os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_a_file_that_may_only_grow_keeps_its_torn_end(path, monkeypatch):
    """``chattr +a`` lets nothing be removed: the torn line is ended, and the rows go on."""

    def denied(*_: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    before = begun(path, "first") + line(path, "theirs")[:80]
    path.write_bytes(before)
    monkeypatch.setattr(os, "ftruncate", denied)
    append(opened(path, lambda _: None), "mine")
    assert path.read_bytes() == before + LAYOUTS[path.name].newline + line(path, "mine")
    assert names(path, skipped=1) == ["first", "mine"]


def test_no_look_is_taken_at_an_end_that_is_whole(path):
    """A log that ends as it should is appended to at once; so is one whose last line an editor left without its end."""
    whole = begun(path, "first")
    append(opened(path), "second")
    assert path.read_bytes() == whole + line(path, "second")
    for end in {LAYOUTS[path.name].newline, b"\n"}:
        path.write_bytes(begun(path, "first").removesuffix(end))
        opened(path).check()
        assert path.read_bytes() == whole
        path.write_bytes(whole.removesuffix(end))
        append(opened(path), "second")
        assert path.read_bytes() == whole + line(path, "second")


class Disk:
    """A disk that takes a part of one write and no more, as a full one does; what others do then comes in between."""

    def __init__(self, monkeypatch, takes: int, meanwhile=lambda: None):
        self._write, self._takes, self._meanwhile = os.write, takes, meanwhile
        self._monkeypatch = monkeypatch
        monkeypatch.setattr(os, "write", self._part)

    def _part(self, fd: int, data: bytes) -> int:
        self._monkeypatch.setattr(os, "write", self._full)
        return self._write(fd, data[: self._takes])

    def _full(self, fd: int, data: bytes) -> int:
        self._monkeypatch.setattr(os, "write", self._write)
        self._meanwhile()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("whole_rows", [0, 1, 2])
@pytest.mark.parametrize("cut", [0, 1, 100])
def test_what_a_full_disk_tears_is_taken_back_and_still_to_be_written(path, monkeypatch, whole_rows, cut):
    """The file has the rows that fitted, the writer has the others: each is written once, in order."""
    before = begun(path, "first")
    rows = [line(path, name) for name in ("a", "b", "c")]
    lines = deque(rows)
    file = opened(path)
    Disk(monkeypatch, sum(map(len, rows[:whole_rows])) + cut)
    with pytest.raises(OSError, match="No space"):
        file.append(lines)
    assert path.read_bytes() == before + b"".join(rows[:whole_rows])
    assert list(lines) == rows[whole_rows:]
    file.append(lines)
    assert names(path) == ["first", "a", "b", "c"]


def test_what_a_full_disk_tears_of_a_header_is_taken_back(tmp_path, monkeypatch):
    """A log that could not even be begun is empty, and is begun when there is room."""
    path = tmp_path / "calls.csv"
    lines = deque([line(path, "a"), line(path, "b")])
    file = opened(path)
    Disk(monkeypatch, 30)
    with pytest.raises(OSError, match="No space"):
        file.append(lines)
    assert (path.read_bytes(), len(lines)) == (b"", 2)
    Disk(monkeypatch, len(CsvLayout.header) + 10)
    with pytest.raises(OSError, match="No space"):
        file.append(lines)
    assert (path.read_bytes(), len(lines)) == (CsvLayout.header, 2)
    file.append(lines)
    assert names(path) == ["a", "b"]


def test_what_a_full_disk_tears_stays_where_another_has_written_behind_it(path, monkeypatch):
    """To take it back would take the other's row with it."""
    begun(path, "first")
    lines = deque([line(path, "mine")])
    file = opened(path)
    other = opened(path, lambda _: None)  # which gives up waiting for the lock
    Disk(monkeypatch, 60, lambda: append(other, "theirs"))
    with pytest.raises(OSError, match="No space"):
        file.append(lines)
    assert names(path, skipped=1) == ["first", "theirs"]
    file.append(lines)
    assert names(path, skipped=1) == ["first", "theirs", "mine"]


def test_the_lock_is_free_between_writes(path):
    """Nobody waits for a writer that has nothing to write just now, be it that its last write failed."""
    first, second = opened(path), opened(path)
    for number in range(3):
        append(first, f"a{number}")
        append(second, f"b{number}")
    assert names(path) == ["a0", "b0", "a1", "b1", "a2", "b2"]
    path.write_bytes(OVER[path.suffix])
    with pytest.raises(LogSchemaError):
        append(first, "refused")
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_stopped_holder_of_the_lock_is_waited_for_once(path):
    """A second at most, in short pauses; then no more, until the lock was to be had again."""
    begun(path, "first")
    waits: list[float] = []
    file = opened(path, waits.append)
    for number in range(2):
        with path.open("ab") as stopped:
            fcntl.flock(stopped, fcntl.LOCK_EX)
            append(file, f"{number}: waits")
            assert sum(waits) == pytest.approx(1, abs=0.01)
            assert max(waits) <= 0.01
            waits.clear()
            append(file, f"{number}: no more")
            assert not waits
        append(file, f"{number}: free")
        assert not waits
    assert len(names(path)) == 7


def test_a_lock_that_comes_free_is_waited_for_no_longer(path):
    """The row is written as soon as the other writer is done, and its torn end is removed with the lock."""
    before = begun(path, "first")
    holder = path.open("ab", buffering=0)
    fcntl.flock(holder, fcntl.LOCK_EX)
    holder.write(b"torn")
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 5:
            holder.close()

    append(opened(path, wait), "mine")
    assert len(waits) == 5 + 1  # and the look at the torn end
    assert path.read_bytes() == before + line(path, "mine")


def test_a_log_holds_one_descriptor(path):
    """However often it is written to, rotated, refused or closed."""
    before = descriptors()
    file = opened(path)
    for number in range(5):
        append(file, str(number))
        assert descriptors() == before + 1
    for _ in range(3):
        path.rename(f"{path}.old")
        append(file, "rotated")
        assert descriptors() == before + 1
    file.close()
    assert descriptors() == before
    os.mkfifo(f"{path}.pipe")
    for _ in range(3):
        with pytest.raises(OSError, match="not a regular file"):
            AppendFile(Path(f"{path}.pipe"), LAYOUTS[path.name]).append(deque())
    assert descriptors() == before


@pytest.mark.parametrize("way", ["closed", "descriptors closed by the program", "overwritten in place"])
def test_a_file_of_somebody_elses_is_looked_at_anew(path, way):
    """What was our log a moment ago may be another file now, be it longer than the log was: no row goes there."""
    file = opened(path)
    append(file, "first")
    foreign = OVER[path.suffix]
    if way == "overwritten in place":
        path.write_bytes(foreign)
    else:
        foreign += b"\n" * path.stat().st_size
        if way == "closed":
            file.close()
        else:
            os.close(file._fd)
        path.unlink()
        path.write_bytes(foreign)
    with pytest.raises(LogSchemaError, match="somebody"):
        append(file, "second")
    assert path.read_bytes() == foreign
    file.close()


def test_a_number_that_is_another_file_by_now_is_left_alone(path):
    """The program has closed all descriptors and opened a file of its own: that is neither written to nor closed."""
    file = opened(path)
    append(file, "first")
    with path.with_name("other").open("wb") as other:
        os.dup2(other.fileno(), file._fd)
        taken = file._fd
        path.unlink()
        path.mkdir()
        with pytest.raises(IsADirectoryError):
            append(file, "second")
        file.close()
        assert os.fstat(taken).st_ino == os.fstat(other.fileno()).st_ino
        assert os.fstat(taken).st_size == 0
        os.close(taken)


class Restless(type(Path())):
    """A path at which there is another file whenever one looks."""

    def stat(self, **options):
        Path(self).unlink()
        Path(self).write_bytes(b"")
        return super().stat(**options)


def test_a_log_that_is_replaced_again_and_again_is_given_up_for_now(path):
    """The rows are still the writer's, and so is the next try."""
    begun(path, "first")
    before = descriptors()
    lines = deque([line(path, "mine")])
    with pytest.raises(OSError, match="again and again") as fault:
        AppendFile(Restless(path), LAYOUTS[path.name]).append(lines)
    assert fault.value.errno == errno.EAGAIN
    assert (len(lines), path.read_bytes(), descriptors()) == (1, b"", before)


def test_a_backlog_goes_out_in_blocks(path, monkeypatch):
    """Ten thousand rows are a few hundred writes of 64 KiB, each of whole lines, and not ten thousand."""
    write, blocks = os.write, []
    monkeypatch.setattr(os, "write", lambda fd, data: blocks.append(len(data)) or write(fd, data))
    row = line(path, "x" * 1000)
    file = opened(path)
    file.append(deque([row] * 500))
    sizes = [size % len(row) for size in blocks]
    assert sizes == [len(LAYOUTS[path.name].header)] + [0] * (len(sizes) - 1)
    assert all(65536 <= size < 65536 + len(row) for size in blocks[1:-1])
    assert sum(blocks) == path.stat().st_size
    huge = line(path, "y" * 200_000)
    blocks.clear()
    file.append(deque([huge, row]))
    assert blocks == [len(huge), len(row)]
