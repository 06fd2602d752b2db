"""Small promises: what is odd in a program, a file or a machine harms neither the program nor the rows."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

import aimeter
from aimeter.carbon.providers import http
from aimeter.report import read
from aimeter.testing import FakeSensor

ROOT = Path(__file__).parents[1]
ENVIRON = {
    "PYTHONPATH": str(ROOT),
    "PATH": "/usr/bin:/bin",
    "AIMETER_CALIBRATION": "off",
    "AIMETER_REGION": "FR",
}


@pytest.fixture
def meter(clock):
    with aimeter.Meter(sensors=[FakeSensor(clock)], clock=clock, region="FR") as made:
        yield made


def test_leaving_twice_is_harmless(meter, clock):
    """As a framework does that closes what is closed already: one row, and the calls around are as they were."""
    with meter.track("outer") as outer:
        call = meter.track("x")
        call.__enter__()
        clock.sleep(1.0)
        call.__exit__(None, None, None)
        call.__exit__(None, None, None)
        assert aimeter.current_call() is outer
    assert [row.name for row in meter.records()] == ["x", "outer"]


def test_an_exception_whose_class_cannot_be_named_passes(meter):
    """A metaclass may make anything of a class's name."""

    class Meta(type):
        def __getattribute__(cls, name):
            if name in {"__name__", "__qualname__"}:
                raise LookupError(name)
            return super().__getattribute__(name)

    class OddError(Exception, metaclass=Meta):
        pass

    @meter.track
    def fails():
        raise OddError

    @meter.track
    def generates():
        yield 1
        raise OddError

    for act in (fails, lambda: list(generates())):
        caught = None
        try:
            act()
        except Exception as error:  # noqa: BLE001 - to look at its type
            caught = error
        assert type(caught) is OddError
    assert [row.error_type for row in meter.records()] == ["OddError", "OddError"]


LIMIT = """
    import os, resource, sys
    import aimeter
    from aimeter.testing import FakeSensor

    touched = sys.argv[1]
    if touched != "nothing":
        from aimeter import attach, records, summary, track
    if touched == "meter":
        aimeter.default_meter()

    def filled():
        resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
        held = []
        try:
            while True:
                held.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            return held

    def decorated():
        @aimeter.track
        def add(a, b):
            return a + b

        @aimeter.track("generates")
        def generate():
            yield from (1, 2)

        return add, generate

    early = decorated() if touched != "nothing" else None

    def body(track):
        with track("block", images=2, model="m") as call:
            call.count(tokens_out=3)
            call.note(colour="red")
        with track():
            print("ran")
        repr(call), call.call_id, call.name

    held = filled()
    for _ in range(2):
        body(aimeter.track)
        for add, generate in [decorated()] + ([early] if early else []):
            assert add(1, 2) == 3 and list(generate()) == [1, 2]
    stale = aimeter.track
    subject = object()
    aimeter.flush()
    assert isinstance(aimeter.records(), list)
    assert aimeter.current_call() is None
    aimeter.detach(subject)
    try:
        raise KeyError
    except aimeter.ConfigurationError:
        pass
    except KeyError:
        print("passed")
    for one in held:
        os.close(one)
    body(aimeter.track)
    with stale("stale"):
        pass
    print([row.name for row in aimeter.records()][-3:])
"""


@pytest.mark.parametrize("touched", ["nothing", "track", "meter"])
def test_at_the_limit_of_open_files_the_program_runs(touched):
    """With nothing of aimeter touched, with `track` at hand, with a meter; and what comes after is metered."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(LIMIT), touched],
        capture_output=True, text=True, timeout=60, check=False, env=ENVIRON,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert said[:-1] == ["ran", "ran", "passed", "ran"], done.stderr
    names = ast.literal_eval(said[-1])
    assert names[0] == "block"
    assert names[1].startswith("block at ")
    assert names[2] == "stale"


ATTACHED = """
    import os, resource
    import torch
    import aimeter
    from aimeter.asgi import Middleware

    async def app(scope, receive, send):
        print("served")

    served = Middleware(app)
    model = aimeter.attach(torch.nn.Linear(2, 2))
    resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
    held = []
    try:
        while True:
            held.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        pass
    for _ in range(2):
        assert model(torch.zeros(1, 2)).shape == (1, 2)
        try:
            served({"type": "http", "method": "GET"}, None, None).send(None)
        except StopIteration:
            pass
    for one in held:
        os.close(one)
    model(torch.zeros(1, 2))
    print(*[row.name for row in aimeter.records()])
