"""Many writers, one log: whole rows, each of them, under one header, whatever kills the writers."""

from __future__ import annotations

import fcntl
import os
import random
import signal
import threading
from collections import Counter
from pathlib import Path

import pytest

from aimeter._support import files
from aimeter.logs import appendfile
from aimeter.logs.encode import CSV_HEADER, csv_line
from aimeter.report import read
from aimeter.sinks import FileLog, open_log
from tests.children import start, wait
from tests.records import make_record

ENDINGS = ("calls.csv", "calls.jsonl")


def rows(writer: str, first: int, count: int):
    """Build rows of uneven length that say who wrote them and in which order."""
    return [
        make_record(thread=writer, call_id=str(number), meta={"pad": "x" * (number * 37 % 900)})
        for number in range(first, first + count)
    ]


def write_batches(log: FileLog, writer: str, batches: int, size: int) -> None:
    for batch in range(batches):
        log.write(rows(writer, batch * size, size))


def numbers_by_writer(path: Path) -> dict[str, list[int]]:
    """Read the log and require that no line of it is anything but a whole row."""
    result = read(path)
    found: dict[str, list[int]] = {}
    for record in result:
        assert record.meta == {"pad": "x" * (int(record.call_id) * 37 % 900)}
        found.setdefault(record.thread, []).append(int(record.call_id))
    assert result.problems == []
    if path.suffix == ".csv":
        assert path.read_bytes().count(CSV_HEADER) == 1
        assert path.read_bytes().startswith(CSV_HEADER)
    return found


@pytest.mark.parametrize("ending", ENDINGS)
def test_eight_processes_with_threads_share_one_log(tmp_path: Path, ending: str):
    """Eight processes of three threads begin and fill one log: every row once, whole and in order."""
    path = tmp_path / ending
    gate_out, gate_in = os.pipe()

    def work() -> None:
        os.close(gate_in)
        os.read(gate_out, 1)  # ends for all at the same moment, when the parent closes its end
        log = open_log(path)
        writers = [
            threading.Thread(target=write_batches, args=(log, f"{os.getpid()}.{number}", 20, 5))
            for number in range(3)
        ]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        assert log.lost_rows == 0

    children = [start(work) for _ in range(8)]
    os.close(gate_out)
    os.close(gate_in)
    assert [wait(child) for child in children] == [0] * 8
    found = numbers_by_writer(path)
    assert len(found) == 24
    assert all(numbers == list(range(100)) for numbers in found.values())


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_forked_child_writes_to_the_inherited_log(tmp_path: Path, ending: str):
    """After `reopen` parent and child write to one log, and the parent's lock is still its own."""
    path = tmp_path / ending
    log = open_log(path)
    log.write(rows("before", 0, 3))

    def work() -> None:
        log.reopen()
        write_batches(log, "child", 20, 5)

    child = start(work)
    write_batches(log, "parent", 20, 5)
    assert wait(child) == 0
    log.write(rows("after", 0, 3))
    assert {writer: len(numbers) for writer, numbers in numbers_by_writer(path).items()} == {
        "before": 3,
        "parent": 100,
        "child": 100,
        "after": 3,
    }


def test_a_child_leaves_what_was_held_back_to_the_parent(tmp_path: Path):
    """Rows that wait for the disk when a process forks are written once, by the parent."""
    folder = tmp_path / "logs"
    folder.mkdir()
    log = open_log(folder / "calls.csv")
    folder.rmdir()
    log.write(rows("parent", 0, 3))
    folder.mkdir()

    def work() -> None:
        log.reopen()
        log.write(rows("child", 0, 2))

    assert wait(start(work)) == 0
    log.close()
    assert numbers_by_writer(folder / "calls.csv") == {"parent": [0, 1, 2], "child": [0, 1]}


def test_a_child_begins_anew_whatever_the_parent_was_in_the_middle_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A thread of the parent's writes while another forks: the child neither waits for its lock nor gives that back,
    and what the parent has lost is the parent's to tell."""
    monkeypatch.setattr(appendfile, "_LOCK_PATIENCE_S", 0.01)
    path = tmp_path / "calls.csv"
    log = open_log(path)
    log.write(rows("parent", 0, 1))
    log.lost_rows = 3

    def work() -> None:
        signal.alarm(60)  # for a child that waits for ever
        log.reopen()
        assert log.lost_rows == 0
        log.write(rows("child", 0, 1))
        log.close()

    with log._lock:
        assert files.lock(log._file._fd)
        assert wait(start(work)) == 0
        with path.open("ab") as other:
            assert not files.lock(other.fileno())
        files.unlock(log._file._fd)
    log.write(rows("parent", 1, 1))
    assert log.lost_rows == 3
    assert numbers_by_writer(path) == {"parent": [0, 1], "child": [0]}


