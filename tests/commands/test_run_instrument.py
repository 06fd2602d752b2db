"""`aimeter run --instrument` as people see it: the table of the run's own calls, and how much of the whole they are."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import toy_framework
from tests.programs import in_terminal, told

AIMETER = [sys.executable, "-m", "aimeter"]
WATTS = 23.0
"""What the emulated server draws all along: see the fixture `tree`."""
FIGURE = re.compile(r"[\d.]+( ± [\d.]+)? [µmk]?([Jgs])\b")

IN_CALLS = (
    "aimeter: in model calls: # J (#% of the energy) and # s (#% of the time); the rest, # J and # s, is loading, "
    "imports and idling"
)

REQUESTS = """
import time
import aimeter
from toyframework.models import Model
class Slow(Model):
    def run(self, number):
        time.sleep(0.1)
        return super().run(number)
for _ in range(2):
    with aimeter.track("request"):
        time.sleep(0.3)
        Slow().run(4)
time.sleep(0.5)
"""

CALLS = """
import sys
from toyframework.models import Model
for _ in range(int(sys.argv[1])):
    Model().run(1)
"""


@pytest.fixture
def environ(environ, tree, tmp_path):
    """The toy framework on the path, and a server whose counters are read."""
    toy_framework.install(tmp_path)
    (tmp_path / "temporary").mkdir()
    path = os.pathsep.join([str(tmp_path), environ["PYTHONPATH"]])
    more = {"AIMETER_POWERCAP": str(tree.root), "AIMETER_CALIBRATION": "off", "AIMETER_REGION": "FR"}
    return {**environ, **more, "PYTHONPATH": path, "TMPDIR": str(tmp_path / "temporary")}


def command(source, *arguments, options=()):
    """Return the command line of a run of a program, which is put into the current folder."""
    number = sum(1 for _ in Path().glob("app*.py"))
    Path(f"app{number}.py").write_text(source)
    return [*AIMETER, "run", "--instrument", *options, "--", sys.executable, f"app{number}.py", *arguments]


def run(environ, source, *arguments, options=(), status=0):
    """Run a program and return what was said on standard error."""
    line = command(source, *arguments, options=options)
    ran = subprocess.run(line, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == status, ran.stderr
    return ran.stderr


def rows(log="calls.csv"):
    with Path(log).open(newline="") as file:
        return list(csv.DictReader(file))


def of_last_lines(said):
    """Return the joules and seconds in calls, those of the rest, and those of the whole."""
    found = re.search(
        r"in model calls: (\S+)(?: ± \S+)? J \(\d+% of the energy\) and (\S+ m?s) \(\d+% of the time\); "
        r"the rest, (\S+) J and (\S+ m?s), is loading, imports and idling\n"
        r"aimeter: python\S*: (\S+)(?: ± \S+)? J \(.*CO2e .*, (\S+ m?s)[,;]",
        said,
    )
    assert found, said
    joules = [float(found[place]) for place in (1, 3, 5)]
    seconds = [number(found[place]) for place in (2, 4, 6)]
    return joules, seconds


def number(text):
    value, unit = text.split()
    return float(value) * {"s": 1.0, "ms": 1e-3}[unit]


def test_the_run_ends_with_its_table(environ):
    """The tree of its calls, how much of it they are, and the whole with where the log is; figures apart, word by word."""
    said = run(environ, REQUESTS, options=["--log", "calls.csv"])
    program, log = Path(sys.executable).name, Path("calls.csv").absolute()
    words = [re.sub("--+", "---", re.sub(" {2,}", "  ", line)) for line in said.splitlines()]
    words = [re.sub(r"\d+%", "#%", FIGURE.sub(r"# \2", line)) for line in words]
    assert words == [
        "name  calls  share  per call  per unit  energy  CO2e  time",
        "---",
        "request  2  #%  # J  # J  # g  # s",
        "├ Slow.run  2  #%  # J  # J/item  # J  # g  # s",
        "└ self  #%  # J",
        "---",
        "total  2  # J  # J  # g  # s",
        "Measured by: cpu counter, dram counter.",
        "± is the error of measurement, a 95 % half-width; a sensor's calibration does not average out.",
        "The total is of calls that no other call encloses; 2 more are inside those.",
        IN_CALLS,
        f"aimeter: {program}: # J (cpu counter, dram counter), # g CO2e (FR # g/kWh), # s, rows in {log}",
    ]


def test_calls_and_the_rest_are_the_whole(environ):
    """Joules and seconds in calls are those of the log's outermost rows; at an even power both parts are alike."""
    joules, seconds = of_last_lines(run(environ, REQUESTS, options=["--log", "calls.csv"]))
    outermost = [row for row in rows() if not row["parent_id"]]
    assert joules[0] == pytest.approx(sum(float(row["energy_j"]) for row in outermost), rel=0.01)
    assert seconds[0] == pytest.approx(sum(float(row["duration_s"]) for row in outermost), rel=0.01)
    for parts in (joules, seconds):
        assert parts[0] + parts[1] == pytest.approx(parts[2], rel=0.02)
    error_j = sum(float(row["error_j"]) for row in outermost)
    assert joules[0] == pytest.approx(WATTS * seconds[0], abs=error_j + 0.01 * joules[0])


