"""One machine, once: what processes used at the same time is divided among them, whoever adds it up."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimeter import Meter
from aimeter._attribution.rows import device_name
from aimeter.commands.compare import compare
from aimeter.commands.sci import score
from aimeter.record import Record
from aimeter.report import export_csv, read, summarise
from aimeter.report.processes import at_once
from aimeter.sensors.estimate import probe
from tests.records import make_record

BEGIN = datetime(2026, 11, 22, 10, tzinfo=UTC)
GPU_A, GPU_B = "gpu:0:GPU-aaaaaaaa", "gpu:0:GPU-bbbbbbbb"


def call(pid: int, begin_s: float, end_s: float, joules: float, **changes: Any) -> Record:
    """Return the row of a call that saw one device, or those given."""
    start = (BEGIN + timedelta(seconds=begin_s)).isoformat(timespec="microseconds").replace("+00:00", "Z")
    usual: dict[str, Any] = {
        "call_id": f"{pid}-{begin_s}-{end_s}",
        "pid": pid,
        "start": start,
        "duration_s": end_s - begin_s,
        "energy_j": joules,
        "self_j": joules,
        "window_j": joules,
        "error_j": 0.1 * joules,
        "resolution_j": 0.0,
        "co2e_g": joules / 3600,
        "gpu_j": None,
        "cpu_j": joules,
        "devices": "cpu:0",
        "devices_j": (joules,),
    }
    return make_record(**{**usual, **changes})


def total_j(rows: Sequence[Record]) -> float:
    joules = summarise(rows).total.energy_j
    assert joules is not None
    return joules


def test_processes_that_meter_one_machine_share_it():
    """Four workers for ten seconds at 100 W: 1000 J, not 4000, and the summary says so; grams and errors alike."""
    summary = summarise([call(pid, 0, 10, 1000, name=f"worker {pid}") for pid in range(4)])
    assert summary.total.energy_j == pytest.approx(1000)
    assert [row.energy_j for row in summary.rows] == pytest.approx([250] * 4)
    assert summary.total.energy_error_j == pytest.approx(100)
    assert summary.total.co2e_g == pytest.approx(1000 / 3600)
    assert summary.processes == 4
    assert "4 processes used devices of one machine at the same time" in str(summary)


def test_only_the_time_in_common_is_divided():
    """A of 0 to 10 s and B of 5 to 15 s at 100 W: 1500 J."""
    rows = [call(1, 0, 10, 1000, name="A"), call(2, 5, 15, 1000, name="B")]
    assert total_j(rows) == pytest.approx(1500)
    assert [row.energy_j for row in summarise(rows).rows] == pytest.approx([750, 750])


@pytest.mark.parametrize(
    "rows",
    [
        [call(1, 0, 10, 1000), call(2, 10, 20, 1000)],
        [call(1, 0, 10, 1000), call(1, 5, 15, 1000)],
        [call(1, 0, 10, 1000), call(2, 0, 10, 1000, machine="mfedcba9876543210")],
        [call(1, 0, 10, 1000, devices=GPU_A), call(2, 0, 10, 1000, devices=GPU_B)],
        [call(1, 0, 10, 1000, devices="cpu:0:group-1a"), call(2, 0, 10, 1000, devices="cpu:0:group-2b")],
        [call(1, 0, 10, 1000, start="no time"), call(2, 0, 10, 1000)],
    ],
    ids=["one after the other", "one process", "two machines", "two GPUs", "two containers", "no time"],
)
def test_what_is_not_in_common_is_not_divided(rows: list[Record]):
    """Each joule is a joule of its own."""
    summary = summarise(rows)
    assert summary.total.energy_j == 2000
    assert (summary.processes, summary.undivided) == (0, False)


def test_each_device_is_divided_by_itself():
    """A uses two GPUs, B one of them, under another number: that one's 900 J are shared, the other's 100 J not."""
    rows = [
        call(1, 0, 10, 1000, name="A", devices=f"{GPU_A} gpu:1:GPU-bbbbbbbb", devices_j=(100.0, 900.0)),
        call(2, 0, 10, 900, name="B", devices=GPU_B),
    ]
    assert [row.energy_j for row in summarise(rows).rows] == pytest.approx([550, 450])


def test_processes_of_two_containers_may_have_one_process_id():
    """Their calls' identifiers tell them apart."""
    ids = [f"{sampler}bbbbbbbb-1" for sampler in ("aaaaaaaa", "cccccccc")]
    assert total_j([call(1, 0, 10, 1000, call_id=one) for one in ids]) == pytest.approx(1000)


