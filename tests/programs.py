"""Programs that use aimeter, run as real processes, and the rows that they left behind."""

from __future__ import annotations

import csv
import fcntl
import io
import os
import re
import struct
import subprocess
import sys
import termios
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from aimeter.record import Record

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parent.parent
TIMEOUT_S = 600
"""A program that takes longer is deadlocked, however busy the machine: none works for more than a few seconds."""

PRELUDE = """
import asyncio, atexit, gc, logging, os, signal, sys, threading, time
from time import perf_counter, sleep
import aimeter
from aimeter.sensors.base import Outcome, Reading
from aimeter.testing import FakeSensor

LOG = sys.argv[1]

def sensor(power_w=100.0, period_s=0.02, **more):
    return FakeSensor(perf_counter, power_w, period_s=period_s, **more)

def new_meter(*sensors, **settings):
    return aimeter.Meter(sensors=sensors or [sensor()], **{"log": LOG, "region": "FR", **settings})

def until(condition, timeout_s=300):
    end = perf_counter() + timeout_s
    while not condition():
        assert perf_counter() < end, "waited in vain"
        sleep(0.005)

def off(call):
    # By how many of its bars a call that drew 100 W is off. Bars are of 95 %: three are never left by chance.
    return abs(call.energy_j - 100 * call.duration_s) / call.error_j

def of_aimeter():
    return [thread for thread in threading.enumerate() if thread.name.startswith("aimeter")]
"""
"""What every program begins with; the log is its first argument."""

FORKING = "ignore:This process:DeprecationWarning"
"""From 3.12 on, Python warns whoever forks while threads run, aimeter's among them: see the page on life cycles."""


def environment(given: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return an environment in which programs find aimeter, and no settings but those given."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("AIMETER_")}
    ours = {
        "AIMETER_CALIBRATION": "off",
        "PYTHONPATH": str(ROOT),
        "PYTHONFAULTHANDLER": "1",
        "PYTHONWARNINGS": FORKING,
    }
    return {**inherited, **ours, **(given or {})}


def start(
    source: str, log: Path, *, environ: Mapping[str, str] | None = None, script: Path | None = None
) -> subprocess.Popen[bytes]:
    """Begin a program, by default in the folder of its log; what it prints are pipes."""
    script = log.parent / "program.py" if script is None else script
    script.write_text(PRELUDE + textwrap.dedent(source))
    return subprocess.Popen(
        [sys.executable, str(script), str(log)],
        cwd=script.parent,
        env=environment(environ),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def finish(program: subprocess.Popen[bytes], *, status: int = 0) -> tuple[str, str]:
    """Wait for a program to end as expected, and return what it printed and complained of."""
    try:
        out, err = program.communicate(timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        program.send_signal(6)  # faulthandler then tells where every thread is
        _, err = program.communicate()
        raise AssertionError("deadlocked:\n" + err.decode()) from None
    assert program.returncode == status, err.decode()
    return out.decode(), err.decode()


def run(
    source: str, log: Path, *, environ: Mapping[str, str] | None = None, script: Path | None = None
) -> str:
    """Run a program that must end well and complain of nothing; return what it printed."""
    out, err = finish(start(source, log, environ=environ, script=script))
    assert err == ""
    return out


def in_terminal(line: list[str], *, environ: Mapping[str, str], columns: int) -> tuple[int, str]:
    """Run a command in a terminal that wide; return how it ended, and what was to be seen there, without colours."""
    pid, terminal = os.forkpty()
    if pid == 0:
        fcntl.ioctl(2, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        os.execve(line[0], line, {**environ, "COLUMNS": "", "TERM": "xterm"})
    seen = b""
    while True:
        try:
            seen += os.read(terminal, 4096)
        except OSError:
            break  # how Linux says that nobody has the terminal open any more
    os.close(terminal)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return status, re.sub(r"\x1b\[[\d;]*m", "", seen.decode()).replace("\r", "")


def told(said: str) -> dict[str, int]:
    """Return how many calls of each name, wherever it stands, a table has that was printed as plain text."""
    lines = [re.split(r"\s{2,}", line.lstrip("├└│ ")) for line in said.splitlines()]
    return {cells[0]: int(cells[1]) for cells in lines if len(cells) > 1 and cells[1].isdigit()}


def rows(log: Path, *, torn: bool = False) -> list[dict[str, str]]:
    """Read a log with nothing of aimeter's, and require that it is whole: header, columns, line ends, ids.

    Args:
        log: The file; without one there are no rows.
        torn: Whether the last line may be cut, or nothing written yet: its writer was killed, or is at it.
    """
    if not log.exists():
        return []
    text = log.read_bytes().decode()
    if torn:
        text = text[: text.rfind("\n") + 1]
        if not text:
            return []
    assert text.endswith("\r\n")
    header, *lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    assert header == list(Record._fields)
    assert {len(line) for line in lines} <= {len(header)}
    found = [dict(zip(header, line, strict=True)) for line in lines]
    ids = [row["call_id"] for row in found]
    assert len(set(ids)) == len(ids)
    return found


def off(row: dict[str, str]) -> float:
    """Return by how many of its bars a call that drew 100 W is off. They are of 95 %: three are never left by chance."""
    return abs(float(row["energy_j"]) - 100.0 * float(row["duration_s"])) / float(row["error_j"])


def names(log: Path, *, torn: bool = False) -> list[str]:
    """Return the names of the calls in a log, sorted; `torn` as in `rows`."""
    return sorted(row["name"] for row in rows(log, torn=torn))