@pytest.mark.parametrize("ending", ENDINGS)
def test_kill_loses_no_row_that_was_written(tmp_path: Path, ending: str):
    """Writers killed at any moment leave all rows of finished writes on disk, whole."""
    path = tmp_path / ending
    chance = random.Random(20261122)
    done: Counter[str] = Counter()
    for _ in range(6):
        acknowledged, acknowledge = os.pipe()

        def work(acknowledge: int = acknowledge) -> None:
            log = open_log(path)
            for batch in range(10_000):
                log.write(rows(str(os.getpid()), batch * 50, 50))
                os.write(acknowledge, f"{os.getpid()} {batch * 50 + 50}\n".encode())

        children = [start(work) for _ in range(3)]
        os.close(acknowledge)
        said = b""
        while said.count(b"\n") < chance.randint(3, 30):
            said += os.read(acknowledged, 4096)
        for child in children:
            os.kill(child, signal.SIGKILL)
        assert [wait(child) for child in children] == [-signal.SIGKILL] * 3
        while more := os.read(acknowledged, 4096):
            said += more
        os.close(acknowledged)
        for line in said.splitlines():
            writer, count = line.decode().split()
            done[writer] = int(count)
        assert read_quietly(path) <= 1  # the last line, at most, is torn
    open_log(path).write(rows("next", 0, 1))
    found = numbers_by_writer(path)
    assert found.pop("next") == [0]
    for writer, numbers in found.items():
        assert numbers == list(range(len(numbers)))
        assert len(numbers) >= done[writer]


def read_quietly(path: Path) -> int:
    """Return how many lines of a log are no whole rows."""
    result = read(path)
    for _ in result:
        pass
    return result.skipped


def test_torn_lines_never_cost_another_writer_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """While writers are killed in mid-line again and again, the others' rows are all there, whole."""
    monkeypatch.setattr(appendfile, "_TORN_PAUSE_S", 0.0)
    path = tmp_path / "calls.csv"
    path.write_bytes(CSV_HEADER)

    def tear() -> None:
        """Do what a writer does that is killed between two pages of a row."""
        line = csv_line(make_record(name="torn"))
        for cut in range(1, 200):
            with path.open("ab", buffering=0) as log:
                fcntl.flock(log, fcntl.LOCK_EX)
                log.write(line[:cut])

    def work() -> None:
        write_batches(open_log(path), str(os.getpid()), 60, 3)

    children = [start(tear), *(start(work) for _ in range(3))]
    assert [wait(child) for child in children] == [0] * 4
    open_log(path).close()
    assert sorted(map(len, numbers_by_writer(path).values())) == [180, 180, 180]


def test_a_stopped_holder_of_the_lock_stops_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Without the lock rows are appended all the same; a torn line is ended instead of removed."""
    monkeypatch.setattr(appendfile, "_LOCK_PATIENCE_S", 0.01)
    path = tmp_path / "calls.csv"
    log = open_log(path)
    log.write(rows("me", 0, 1))
    with path.open("ab", buffering=0) as stopped:
        fcntl.flock(stopped, fcntl.LOCK_EX)
        stopped.write(b"1,torn")
        log.write(rows("me", 1, 1))
        other = open_log(path)
        other.write(rows("other", 0, 1))
    log.write(rows("me", 2, 1))
    result = read(path)
    assert [(record.thread, record.call_id) for record in result] == [
        ("me", "0"),
        ("me", "1"),
        ("other", "0"),
        ("me", "2"),
    ]
    assert result.skipped == 1
    assert path.read_bytes().count(b"\r\n1,torn\r\n") == 1


def test_a_crash_leaves_nothing_that_blocks_the_next_run(tmp_path: Path):
    """There is no lock file, and a lock dies with its process."""
    path = tmp_path / "calls.csv"
    path.write_bytes(CSV_HEADER)

    def work() -> None:
        log = path.open("ab", buffering=0)
        fcntl.flock(log, fcntl.LOCK_EX)
        os.kill(os.getpid(), signal.SIGKILL)

    assert wait(start(work)) == -signal.SIGKILL
    open_log(path).write(rows("next", 0, 2))
    assert numbers_by_writer(path) == {"next": [0, 1]}
    assert list(tmp_path.iterdir()) == [path]
