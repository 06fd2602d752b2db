"""Logs in the form of other tools, and those of other meters as ours."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from aimeter.cli import app
from aimeter.commands.convert import from_codecarbon, to_parquet, to_perfetto
from aimeter.commands.report import draw
from aimeter.errors import ConfigurationError, LogSchemaError
from aimeter.logs.export import export_log
from aimeter.record import COLUMNS
from aimeter.report import read
from tests.records import make_record

TASKS = """\
task_name,timestamp,project_name,run_id,duration,emissions,emissions_rate,cpu_power,gpu_power,ram_power,cpu_energy,gpu_energy,\
ram_energy,energy_consumed,country_name,country_iso_code,region,codecarbon_version,cpu_model,gpu_count
query model,2023-09-08T12:58:50,some/model,run1,21.5,0.0008,3.7e-05,42.5,481.5,430.8,0.0003,0.0029,0.0026,0.0058,USA,USA,oregon,2.3.1,Xeon,8
load model,2023-09-08T12:58:28,some/model,run1,5.0,,,,,,,,,0.001,,,,2.3.1,,
"""
RUNS = """\
timestamp,project_name,run_id,duration,emissions,emissions_rate,cpu_power,gpu_power,ram_power,cpu_energy,gpu_energy,ram_energy,\
energy_consumed,water_consumed,country_iso_code,codecarbon_version,pue
2026-11-27T10:00:10,training,r,10.0,0.2,0.02,40,0,10,0.0006,0,0.0004,0.001,0.0,FRA,3.3.2,1.2
2026-11-27T10:00:10,training,r,nan,0.2,0.02,40,0,10,0.0006,0,0.0004,0.001,0.0,FRA,3.3.2,1.2
never,training,r,1.0,0.2,0.02,40,0,10,0.0006,0,0.0004,0.001,0.0,FRA,3.3.2,1.2
"""


def test_codecarbons_tasks_become_rows(tmp_path: Path):
    """Joules, grams, times and parts are theirs; what they lack is unknown, never 0."""
    (tmp_path / "emissions_base_run1.csv").write_text(TASKS)
    done = from_codecarbon([tmp_path / "emissions_base_run1.csv"], tmp_path / "calls.csv")
    assert done == (2, [], True, 0)
    query, load = read(tmp_path / "calls.csv")
    assert (query.name, query.model, query.zone) == ("query model", "some/model", "USA")
    assert query.start == "2023-09-08T12:58:28.500000Z"
    assert (query.duration_s, query.energy_j, query.co2e_g) == (21.5, 20_880.0, 0.8)
    assert (query.gpu_j, query.cpu_j, query.dram_j) == (10_440.0, 1_080.0, 9_360.0)
    assert (query.gpu_method, query.cpu_method, query.dram_method) == ("counter", "estimate", "estimate")
    assert query.intensity_g_per_kwh == pytest.approx(0.8 / 0.0058)
    assert (query.error_j, query.resolution_j, query.idle_j) == (None, None, None)
    assert (load.co2e_g, load.intensity_g_per_kwh, load.gpu_j, load.gpu_method) == (None, None, None, "none")
    assert query.meta["aimeter"] == {"imported": "codecarbon 2.3.1"}


def test_codecarbons_runs_become_rows(tmp_path: Path):
    """Of later versions, with their PUE; a line that says nothing is told with its place."""
    (tmp_path / "emissions.csv").write_text(RUNS)
    done = from_codecarbon([tmp_path / "emissions.csv"], tmp_path / "calls.jsonl")
    assert done.rows == 1
    assert [problem.split(": ")[0] for problem in done.problems] == [
        f"{tmp_path / 'emissions.csv'}:3",
        f"{tmp_path / 'emissions.csv'}:4",
    ]
    (row,) = read(tmp_path / "calls.jsonl")
    assert (row.name, row.model, row.energy_j, row.co2e_g, row.pue) == ("training", None, 3600.0, 200.0, 1.2)
    assert row.intensity_g_per_kwh * row.pue * row.energy_j / 3.6e6 == pytest.approx(row.co2e_g)


def test_times_without_a_zone_are_said(tmp_path: Path):
    """They are taken for UTC; one that has a zone is what it says."""
    (tmp_path / "emissions.csv").write_text(
        RUNS.replace("27T10:00:10,training,r,10.0", "27T10:00:10+02:00,training,r,10.0")
    )
    assert not from_codecarbon([tmp_path / "emissions.csv"], tmp_path / "calls.csv").zoneless
    (row,) = read(tmp_path / "calls.csv")
    assert row.start == "2026-11-27T08:00:00.000000Z"
    (tmp_path / "emissions.csv").write_text(RUNS)
    done = CliRunner().invoke(
        app, ["import", "codecarbon", str(tmp_path / "emissions.csv"), "--log", str(tmp_path / "utc.csv")]
    )
    assert "1 row in" in done.output
    assert "Their times have no zone and are taken for UTC" in done.output


def test_what_is_none_of_codecarbons_is_refused(tmp_path: Path):
    """With what is missing; and nothing is written."""
    (tmp_path / "loss.csv").write_text("epoch,loss\n1,2\n")
    with pytest.raises(LogSchemaError, match="lacks duration, emissions"):
        from_codecarbon([tmp_path / "loss.csv"], tmp_path / "calls.csv")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        from_codecarbon([tmp_path / "nothing.csv"], tmp_path / "calls.csv")
    assert not (tmp_path / "calls.csv").exists()


ROWS = [
    make_record(name='a,"b"\n', call_id="1", start="2026-11-26T23:59:59.000000Z", meta={"x": [1, "é"]}),
    make_record(name="b", call_id="2", parent_id="1", start="2026-11-27T00:00:00.250000Z", energy_j=None, devices_j=()),
]  # fmt: skip


def test_parquet_holds_the_same_rows_by_day(tmp_path: Path):
    """With types: numbers are numbers, times are times in UTC, lists are lists; days are folders."""
    duckdb = pytest.importorskip("duckdb")
    export_log(ROWS, tmp_path / "calls.csv")
    assert to_parquet([str(tmp_path / "calls.csv")], tmp_path / "parquet").rows == 2
    assert sorted(path.name for path in (tmp_path / "parquet").iterdir()) == [
        "day=2026-11-26",
        "day=2026-11-27",
    ]
    found = duckdb.sql(
        f"SELECT name, epoch(start), energy_j, devices_j, images, meta FROM '{tmp_path}/parquet/**/*.parquet' ORDER BY call_id"
    ).fetchall()
    first, second = (datetime.fromisoformat(row.start).replace(tzinfo=UTC).timestamp() for row in ROWS)
    written = next(iter(read(tmp_path / "calls.csv"))).name
    assert found[0][:5] == (written, first, 12.5, [10.0, 2.5], 4.0)
    assert json.loads(found[0][5]) == {"x": [1, "é"]}
    assert found[1][:4] == ("b", second, None, [])


def test_a_trace_has_calls_as_slices_and_power_as_counters(tmp_path: Path):
    """As Chrome's format asks for: microseconds, complete events, and a counter that ends at 0."""
    export_log(ROWS, tmp_path / "calls.csv")
    assert to_perfetto([str(tmp_path / "calls.csv")], tmp_path / "trace.json").rows == 2
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    slices = [event for event in events if event["ph"] == "X"]
    assert [event["dur"] for event in slices] == [250_000, 250_000]
    assert slices[1]["ts"] - slices[0]["ts"] == 1_250_000
    assert slices[0]["args"]["energy_j"] == 12.5
    assert "energy_j" not in slices[1]["args"]
    counters = [
        (event["name"], event["ts"] - slices[0]["ts"], event["args"]["W"])
        for event in events
        if event["ph"] == "C"
    ]
    assert counters == [
        ("power gpu:0", 0, 40.0),
        ("power gpu:0", 250_000, 0.0),
        ("power cpu:0", 0, 10.0),
        ("power cpu:0", 250_000, 0.0),
    ]


