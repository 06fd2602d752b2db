"""Reading logs back and adding them up."""

from __future__ import annotations

import contextvars
import io
import itertools
import json
import math
import os
import re
import subprocess
import sys
import tracemalloc
from collections import deque
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.console import Console

import aimeter
from aimeter._support.statistics import SIGMAS_95
from aimeter._support.units import duration, quantity
from aimeter.commands.run import sum_up
from aimeter.errors import ConfigurationError, LogSchemaError
from aimeter.logs.brief import Brief, read_briefs
from aimeter.logs.encode import CSV_HEADER, csv_fields, csv_line, csv_text, json_line
from aimeter.logs.export import export_log
from aimeter.record import COLUMNS, FIRST_COLUMNS, SCHEMA, Record
from aimeter.report import Summary, SummaryRow, Tally, export_csv, read, summarise, tree
from aimeter.report.table import folded
from aimeter.report.tree import OTHER_NAMES
from aimeter.sinks import open_log
from aimeter.testing import FakeClock, FakeSensor
from tests.records import make_record

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1, max_size=20)
NUMBER = st.none() | st.floats(0, 1e9).map(lambda value: float(f"{value:.9g}"))
NOTES = st.dictionaries(TEXT, TEXT | st.integers() | st.booleans() | st.none() | st.lists(TEXT))
RECORDS = st.builds(make_record, name=TEXT, model=st.none() | TEXT, energy_j=NUMBER, steps=NUMBER, meta=NOTES)


def energies(*joules: float | None, **changes: object) -> list[Record]:
    return [make_record(energy_j=energy_j, **changes) for energy_j in joules]


# --- reading


@settings(max_examples=50)
@given(st.lists(RECORDS, max_size=5), st.sampled_from([".csv", ".jsonl"]))
def test_what_was_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, records: list[Record], ending: str
):
    """A log gives back the very records that were written to it."""
    path = tmp_path_factory.mktemp("log") / f"calls{ending}"
    open_log(path).write([make_record(), *records])
    assert list(read(path)) == [make_record(), *records]


def test_several_logs_are_read_one_after_another(tmp_path: Path):
    """Logs of either layout are told apart by what is in them, so a rotated one may have any name."""
    open_log(tmp_path / "a.csv").write([make_record(name="a")])
    open_log(tmp_path / "b.jsonl").write([make_record(call_id="another", name="b")])
    (tmp_path / "b.jsonl").rename(tmp_path / "b.jsonl.1")
    (tmp_path / "empty.csv").touch()
    result = read([tmp_path / "a.csv", str(tmp_path / "b.jsonl.1"), tmp_path / "empty.csv"])
    assert [record.name for record in result] == ["a", "b"]
    assert (result.rows, result.skipped) == (2, 0)


LINE = csv_line(make_record(name="good"))
NO_VERSION = csv_line(make_record(aimeter_version=""))


NO_ROWS = {
    "too short": b"1,abc,def\r\n",
    "two glued together": LINE[:60] + LINE,
    "without its last column": NO_VERSION,
    "open quote": LINE.replace(b"good", b'"good'),
    "quote in the middle": LINE.replace(b"good", b'go"od'),
    "a word for a number": LINE.replace(b"12.5", b"twelve"),
    "no duration": LINE.replace(b"0.25", b"", 1),
    "zeros of a crash": bytes(500) + b"\r\n",
    "broken notes": LINE.replace(b"{}", b"{"),
}


@pytest.mark.parametrize("bad", NO_ROWS.values(), ids=NO_ROWS)
def test_lines_that_are_no_rows_are_skipped_and_counted(tmp_path: Path, bad: bytes):
    """A line that is not a whole row costs itself only; it is counted and its place is told."""
    path = tmp_path / "calls.csv"
    path.write_bytes(CSV_HEADER + LINE + bad + LINE + b"\r\n" + CSV_HEADER + LINE)
    result = read(path)
    assert [record.name for record in result] == ["good"] * 3
    assert result.skipped == 1
    assert result.problems[0].startswith(f"{path}:3: ")


@pytest.mark.parametrize(
    "bad", [b"{\n", b"[]\n", b'{"schema":1}\n', b"\x00\xff\n", b"[" * 50_000 + b"\n", b'{"a":']
)
def test_lines_that_are_no_objects_are_skipped_and_counted(tmp_path: Path, bad: bytes):
    """The same for JSON Lines."""
    path = tmp_path / "calls.jsonl"
    path.write_bytes(json_line(make_record()) * 2 + bad)
    result = read(path)
    assert len(list(result)) == 2
    assert result.skipped == 1