def test_an_uneven_power_is_never_counted_above_what_the_machine_drew():
    """A saw all of B's time: 100 J, of which B had its part, are all there is."""
    assert total_j([call(1, 0, 10, 100), call(2, 9, 10, 100)]) == pytest.approx(100)


def test_a_generator_that_was_held_suspended_limits_nobody():
    """It was open all along and had no part in most of what the machine drew."""
    rows = [call(1, 0, 100, 10, window_j=10_000), call(2, 10, 20, 1000)]
    assert total_j(rows) == pytest.approx(9.5 + 500)


def test_what_a_meter_missed_of_a_call_was_drawn_all_the_same():
    """A was looked at for half of its time: its 50 J stand for 100 that the machine drew, which no sum exceeds."""
    assert total_j([call(1, 0, 10, 50, coverage=0.5), call(2, 9, 10, 200)]) == pytest.approx(100)


def test_rows_that_do_not_say_their_machine_are_told_of():
    """Those of earlier schemas are added up as they are, with a word on it."""
    summary = summarise([call(pid, 0, 10, 1000, machine="unknown", devices_j=()) for pid in range(2)])
    assert summary.total.energy_j == 2000
    assert summary.undivided
    assert "do not say on which machine" in str(summary)
    named = [call(pid, 0, 10, 1000) for pid in range(2, 4)]
    for rows in ([*named], [*named, call(4, 20, 30, 1000, machine="unknown", devices_j=())]):
        assert not summarise(rows).undivided
    assert at_once([*named]) == (True, False)
    assert at_once([call(pid, 0, 10, 1, machine="unknown") for pid in range(2)]) == (False, True)
    assert at_once([call(pid, 10 * pid, 10 * pid + 10, 1) for pid in range(2)]) == (False, False)


# --- whatever processes do

Power = Callable[[float, float], float]

moments = st.integers(0, 20).map(float)
processes = st.lists(st.lists(st.tuples(moments, moments), min_size=1, max_size=4), min_size=1, max_size=4)


def rows_of(spans: Sequence[Sequence[tuple[float, float]]], drawn_j: Power) -> list[Record]:
    """Return what each process logs: calls one after another, each with one inside that has the middle third."""
    rows = []
    for pid, pairs in enumerate(spans):
        edges = sorted({moment for pair in pairs for moment in pair})
        for begin_s, end_s in zip(edges[::2], edges[1::2], strict=False):
            third = (end_s - begin_s) / 3
            whole, inner = drawn_j(begin_s, end_s), drawn_j(begin_s + third, end_s - third)
            outer = call(pid, begin_s, end_s, whole, self_j=whole - inner)
            rows += [
                call(pid, begin_s + third, end_s - third, inner, parent_id=outer.call_id),
                outer,
            ]
    return rows


def union_j(rows: Sequence[Record], drawn_j: Power) -> float:
    """Return what the machine drew while any call was open."""
    spans = sorted(
        ((start := (datetime.fromisoformat(row.start) - BEGIN).total_seconds()), start + row.duration_s)
        for row in rows
    )
    total, reached_s = 0.0, -math.inf
    for begin_s, end_s in spans:
        if end_s > reached_s:
            total += drawn_j(max(begin_s, reached_s), end_s)
            reached_s = end_s
    return total


