"""Faults of the disk under a running log: the caller never notices, and rows wait for better times."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from aimeter.errors import ConfigurationError, LogSchemaError
from aimeter.logs import filelog
from aimeter.logs.encode import CSV_HEADER
from aimeter.report import read
from aimeter.sinks import CsvLog, FileLog, open_log
from tests.children import descriptors, run
from tests.records import make_record

ENDINGS = ("calls.csv", "calls.jsonl")


def write(log: FileLog, *numbers: int) -> None:
    log.write([make_record(call_id=str(number)) for number in numbers])


def numbers(path: Path) -> list[int]:
    """Read the log back and require whole rows only, under one header."""
    result = read(path)
    found = [int(record.call_id) for record in result]
    assert result.problems == []
    assert path.read_bytes().count(CSV_HEADER) == (path.suffix == ".csv")
    return found


@pytest.mark.parametrize("ending", ENDINGS)
def test_deleted_log_is_begun_anew(tmp_path: Path, ending: str):
    """When the log is deleted, the next row begins it again, with its header."""
    path = tmp_path / ending
    log = open_log(path)
    write(log, 1)
    path.unlink()
    write(log, 2)
    assert numbers(path) == [2]
    assert log.last_fault == ""


@pytest.mark.parametrize("ending", ENDINGS)
def test_rotated_log_is_begun_anew(tmp_path: Path, ending: str):
    """When the log is moved away, rows stay where they are and the next one begins a new log."""
    path = tmp_path / ending
    log = open_log(path)
    write(log, 1)
    path.rename(tmp_path / f"old-{ending}")
    write(log, 2)
    write(log, 3)
    assert numbers(tmp_path / f"old-{ending}") == [1]
    assert numbers(path) == [2, 3]


@pytest.mark.parametrize("ending", ENDINGS)
def test_emptied_log_is_begun_anew(tmp_path: Path, ending: str):
    """When the log is emptied in place (logrotate's copytruncate), it gets its header again."""
    path = tmp_path / ending
    log = open_log(path)
    write(log, 1, 2, 3)
    os.truncate(path, 0)
    write(log, 4)
    assert numbers(path) == [4]


def test_removed_folder_is_not_made_again(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """A folder somebody removed stays removed; the rows wait for it, and one log line says so."""
    folder = tmp_path / "logs"
    folder.mkdir()
    log = CsvLog(folder / "calls.csv")
    write(log, 1)
    shutil.rmtree(folder)
    for number in (2, 3, 4):
        write(log, number)
    assert not folder.exists()
    assert log.last_fault == "its folder does not exist"
    assert [record.getMessage().count(f"mkdir -p '{folder}'") for record in caplog.records] == [1]
    folder.mkdir()
    log.write([])
    assert numbers(folder / "calls.csv") == [2, 3, 4]
    assert (log.lost_rows, log.last_fault) == (0, "")


def test_rows_that_wait_are_bounded_and_the_lost_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """While the disk takes none, the newest rows are kept; those given up are counted and told at the end."""
    monkeypatch.setattr(filelog, "KEPT_ROWS", 5)
    folder = tmp_path / "logs"
    folder.mkdir()
    log = CsvLog(folder / "calls.csv")
    folder.rmdir()
    write(log, *range(4))
    assert log.lost_rows == 0
    write(log, *range(4, 12))
    assert log.lost_rows == 7
    folder.mkdir()
    write(log, 12)
    assert numbers(folder / "calls.csv") == [7, 8, 9, 10, 11, 12]
    shutil.rmtree(folder)
    write(log, 13)
    log.close()
    assert log.lost_rows == 8
    assert "lost 8 rows" in caplog.messages[-1]


def test_replaced_by_a_foreign_file(tmp_path: Path):
    """A foreign file in the log's place is not written to: rows wait, or go beside it if so wished."""
    path = tmp_path / "calls.csv"
    waiting, moving = CsvLog(path), CsvLog(path, conflict="new_file")
    write(waiting, 1)
    write(moving, 2)
    path.unlink()
    path.write_text("date,loss\n")
    write(waiting, 3)
    write(moving, 4)
    assert path.read_text() == "date,loss\n"
    assert "no aimeter log" in waiting.last_fault
    assert numbers(tmp_path / "calls-2.csv") == [4]
    path.unlink()
    write(waiting, 5)
    assert numbers(path) == [3, 5]


def test_foreign_files_are_not_held_open(tmp_path: Path):
    """However many lie in the way of the log, and however often one is laid there."""
    path = tmp_path / "calls.csv"
    before = descriptors()
    log = CsvLog(path, conflict="new_file")
    for number in range(2, 6):
        log.path.write_text("date,loss\n")
        write(log, number)
        assert log.path == tmp_path / f"calls-{number}.csv"
        assert numbers(log.path) == [number]
        assert descriptors() == before + 1
    log.close()
    assert descriptors() == before


@pytest.mark.parametrize("ending", ENDINGS)
def test_limit_of_file_size(tmp_path: Path, ending: str):
    """A write that is cut short leaves whole rows only; the rest follows, in order, when there is room."""
    path = tmp_path / ending

    def work() -> None:
        log = open_log(path)
        write(log, 0)
        room = path.stat().st_size * 5 + 100  # the kernel takes a part of the row that crosses it
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
        write(log, *range(1, 20))
        before = numbers(path)
        write(log, 20)
        assert numbers(path) == before == list(range(len(before)))
        assert 2 < len(before) < 20
        assert "limit of a file's size" in log.last_fault
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        write(log, 21)
        assert numbers(path) == list(range(22))
        assert (log.lost_rows, log.last_fault) == (0, "")

    run(work)


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """Mount a file system of 64 KiB, or skip the test where that is not allowed."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "aimeter-test", str(folder)]
    if os.geteuid() != 0 or shutil.which("mount") is None or subprocess.run(mount, check=False).returncode:
        pytest.skip("needs the right to mount a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize("ending", ENDINGS)
def test_full_disk(tmp_path: Path, ending: str):
    """On a full disk the file ends with a whole row; the rest follows, in order, once there is space."""
    with small_disk(tmp_path / "disk") as disk:
        ballast = disk / "ballast"
        log = open_log(disk / ending)
        ballast.write_bytes(bytes(56 * 1024))
        write(log, *range(50))
        assert log.last_fault == "the disk is full"
        some = numbers(disk / ending)
        assert 0 < len(some) < 50
        ballast.write_bytes(bytes(8 * 1024))
        write(log, 50)
        assert numbers(disk / ending) == list(range(51))
        assert log.lost_rows == 0
        log.close()


def test_read_only_file_system(tmp_path: Path):
    """A read-only file system is an error at configuration, and outlived at run time."""
    with small_disk(tmp_path / "disk") as disk:
        log = CsvLog(disk / "calls.csv")
        write(log, 1)
        log.close()
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        write(log, 2)
        assert log.last_fault == "the file system is read-only"
        for path in (disk / "calls.csv", disk / "new.csv"):
            with pytest.raises(ConfigurationError, match=r"read-only.*another path"):
                CsvLog(path)
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        write(log, 3)
        assert numbers(disk / "calls.csv") == [1, 2, 3]
        log.close()


def test_no_permission():
    """Without the right to write, configuration fails with a remedy; a right withdrawn later is outlived."""
    with tempfile.TemporaryDirectory() as made:  # not tmp_path, whose parents only its owner may enter
        closed, opened = Path(made, "closed"), Path(made, "opened")
        Path(made).chmod(0o755)
        for folder in (closed, opened):
            folder.mkdir()
        (closed / "old.csv").write_bytes(CSV_HEADER)
        (closed / "old.csv").chmod(0o444)
        closed.chmod(0o555)
        opened.chmod(0o777)

        def work() -> None:
            if os.geteuid() == 0:
                os.setuid(65534)
            for name in ("new.csv", "old.csv"):
                with pytest.raises(ConfigurationError, match=r"permission is denied.*chmod"):
                    CsvLog(closed / name)
            log = CsvLog(opened / "calls.csv")
            write(log, 1)
            log.close()
            (opened / "calls.csv").chmod(0o444)
            write(log, 2)
            assert log.last_fault == "permission is denied"
            (opened / "calls.csv").chmod(0o644)
            write(log, 3)
            assert numbers(opened / "calls.csv") == [1, 2, 3]

        run(work)


def test_a_descriptor_closed_by_the_host_harms_nobody(tmp_path: Path):
    """If the program closes all descriptors and the number becomes another file's, no row goes there."""
    log = CsvLog(tmp_path / "calls.csv")
    write(log, 1)
    descriptor = log._file._fd
    with (tmp_path / "other").open("w") as other:
        os.dup2(other.fileno(), descriptor)
    write(log, 2)
    log.close()
    assert numbers(tmp_path / "calls.csv") == [1, 2]
    assert os.fstat(descriptor).st_size == 0
    os.close(descriptor)


@pytest.mark.parametrize("ending", ENDINGS)
def test_file_system_without_locks(tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch):
    """Where files cannot be locked, rows are appended all the same, and a torn line is ended, not removed."""

    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", no_locks)
    path = tmp_path / ending
    write(open_log(path), 1)
    with path.open("ab") as log:
        log.write(b"1,torn")
    write(open_log(path), 2)
    result = read(path)
    assert [record.call_id for record in result] == ["1", "2"]
    assert result.skipped == 1


def test_each_kind_of_fault_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """Faults that come and go do not fill the host's log."""
    folder = tmp_path / "logs"
    for _ in range(4):
        folder.mkdir()
        if not caplog.records:
            log = CsvLog(folder / "calls.csv")
        write(log, 1)
        shutil.rmtree(folder)
        write(log, 2)
    assert len(caplog.records) == 1
    assert caplog.records[0].name == "aimeter"


def test_a_log_without_a_loss_ends_in_silence(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """Nothing is told of a log that has all its rows, and nothing is made of one that was given none."""
    log = CsvLog(tmp_path / "calls.csv")
    log.write([])
    log.close()
    assert list(tmp_path.iterdir()) == []
    write(log, 1)
    log.close()
    assert not caplog.records


def test_a_row_that_cannot_be_text_is_told_with_its_name(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """Whose it was and what was wrong with it, as nobody finds it in the log; the next good row ends the fault."""
    log = CsvLog(tmp_path / "calls.csv")
    log.write([make_record(name="odd", items="three")])
    assert log.last_fault.startswith("a row of 'odd' cannot be put into text: TypeError(")
    assert [record.getMessage() for record in caplog.records] == [f"aimeter: {log.last_fault}."]
    write(log, 1)
    assert (log.lost_rows, log.last_fault) == (1, "")


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (OSError(errno.EIO, os.strerror(errno.EIO)), "Input/output error"),
        (OSError("of a file system of somebody's own"), "of a file system of somebody's own"),
        (OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)), "the disk quota is used up"),
    ],
)
def test_whatever_the_disk_says_is_told_and_outlived(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    fault: OSError,
    words: str,
):
    """A fault that nobody foresaw has the system's own words; the rows wait all the same."""
    log = CsvLog(tmp_path / "calls.csv")

    def fail(*_: object) -> int:
        raise fault

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", fail)
        write(log, 1)
    assert log.last_fault == words
    assert f"cannot write to its log {log.path}: {words}. " in caplog.text
    assert "Up to 10000 rows are held back" in caplog.text
    write(log, 2)
    assert numbers(log.path) == [1, 2]


def test_close_twice_and_write_again(tmp_path: Path):
    """Closing is repeatable, and a closed log opens again for a late row."""
    log = CsvLog(tmp_path / "calls.csv")
    log.close()
    write(log, 1)
    log.close()
    log.close()
    write(log, 2)
    assert numbers(tmp_path / "calls.csv") == [1, 2]


def test_schema_error_is_a_configuration_error():
    """One except clause catches every bad log path."""
    assert issubclass(LogSchemaError, ConfigurationError)