@pytest.mark.parametrize(
    ("column", "value"),
    [
        *[("energy_j", value) for value in (True, [1.0], {}, "twelve")],
        *[
            (name, value)
            for name in ("pue", "coverage", "duration_s", "concurrency")
            for value in (None, math.nan)
        ],
        *[
            (name, value)
            for name in ("energy_j", "gpu_j", "error_j", "co2e_g", "images")
            for value in (-0.5, -math.inf, math.inf)
        ],
        *[("pid", value) for value in (True, 1.5, None, "one")],
        *[("name", value) for value in (None, 3)],
        *[("devices_j", value) for value in ({"a": 1}, [None], [True], [math.nan])],
        *[("meta", value) for value in ([], 3, "[]")],
    ],
)
def test_a_value_of_another_kind_costs_its_row(tmp_path: Path, column: str, value: object):
    """What a column cannot hold is no figure: the row is skipped, and where it is and why is told."""
    path = tmp_path / "calls.jsonl"
    whole = json.loads(json_line(make_record()))
    path.write_text("".join(f"{json.dumps(row)}\n" for row in (whole, {**whole, column: value}, whole)))
    result = read(path)
    assert (len(list(result)), result.skipped) == (2, 1)
    assert result.problems[0].startswith(f"{path}:2: {column}: ")


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_figure_that_is_no_number_is_unknown(tmp_path: Path, suffix: str):
    """Another program wrote NaN for what it did not know: it is empty, and no sum is poisoned by it."""
    path = tmp_path / f"calls{suffix}"
    export_log([make_record(energy_j=12.75), make_record()], path)
    path.write_text(path.read_text().replace("12.75", "NaN"))
    assert [record.energy_j for record in read(path)] == [None, 12.5]
    assert [brief.energy_j for brief in read_briefs(path)] == [None, 12.5]
    assert summarise(read(path)).total.energy_j == 12.5


@pytest.mark.parametrize(("last", "rows", "skipped"), [(b"whole", 3, 0), (b"who", 2, 1), (b"", 2, 1)])
def test_the_end_of_a_later_schema_is_whole_if_others_end_so(
    tmp_path: Path, last: bytes, rows: int, skipped: int
):
    """What its last column holds nobody knows here: a line without its end is read if that is as in the row before."""
    path = tmp_path / "calls.csv"
    lines = [CSV_HEADER[:-2] + b",later\r\n", *[LINE[:-2] + b",whole\r\n"] * 2, LINE[:-2] + b"," + last]
    path.write_bytes(b"".join(lines))
    result = read(path)
    assert (len(list(result)), result.skipped) == (rows, skipped)


def test_the_first_ten_bad_lines_are_told_and_all_are_counted(tmp_path: Path):
    """A log of another program's lines fills no memory with what is wrong with them."""
    path = tmp_path / "calls.csv"
    path.write_bytes(b"\xef\xbb\xbf" + CSV_HEADER + LINE + b"1,torn\r\n" * 15 + LINE)
    result = read(path)
    assert len(list(result)) == 2
    assert result.skipped == 15
    assert result.problems == [f"{path}:{number}: 2 columns, not {len(COLUMNS)}" for number in range(3, 13)]


@pytest.mark.parametrize("column", FIRST_COLUMNS)
def test_a_row_without_one_of_its_columns_is_no_row(tmp_path: Path, column: str):
    """Unknown is null; what is not there at all was lost, and so is the row, for whoever needs that column."""
    path = tmp_path / "calls.jsonl"
    whole = json.loads(json_line(make_record()))
    torn = {name: value for name, value in whole.items() if name != column}
    path.write_text("".join(f"{json.dumps(row)}\n" for row in (whole, torn, whole)))
    records, briefs = read(path), read_briefs(path)
    assert (len(list(records)), records.skipped) == (2, 1)
    needed = column in Brief._fields or column == "aimeter_version"
    assert (len(list(briefs)), briefs.skipped) == ((2, 1) if needed else (3, 0))
    assert [told.partition(": ")[2] for told in records.problems] == [f"the row has no {column}"]


@pytest.mark.parametrize("cut", range(1, 40))
def test_a_torn_end_is_never_taken_for_a_row(tmp_path: Path, cut: int):
    """A last line is read if it is known to be whole, and else skipped: its numbers may be cut."""
    path = tmp_path / "calls.csv"
    path.write_bytes((CSV_HEADER + LINE + LINE)[:-cut])
    result = read(path)
    assert list(result) == [make_record(name="good")] * (2 if cut <= 2 else 1)
    assert result.skipped == (0 if cut <= 2 else 1)


@pytest.mark.parametrize("last", ["aimeter_version", "pue_source", "machine"])
@pytest.mark.parametrize("rows", [1, 3])
def test_a_line_end_that_an_editor_removed_costs_no_row(tmp_path: Path, last: str, rows: int):
    """Neither in a log of this schema nor of an earlier one, though no other row confirms the last column."""
    path = tmp_path / "calls.csv"
    records = [make_record(pue=1.1, pue_source=f"source {number}") for number in range(rows)]
    columns = COLUMNS.index(last) + 1
    lines = [CSV_HEADER, *map(csv_line, records)]
    fields = [[csv_text(field) for field in csv_fields(line)[:columns]] for line in lines]
    path.write_text("\n".join(map(",".join, fields)))
    found = list(read(path))
    assert [(record.energy_j, record.aimeter_version) for record in found] == [(12.5, "0.1.0")] * rows
    assert [brief.self_j for brief in read_briefs(path)] == [12.5] * rows