def test_lines_that_are_no_rows_are_told(tmp_path: Path):
    """The others are exported."""
    export_log(ROWS, tmp_path / "calls.csv")
    with (tmp_path / "calls.csv").open("ab") as file:
        file.write(b"1,torn\r\n")
    done = to_perfetto([str(tmp_path / "calls.csv")], tmp_path / "trace.json")
    assert done.rows == 2
    assert done.problems == [f"{tmp_path / 'calls.csv'}:4: 2 columns, not {len(COLUMNS)}"]


def test_a_file_that_cannot_be_written_is_said(tmp_path: Path):
    """In one line."""
    export_log(ROWS, tmp_path / "calls.csv")
    with pytest.raises(ConfigurationError, match="does not exist"):
        to_perfetto([str(tmp_path / "calls.csv")], tmp_path / "nowhere" / "trace.json")


def test_what_is_read_is_never_replaced(tmp_path: Path):
    """Nor a log that is there by an import; under whatever name the file is meant."""
    log, link = tmp_path / "calls.csv", tmp_path / "link.csv"
    export_log(ROWS, log)
    link.symlink_to(log)
    before = log.read_bytes()
    for target in (log, link):
        with pytest.raises(ConfigurationError, match="is what is read"):
            to_perfetto([str(log)], target)
        with pytest.raises(ConfigurationError, match="is what is read"):
            draw([str(log)], {"html": target})
    with pytest.raises(ConfigurationError, match="is there already"):
        from_codecarbon([log], log)
    assert log.read_bytes() == before