"""


def test_at_the_limit_of_open_files_what_is_attached_runs():
    """A model, and an application behind the middleware; the model is metered when files can be opened again."""
    pytest.importorskip("torch")
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(ATTACHED)],
        capture_output=True, text=True, timeout=120, check=False, env=ENVIRON,
    )  # fmt: skip
    assert done.stdout.splitlines() == ["served", "served", "Linear.forward"], done.stderr


LEAVING = """
    import sys, time
    import aimeter
    from aimeter.testing import FakeSensor
    class Hanging(FakeSensor):
        def read(self):
            if self.reads > 2:
                print("hangs", flush=True)
                time.sleep(60)
            return super().read()
    meter = aimeter.Meter(sensors=[Hanging(time.perf_counter)])
    for _ in range(20):
        with meter.track("x"):
            time.sleep(0.02)
    import atexit
    atexit.register(lambda: print("leaving", flush=True))  # which runs before aimeter waits for its rows
"""


def test_a_second_interrupt_at_exit_prints_nothing():
    """Whoever presses Ctrl-C while rows are waited for at the end does not want to read where."""
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(LEAVING)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRON,
    )  # fmt: skip
    try:
        assert any(line == "leaving\n" for line in iter(child.stdout.readline, ""))
        time.sleep(0.5)  # the sensor that hangs is waited for much longer
        os.kill(child.pid, signal.SIGINT)
        _, told = child.communicate(timeout=30)
    finally:
        child.kill()
    assert "Traceback" not in told


@pytest.mark.parametrize("place", ["end", "middle"])
@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_zeros_after_a_power_cut_are_a_torn_line(tmp_path, suffix, place, clock):
    """A file system may leave a block of zeros where a line was: it is no row, and none after it is lost."""
    log = tmp_path / f"calls.{suffix}"

    def calls(*names):
        with aimeter.Meter(sensors=[FakeSensor(clock)], clock=clock, region="FR", log=log) as meter:
            for name in names:
                with meter.track(name):
                    clock.sleep(0.1)

    calls("a", "b")
    log.write_bytes(log.read_bytes() + bytes(4096) + (b"\n" if place == "middle" else b""))
    calls("c")
    found = read(log)
    assert [record.name for record in found] == ["a", "b", "c"]


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_row_cut_anywhere_is_never_taken_for_whole(tmp_path, suffix, clock):
    """At whichever byte a last line ends, the reader and the next writer take it for a row only if it is all there."""
    log = tmp_path / f"calls.{suffix}"
    with aimeter.Meter(sensors=[FakeSensor(clock)], clock=clock, region="FR", log=log) as meter:
        for name in ("a", "b"):
            with meter.track(name):
                clock.sleep(0.1)
    whole = log.read_bytes()
    lines = whole.splitlines(keepends=True)
    before, last = b"".join(lines[:-1]), lines[-1]
    for cut in range(1, len(last.rstrip())):
        log.write_bytes(before + last[:cut])
        assert [record.name for record in read(log)] == ["a"], last[:cut]


@pytest.mark.parametrize("key", ["k", "k7", "abc", "a-long-key"])
def test_keys_of_any_length_are_masked(key):
    """Where a short one stands alone; within other words it is no key."""
    told = http.masked(f"refused: key={key}, lucky token {key}", (key,))
    assert told == "refused: key=***, lucky token ***"