def test_later_schemas_are_read_by_name(tmp_path: Path):
    """Columns that a later version appends are left out, wherever they are."""
    path = tmp_path / "calls.csv"
    path.write_bytes(b"water_l," + CSV_HEADER[:-2] + b",more\r\n" + b"0.5," + LINE[:-2] + b',"x,y"\r\n')
    assert list(read(path)) == [make_record(name="good")]
    path.write_bytes(json_line(make_record()).replace(b"{", b'{"water_l":0.5,', 1))
    assert list(read(path)) == [make_record()]


@pytest.mark.parametrize(
    "content", [b"date,loss\n1,2\n", CSV_HEADER.replace(b"pue,", b""), b'{"loss":1}\n', b"\xff\x00"]
)
def test_what_is_no_log_is_an_error_at_once(tmp_path: Path, content: bytes):
    """A file that is no log, or of a schema that lacks our columns, is refused before any record is given."""
    path = tmp_path / "calls.csv"
    path.write_bytes(content)
    with pytest.raises(LogSchemaError, match=r"calls\.csv is no aimeter log.*upgrade"):
        read(path)


def test_a_missing_log_is_an_error_with_near_matches(tmp_path: Path):
    """A mistyped path names the file that was probably meant."""
    (tmp_path / "calls.csv").touch()
    with pytest.raises(ConfigurationError, match=r"Did you mean 'calls\.csv'"):
        read(tmp_path / "call.csv")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read([tmp_path / "nowhere" / "calls.csv"])
    with pytest.raises(ConfigurationError, match="directory"):
        read(tmp_path)


# --- adding up


def test_calls_are_added_up_by_name():
    """Each name has its calls, errors, joules, grams, seconds and units; the total is over all."""
    summary = summarise(
        [
            make_record(name="a", energy_j=2.0, co2e_g=0.5, duration_s=1.0, images=4, status="error"),
            make_record(name="b", energy_j=30.0, co2e_g=None, duration_s=2.0, images=None, tokens_out=15),
            make_record(name="a", energy_j=4.0, co2e_g=0.25, duration_s=3.0, images=2, steps=0),
        ]
    )
    most, least = summary.rows
    assert (most.name, most.calls, most.errors, most.energy_j, most.per_call_j) == ("b", 1, 0, 30.0, 30.0)
    assert (most.co2e_g, most.duration_s, most.per_unit_j) == (None, 2.0, {"tokens_out": 2.0})
    assert (least.name, least.calls, least.errors, least.energy_j, least.per_call_j) == ("a", 2, 1, 6.0, 3.0)
    assert (least.co2e_g, least.duration_s, least.per_unit_j) == (0.75, 4.0, {"images": 1.0})
    assert (summary.total.calls, summary.total.energy_j, summary.total.co2e_g) == (3, 36.0, 0.75)


def test_calls_without_energy_are_counted_apart():
    """Unknown energy is no zero: it changes no mean, and a name without any has none."""
    known, unknown = summarise(
        [*energies(3.0, None, 5.0, name="a"), *energies(None, name="b", images=3.0)]
    ).rows
    assert (known.calls, known.unknown, known.per_call_j) == (3, 1, 4.0)
    assert known.per_unit_j == {"images": 1.0}
    assert (unknown.unknown, unknown.energy_j, unknown.energy_error_j, unknown.per_call_j) == (
        1,
        None,
        None,
        None,
    )
    assert unknown.per_unit_j == {}


def test_an_unknown_error_is_not_averaged_away():
    """If one call's error is not known, neither is that of the mean."""
    (row,) = summarise([make_record(), make_record(error_j=None)]).rows
    assert (row.energy_j, row.energy_error_j, row.per_call_error_j) == (25.0, None, None)


@given(st.lists(st.tuples(st.floats(0, 1e3), st.floats(0, 1e3)), min_size=1, max_size=30))
def test_errors_combine_by_their_kind(parts: list[tuple[float, float]]):
    """Resolution adds in quadrature, calibration linearly, and both in quadrature to each other."""
    records = [make_record(resolution_j=r, error_j=math.hypot(r, c)) for r, c in parts]
    (row,) = summarise(records).rows
    expected = math.hypot(math.hypot(*(r for r, _ in parts)), sum(c for _, c in parts))
    assert row.energy_error_j == pytest.approx(expected, rel=1e-6, abs=1e-4)
    assert row.per_call_error_j == pytest.approx(row.energy_error_j / len(parts))


def test_the_bar_of_a_mean_holds_the_truth():
    """Of many runs, each with a sensor wrong by a factor and by chance at each call, 95 % hold the truth."""
    chance = np.random.default_rng(20261122)
    runs, calls, true_j, calibration, resolution_j = 1000, 25, 10.0, 0.05, 2.0
    held = 0
    for factor in 1 + calibration / SIGMAS_95 * chance.standard_normal(runs):
        read_j = true_j * factor + resolution_j / SIGMAS_95 * chance.standard_normal(calls)
        error_j = math.hypot(resolution_j, calibration * true_j)
        tally = Tally()
        for energy_j in read_j:
            tally.add(make_record(energy_j=energy_j, error_j=error_j, resolution_j=resolution_j))
        (row,) = tally.summary().rows
        held += abs(row.per_call_j - true_j) <= row.per_call_error_j
    assert 0.93 < held / runs < 0.97


