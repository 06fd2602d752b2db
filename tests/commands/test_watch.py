"""The live view: devices as they are read, a log as it grows, and a command that is watched."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

import aimeter
from aimeter.commands.live import Screen, by_twos, gauges
from aimeter.logs.encode import csv_line
from aimeter.logs.since import Since
from aimeter.report import read
from aimeter.report.strokes import sparkline
from aimeter.sinks import open_log
from aimeter.testing import FakeClock, FakeSensor
from tests.records import make_record


def shown(screen: Screen, width: int = 120) -> str:
    """Return what is to be seen."""
    console = Console(file=io.StringIO(), width=width)
    console.print(screen.draw())
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_a_device_shows_its_power_and_joules():
    """Those of the sensor, with how it is measured and its error."""
    clock = FakeClock()
    with (
        aimeter.Meter(sensors=[FakeSensor(clock, 250.0)], clock=clock, region="FR") as meter,
        meter.track("watch"),
    ):
        screen = Screen(meter, None)
        for _ in range(20):
            clock.sleep(0.5)
            text = shown(screen)
        for _ in range(40):
            clock.sleep(0.5)
            screen.draw()
        for width in (70, 80, 120):
            title, _, row = shown(screen, width).rstrip("\n").splitlines()[-3:]
            assert max(len(title), len(row)) <= width
            assert row.count("█") >= 5
            assert "250 W" in row
        assert row.count("█") == 30
        (gauge,) = meter.sampler.snapshot(gauges)
    assert gauge.watts == pytest.approx(250.0, rel=1e-6)
    assert gauge.joules == pytest.approx(7500.0, rel=0.05)
    assert "250 W" in text
    assert "counter" in text
    assert "█" in text
    assert f"±{100 * gauge.relative_error:.2g}%" in text


@given(st.lists(st.floats(0, 1e4), max_size=60))
def test_sparks_are_as_high_as_their_part_of_the_highest(values: list[float]):
    """The highest block is the greatest mean of two; there is one for each two values."""
    line = sparkline(by_twos(values))
    if line:
        assert len(line) == max(len(values) // 2, 1)
        assert "█" in line
    else:
        assert sum(values[len(values) % 2 :] if len(values) > 1 else values) == 0


def test_the_screen_shows_calls_as_they_end(tmp_path: Path):
    """As a tree, with the newest one below; names are never markup."""
    path = tmp_path / "calls.csv"
    log, screen = open_log(path), Screen(None, Since(path, whole=True))
    assert "No call has ended yet." in shown(screen)
    log.write([make_record(name="[red]chat", energy_j=30.0, error_j=3.0, resolution_j=0.0)])
    text = shown(screen)
    assert "[red]chat" in text
    assert "Newest" in text
    log.write([make_record(name="[red]chat", energy_j=30.0, error_j=3.0, resolution_j=0.0)])
    assert "60.0 ± 6.0 J" in shown(screen)
    with path.open("ab") as file:
        file.write(b"1,torn\r\n" + csv_line(make_record(name="after")))
    text = shown(screen)
    assert "after" in text
    assert "1 line of the log was torn" in text


def run(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the command line in a folder."""
    environment = {**os.environ, "COLUMNS": "120", "PYTHONPATH": str(Path(aimeter.__file__).parents[1])}
    return subprocess.run(
        [sys.executable, "-m", "aimeter", "watch", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


PROGRAM = """
import aimeter
for k in range(3):
    with aimeter.track("work"):
        sum(range(200_000))
print("what it printed")
raise SystemExit(7)
"""


def test_a_command_is_watched_to_its_end(tmp_path: Path):
    """Its calls and the end of what it prints are seen; the exit status is its own, and the log has its rows."""
    (tmp_path / "app.py").write_text(PROGRAM)
    done = run("--log", "calls.csv", "--", sys.executable, "app.py", folder=tmp_path)
    assert done.returncode == 7, done.stderr
    assert "what it printed" in done.stdout
    assert "work" in done.stdout
    assert [row.name for row in read(tmp_path / "calls.csv")] == ["work"] * 3


def test_a_command_that_is_not_there_is_said_so(tmp_path: Path):
    """As a shell does."""
    done = run("--", "./nothing", folder=tmp_path)
    assert done.returncode == 127
    assert "./nothing: No such file or directory" in done.stderr


def test_this_machine_is_watched_for_some_seconds(tmp_path: Path):
    """Without a log it shows what can be read here."""
    done = run("--seconds", "1.5", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "device" in done.stdout or "Looking for meters" in done.stdout


def test_a_folder_is_no_log(tmp_path: Path):
    """It is said before anything is watched."""
    done = run("--log", str(tmp_path), "--seconds", "1", folder=tmp_path)
    assert done.returncode == 2
    assert "is a folder" in done.stderr