def test_devices_and_folders_are_no_targets(tmp_path: Path):
    """They would be replaced by a file; and two forms do not go into one file."""
    export_log(ROWS, tmp_path / "calls.csv")
    with pytest.raises(ConfigurationError, match="no regular file"):
        draw([str(tmp_path / "calls.csv")], {"svg": Path("/dev/null")})
    with pytest.raises(ConfigurationError, match="is a folder"):
        to_perfetto([str(tmp_path / "calls.csv")], tmp_path)
    with pytest.raises(ConfigurationError, match="a file for each"):
        draw([str(tmp_path / "calls.csv")], {"svg": tmp_path / "x", "html": tmp_path / "x"})


def test_an_odd_row_costs_no_other(tmp_path: Path):
    """What fits into no typed column is told with its line; nothing is said in an engine's words."""
    duckdb = pytest.importorskip("duckdb")
    odd = [{"start": "yesterday"}, {"start": "2026-11-27T00:00:00"}, {"pid": 2**70}]
    rows = [*ROWS, *(make_record(call_id=f"odd{number}", **one) for number, one in enumerate(odd))]
    export_log(rows, tmp_path / "calls.csv")
    done = to_parquet([str(tmp_path / "calls.csv")], tmp_path / "parquet")
    assert done.rows == 2
    assert [problem.split(": ")[0].rsplit(":")[-1] for problem in done.problems] == ["4", "5", "6"]
    (count,) = duckdb.sql(f"SELECT count(*) FROM '{tmp_path}/parquet/**/*.parquet'").fetchall()
    assert count == (2,)


def test_rows_that_are_there_are_not_appended_again(tmp_path: Path):
    """They are counted, and what is new is written."""
    duckdb = pytest.importorskip("duckdb")
    export_log(ROWS, tmp_path / "calls.csv")
    to_parquet([str(tmp_path / "calls.csv")], tmp_path / "parquet")
    export_log([*ROWS, make_record(call_id="3")], tmp_path / "calls.csv")
    for rows, known in ((1, 2), (0, 3)):
        done = to_parquet([str(tmp_path / "calls.csv")], tmp_path / "parquet")
        assert (done.rows, done.known) == (rows, known)
    (count,) = duckdb.sql(f"SELECT count(*) FROM '{tmp_path}/parquet/**/*.parquet'").fetchall()
    assert count == (3,)


def test_a_target_that_is_no_folder_is_said_in_one_line(tmp_path: Path):
    """In our own words."""
    pytest.importorskip("duckdb")
    export_log(ROWS, tmp_path / "calls.csv")
    (tmp_path / "taken").write_text("x")
    with pytest.raises(ConfigurationError, match=r"taken cannot be written: name a folder"):
        to_parquet([str(tmp_path / "calls.csv")], tmp_path / "taken")


def test_a_trace_tells_processes_of_two_machines_apart(tmp_path: Path):
    """They may have one process id."""
    rows = [make_record(machine=f"m{number:016x}") for number in (0, 1, 0)]
    export_log(rows, tmp_path / "calls.csv")
    to_perfetto([str(tmp_path / "calls.csv")], tmp_path / "trace.json")
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert [event["pid"] for event in events if event["ph"] == "X"] == [4711, 10_004_711, 4711]


def test_a_pipe_goes_into_both_forms(tmp_path: Path):
    """What can be read once only is found once."""
    pytest.importorskip("duckdb")
    export_log(ROWS, tmp_path / "calls.csv")
    command = "cat calls.csv | {0} -m aimeter export /dev/stdin --parquet parquet --perfetto trace.json"
    done = subprocess.run(
        ["sh", "-c", command.format(sys.executable)], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "2 rows in parquet\n2 rows in trace.json\n"