def test_a_running_summary_has_room_for_so_many_names():
    """Names that never recur do not grow a running summary: further ones are added up as one."""
    tally = Tally(most_names=3)
    for number in range(10):
        tally.add(make_record(name=f"request {number}", energy_j=1.0))
    rows = {row.name: row for row in tally.summary().rows}
    assert set(rows) == {"request 0", "request 1", "request 2", OTHER_NAMES}
    assert rows[OTHER_NAMES].energy_j == 7.0
    assert tally.summary().total.calls == 10


def test_the_total_counts_nested_calls_once():
    """A parent's energy includes its children's, so only calls that nothing encloses are in the total."""
    summary = summarise(
        [
            make_record(name="request", call_id="1", energy_j=10.0),
            make_record(name="encode", call_id="2", parent_id="1", energy_j=4.0),
            make_record(name="encode", call_id="3", parent_id="1", energy_j=5.0),
        ]
    )
    assert [(row.name, row.energy_j) for row in summary.rows] == [("request", 10.0), ("encode", 9.0)]
    assert (summary.total.calls, summary.total.energy_j, summary.nested) == (1, 10.0, 2)
    assert "2 more are inside" in str(summary)


def test_every_method_that_occurs_is_named():
    """Counted, sampled and estimated are told apart, and a mixture shows as one."""
    summary = summarise(
        [
            make_record(name="a", gpu_method="counter", cpu_method="estimate", dram_method="none"),
            make_record(name="a", gpu_method="none", cpu_method="counter", dram_method="none", coverage=0.43),
        ]
    )
    assert summary.rows[0].methods == {"gpu": ("counter", "none"), "cpu": ("counter", "estimate")}
    assert summary.rows[0].coverage == 0.43
    assert "gpu counter+none, cpu counter+estimate" in str(summary)
    assert "43%" in str(summary)


@pytest.mark.parametrize(("coverage", "told"), [((1.0, 1.0), False), ((1.0, 0.98), True), ((0.5,), True)])
def test_what_the_meters_did_not_cover_is_explained(coverage: tuple[float, ...], told: bool):
    """The column and its note are there if some call was not covered, and only then."""
    summary = summarise([make_record(name=f"call {k}", coverage=part) for k, part in enumerate(coverage)])
    assert ("Covered: the least part" in str(summary)) is told


def test_what_other_devices_drew_is_not_said_to_be_measured_by_nothing():
    """A row has no column for how: that they were metered is told, in the table and in the line of `aimeter run`."""
    own = {"gpu_method": "none", "cpu_method": "none", "dram_method": "none"}
    board = make_record(name="a", other_j=12.5, devices="other:0", **own)
    nothing = make_record(name="b", energy_j=None, other_j=None, devices="", **own)
    a, b = summarise([board, nothing]).rows
    assert (a.methods, b.methods) == ({"other": ()}, {})
    assert re.findall(r"other|nothing", str(summarise([board, nothing]))) == ["other", "nothing", "other"]
    assert "J (other), " in sum_up("a", board)
    assert "J (other)" in repr(board)
    assert '<th style="text-align: left">other</th>' in board._repr_html_()
    assert "J (cpu estimate, other), " in sum_up("a", board._replace(cpu_method="estimate"))


def test_memory_is_constant_a_name():
    """Ten thousand calls of one name take no more memory than ten."""
    tally = Tally()
    record = make_record()
    for _ in range(10):
        tally.add(record)
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for _ in range(10_000):
        tally.add(record)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after - before < 20_000  # two bytes a call; other threads may hold a few
    assert tally.summary().total.calls == 10_010


# --- showing

ODD = make_record(name="<b>[red]\x1b[2J&", gpu_method="none", cpu_method="none", energy_j=None, co2e_g=None)


def drawn(summary: Summary) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(summary)
    return console.file.getvalue()


@pytest.mark.parametrize("draw", [str, drawn])
def test_a_terminal_shows_names_as_they_are(draw):
    """No name is taken for markup, and none can steer the terminal."""
    shown = draw(summarise([ODD, make_record()]))
    assert "<b>[red]\\x1b[2J&" in shown
    assert "\x1b" not in shown
    assert "unknown" in shown
    assert "nothing" in shown
    assert "12.5 ± 1.3 J" in shown
    assert "3.12 J/image" in shown


def test_a_notebook_shows_names_as_they_are():
    """Nothing from a log becomes HTML."""
    shown = summarise([ODD])._repr_html_()
    assert "&lt;b&gt;[red]\\x1b[2J&amp;" in shown
    assert "<b>" not in shown


def test_an_empty_summary_can_be_shown():
    """No call at all is no error."""
    for draw in (str, drawn, Summary._repr_html_):
        assert "total" in draw(Tally().summary())


def test_lines_that_were_skipped_are_told(tmp_path: Path):
    """A table made from a damaged log says so."""
    path = tmp_path / "calls.csv"
    path.write_bytes(CSV_HEADER + LINE + b"1,torn\r\n")
    assert "1 line of the log was torn" in str(summarise(read(path)))