def test_time_in_calls_counts_once_where_they_overlap(environ):
    """Of two threads that are in calls at the same time, and of a call inside another one."""
    source = """
import threading, time
import aimeter
both = threading.Barrier(2)
def work():
    with aimeter.track("of a thread"):
        both.wait()
        time.sleep(0.4)
        both.wait()
threads = [threading.Thread(target=work) for _ in range(2)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
"""
    _, seconds = of_last_lines(run(environ, source, options=["--log", "calls.csv"]))
    first, second = [float(row["duration_s"]) for row in rows()]
    assert max(first, second) * 0.99 < seconds[0] < 0.75 * (first + second)


def test_two_runs_on_one_log_at_once(environ):
    """Each tells of its own calls only, although both were written meanwhile and other ones before."""
    run(environ, CALLS, "3", options=["--log", "calls.csv"])
    source = (
        CALLS
        + """
import pathlib, time, aimeter
aimeter.flush()
pathlib.Path(sys.argv[2]).touch()
while not pathlib.Path(sys.argv[3]).exists():
    time.sleep(0.01)
"""
    )
    lines = [
        command(source, str(count), mine, other, options=["--log", "calls.csv"])
        for count, mine, other in ((2, "first", "second"), (5, "second", "first"))
    ]
    both = [subprocess.Popen(line, env=environ, stderr=subprocess.PIPE, text=True) for line in lines]
    said = [one.communicate(timeout=60)[1] for one in both]
    assert [told(text) for text in said] == [
        {"Model.run": 2, "total": 2},
        {"Model.run": 5, "total": 5},
    ], said
    assert len(rows()) == 10
    assert len({json.loads(row["meta"])["aimeter"]["run"] for row in rows()}) == 3


def test_children_of_the_command_are_in_it(environ):
    """Python programs that it starts, and forks of itself."""
    Path("child.py").write_text(CALLS)
    source = """
import os, subprocess, sys
from toyframework.models import Special
subprocess.run([sys.executable, "child.py", "2"], check=True)
child = os.fork()
Special().run(1)
if child:
    os.waitpid(child, 0)
"""
    said = run(environ, source, options=["--log", "calls.csv"])
    assert told(said) == {"Model.run": 2, "Special.run": 2, "total": 4}, said


@pytest.mark.parametrize("options", [(), ("-q",)])
def test_without_a_log_nothing_is_left(environ, options):
    """The table is shown all the same, and the line says that the rows are gone and how to keep them."""
    said = run(environ, CALLS, "2", options=options)
    assert list(Path("temporary").iterdir()) == []
    assert not Path("calls.csv").exists()
    if options:
        assert said == ""
    else:
        assert told(said) == {"Model.run": 2, "total": 2}, said
        assert said.endswith("; the rows are not kept, --log calls.csv does that\n")


