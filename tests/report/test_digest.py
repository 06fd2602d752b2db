"""What pages and pictures show: sums over time, quantiles and the calls that are drawn."""

from __future__ import annotations

import csv
import io
import itertools
import math
import random
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimeter.commands.report import Selection, add_up, as_csv
from aimeter.errors import ConfigurationError
from aimeter.logs.export import export_log
from aimeter.record import Record
from aimeter.report import read, summarise
from aimeter.report.bins import _MOST_BINS, Bins
from aimeter.report.digest import MOST_CALLS, Digester, Drawn, digest, lanes
from aimeter.report.spread import Spread
from tests.records import make_record


def at(start_s: float, duration_s: float, joules: dict[str, float], **more: object) -> Record:
    """Return the record of a call at a time, that used so much of each device."""
    moment = datetime.fromtimestamp(1.8e9 + start_s, UTC)
    return make_record(
        **{"model": None, "images": None, **more},
        start=f"{moment:%Y-%m-%dT%H:%M:%S.%f}Z",
        duration_s=duration_s,
        devices=" ".join(joules),
        devices_j=tuple(joules.values()),
        energy_j=sum(joules.values()),
    )


@given(
    st.lists(
        st.tuples(st.floats(0, 1e6), st.floats(0, 1e5) | st.just(0.0), st.floats(0, 1e3)),
        min_size=1,
        max_size=40,
    )
)
def test_what_is_spread_over_time_is_all_there(calls: list[tuple[float, float, float]]):
    """In at most so many bins, however long the time; nothing before the first begin or after the last end."""
    bins = Bins()
    for begin_s, length_s, joules in calls:
        bins.spread(begin_s, begin_s + length_s, {"gpu:0": joules})
    rows = bins.rows()
    assert sum(sums["gpu:0"] for _, sums in rows) == pytest.approx(
        sum(j for *_, j in calls), rel=1e-9, abs=1e-9
    )
    first, last = min(begin for begin, *_ in calls), max(begin + length for begin, length, _ in calls)
    assert rows[0][0] <= first
    assert rows[-1][0] <= last
    assert (rows[-1][0] - rows[0][0]) / bins.width_s < _MOST_BINS


def test_power_over_time_is_that_of_the_calls():
    """Each device's, and where calls are inside others the power in their time is theirs and what is left."""
    rows = [
        at(0.0, 4.0, {"gpu:0": 400.0, "cpu:0": 40.0}, call_id="1"),
        at(5.0, 1.0, {"gpu:0": 300.0}, call_id="3", parent_id="2"),
        at(4.0, 4.0, {"gpu:0": 700.0}, call_id="2"),
    ]
    found = digest(rows)
    watts = {
        (round(stretch.begin_s - 1.8e9, 3), device): power
        for stretch in found.power
        for device, power in stretch.values.items()
    }
    assert watts[1.0, "gpu:0"] == pytest.approx(100.0)
    assert watts[1.0, "cpu:0"] == pytest.approx(10.0)
    assert watts[4.5, "gpu:0"] == pytest.approx(100.0)
    assert watts[5.5, "gpu:0"] == pytest.approx(400.0)
    energy = sum(power * (one.end_s - one.begin_s) for one in found.power for power in one.values.values())
    assert energy == pytest.approx(1140.0)
    assert [(device.name, device.energy_j) for device in found.devices] == [
        ("gpu:0", 1100.0),
        ("cpu:0", 40.0),
    ]
    assert found.summary.total.energy_j == 1140.0


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_sums_over_time_and_by_device_are_the_same_in_whatever_order_rows_come(order: tuple[int, ...]):
    """Each joule counts once, also of calls whose own call's row never comes; so do grams and what is idle."""
    rows = [
        at(0.0, 4.0, {"gpu:0": 400.0}, call_id="1", co2e_g=4.0, idle_j=40.0),
        at(1.0, 2.0, {"gpu:0": 300.0}, call_id="2", parent_id="1", co2e_g=3.0, idle_j=20.0),
        at(1.5, 1.0, {"gpu:0": 200.0}, call_id="3", parent_id="2", co2e_g=2.0, idle_j=10.0),
        at(6.0, 1.0, {"cpu:0": 50.0}, call_id="4", parent_id="never", co2e_g=0.5, idle_j=5.0),
    ]
    found = digest([rows[place] for place in order])
    assert {device.name: device.energy_j for device in found.devices} == pytest.approx(
        {"gpu:0": 400.0, "cpu:0": 50.0}
    )
    energy = sum(power * (one.end_s - one.begin_s) for one in found.power for power in one.values.values())
    assert energy == pytest.approx(450.0)
    assert sum(one.values["co2e_g"] for one in found.carbon) == pytest.approx(4.5)
    assert found.idle_j == pytest.approx(45.0)
    # What the inner calls leave of the outer ones' is spread over the whole of these: 200 / 1, 100 / 2 and 100 / 4.
    middle = [one.values for one in found.power if one.begin_s - 1.8e9 < 2.0 < one.end_s - 1.8e9 + 1e-6]
    assert [round(one["gpu:0"], 6) for one in middle] == [275.0] * len(middle)