def test_loading_the_reports_loads_the_standard_library_only():
    """rich and NumPy are loaded when a table is drawn, not before."""
    code = "import sys, aimeter.report, aimeter.sinks; print({'rich', 'numpy', 'psutil'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout == b"set()\n"


@pytest.mark.parametrize(
    ("value", "unit", "error", "shown"),
    [
        (None, "J", None, "unknown"),
        (0.0, "J", None, "0 J"),
        (12.345, "J", None, "12.3 J"),
        (0.0045, "J", None, "4.50 mJ"),
        (1234.5, "J", None, "1.23 kJ"),
        (999.6, "J", None, "1.00 kJ"),
        (-12.345, "J", None, "-12.3 J"),
        (1.65e-6, "g", None, "1.65 µg"),
        (12.345, "J", 0.6178, "12.35 ± 0.62 J"),
        (12345.0, "J", 617.8, "12.35 ± 0.62 kJ"),
        (812.3, "J", 41.2, "812 ± 41 J"),
        (0.5, "J", 3.0, "0.5 ± 3.0 J"),
        (0.0, "J", 0.25, "0 ± 250 mJ"),
        (12.0, "J", 0.0996, "12.00 ± 0.10 J"),
        (12.5, "J", 1e-12, "12.500000 ± 0.000000 J"),
    ],
)
def test_quantities(value: float | None, unit: str, error: float | None, shown: str):
    """Figures have the digits that mean something and a prefix that suits them."""
    assert quantity(value, unit, error) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (None, "unknown"),
        (0.0854, "85.4 ms"),
        (999.0, "999 s"),
        (1000.0, "16.7 min"),
        (7199.0, "120 min"),
        (7200.0, "2.00 h"),
        (172_800.0, "2.00 d"),
        (1_012_528.0, "11.7 d"),
        (math.nan, "unknown"),
    ],
)
def test_long_times_are_in_hours_and_days(seconds: float | None, shown: str):
    """Nobody reads a million seconds."""
    assert duration(seconds) == shown


@example(1000.0, 5e-324)
@example(5e-324, None)
@given(st.floats(-1e14, 1e14), st.none() | st.floats(0, 1e14))
def test_any_quantity_is_shown_near_its_value(value: float, error: float | None):
    """Whatever the figures, the text is close to the value: within its digits or a hundredth of the error."""
    factors = {
        "pJ": 1e-12,
        "nJ": 1e-9,
        "µJ": 1e-6,
        "mJ": 1e-3,
        "J": 1,
        "kJ": 1e3,
        "MJ": 1e6,
        "GJ": 1e9,
        "TJ": 1e12,
    }
    number, *_, unit = quantity(value, "J", error).split()
    assert math.isclose(
        float(number) * factors[unit], value, rel_tol=6e-3, abs_tol=max((error or 0) * 0.06, 1e-14)
    )


# --- exporting


def test_an_export_is_a_log(tmp_path: Path):
    """What is exported can be read, reported and continued like any log."""
    records = [make_record(name=name) for name in "abc"]
    assert export_csv(iter(records), tmp_path / "calls.csv") == 3
    assert list(read(tmp_path / "calls.csv")) == records
    open_log(tmp_path / "calls.csv").write(records)
    assert len(list(read(tmp_path / "calls.csv"))) == 6


