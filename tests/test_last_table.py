"""The setting `summary`: a program ends with the table of its calls, in real processes that end in every way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import programs, toy_framework

ON = {"AIMETER_SUMMARY": "1"}
BUFFERED = {**ON, "PYTHONUNBUFFERED": ""}
"""Then Python keeps what it could not write, and tries again at its end."""

CALLS = """
meter = new_meter(sensor(period_s=0.1))
with meter.track("request"):
    for _ in range(3):
        with meter.track("step", steps=2):
            sleep(0.02)
"""


def run(source, tmp_path, *, environ=ON, status=0):
    """Run a program and return what it said on standard error; it prints nothing else."""
    program = programs.start(source, tmp_path / "calls.csv", environ=environ)
    out, err = programs.finish(program, status=status)
    assert out == ""
    return err


def tables(said):
    """Return the tables that were said: the calls by name, as they are printed."""
    return [programs.told(part) for part in said.split("aimeter: calls of process ")[1:]]


@pytest.mark.parametrize(
    ("end", "status"),
    [
        ("", 0),
        ("sys.exit(3)", 3),
        ("raise ValueError('mine')", 1),
        ("signal.raise_signal(signal.SIGINT)", -signal.SIGINT),
    ],
)
def test_a_program_ends_with_the_table_of_its_calls(tmp_path, end, status):
    """The rows are on disk then, and the exit is the program's own: nothing is imported that would change it."""
    said = run(CALLS + end, tmp_path, status=status)
    assert tables(said) == [{"request": 1, "step": 3, "total": 1}], said
    assert len(programs.rows(tmp_path / "calls.csv")) == 4


@pytest.mark.parametrize(("end", "status"), [("", 0), ("signal.raise_signal(signal.SIGINT)", -signal.SIGINT)])
def test_in_a_terminal_it_is_as_wide_as_that(tmp_path, end, status):
    """Drawn by rich, all of which is loaded before: an interrupted program ends by the signal."""
    script = tmp_path / "program.py"
    script.write_text(f"{programs.PRELUDE}{CALLS}{end}")
    line = [sys.executable, str(script), str(tmp_path / "calls.csv")]
    ended, said = programs.in_terminal(line, environ=programs.environment(ON), columns=100)
    assert ended == status
    said = said.partition("aimeter: calls of process")[2]
    assert "─" * 20 in said
    assert " step" in said


@pytest.mark.parametrize(
    ("source", "environ"),
    [
        (CALLS, {}),
        (CALLS, {"AIMETER_SUMMARY": "0"}),
        (CALLS, {**ON, "AIMETER_ENABLED": "0"}),
        (CALLS.replace("new_meter(", "new_meter(summary=False) or ("), ON),
        ("new_meter()", ON),
        ("aimeter.configure(log=LOG)", ON),
        ("import aimeter", ON),
    ],
    ids=[
        "unset",
        "off",
        "not enabled",
        "off by argument",
        "no call",
        "no call of the default meter",
        "no meter",
    ],
)
def test_nothing_is_said(tmp_path, source, environ):
    """Where it was not asked for, or there is nothing to say."""
    assert run(source, tmp_path, environ=environ) == ""


def test_one_table_of_all_meters(tmp_path):
    """Those that are gone, the default meter before and after it was made anew, and not one that does without."""
    source = """
    def work(name, **settings):
        with new_meter(**settings) as meter, meter.track(name):
            pass
    work("dropped")
    gc.collect()
    work("silent", summary=False)
    aimeter.configure(log=LOG)
    with aimeter.track("default"):
        pass
    aimeter.configure(log=LOG, pue=1.1)
    with aimeter.track("default"):
        pass
    kept = new_meter()
    with kept.track("kept"):
        pass
    """
    said = run(source, tmp_path)
    (table,) = tables(said)
    assert table == {"dropped": 1, "default": 2, "kept": 1, "total": 4}, said