def test_the_intensity_is_that_of_the_electricity():
    """Without the building's overhead, which is in the grams."""
    found = digest([at(0.0, 1.0, {"gpu:0": 3.6e6}, co2e_g=150.0, intensity_g_per_kwh=100.0, pue=1.5)])
    assert {round(one.values["g_per_kwh"], 6) for one in found.carbon} == {100.0}


def test_times_and_costs_that_cannot_be_are_left_out():
    """A log may hold anything: a row that ends after the last year, a cost that no number can hold."""
    rows = [
        make_record(start="9999-12-31T23:59:59.999999Z", duration_s=5.0),
        make_record(meta={"aimeter": {"meter_cpu_s": 10**400}}),
    ]
    found = digest(rows)
    assert found.summary.total.calls == 2
    assert (len(found.calls), found.meter_cpu_s) == (1, None)


@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=300), st.floats(0, 1))
def test_quantiles_are_right_to_two_per_cent(values: list[float], part: float):
    """Beside the value that sorting finds."""
    spread = Spread()
    for value in values:
        spread.add(value)
    expected = float(np.quantile(values, part, method="lower"))
    assert spread.quantile(part) == pytest.approx(expected, rel=0.021)


def test_quantiles_of_nothing_and_of_zeros():
    """Unknown without a value; a zero is a value."""
    spread = Spread()
    assert math.isnan(spread.quantile(0.5))
    for value in (0.0, 0.0, 8.0):
        spread.add(value)
    assert [spread.quantile(part) for part in (0.0, 0.5, 1.0)] == [0.0, 0.0, 8.0]


def test_too_many_calls_are_drawn_by_chance():
    """Each with the same chance, and it is told; sums and the costliest calls are those of all."""
    digester, count = Digester(), 10 * MOST_CALLS
    for number in range(count):
        digester.add(at(float(number), 0.5, {"gpu:0": 1.0 + number}, call_id=str(number)))
    found = digester.digest()
    assert (len(found.calls), found.complete) == (MOST_CALLS, False)
    # Of numbers drawn evenly the mean is normal: five standard deviations of it.
    numbers = [int(call.call_id) for call in found.calls]
    assert abs(np.mean(numbers) - count / 2) < 5 * count / math.sqrt(12 * MOST_CALLS)
    assert len(set(numbers)) == MOST_CALLS
    assert [call.energy_j for call in found.costliest[:2]] == [count, count - 1]
    assert found.summary.total.calls == count


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 5), st.integers(0, 30)), max_size=30))
def test_no_two_calls_at_a_time_are_in_one_lane(calls: list[tuple[int, int, int]]):
    """And each lies below the call around it."""
    drawn = [
        Drawn(
            str(k),
            str(around) if around < k else None,
            "x",
            "",
            "ok",
            "1",
            float(start),
            float(took),
            1.0,
            None,
            None,
        )
        for k, (start, took, around) in enumerate(calls)
    ]
    placed = list(lanes(drawn))
    assert {call.call_id for call, _ in placed} == {call.call_id for call in drawn}
    for k, (call, lane) in enumerate(placed):
        for other, its in placed[:k]:
            apart = (
                other.start_s + other.duration_s <= call.start_s
                or call.start_s + call.duration_s <= other.start_s
            )
            assert lane != its or apart
            assert call.parent_id != other.call_id or lane > its