def test_an_export_is_whole_or_not_at_all(tmp_path: Path):
    """If anything fails half-way, the old file is untouched and nothing else is left."""

    def failing():
        yield make_record()
        raise RuntimeError

    path = tmp_path / "calls.csv"
    path.write_text("old")
    with pytest.raises(RuntimeError):
        export_csv(failing(), path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_export_goes_through_a_link(tmp_path: Path):
    """A link stays a link; the file that it names is replaced."""
    (tmp_path / "real.csv").touch()
    (tmp_path / "link.csv").symlink_to(tmp_path / "real.csv")
    export_csv([make_record()], tmp_path / "link.csv")
    assert (tmp_path / "link.csv").is_symlink()
    assert len(list(read(tmp_path / "real.csv"))) == 1


def test_an_export_to_nowhere_says_what_to_do(tmp_path: Path):
    """A missing folder and a folder in the file's place are clear errors."""
    with pytest.raises(ConfigurationError, match="mkdir -p"):
        export_csv([], tmp_path / "missing" / "calls.csv")
    with pytest.raises(ConfigurationError, match="Name a file"):
        export_csv([], tmp_path)


def test_calls_whose_parent_is_missing_are_not_lost_from_the_total():
    """A call inside another whose row never came counts for itself; one whose parent's row comes does not."""
    child = make_record(call_id="child", parent_id="parent", energy_j=2.0)
    parent = make_record(call_id="parent", energy_j=5.0)
    late = make_record(call_id="late", parent_id="parent", energy_j=1.0)
    tally = Tally()
    tally.add(child)
    assert (tally.summary().total.calls, tally.summary().total.energy_j) == (1, 2.0)
    tally.add(parent)
    tally.add(late)
    assert (tally.summary().total.calls, tally.summary().total.energy_j) == (1, 5.0)
    assert tally.summary().nested == 2


@pytest.mark.parametrize("kind", ["fifo", "device"])
def test_exporting_never_replaces_what_is_no_file(tmp_path, kind):
    """A device or a pipe is refused, not replaced by a file."""
    target = tmp_path / "pipe" if kind == "fifo" else Path("/dev/null")
    if kind == "fifo":
        os.mkfifo(target)
    with pytest.raises(ConfigurationError, match="no regular file"):
        export_csv([], target)
    assert not target.is_file()


@pytest.mark.parametrize("name", ["calls.json", "calls.parquet", "calls.csv.gz"])
def test_a_log_is_what_its_name_promises(tmp_path, name):
    """A name that promises another format is refused rather than filled with CSV."""
    with pytest.raises(ConfigurationError, match="jsonl"):
        open_log(tmp_path / name)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_briefs_are_the_records_own_columns(tmp_path: Path, suffix: str):
    """The quick way to a few columns gives what the records give, and skips the same lines."""
    path = tmp_path / f"calls{suffix}"
    rows = [
        make_record(
            name='a,"b"\n', self_j=None, intensity_g_per_kwh=None, meta={"x": 'y"z', "long": "n" * 200_000}
        ),
        make_record(name="=1", pue=1.5, intensity_method="average;x", meta={}),
    ]
    export_log(rows, path)
    text = path.read_bytes()
    lines = text.splitlines(keepends=True)
    path.write_bytes(text + lines[-1][:-20] + b"\r\n" + b'torn "\r\n' + lines[-1] + b"5\r\n" + lines[-1][:-3])
    records, briefs = read(path), read_briefs(path)
    for record, brief in zip(records, briefs, strict=True):
        assert brief == tuple(getattr(record, name) for name in brief._fields)
    assert (briefs.rows, briefs.skipped, briefs.problems) == (records.rows, records.skipped, records.problems)
    assert briefs.rows == 3


@pytest.mark.parametrize("name", ["calls.csv", "calls.jsonl"])
def test_a_log_of_schema_1_is_read(tmp_path, name):
    """What later schemas have appended is empty; all else is as it was written."""
    old = make_record(schema=1, name="old", energy_j=12.5)
    log = tmp_path / name
    if name.endswith("csv"):
        lines = [CSV_HEADER, csv_line(old)]
        log.write_bytes(b"".join(b",".join(line.strip().split(b",")[:42]) + b"\r\n" for line in lines))
    else:
        kept = {key: value for key, value in json.loads(json_line(old)).items() if key in FIRST_COLUMNS}
        log.write_text(json.dumps(kept) + "\n")
    (found,) = read(log)
    assert found == old._replace(
        schema=SCHEMA, co2e_error_g=None, pue_source="", devices_j=(), machine="unknown"
    )
    (brief,) = read_briefs(log)
    assert brief == tuple(getattr(found, column) for column in brief._fields)
    assert len(FIRST_COLUMNS) == 42


# --- narrow terminals


def narrow(summary: Summary, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    console.print(summary)
    return console.file.getvalue().splitlines()


LONG = "vision_service.pipelines.diffusion.StableDiffusionXLPipeline.denoiser"


@pytest.mark.parametrize("width", [40, 60, 72, 80, 100, 120, 200])
def test_no_column_vanishes_at_any_width(width: int):
    """Every title and every figure is there, whole, and no line is wider than the terminal."""
    records = [
        make_record(
            name=LONG, status="error", dram_j=1.0, dram_method="counter", coverage=0.5, tokens_out=7.0
        ),
        make_record(energy_j=None),
    ]
    lines = narrow(summarise(records), width)
    shown = " ".join(" ".join(lines).split())
    for word in (
        "calls",
        "errors",
        "no",
        "per",
        "call",
        "unit",
        "energy",
        "CO2e",
        "time",
        "covered",
        "measured",
    ):
        assert word in shown
    for figure in ("12.5", "± 1.3 J", "3.12 J", "/image", "1.79 J", "/token out", "1.65 mg", "50%", "250 ms"):
        assert figure in shown
    assert "dram counter" in shown
    assert max(map(len, lines)) <= width


@pytest.mark.parametrize("width", [60, 80, 110])
def test_a_long_name_is_folded_between_its_words(width: int):
    """No word of a name is cut in two, and the whole of it can be read."""
    pieces = [
        piece.strip()
        for line in narrow(summarise([make_record(name=LONG)]), width)
        for piece in line.split("  ")
    ]
    parts = ["vision_", "service", "pipelines", "diffusion", "Stable", "Diffusion", "XLPipeline", "denoiser"]
    assert all(any(part in piece for piece in pieces) for part in parts)
    assert all(
        any(part in line for line in str(summarise([make_record(name=LONG)])).splitlines()) for part in parts
    )


@given(st.text(st.characters(exclude_characters="\n"), min_size=1), st.integers(1, 40))
def test_folding_loses_nothing(name: str, width: int):
    """The lines are as short as asked for, and joined they are the name."""
    lines = folded(name, width).split("\n")
    assert "".join(lines) == name
    assert max(map(len, lines)) <= width


def test_models_of_one_name_are_told_apart():
    """By name and model if so asked, with a column that says which; calls that noted none have a row as well."""
    records = [
        make_record(name="chat", model=model, energy_j=joules) for model, joules in (("a", 1.0), ("b", 3.0))
    ]
    summary = summarise([*records, make_record(name="chat", energy_j=2.0)], by="model")
    assert [(row.name, row.model, row.energy_j) for row in summary.rows] == [
        ("chat", "b", 3.0),
        ("chat", "", 2.0),
        ("chat", "a", 1.0),
    ]
    assert "none noted" in str(summary)
    assert [row.model for row in summarise(records, by="name").rows] == [None]
    assert "chat (b)" not in str(summarise(records, by="name"))


def one(name: str, call_id: str, parent_id: str | None, energy_j: float | None, **more: object) -> Record:
    """Return a record of one call among others; what it does not say it used, calls inside it did."""
    return make_record(
        **{"images": None, "model": None, "self_j": 0.0, **more},
        name=name,
        call_id=call_id,
        parent_id=parent_id,
        energy_j=energy_j,
    )


def outline(rows: tuple[SummaryRow, ...]) -> list[object]:
    """Return names, joules and what is inside, as nested lists."""
    return [[row.name, row.energy_j, *outline(row.parts)] for row in rows]


GENERATIONS = [
    one("chat.prefill", "2", "1", 2.0, tokens_in=100.0, tokens_out=1.0),
    one("chat.decode", "3", "1", 6.0, tokens_out=9.0),
    one("chat", "1", None, 10.0, self_j=2.0, items=1.0, tokens_in=100.0, tokens_out=10.0),
]


def test_parts_stand_under_the_calls_around_them():
    """With their share of it, under the part of their name that is their own."""
    (chat,) = summarise(GENERATIONS).tree
    assert outline((chat,)) == [["chat", 10.0, ["decode", 6.0], ["prefill", 2.0]]]
    assert [part.share for part in chat.parts] == [0.6, 0.2]
    assert (chat.share, chat.self_j) == (1.0, 2.0)
    small = [row._replace(energy_j=row.energy_j and row.energy_j / 1000) for row in GENERATIONS]
    assert [part.share for part in summarise(small).tree[0].parts] == pytest.approx([0.6, 0.2])
    lines = [line.split()[:3] for line in str(summarise(GENERATIONS)).splitlines()]
    assert ["├", "decode", "1"] in lines
    assert ["└", "self", "20%"] in lines


def test_joules_a_unit_stand_where_they_mean_something():
    """A token of the prompt is the prefill's work and a new one the decoding's; an answer is that of the whole."""
    (chat,) = summarise(GENERATIONS).tree
    assert chat.per_unit_j == {"items": 10.0}
    assert [part.per_unit_j for part in chat.parts] == [{"tokens_out": 6.0 / 9}, {"tokens_in": 0.02}]
    (whole,) = summarise([one("chat", "1", None, 10.0, tokens_in=100.0, tokens_out=10.0)]).tree
    assert whole.per_unit_j == {"tokens_out": 1.0}
    (image,) = summarise(
        [one("paint.denoise", "2", "1", 8.0, steps=4.0), one("paint", "1", None, 9.0, steps=4.0, images=2.0)]
    ).tree
    assert (image.per_unit_j, image.parts[0].per_unit_j) == ({"images": 4.5}, {"steps": 2.0})


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_the_tree_is_the_same_in_whatever_order_rows_come(order: tuple[int, ...]):
    """A call's row comes before or after those of the calls inside it."""
    rows = [
        one("page", "1", None, 10.0),
        one("chat", "2", "1", 7.0),
        one("chat.decode", "3", "2", 5.0),
        one("embed", "4", "1", 1.0),
    ]
    summary = summarise([rows[place] for place in order])
    assert outline(summary.tree) == [["page", 10.0, ["chat", 7.0, ["decode", 5.0]], ["embed", 1.0]]]
    assert (summary.total.energy_j, summary.nested) == (10.0, 3)


def test_one_name_in_several_places_has_a_row_in_each():
    """And one for each model where there are several; a row of the whole log is still one a name."""
    summary = summarise(
        [
            one("chat", "1", None, 1.0, model="a"),
            one("chat", "2", None, 3.0, model="b"),
            one("chat", "4", "3", 5.0, model="b"),
            one("page", "3", None, 6.0),
        ]
    )
    assert outline(summary.tree) == [["page", 6.0, ["chat", 5.0]], ["chat", 3.0], ["chat", 1.0]]
    assert [row.model for row in summary.tree] == [None, "b", "a"]
    assert [(row.name, row.energy_j) for row in summary.rows] == [("chat", 9.0), ("page", 6.0)]
    assert "chat (b)" in str(summary)


def test_calls_whose_parents_row_has_not_come_stand_for_themselves():
    """As in a log that is still being written, or of a process that was killed; asking does not take them away."""
    tally = Tally()
    tally.add(one("chat.decode", "3", "2", 5.0))
    tally.add(one("chat", "2", "1", 7.0))
    for _ in range(2):
        assert outline(tally.summary().tree) == [["chat", 7.0, ["decode", 5.0]]]
        assert tally.summary().total.energy_j == 7.0
    tally.add(one("page", "1", None, 9.0))
    assert outline(tally.summary().tree) == [["page", 9.0, ["chat", 7.0, ["decode", 5.0]]]]


@settings(max_examples=100)
@given(st.data())
def test_every_call_is_in_the_tree_once(data: st.DataObject):
    """Whatever is inside whatever, in any order of rows, and however many wait: shares and sums are those of the calls."""
    count = data.draw(st.integers(1, 30))
    parents = [data.draw(st.none() | st.integers(0, k - 1)) if k else None for k in range(count)]
    names = data.draw(st.lists(st.sampled_from("abc"), min_size=count, max_size=count))
    joules = [float(data.draw(st.integers(1, 100))) for _ in range(count)]
    rows = [
        one(names[k], str(k), None if parents[k] is None else str(parents[k]), joules[k])
        for k in data.draw(st.permutations(range(count)))
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tree, "_MOST_ROWS", data.draw(st.integers(0, 3)))
        summary = summarise(rows)

    def expected(place: int | None) -> dict[str, tuple[float, dict]]:
        found: dict[str, tuple[float, list[int]]] = {}
        for k in range(count):
            if parents[k] == place:
                total, those = found.get(names[k], (0.0, []))
                found[names[k]] = total + joules[k], [*those, k]
        return {name: (total, merged(those)) for name, (total, those) in found.items()}

    def merged(places: list[int]) -> dict[str, tuple[float, dict]]:
        whole: dict[str, tuple[float, dict]] = {}
        for place in places:
            add(whole, expected(place))
        return whole

    def add(into: dict[str, tuple[float, dict]], more: dict[str, tuple[float, dict]]) -> None:
        for name, (total, parts) in more.items():
            before, inner = into.get(name, (0.0, {}))
            add(inner, parts)
            into[name] = before + total, inner

    def seen(rows: tuple[SummaryRow, ...]) -> dict[str, tuple[float, dict]]:
        return {row.name: (row.energy_j, seen(row.parts)) for row in rows}

    if max(depth(parents, k) for k in range(count)) < tree.DEEPEST:
        assert seen(summary.tree) == expected(None)
    assert sum(row.calls for row in summary.rows) == count
    assert sum(row.energy_j for row in summary.rows) == sum(joules)


def depth(parents: list[int | None], place: int) -> int:
    """Return how many calls are around one."""
    above = parents[place]
    return 0 if above is None else 1 + depth(parents, above)


def test_calls_inside_one_another_without_end_are_counted():
    """A function that calls itself a thousand times: the table stays as deep as it can be read."""
    rows = [one("f", str(k), str(k - 1) if k else None, 1.0) for k in range(1000)]
    for those in (rows, rows[::-1]):
        summary = summarise(those)
        assert (summary.rows[0].calls, summary.total.calls) == (1000, 1)
        assert len(str(summary).splitlines()) < 30


def test_a_long_call_keeps_few_rows_of_those_inside_it():
    """Ten thousand calls inside one that is still open take no more memory than a hundred."""
    tally = Tally()
    for number in range(200):
        tally.add(one("inner", str(number), "outer", 1.0))
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for _ in range(200, 10_200):
        tally.add(one("inner", "200", "outer", 1.0))
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after - before < 20_000
    tally.add(one("outer", "outer", None, 10_300.0))
    assert outline(tally.summary().tree) == [["outer", 10_300.0, ["inner", 10_200.0]]]


def test_a_table_of_many_names_ends_somewhere():
    """The costliest are shown, the others counted; the summary itself has them all."""
    summary = summarise(make_record(name=f"request {number}", energy_j=1.0 + number) for number in range(500))
    assert len(summary.tree) == 500
    lines = str(summary).splitlines()
    assert lines[2].startswith("request 499 ")
    assert "… 460 more names" in str(summary)
    assert len(lines) < 50


def test_children_that_outlive_thousands_of_calls_grow_nothing():
    """Fire and forget: each background call ends 5,000 requests after its parent, and is inside it all the same."""
    clock = FakeClock()
    sensor = FakeSensor(clock, 100.0)
    meter = aimeter.Meter(sensors=[sensor], clock=clock, region="FR", memory_rows=10)
    held, began_s = deque(), clock()
    for _ in range(7_000):
        with meter.track("request"):
            call, context = meter.track("background"), contextvars.copy_context()
            context.run(call.__enter__)
            held.append((context, call))
            clock.now_s += 0.001
        if len(held) > 5_000:
            context, call = held.popleft()
            context.run(call.__exit__, None, None, None)
        if len(held) % 1000 == 0:
            clock.sleep(0.01)
    while held:
        context, call = held.popleft()
        context.run(call.__exit__, None, None, None)
    total = meter.summary().total
    assert total.calls == 7_000
    assert len(meter.delivery._tally._tree._waiting) == 0
    assert total.energy_j <= sensor.energy_j(began_s, clock()) * (1 + 1e-9)
    meter.close()
