"""Logs that somebody else wrote to do harm: nothing of them steers a terminal, no row costs another, no reading hangs."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from rich.console import Console
from typer.testing import CliRunner

from aimeter import Meter
from aimeter._curve.calibration import Calibrations
from aimeter._support import system
from aimeter.carbon.cache import Cache, Known
from aimeter.carbon.providers.base import ProviderFault
from aimeter.carbon.providers.file_or_url import FileOrUrl
from aimeter.cli import app
from aimeter.commands import refill, sci
from aimeter.commands.report import MOST_METHODS
from aimeter.errors import AimeterError, ConfigurationError
from aimeter.logs import read as read_module
from aimeter.logs.encode import CSV_HEADER, csv_line, json_line
from aimeter.logs.read import LONGEST_LINE_BYTES
from aimeter.record import COLUMNS, Record
from aimeter.report import Summary, read, summarise
from aimeter.report.tally import MOST_NAMES
from aimeter.report.tree import OTHER_NAMES
from aimeter.settings import load
from aimeter.testing import FakeClock, FakeSensor
from tests.records import make_record

AIMETER = [sys.executable, "-m", "aimeter"]

STEERING = "".join(
    [
        "\x1b]0;owned\x07\x1b[2J\x1b[1A\x7f\x08\r",
        *map(chr, range(0x80, 0xA0)),
        "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c\u2028\u2029",
    ]
)
TEXTS = (
    *tuple(column for column in COLUMNS if isinstance(getattr(make_record(model="m"), column), str)),
    "parent_id",
    "error_type",
)
NUMBERS = tuple(
    column
    for column in COLUMNS
    if isinstance(getattr(make_record(), column), float)
    or (column not in TEXTS and getattr(make_record(), column) is None)
)

COMMANDS = (
    ("report",),
    ("report", "--json"),
    ("report", "--by", "model"),
    ("sci", "--per", "images"),
    ("sci", "--per", "images", "--name", "nothing"),
    ("sci", "--per", "images", "--embodied", "8 h100", "--json"),
    ("carbon", "compare", "--regions", "FR"),
    ("carbon", "compare", "--regions", "FR", "--json"),
)


def csv_row(record: Record, **raw: str) -> bytes:
    """Return a record as a line, with some columns holding these very characters."""
    fields = next(csv.reader([csv_line(record).decode()]))
    for column, text in raw.items():
        fields[COLUMNS.index(column)] = text
    line = io.StringIO()
    csv.writer(line).writerow(fields)
    return line.getvalue().encode()


def json_row(record: Record, **raw: object) -> bytes:
    """Return a record as a line of JSON, with some columns holding something else."""
    return json.dumps({**json.loads(json_line(record)), **raw}).encode() + b"\n"


def steers(text: str) -> set[str]:
    return {sign for sign in text if not sign.isprintable() and sign != "\n"}


def ask(*arguments: str) -> str:
    """Run a command in this process and return all that it prints, and what it says where it refuses."""
    ran = CliRunner().invoke(app, list(arguments))
    if ran.exception is not None and not isinstance(ran.exception, SystemExit | AimeterError):
        raise ran.exception
    if "--json" in arguments and ran.exit_code == 0:
        json.loads(ran.stdout, parse_constant=pytest.fail)
    assert not steers(ran.output)
    return ran.output


# --- text


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
@pytest.mark.parametrize("column", TEXTS)
def test_no_column_steers_a_terminal_or_a_page(tmp_path: Path, column: str, suffix: str):
    """Whatever text a column holds, no control or bidirectional character of it is printed, as JSON neither."""
    hostile = make_record(machine="m0123456789abcdef")
    log = tmp_path / f"calls{suffix}"
    text = STEERING if suffix == ".jsonl" else STEERING.replace("\r", "")
    row = json_row if suffix == ".jsonl" else csv_row
    head = b"" if suffix == ".jsonl" else CSV_HEADER
    log.write_bytes(head + csv_or_json(suffix, make_record()) + row(hostile, **{column: text}))
    for command in COMMANDS:
        ask(*command, str(log))
    for page in pages(summarise(read(log), by="model"), *read(log)):
        assert not steers(page)


def csv_or_json(suffix: str, record: Record) -> bytes:
    return json_line(record) if suffix == ".jsonl" else csv_line(record)


def pages(summary: Summary, *records: Record) -> Iterable[str]:
    """Yield what a notebook, a REPL and a terminal show."""
    for each in (summary, *records):
        yield each._repr_html_()
        yield repr(each)
    for width in (200, 40):
        console = Console(file=io.StringIO(), force_terminal=True, color_system=None, width=width)
        console.print(summary)
        yield console.file.getvalue()  # type: ignore[attr-defined]  # it is the one above


def test_what_is_said_of_a_row_does_not_steer_a_terminal(tmp_path: Path):
    """The reason why a row was skipped shows what it held, and the name of the log, in escapes."""
    log = tmp_path / "calls\x1b[2J\u202e.csv"
    log.write_bytes(CSV_HEADER + csv_row(make_record(), pid=STEERING.replace("\r", "")))
    for command in (("report",), ("report", "--json"), ("carbon", "compare", "--regions", "FR")):
        ran = subprocess.run([*AIMETER, *command, str(log)], capture_output=True, text=True, check=False)
        assert not steers(ran.stdout + ran.stderr)
        assert "1" in ran.stdout
    missing = subprocess.run(
        [*AIMETER, "report", "no\x1b[2J.csv"], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert (missing.returncode, steers(missing.stderr)) == (2, set())


# --- figures

HUGE = ("1e300", "-1e300", "1e30", "9" * 400, "1e19")


@pytest.mark.parametrize("figure", HUGE)
@pytest.mark.parametrize("column", [*NUMBERS, "devices_j"])
def test_a_figure_too_large_to_be_true_costs_its_row_only(tmp_path: Path, column: str, figure: str):
    """It is counted and named by file and line, in either layout, and the other rows are there."""
    raw = f"[{figure},1.0]" if column == "devices_j" else figure
    table, lines = tmp_path / "calls.csv", tmp_path / "calls.jsonl"
    good = make_record()
    table.write_bytes(CSV_HEADER + csv_line(good) + csv_row(good, **{column: raw}) + csv_line(good))
    lines.write_bytes(json_line(good) + json_row(good, **{column: json.loads(raw)}) + json_line(good))
    for log, line in ((table, 3), (lines, 2)):
        rows = read(log)
        assert summarise(rows).total.energy_j == 25.0
        assert (rows.rows, rows.skipped) == (2, 1)
        assert rows.problems[0].startswith(f"{log}:{line}: ")
        assert column in rows.problems[0]
        assert json.loads(ask("report", "--json", str(log)))["skipped"] == 1
        assert "1 line of the log could not be read" in ask("sci", "--per", "images", str(log))


def test_times_that_no_call_lasts_are_bad_rows(tmp_path: Path):
    """Nobody is asked for the intensity of a billion weeks, and no call lasts less than nothing."""
    log = tmp_path / "calls.csv"
    log.write_bytes(
        CSV_HEADER + b"".join(csv_row(make_record(), duration_s=text) for text in ("1e12", "-1.0", "1.0"))
    )
    rows = read(log)
    assert (len(list(rows)), rows.skipped) == (1, 2)


def test_sharing_with_nobody_at_all_is_a_bad_row(tmp_path: Path):
    """A concurrency of nothing, by which a time is divided, costs its row only."""
    log = tmp_path / "calls.csv"
    log.write_bytes(CSV_HEADER + csv_line(make_record()) + csv_row(make_record(), concurrency="0.0"))
    assert "1 line of the log could not be read" in ask(
        "sci", "--per", "images", "--embodied", "8 h100", str(log)
    )


def test_sums_that_overflow_are_unknown_and_said():
    """Records of a program's own may hold any float: what their sums exceed is unknown, and a note says so."""
    most = sys.float_info.max
    huge = make_record(energy_j=most, error_j=most, resolution_j=most, images=most, co2e_g=most)
    summary = summarise([huge, huge, make_record(name="small")])
    assert summary.total.energy_j is None
    assert summary.total.co2e_g is None
    assert summary.total.per_call_error_j is None
    assert "images" not in summary.total.per_unit_j
    assert {row.name: row.energy_j for row in summary.rows} == {"image-gen": None, "small": 12.5}
    assert summary.overflowed == 1
    for page in pages(summary):
        assert "too large" in page