def test_no_place_for_a_temporary_log(environ):
    """The command runs as ever, and the table is said to be missing, and why."""
    code = "import sys, tempfile; tempfile.tempdir = '/nowhere'; from aimeter.cli import main; main()"
    line = [sys.executable, "-c", code, *command(CALLS + "sys.exit(3)", "2")[len(AIMETER) :]]
    ran = subprocess.run(line, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 3
    none, whole = ran.stderr.splitlines()
    assert none == "aimeter: no table of the model calls, as no temporary file can be made: see --log"
    assert re.match(r"aimeter: python\S*: .* J ", whole)


@pytest.mark.parametrize("kept", [True, False])
def test_a_command_that_is_killed(environ, kept):
    """It ends by the signal; what it had written is in the table, and it is said that there may have been more."""
    source = CALLS + "import os, aimeter; aimeter.flush(); os.kill(os.getpid(), 9)\n"
    options = ["--log", "calls.csv"] if kept else []
    said = run(environ, source, "3", options=options, status=-signal.SIGKILL)
    assert told(said) == {"Model.run": 3, "total": 3}, said
    assert "the command was killed: calls that were open, or in its last second, may have no row\n" in said
    assert list(Path("temporary").iterdir()) == []


@pytest.mark.parametrize(
    ("source", "options"),
    [
        ("", []),
        ("", ["--log", "calls.csv"]),
        ("import aimeter\naimeter.configure(log='own.csv')\n" + CALLS, []),
        ("import aimeter\naimeter.configure(log='own.csv')\n" + CALLS, ["--log", "calls.csv"]),
    ],
    ids=["no call", "no call, a log", "a log of its own", "a log of its own beside another"],
)
def test_nothing_of_the_run_is_in_the_log(environ, source, options):
    """One line says so and why that may be, and the whole is told as ever; the status is the command's."""
    said = run(environ, source + "\nimport sys; sys.exit(3)", "2", options=options, status=3)
    none, whole = said.splitlines()
    assert none.startswith("aimeter: no model call was metered: the command made none")
    assert re.match(r"aimeter: python\S*: .* J ", whole)
    assert ("no row in" in whole) == bool(options)
    assert len(rows("own.csv") if source else []) == (2 if source else 0)


@pytest.mark.parametrize("torn", [b"", b"3,torn"])
def test_a_log_that_is_rotated_meanwhile(environ, torn):
    """What was written before and after is in the table; nothing is of what was there before the run."""
    run(environ, CALLS, "4", options=["--log", "calls.csv"])
    with Path("calls.csv").open("ab") as log:
        log.write(torn)
    source = """
import os, aimeter
from toyframework.models import Model
Model().run(1)
aimeter.flush()
os.rename("calls.csv", "calls.csv.1")
Model().run(1)
Model().run(1)
"""
    said = run(environ, source, options=["--log", "calls.csv"])
    assert (len(rows("calls.csv.1")), len(rows())) == (5, 2)
    assert told(said) == {"Model.run": 3, "total": 3}, said


def test_a_log_that_holds_something_else(environ):
    """Before the command has run it is refused, or the rows are beside it and told from there."""
    Path("calls.csv").write_text("mine\n")
    said = run(environ, "open('ran', 'w')", options=["--log", "calls.csv"], status=2)
    assert "no aimeter log" in said
    assert not Path("ran").exists()
    said = run({**environ, "AIMETER_LOG_CONFLICT": "new_file"}, CALLS, "2", options=["--log", "calls.csv"])
    assert told(said) == {"Model.run": 2, "total": 2}, said
    assert said.endswith(f"rows in {Path('calls-2.csv').absolute()}\n")


def test_a_log_that_becomes_something_else(environ):
    """No table then, and no traceback."""
    source = CALLS + "import aimeter; aimeter.flush(); open('calls.csv', 'w').write('mine\\n')\n"
    said = run(environ, source, "2", options=["--log", "calls.csv"])
    table, whole = said.splitlines()
    assert "no table of the model calls" in table
    assert "no aimeter log" in table
    assert re.match(r"aimeter: python\S*: .* J ", whole)


def test_no_thread_takes_the_signals(environ):
    """All is prepared without one that began before signals are held: it would get those that are waited for."""
    code = (
        "import os, aimeter.settings, aimeter.commands.run, aimeter.commands.calls\n"
        "for log in (None, 'calls.csv'):\n"
        "    calls = aimeter.commands.calls.Calls(aimeter.settings.load({'log': log}), shown=True)\n"
        "    print(len(os.listdir('/proc/self/task')))\n"
        "    calls.close()\n"
    )
    line = [sys.executable, "-c", code]
    assert subprocess.run(line, env=environ, capture_output=True, text=True, check=True).stdout == "1\n1\n"


def test_a_name_of_the_run_that_the_user_has_set(environ):
    """It stays, and is in each row."""
    run({**environ, "AIMETER_RUN_ID": "nightly 7"}, CALLS, "2", options=["--log", "calls.csv"])
    assert [json.loads(row["meta"])["aimeter"]["run"] for row in rows()] == ["nightly 7"] * 2


def test_the_table_is_shown_once(environ):
    """With AIMETER_SUMMARY=1, too, of which the command is told nothing; a run without calls of its own shows none."""
    environ |= {"AIMETER_SUMMARY": "1"}
    said = run(environ, CALLS, "2")
    assert told(said) == {"Model.run": 2, "total": 2}, said
    assert len(re.findall("^total", said, re.MULTILINE)) == 1
    assert run(environ, CALLS, "2", options=["-q"]) == ""
    whole = subprocess.run([*AIMETER, "run", "true"], env=environ, capture_output=True, text=True, check=True)
    assert len(whole.stderr.splitlines()) == 1


def test_metering_is_switched_off(environ):
    """One line, and no talk of calls."""
    said = run({**environ, "AIMETER_ENABLED": "off"}, CALLS, "2")
    assert re.fullmatch(r"aimeter: python\S*: not metered, because the setting `enabled` is false\n", said)


def test_a_terminal_that_is_narrow(environ):
    """The table is drawn by rich in its width: no line of it is broken by the terminal."""
    columns = 80
    line = command(REQUESTS)
    status, said = in_terminal(line, environ=environ, columns=columns)
    assert status == 0
    table, _, rest = said.partition("aimeter: in model calls")
    assert "├ Slow.run" in table.replace("Slow.\n", "Slow.")
    assert "─" * 20 in table
    assert max(map(len, table.splitlines())) <= columns
    assert "the rows are not kept" in rest


@pytest.mark.parametrize("end", ["closed", "nobody reads", "full"])
def test_standard_error_that_cannot_be_written(environ, end):
    """The exit status is the command's own, also where Python keeps what it could not write and tries again at its end."""
    environ |= {"PYTHONUNBUFFERED": ""}
    line = command(CALLS + "sys.exit(3)", "2")
    read, write = os.pipe()
    if end == "full":
        os.close(write)
        write = os.open("/dev/full", os.O_WRONLY)
    os.close(read)
    with os.fdopen(write, "wb") as stream:
        shell = ["sh", "-c", '"$@" 2>&-', "sh", *line] if end == "closed" else line
        ran = subprocess.run(shell, env=environ, stderr=stream, timeout=60, check=False)
    assert ran.returncode == 3
    assert list(Path("temporary").iterdir()) == []