@given(processes)
def test_at_a_steady_power_the_sum_is_what_the_machine_drew(spans: list[list[tuple[float, float]]]):
    """Whatever processes overlap, and whether children are counted in their parents or each row by itself."""

    def drawn_j(begin_s: float, end_s: float) -> float:
        return 50.0 * (end_s - begin_s)

    rows = rows_of(spans, drawn_j)
    if rows:
        assert total_j(rows) == pytest.approx(union_j(rows, drawn_j), rel=1e-4)


@given(processes, st.lists(st.integers(0, 500), min_size=20, max_size=20))
def test_where_one_process_saw_it_all_the_sum_is_never_above_it(
    spans: list[list[tuple[float, float]]], watts: list[int]
):
    """At any power, with any other processes beside it."""
    curve = np.concatenate([[0.0], np.cumsum(watts)])

    def drawn_j(begin_s: float, end_s: float) -> float:
        return float(np.diff(np.interp([begin_s, end_s], np.arange(21), curve))[0])

    rows = rows_of([*spans, [(0.0, 20.0)]], drawn_j)
    total = summarise(rows).total.energy_j
    assert total is not None
    assert total <= curve[-1] * (1 + 1e-9) + 1e-9


# --- the other commands


@pytest.fixture
def log(tmp_path: Path) -> str:
    """Two processes at 100 W, 0 to 10 s and 5 to 15 s, one of them with a call inside."""
    inner = call(1, 0, 5, 500, parent_id="1-0-10", images=None)
    rows = [inner, call(1, 0, 10, 1000, self_j=500.0, images=1.0), call(2, 5, 15, 1000, images=1.0)]
    path = tmp_path / "calls.csv"
    export_csv(rows, path)
    return str(path)


def test_a_log_is_divided_as_rows_are(log: str):
    """Read from a file."""
    assert summarise(read(log)).total.energy_j == pytest.approx(1500)


def test_the_score_counts_no_joule_twice(log: str):
    """Energy and the time of the hardware, which both processes used, and the score says so."""
    found = score([log], "images", hardware="1 h100")
    assert found.e_kwh * 3.6e6 == pytest.approx(1500)
    assert any("2 processes" in warning for warning in found.warnings)


def test_other_regions_are_compared_for_the_joules_that_were_drawn(log: str):
    """1500 J, and the comparison says why not 2000."""
    found = compare([log], ["FR"])
    assert found.energy_j == pytest.approx(1500)
    assert any("2 processes" in warning for warning in found.warnings)


# --- what a meter writes


def test_rows_say_what_each_device_took(tmp_path: Path):
    """The joules of the devices add up to the call's; meters of one process that share their sensors are one."""
    log = tmp_path / "calls.jsonl"
    with Meter(log=log) as one, Meter(log=log) as other:
        with one.track("a"), other.track("b"):
            sum(range(1000))
        one.flush()
        other.flush()
    rows = [json.loads(line) for line in log.read_text("utf-8").splitlines()]
    assert len(rows) == 2
    assert len({row["call_id"][:8] for row in rows}) == 1
    assert len({row["call_id"] for row in rows}) == 2
    for row in rows:
        assert len(row["devices_j"]) == len(row["devices"].split())
        assert sum(row["devices_j"]) == pytest.approx(row["energy_j"] or 0.0, rel=1e-6)
    assert summarise(read(log)).processes == 0


def test_the_cpus_of_two_containers_are_two_devices(tmp_path: Path):
    """Each one's estimate is of its own control group; processes of one group have one."""

    def metered(group: str) -> str:
        root = tmp_path / group
        root.mkdir(exist_ok=True)
        (root / "cgroup.controllers").write_text("cpu")
        (root / "cpu.max").write_text("100000 100000")
        (root / "cpu.stat").write_text("usage_usec 1000000")
        (sensor,), _ = probe(proc=tmp_path, cgroup=root, online=8)
        return device_name(sensor.channels[0])

    assert metered("a").startswith("cpu:0:group-")
    assert metered("a") == metered("a") != metered("b")
