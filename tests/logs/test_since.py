"""What came to a log since a moment, and of that what is of one run."""

from __future__ import annotations

import os

import pytest

from aimeter.logs.brief import BriefResult
from aimeter.logs.read import ReadResult, readable
from aimeter.logs.since import Since
from aimeter.sinks import open_log
from tests.records import make_record


@pytest.fixture(params=["calls.csv", "calls.jsonl"])
def log(request, tmp_path):
    return tmp_path / request.param


def append(log, run, *names):
    """Append rows of a run as any process does."""
    sink = open_log(log)
    sink.write([make_record(name=name, meta={"aimeter": {"run": run}}) for name in names])
    sink.close()


def names(since, run="mine"):
    """Return the names of a run's rows, which are as many whichever way they are read."""
    found = [record.name for record in ReadResult(readable(since.logs()), run)]
    assert len(list(BriefResult(readable(since.logs()), run))) == len(found)
    return found


def test_rows_of_the_run_that_came_later(log):
    """Neither those before, be they of a run of that name, nor those of others, nor rows of no run."""
    append(log, "mine", "before")
    since = Since(log)
    assert names(since) == []
    append(log, "mine", "a")
    append(log, "other", "b")
    append(log, None, "c")
    append(log, "mine", "d")
    assert names(since) == names(since) == ["a", "d"]
    since.close()


def test_a_log_that_was_not_there(log):
    """All of it came later; and there may be none in the end."""
    since = Since(log)
    assert names(since) == []
    append(log, "mine", "a")
    assert names(since) == ["a"]
    since.close()


@pytest.mark.parametrize("torn", [b"3,torn", b"{", "é".encode()[:1], b"x" * 100_000])
def test_a_torn_line_at_the_end(log, torn):
    """The next writer removes it, so what comes later begins before where the file ended."""
    append(log, "mine", "before")
    with log.open("ab") as file:
        file.write(torn)
    since = Since(log)
    append(log, "mine", "a")
    assert names(since) == ["a"]
    since.close()


def test_lines_that_are_no_rows(log):
    """They are skipped and counted; those that were there before are not looked at."""
    append(log, "mine", "before")
    with log.open("ab") as file:
        file.write(b"3,torn\r\n")
    since = Since(log)
    append(log, "mine", "a")
    with log.open("ab") as file:
        file.write(b'3,torn\r\n{"name"\r\n')
        file.write(b'{"name":1}\n' if log.suffix == ".jsonl" else b"\n")
    append(log, "mine", "b")
    records = ReadResult(readable(since.logs()), "mine")
    assert [record.name for record in records] == ["a", "b"]
    assert records.skipped == 2
    since.close()


@pytest.mark.parametrize("gone", [True, False])
def test_a_log_that_is_moved_away_or_deleted(log, gone):
    """What came to the old file is read there, whatever it is called now, and all of the new one."""
    append(log, "mine", "before")
    since = Since(log)
    append(log, "mine", "a")
    os.rename(log, log.with_name("old"))  # noqa: PTH104 - as logrotate does
    if gone:
        log.with_name("old").unlink()
    assert names(since) == names(since) == ["a"]
    append(log, "mine", "b")
    append(log, "other", "c")
    assert names(since) == names(since) == ["a", "b"]
    since.close()


@pytest.mark.parametrize("later", [1, 50])
def test_a_log_that_is_emptied(log, later):
    """All is read that is there, be the file shorter than before or longer again."""
    append(log, "mine", *["before"] * 5)
    since = Since(log)
    append(log, "mine", "a")
    os.truncate(log, 0)
    append(log, "mine", *["b"] * later)
    assert names(since) == ["b"] * later
    since.close()


def test_rows_that_say_nothing_of_a_run(log):
    """Whatever stands in their notes, they are none of the run's."""
    since = Since(log)
    sink = open_log(log)
    for meta in ({}, {"aimeter": "mine"}, {"aimeter": {}}, {"run": "mine"}, {"aimeter": {"run": ["mine"]}}):
        sink.write([make_record(meta=meta)])
    sink.close()
    assert names(since) == []
    since.close()


def test_what_is_no_file(tmp_path):
    """A folder, and a pipe that nobody writes to: neither is waited for."""
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "."):
        Since(tmp_path / name).close()


def taken(since):
    """Return the names of the rows that have come since the last time."""
    return [record.name for record in ReadResult(since.take())]


def test_a_log_is_followed_row_by_row(log):
    """Only whole lines count, each once; what comes later is seen later."""
    followed = Since(log, whole=True)
    assert taken(followed) == []
    append(log, "mine", "a", "b")
    assert taken(followed) == ["a", "b"]
    assert taken(followed) == []
    append(log, "mine", "c")
    whole = log.read_bytes()
    log.write_bytes(whole[:-5])
    assert taken(followed) == []
    log.write_bytes(whole)
    assert taken(followed) == ["c"]
    followed.close()


def test_a_log_is_followed_from_its_end_and_through_a_new_file(log):
    """What was there before is not the command's; what came to a file before it was moved is not lost, nor what is in its place."""
    append(log, "mine", "old")
    followed = Since(log)
    assert taken(followed) == []
    append(log, "mine", "new")
    assert taken(followed) == ["new"]
    append(log, "mine", "last")
    log.rename(f"{log}.1")
    append(log, "mine", "rotated")
    assert taken(followed) == ["last"]
    assert taken(followed) == ["rotated"]
    log.write_bytes(b"")
    append(log, "mine", "anew")
    assert taken(followed) == ["anew"]
    followed.close()


def test_a_long_log_is_followed_piece_by_piece(log, monkeypatch):
    """Each row once, however the pieces fall."""
    monkeypatch.setattr("aimeter.logs.since._MOST_TAKEN_BYTES", 3000)
    append(log, "mine", *(f"call {number}" for number in range(30)))
    followed, found = Since(log, whole=True), []
    while more := taken(followed):
        found += more
    assert found == [f"call {number}" for number in range(30)]
    followed.close()