def test_a_score_of_next_to_nothing_is_refused(tmp_path: Path):
    """A unit so small that a score exceeds every number is said; it is no traceback and no Infinity."""
    log = tmp_path / "calls.csv"
    log.write_bytes(CSV_HEADER + csv_row(make_record(), images="5e-324"))
    with pytest.raises(ConfigurationError, match="too large"):
        sci.score([str(log)], "images")
    for command in COMMANDS:
        ask(*command, str(log))


# --- bounds of memory and time


@pytest.mark.parametrize("circle", [False, True])
def test_chains_of_parents_of_any_depth_are_followed_once(tmp_path: Path, circle: bool):
    """Twenty thousand calls inside each other are scored, also where the outermost is inside the innermost."""
    depth = 20_000
    log = tmp_path / "calls.csv"
    first = str(depth - 1) if circle else None
    rows = (
        make_record(
            call_id=str(k),
            parent_id=str(k - 1) if k else first,
            name="all" if k == 0 else "inner",
            images=1.0 if k == depth - 1 and not circle else None if not circle else 1.0,
        )
        for k in range(depth)
    )
    log.write_bytes(CSV_HEADER + b"".join(map(csv_line, rows)))
    if circle:
        ask("sci", "--per", "images", "--name", "all", str(log))
    else:
        assert sci.score([str(log)], "images", name="all").rows == depth
    assert summarise(read(log)).total.calls == (not circle)