# --- which calls


@pytest.fixture
def log(tmp_path: Path) -> str:
    rows = [
        at(3600.0 * hour, 1.0, {"gpu:0": 1.0}, name=name, model=model)
        for hour, (name, model) in enumerate(
            [("chat", "a"), ("chat.decode", "b"), ("embed", "a"), ("embed", None)]
        )
    ]
    path = tmp_path / "calls.csv"
    export_log(rows, path)
    return str(path)


@pytest.mark.parametrize(
    ("selection", "calls"),
    [
        (Selection(), 4),
        (Selection(name="chat*"), 2),
        (Selection(name="chat"), 1),
        (Selection(model="a"), 2),
        (Selection(since="2027-01-15T09:00"), 3),
        (Selection(since="2027-01-15T09:00:00Z", until="2027-01-15T10:30"), 2),
        (Selection(since="2027-01-15T11:00:00+02:00"), 3),
        (Selection(until="2027-01-15"), 0),
        (Selection(until="2027-01-15T08:00:00.000000Z"), 0),
        (Selection(name="embed", model="a", since="2027-01-15"), 1),
        (Selection(since="9w"), 4),
    ],
)
def test_calls_are_selected_by_name_model_and_time(log: str, selection: Selection, calls: int):
    """A time without a zone is UTC, as in the log."""
    summary, _ = add_up([log], "call", selection)
    assert summary.total.calls == calls


def test_times_of_other_forms_are_selected_as_what_they_are():
    """A log may have been edited; what is no time is in no stretch of it."""
    wanted = Selection(since="2026-11-28T00:41:54Z", until="2026-11-28T00:41:55Z").test()
    assert wanted is not None
    inside = (
        "2026-11-28T00:41:54.000000Z",
        "2026-11-28T02:41:54+02:00",
        "20261128T004154Z",
        "2026-11-28T00:41:54.9",
    )
    outside = ("2026-11-28T00:41:55.000000Z", "2026-11-28T00:41:54+02:00", "never", "")
    assert [wanted(make_record(start=text)) for text in (*inside, *outside)] == [True] * 4 + [False] * 4


@pytest.mark.parametrize("text", ["yesterday", "5 years", "2027-13-01", "", "9" * 400 + "d", "-1h"])
def test_a_time_that_is_none_is_refused(log: str, text: str):
    """With what would be one."""
    with pytest.raises(ConfigurationError, match="--since takes a time such as"):
        add_up([log], "call", Selection(since=text))


def test_the_same_numbers_are_in_every_form(log: str):
    """CSV, Markdown, the terminal and the digest are made of one summary."""
    summary = summarise(read(log))
    found = list(csv.DictReader(io.StringIO(as_csv(summary))))
    assert [(row["name"], float(row["energy_j"])) for row in found] == [
        (row.name, row.energy_j) for row in summary.tree
    ]
    assert digest(read(log)).summary == summary
    table = summary.markdown().splitlines()
    assert table[0].startswith("| name | calls | share |")
    assert {len(line.split("|")) for line in table[: 3 + len(summary.tree)]} == {len(table[0].split("|"))}


def test_names_are_no_markup_in_markdown_nor_formulas_in_csv():
    """Whatever a log calls its calls."""
    summary = summarise([make_record(name="=cmd|'/c calc'!A1 <b>*x*</b>", energy_j=1.0)])
    assert next(csv.DictReader(io.StringIO(as_csv(summary))))["name"].startswith("'=")
    assert "\\<b\\>\\*x\\*" in summary.markdown()
    assert "cmd\\|" in summary.markdown()


def test_rows_that_say_no_time_or_absurd_ones_are_in_the_sums_all_the_same():
    """A log may hold anything."""
    choose = random.Random(1)
    rows = [
        make_record(start="never", energy_j=1.0),
        make_record(start="0001-01-01T00:00:00.000000Z", energy_j=1.0, duration_s=1e9),
        make_record(energy_j=-1.0),
        make_record(energy_j=None),
        *(make_record(name=str(choose.random()), energy_j=0.0) for _ in range(3)),
    ]
    found = digest(rows)
    assert found.summary.total.calls == len(rows)
    assert found.summary.total.energy_j == 1.0