def test_the_rest_of_the_program_speaks_first(tmp_path):
    """Exit handlers' calls are in the table, and one that is still open then."""
    source = """
    meter = new_meter()
    def leave():
        with meter.track("leaving"):
            pass
        print("left", file=sys.stderr)
    atexit.register(leave)
    call = meter.track("open")
    call.__enter__()
    """
    said = run(source, tmp_path)
    assert said.startswith("left\n")
    assert tables(said) == [{"open": 1, "leaving": 1, "total": 1}], said


def test_a_forked_child_tells_of_its_own_calls_only(tmp_path):
    """One that made none says nothing, and nobody says anything twice."""
    source = """
    aimeter.configure(log=LOG)
    with aimeter.track("parent's"):
        pass
    aimeter.flush()
    children = []
    for mine in (0, 2):
        pid = os.fork()
        if pid == 0:
            for _ in range(mine):
                with aimeter.track("child's"):
                    pass
            sys.exit(0)
        children.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0]
    """
    found = tables(run(source, tmp_path))
    assert found == [{"child's": 2, "total": 2}, {"parent's": 1, "total": 1}]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_child_of_multiprocessing_tells_once(tmp_path, method):
    """It has handlers of its own at its end."""
    source = f"""
    import multiprocessing
    def work():
        with aimeter.track("child's"):
            pass
    if __name__ == "__main__":
        child = multiprocessing.get_context("{method}").Process(target=work)
        child.start()
        child.join()
    """
    found = tables(run(source, tmp_path))
    assert found == [{"child's": 1, "total": 1}]


@pytest.mark.parametrize("end", ["closed", "nobody reads", "full", "None", "of another kind"])
def test_standard_error_that_cannot_be_written(tmp_path, end):
    """It is no error, and no other exit status; what somebody put in its place gets the text."""
    source = CALLS
    if end == "None":
        source += "sys.stderr = None\n"
    elif end == "of another kind":
        source += """
class Mine:
    def write(self, text):
        open(LOG + ".said", "a").write(text)
    def flush(self):
        pass
sys.stderr = Mine()
"""
    script = tmp_path / "program.py"
    script.write_text(programs.PRELUDE + source)
    line = [sys.executable, str(script), str(tmp_path / "calls.csv")]
    if end == "closed":
        line = ["sh", "-c", '"$@" 2>&-', "sh", *line]
    read, write = os.pipe()
    if end == "full":
        os.close(write)
        write = os.open("/dev/full", os.O_WRONLY)
    os.close(read)
    with os.fdopen(write, "wb") as stream:
        ran = subprocess.run(
            line, env=programs.environment(BUFFERED), stderr=stream, timeout=programs.TIMEOUT_S, check=False
        )
    assert ran.returncode == 0
    assert len(programs.rows(tmp_path / "calls.csv")) == 4
    if end == "of another kind":
        said = (tmp_path / "calls.csv.said").read_text()
        assert tables(said) == [{"request": 1, "step": 3, "total": 1}]


def test_an_encoding_that_lacks_a_character(tmp_path):
    """What it lacks is replaced."""
    said = run(CALLS, tmp_path, environ={**ON, "PYTHONIOENCODING": "ascii"})
    assert "? step" in said


def test_a_program_that_knows_nothing_of_aimeter(tmp_path):
    """Two variables are enough to see what its models take."""
    toy_framework.install(tmp_path)
    folder = Path(toy_framework.__file__).parents[1] / "aimeter" / "autoload"
    environ = programs.environment({**ON, "AIMETER_INSTRUMENT": "1", "AIMETER_REGION": "FR"})
    environ["PYTHONPATH"] = os.pathsep.join([str(folder), str(tmp_path), environ["PYTHONPATH"]])
    code = "from toyframework.models import Model; print(Model().run(4))"
    line = [sys.executable, "-c", code]
    ran = subprocess.run(line, env=environ, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (0, "8\n"), ran.stderr
    assert tables(ran.stderr) == [{"Model.run": 1, "total": 1}]