def test_a_million_names_take_the_memory_of_some(tmp_path: Path):
    """Names beyond ten thousand are added up as others; joules are lost from none."""
    rows = (make_record(name=f"call {k}", self_j=1.0, energy_j=1.0) for k in range(3 * MOST_NAMES))
    log = tmp_path / "calls.csv"
    log.write_bytes(CSV_HEADER + b"".join(map(csv_line, rows)))
    tracemalloc.start()
    summary = summarise(read(log))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(summary.rows) == MOST_NAMES + 1
    assert summary.total.energy_j == 3 * MOST_NAMES
    assert next(row.calls for row in summary.rows if row.name == OTHER_NAMES) == 2 * MOST_NAMES
    assert most < MOST_NAMES * 5_000


@pytest.mark.parametrize("inside", [0, 1])
def test_a_score_keeps_no_rows(tmp_path: Path, inside: int):
    """Rows are added up as they are read; of one that encloses others it is kept what it tells of them."""
    pairs = 5_000
    log = tmp_path / "calls.csv"
    with log.open("wb") as file:
        file.write(CSV_HEADER)
        for k in range(pairs):
            parent = f"a{k}" if inside else None
            file.write(csv_line(make_record(call_id=f"b{k}", parent_id=parent, name="in", images=1.0)))
            file.write(csv_line(make_record(call_id=f"a{k}", name="out", images=2.0)))
    tracemalloc.start()
    whole = sci.score([str(log)], "images")
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (whole.rows, whole.r) == (2 * pairs, (2 if inside else 3) * pairs)
    assert most < 1_000_000 + inside * pairs * 800
    part = sci.score([str(log)], "images", name="in")
    assert (part.rows, part.r) == (pairs, pairs)


def test_methods_that_nobody_has_are_one(tmp_path: Path):
    """However many words rows have for how they were measured, a summary keeps the ones there are."""
    log = tmp_path / "calls.csv"
    rows = (csv_row(make_record(), gpu_method=f"by {k}") for k in range(100))
    log.write_bytes(CSV_HEADER + csv_line(make_record()) + b"".join(rows))
    assert summarise(read(log)).total.methods["gpu"] == ("counter", "unknown")


def test_words_that_nobody_has_do_not_lengthen_an_answer(tmp_path: Path):
    """However many kinds of devices and of intensity rows name, what is said of them stays short."""
    log = tmp_path / "calls.csv"
    rows = (make_record(devices=f"gpu:0 x{k}:0", intensity_method=f"by {k}") for k in range(1000))
    log.write_bytes(CSV_HEADER + b"".join(map(csv_line, rows)))
    found = sci.score([str(log)], "images")
    assert found.boundary.startswith("gpu, other as metered")
    assert len(found.methods) <= MOST_METHODS
    assert ask("carbon", "compare", "--regions", "FR", str(log)).count("by ") <= MOST_METHODS


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_line_too_long_to_be_a_row_costs_no_other(tmp_path: Path, suffix: str):
    """It is passed over in pieces: memory does not grow with it."""
    log = tmp_path / f"calls{suffix}"
    good = csv_or_json(suffix, make_record())
    with log.open("wb") as file:
        file.write((CSV_HEADER if suffix == ".csv" else b"") + good)
        for _ in range(4):
            file.write(b"x" * LONGEST_LINE_BYTES)
        file.write(b"\n" + good)
    rows = read(log)
    tracemalloc.start()
    assert len(list(rows)) == 2
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert rows.skipped == 1
    assert f":{3 if suffix == '.csv' else 2}: " in rows.problems[0]
    assert most < 3 * LONGEST_LINE_BYTES


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no such device")
@pytest.mark.parametrize("command", COMMANDS)
def test_a_line_without_an_end_is_no_log(command: Sequence[str]):
    """A device that gives zeros for ever is refused at once."""
    assert ask(*command, "/dev/zero") == ""
    with pytest.raises(ConfigurationError, match="no aimeter log"):
        read("/dev/zero")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")
