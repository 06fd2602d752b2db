"""Calls that stand in several logs, or twice in one, are counted once; what is remembered is bounded."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimeter.commands.report import add_up
from aimeter.logs import seen
from aimeter.logs.brief import read_briefs
from aimeter.logs.export import export_log
from aimeter.logs.read import read
from aimeter.logs.seen import Seen
from tests.records import make_record

PROCESS = "0123456789abcdef"


def row(number: int, process: str = PROCESS):
    return make_record(call_id=f"{process}-{number}", energy_j=1.0)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 30))))
def test_what_was_seen_is_known_in_any_order(calls: list[tuple[str, int]]):
    """As a set of all would know."""
    remembered, known = Seen(), set()
    for process, number in calls:
        call_id = f"{process * 16}-{number}"
        assert remembered.again(call_id, "", 0) == (call_id in known)
        known.add(call_id)


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_overlapping_copies_count_each_call_once(tmp_path: Path, suffix: str):
    """Also by a hard link, and where one log was appended to another; how many were left out is said."""
    whole, copy, link = (tmp_path / f"{name}.{suffix}" for name in ("whole", "copy", "link"))
    export_log(map(row, range(10)), whole)
    export_log(map(row, [*range(5, 12), 6]), copy)
    os.link(whole, link)
    logs = [str(whole), str(copy), str(link)]
    summary, problems = add_up(logs)
    assert (summary.total.calls, summary.total.energy_j, summary.repeated) == (12, 12.0, 6 + 10)
    assert "16 rows of calls that stand in the logs more than once" in str(summary)
    assert problems == []
    assert len(list(read_briefs(logs))) == 12
    assert len(list(read(logs, once=False))) == 28


def test_calls_of_other_programs_are_known_by_their_begin(tmp_path: Path):
    """An import that is named twice counts once; two calls of one identifier that began at other times are two."""
    rows = [make_record(call_id="run-1"), make_record(call_id="run-1", start="2026-11-22T11:00:00.000001Z")]
    for name in ("a", "b"):
        export_log(rows, tmp_path / f"{name}.csv")
    summary, _ = add_up([str(tmp_path / "a.csv"), str(tmp_path / "b.csv")])
    assert (summary.total.calls, summary.repeated) == (2, 2)


@pytest.mark.parametrize("identifier", [f"{PROCESS}-{{}}", "{:016x}-1", "run{}-1"])
def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch, identifier: str):
    """Whatever identifiers a log has: every second number of one process, a process for each call, none of ours."""
    monkeypatch.setattr(seen, "_MOST", 1000)
    remembered = Seen()

    def run(begin: int) -> None:
        for number in range(begin, begin + 10_000, 2):
            assert not remembered.again(identifier.format(number), "", 0)

    run(0)
    tracemalloc.start()
    run(20_000)
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert grown < 500_000
    assert remembered.again(identifier.format(29_998), "", 1)