@pytest.mark.parametrize("by_pipe", [False, True])
def test_what_follows_a_line_without_an_end_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_pipe: bool
):
    """The rows before it are there, and it is said where reading stopped; a pipe that goes on for ever is left."""
    limits = {"LONGEST_LINE_BYTES": 2_000, "PIECE_BYTES": 1_000, "_ENDLESS_BYTES": 50_000}
    for name, value in limits.items():
        monkeypatch.setattr(sys.modules["aimeter.logs.read"], name, value)
    log = tmp_path / "calls"

    def write() -> None:
        with suppress(BrokenPipeError), log.open("wb", buffering=0) as file:
            file.write(CSV_HEADER + csv_line(make_record()))
            pieces = 0
            while by_pipe or pieces < 100:
                file.write(bytes(1_000))
                pieces += 1

    if by_pipe:
        os.mkfifo(log)
        writer = threading.Thread(target=write, daemon=True)
        writer.start()
    else:
        write()
    rows = read(log)
    assert len(list(rows)) == 1
    assert rows.problems == [f"{log}:3: the line has no end, and what follows is not read"]
    if by_pipe:
        writer.join()


def test_completing_a_log_does_not_keep_it_in_memory(tmp_path: Path):
    """Twenty thousand rows, each waiting for a zone of its own of another provider, are never in memory together."""
    log, new, grid = tmp_path / "calls.csv", tmp_path / "new.csv", tmp_path / "grid.csv"
    grid.write_text(
        "# kind: average;location-based;direct;production\nstart,g_per_kwh\n2026-11-22T10:00Z,1\n"
    )
    rows = 20_000
    with log.open("wb") as file:
        file.write(CSV_HEADER)
        for k in range(rows):
            waits = {"aimeter": {"carbon": {"provider": "other", "zone": f"zone {k}"}}}
            file.write(csv_line(make_record(call_id=f"{k}", intensity_method="average;fallback", meta=waits)))
    tracemalloc.start()
    result = refill.refill(str(log), new, carbon_provider=str(grid), region="FR")
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (result.rows, result.waiting, result.filled) == (rows, rows, 0)
    assert len(result.problems) <= 100
    assert most < rows * 1_000


# --- pipes


@pytest.mark.skipif(not Path("/dev/stdin").exists(), reason="no such file")
@pytest.mark.parametrize("command", COMMANDS)
def test_a_pipe_is_a_log(tmp_path: Path, command: Sequence[str]):
    """What comes by a pipe is read as often as it has to be, and gives what a file gives."""
    log = tmp_path / "calls.csv"
    other = make_record(call_id="feedfacecafebeef-1", pid=1, start="2026-11-22T10:00:00.100001Z")
    log.write_bytes(CSV_HEADER + csv_line(make_record()) + csv_line(other) + b"torn\r\n")
    piped, plain = (
        subprocess.run([*AIMETER, *command, name], input=given, capture_output=True, check=False)
        for name, given in (("/dev/stdin", log.read_bytes()), (str(log), b""))
    )
    assert piped.stdout == plain.stdout.replace(bytes(log), b"/dev/stdin")
    assert piped.stderr == plain.stderr.replace(bytes(log), b"/dev/stdin")
    assert piped.returncode == plain.returncode


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")
def test_a_fifo_is_a_log(tmp_path: Path):
    """A named pipe is opened once, so its writer may go."""
    fifo = tmp_path / "calls"
    os.mkfifo(fifo)
    content = CSV_HEADER + csv_line(make_record()) * 3
    writer = threading.Thread(target=fifo.write_bytes, args=(content,), daemon=True)
    writer.start()
    summary = summarise(read(fifo))
    writer.join()
    assert summary.total.calls == 3


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")
@pytest.mark.parametrize("bound", ["bytes", "lines", "free space"])
def test_a_pipe_without_end_is_read_to_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: str):
    """What came till then is reported, and first of all that something follows."""
    if bound == "bytes":
        monkeypatch.setattr(read_module, "_MOST_COPIED_BYTES", 3_000_000)
    elif bound == "lines":
        monkeypatch.setattr(read_module, "_MOST_COPIED_LINES", 1_000_000)
    else:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=6_000_000))
    fifo = tmp_path / "calls"
    os.mkfifo(fifo)

    def write() -> None:
        with suppress(BrokenPipeError), fifo.open("wb") as pipe:
            pipe.write(CSV_HEADER + csv_line(make_record()))
            for _ in range(50):
                pipe.write(b"y\n" * 500_000)

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    rows = read(fifo)
    assert len(list(rows)) == 1
    writer.join()
    assert rows.skipped < 2_000_000
    assert "what follows is not read" in rows.problems[0]
    assert "1 columns, not" in rows.problems[1]


# --- settings


def fifo(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")
@pytest.mark.parametrize("make", [fifo, device, Path.mkdir])
def test_settings_are_read_from_files_only(tmp_path: Path, make: Callable[[Path], None]):
    """What is no regular file is an error that names it, and nobody waits for it."""
    make(tmp_path / "pyproject.toml")
    with pytest.raises(ConfigurationError, match=r"pyproject\.toml is no regular file"):
        load({}, environ={}, folder=tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")
@pytest.mark.parametrize("make", [fifo, device, Path.mkdir])
@pytest.mark.parametrize("setting", ["log", "calibration", "carbon_provider"])
def test_no_setting_of_a_file_takes_anything_else(tmp_path: Path, setting: str, make: Callable[[Path], None]):
    """A pipe without a writer, a device without an end and a folder are told at once."""
    path = tmp_path / "it.csv"
    make(path)
    with pytest.raises(ConfigurationError, match=r"it\.csv"):
        Meter(sensors=[], **{"calibration": "off", setting: str(path)})


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")
@pytest.mark.parametrize("make", [fifo, device, Path.touch])
@pytest.mark.parametrize("setting", ["powercap", "carbon_cache"])
def test_no_setting_of_a_folder_takes_anything_else(
    tmp_path: Path, setting: str, make: Callable[[Path], None]
):
    """As for files."""
    path = tmp_path / "it"
    make(path)
    with pytest.raises(ConfigurationError, match="It is no folder"):
        load({setting: path}, environ={}, folder=tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")
@pytest.mark.parametrize("make", [fifo, device, Path.mkdir])
def test_what_becomes_no_file_later_is_not_read(
    tmp_path: Path, make: Callable[[Path], None], caplog: pytest.LogCaptureFixture
):
    """Each reader of a path that was fine, or absent, when it was set says what is wrong, and goes on."""
    path = tmp_path / "it.json"
    make(path)
    (channel,) = FakeSensor(lambda: 0.0).channels
    stored = Calibrations(path)
    assert stored.of(channel) is None
    assert stored.of(channel) is None
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert str(path) in caplog.text
    assert Cache.load(path) == Known()
    assert system.read_text(path) is None
    with pytest.raises(ProviderFault, match=r"it\.json cannot be read"):
        FileOrUrl(str(path)).series("FR", 0.0, 1.0)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")
@pytest.mark.parametrize("make", [fifo, device, Path.mkdir])
def test_a_log_that_becomes_no_file_is_said_once(
    tmp_path: Path, make: Callable[[Path], None], caplog: pytest.LogCaptureFixture
):
    """Somebody puts a pipe, a device or a folder in the log's place: the program goes on, and rows wait."""
    clock = FakeClock()
    path = tmp_path / "calls.csv"
    with Meter(sensors=[FakeSensor(clock)], clock=clock, log=path, calibration="off") as meter:
        for name in "abc":
            with meter.track(name):
                clock.sleep(1.0)
            meter.flush()
            if name == "a":
                path.rename(tmp_path / "before.csv")
                make(path)
        assert [row.name for row in meter.records()] == list("abc")
        said = [record for record in caplog.records if str(path) in record.getMessage()]
        assert len(said) == 1
        path.rename(tmp_path / "odd")
    assert [row.name for row in read(path)] == ["b", "c"]


# --- anything at all

ANY_TEXT = st.text(max_size=12) | st.sampled_from(
    [
        "",
        "nan",
        "-inf",
        "1e300",
        "1e-320",
        "0",
        "-1",
        "5",
        "~",
        "~ gpu:0",
        "gpu:0 cpu:0",
        "[1e300]",
        "[1,2]",
        "{}",
        '{"a":',
        STEERING,
        "=1+1",
        "0001-01-01T00:00:00",
        "9999-12-31T23:59:59+00:00",
        "unknown",
        "2026-11-22T10:00:00Z",
    ]
)
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXT, inner, max_size=3),
    max_leaves=6,
)
CHANGES = st.lists(st.dictionaries(st.sampled_from(COLUMNS), ANY_TEXT, max_size=5), min_size=1, max_size=4)
JSON_CHANGES = st.lists(
    st.dictionaries(st.sampled_from(COLUMNS), ANY_JSON, max_size=5), min_size=1, max_size=4
)
FUZZ = settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def everything(log: Path) -> None:
    """Ask all that can be asked of a log."""
    for command in COMMANDS:
        ask(*command, str(log))
    grid, new = log.with_name("grid.csv"), log.with_name("new.csv")
    grid.write_text(
        "# kind: average;location-based;direct;production\nstart,g_per_kwh\n"
        + "".join(f"2026-11-22T{hour:02}:00:00+00:00,{hour + 100}\n" for hour in range(24))
    )
    asked = ("--provider", str(grid), "--region", "FR")
    ask("carbon", "compare", "--regions", "FR", "--shift", "1", *asked, str(log), "--json")
    ask("carbon", "compare", "--regions", "FR", "--shift", "-1", *asked, str(log))
    ask("carbon", "refill", str(log), "-o", str(new), *asked, "--json")
    assert len(list(read(new))) == len(list(read(log)))
    new.unlink()
    rows = read(log)
    records = list(rows)
    assert records
    for page in pages(summarise(read(log)), *records):
        assert not steers(page)


@FUZZ
@example([{"devices": "~"}, {"pid": "2"}])
@example([{"concurrency": "0"}])
@given(CHANGES)
def test_any_text_in_any_column(tmp_path: Path, changes: list[dict[str, str]]):
    """A row of a good log and some of another process with anything in their columns."""
    log = tmp_path / "calls.csv"
    other = make_record(call_id="feedfacecafebeef-1", pid=2, intensity_method="average;fallback")
    log.write_bytes(
        CSV_HEADER
        + csv_line(make_record())
        + b"".join(
            csv_row(other, **{k: v.encode("utf-8", "replace").decode() for k, v in each.items()})
            for each in changes
        )
        + csv_line(make_record())
    )
    everything(log)


@FUZZ
@example([{"energy_j": 10**400}, {"pid": 10**400}])
@given(JSON_CHANGES)
def test_any_value_in_any_key(tmp_path: Path, changes: list[dict[str, Any]]):
    """The same in JSON Lines, where a value may be of any type and size."""
    log = tmp_path / "calls.jsonl"
    other = make_record(call_id="feedfacecafebeef-1", pid=2, intensity_method="average;fallback")
    log.write_bytes(json_line(make_record()) + b"".join(json_row(other, **each) for each in changes))
    everything(log)


@FUZZ
@given(st.lists(st.binary(max_size=60) | st.just(csv_line(make_record())[:200]), max_size=5), st.booleans())
def test_any_bytes_between_rows(tmp_path: Path, between: list[bytes], as_csv: bool):
    """Bytes of any kind between two rows cost neither."""
    log = tmp_path / "calls"
    good = csv_line(make_record()) if as_csv else json_line(make_record())
    log.write_bytes((CSV_HEADER if as_csv else b"") + good + b"\n".join([*between, good]))
    everything(log)


@FUZZ
@given(
    st.binary(max_size=200),
    st.sampled_from([b"", b"{", b"schema,", CSV_HEADER, b"\xef\xbb\xbf" + CSV_HEADER]),
)
def test_any_bytes_for_a_log(tmp_path: Path, content: bytes, head: bytes):
    """A file of anything is refused, or has no rows."""
    log = tmp_path / "calls"
    log.write_bytes(head + content)
    for command in COMMANDS:
        ask(*command, str(log))
