"""What a program puts in the place of the clocks, and what it does with decorated functions, meters and calls."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import copy
import functools
import pickle
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import cloudpickle
import pytest

import aimeter
from aimeter._support import clocks
from aimeter.testing import FakeSensor
from tests.fakes import WATT

ROOT = Path(__file__).parents[1]


def in_a_process(program, *arguments, data=None, **environ):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), *arguments],
        cwd=ROOT, input=data, capture_output=True, timeout=60, check=False,
        env={"PATH": "/usr/bin:/bin", "AIMETER_CALIBRATION": "off", "AIMETER_REGION": "FR", **environ},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().split()


REPLACED = """
    import logging, sys, time  # logging asks for the time when it is loaded
    real_sleep, real_cpu = time.sleep, time.process_time
    counted = [0]
    def fake(*_):
        counted[0] += 1
        return 0.0
    def replace():
        for name in ("sleep", "time", "monotonic", "perf_counter", "process_time", "thread_time", "time_ns"):
            setattr(time, name, fake)
    if "before" in sys.argv:
        replace()
    import aimeter
    meter = aimeter.Meter(powercap=sys.argv[1])
    if "after" in sys.argv:
        replace()
    used_s = real_cpu()
    with meter.track("x") as call:
        real_sleep(1.0)
    meter.flush()
    row = call.record
    print(row.cpu_method, 0.9 < row.duration_s < 5.0, row.start[:2], real_cpu() - used_s < 0.5, counted[0])
"""


@pytest.mark.parametrize("when", ["before", "after"])
def test_replaced_clocks_neither_spin_nor_blind_the_sampler_nor_are_counted(tmp_path, when):
    """A test suite replaces `time.sleep` and all others by a mock, before aimeter is loaded or after."""
    emulator = subprocess.Popen(
        [sys.executable, "-m", "tests.emulator.powercap", str(tmp_path / "live"), "--zone", "package-0=50@0"],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        emulator.stdout.readline()
        root = next((tmp_path / "live").rglob("class/powercap"))
        assert in_a_process(REPLACED, str(root), when) == ["counter", "True", "20", "True", "0"]
    finally:
        emulator.terminate()
        emulator.wait()


def test_frozen_time_freezes_no_meter():
    """freezegun goes through the attributes of all modules; calls last as long as they do."""
    program = """
        import time
        import freezegun
        import aimeter
        with freezegun.freeze_time("2020-01-01"):
            import aimeter.meter, aimeter._attribution.rows, aimeter._sampling.sampler
            with aimeter.track("x") as call:
                time.sleep(0.3)
            row = call.record
        print(0.3 <= row.duration_s < 5.0, row.energy_j > 0, row.start > "2026")
    """
    assert in_a_process(program) == ["True", "True", "True"]


def test_the_clocks_are_nobody_elses(monkeypatch):
    """They are the interpreter's own, and what replaces others does not reach them."""
    for name in ("sleep", "time", "monotonic", "perf_counter", "process_time"):
        monkeypatch.setattr(time, name, lambda *_: 0.0)
    before_s = clocks.time.perf_counter()
    clocks.time.sleep(0.001)
    assert clocks.time.perf_counter() - before_s >= 0.001
    assert clocks.time.time() > 1.7e9


DECORATED = {
    "default": aimeter.track(lambda x: x + 1),
    "named": aimeter.track("named")(lambda x: x + 1),
    "with counts": aimeter.track("counted", items=2)(lambda x: x + 1),
}


@pytest.mark.parametrize("name", DECORATED)
def test_functions_metered_by_default_go_to_other_processes(name):
    """As Ray, Dask, Spark and joblib send them: there the default meter of that process meters them."""
    data = cloudpickle.dumps(DECORATED[name])
    told = in_a_process(
        "import sys, pickle, aimeter; f = pickle.load(sys.stdin.buffer); print(f(1), len(aimeter.records()))",
        data=data,
    )
    assert told == ["2", "1"]


def test_functions_of_an_own_meter_share_one_there(tmp_path):
    """However many functions of a meter are sent, and however often, the process makes one meter of its settings."""
    log = tmp_path / "calls.csv"
    own = aimeter.Meter(region="FR", log=str(log))
    first, second = own.track(lambda x: x + 1), own.track("second", items=3)(lambda x: x * 2)
    data = pickle.dumps([cloudpickle.dumps(one) for one in (first, second, first, own)])
    told = in_a_process(
        """
        import sys, pickle
        first, second, again, meter = [pickle.loads(one) for one in pickle.load(sys.stdin.buffer)]
        print(first(1), second(2), again(3), len(meter.records()), meter.settings.region)
        meter.close()
        """,
        data=data,
    )
    assert told == ["2", "4", "4", "3", "FR"]
    assert len(log.read_text("utf-8").splitlines()) == 4
    own.close()


def test_a_meter_is_itself_when_it_comes_back(meter):
    """Within a process copies and what was pickled are the meter; the default one is whatever is the default there."""
    assert copy.copy(meter) is copy.deepcopy(meter) is meter
    plain = aimeter.Meter(region="FR")
    assert pickle.loads(pickle.dumps(plain)) is plain
    assert pickle.loads(pickle.dumps(aimeter.default_meter())) is aimeter.default_meter()


def test_objects_that_hold_a_meter_and_a_call_copy(meter):
    """A dataclass, a model or a pipeline with a meter in it."""

    class Holder:
        def __init__(self):
            self.meter, self.call, self.work = meter, meter.track("x"), meter.track(lambda: 1)

    held = Holder()
    twin = copy.deepcopy(held)
    assert (twin.meter, twin.call) == (held.meter, held.call)
    assert twin.work() == 1
    assert len(meter.records()) == 1


# Context managers that are decorated


def test_the_body_under_a_decorated_context_manager_is_metered(meter, clock):
    """`@track` above `@contextmanager`: the call lasts as long as the with statement, with entering and leaving."""

    @meter.track("session")
    @contextlib.contextmanager
    def session(seconds):
        clock.sleep(1.0)
        try:
            yield seconds
        finally:
            clock.sleep(2.0)

    with session(3.0) as seconds:
        clock.sleep(seconds)
    with pytest.raises(ValueError, match="inside"), session(1.0):
        raise ValueError("inside")  # noqa: EM101
    first, second = meter.records()
    assert (first.name, first.duration_s, first.energy_j) == ("session", 6.0, pytest.approx(6 * WATT))
    assert (second.status, second.error_type) == ("error", "ValueError")
    assert session.__name__ == "session"


def test_a_context_manager_that_swallows_an_error_ends_well(meter):
    """What the manager handles is no error of the call."""

    @meter.track
    @contextlib.contextmanager
    def patient():
        with contextlib.suppress(ValueError):
            yield

    with patient():
        raise ValueError
    assert meter.records()[0].status == "ok"


def test_a_context_manager_with_some_arguments_given(meter, clock):
    """`functools.partial` of one is one."""

    @contextlib.contextmanager
    def session(seconds):
        yield seconds

    with meter.track(functools.partial(session, 2.0))() as seconds:
        clock.sleep(seconds)
    assert meter.records()[0].duration_s == 2.0


def test_async_context_managers(meter, clock):
    """The same for `asynccontextmanager`."""

    @meter.track
    @contextlib.asynccontextmanager
    async def session():
        yield 4.0

    async def main():
        async with session() as seconds:
            clock.sleep(seconds)

    asyncio.run(main())
    assert meter.records()[0].duration_s == 4.0


def test_context_managers_still_decorate(meter, clock):
    """What contextlib makes may decorate functions, each time anew."""

    @meter.track("around")
    @contextlib.contextmanager
    def around():
        yield

    @around()
    def work():
        clock.sleep(1.0)

    work()
    work()
    assert [row.duration_s for row in meter.records()] == [1.0, 1.0]


# What a REPL and a notebook show


def test_figures_are_shown_and_not_insides(meter, clock):
    """A call, a record, a measurement and a summary say joules and their error."""
    with meter.track("image <gen>", images=2) as call:
        assert repr(call) == "<aimeter call 'image <gen>', open>"
        clock.sleep(3.0)
    energy = "300 J" if call.error_j == 0 else "300"
    assert repr(call).startswith(f"<aimeter call <image <gen>: {energy}")
    (record,) = meter.records()
    assert repr(record) == repr(call).removeprefix("<aimeter call ").removesuffix(">")
    assert "GPU by counter" in repr(record)
    assert "images 2" in repr(record)
    for shown in (call._repr_html_(), record._repr_html_()):
        assert "image &lt;gen&gt;" in shown
        assert "300" in shown
        assert "CO2e" in shown
    summary = meter.summary()
    assert repr(summary) == str(summary)
    assert "image <gen>" in repr(summary)
    found = aimeter.measure(lambda: clock.sleep(0.5), meter=meter, time_limit_s=20.0)
    assert repr(found) == str(found)
    assert "50" in found._repr_html_()
    assert repr(meter.track("new")) == "<aimeter call 'new', not begun>"


def test_what_is_unknown_is_shown_as_such(clock):
    """Without a meter a call shows its time, and no joules."""
    with aimeter.Meter(sensors=[], clock=clock, region="FR") as none, none.track("x") as call:
        clock.sleep(1.0)
    assert "energy unknown" in repr(call)
    assert "energy unknown" in call._repr_html_()
    assert aimeter.Meter(enabled=False).track("x")._repr_html_() is None


# Calls that nobody seems to hold


def test_no_call_is_ended_for_another_meter_that_closes(meter, clock):
    """A library's own meter is closed inside the program's call, with a call of its own still open."""
    with meter.track("outer"):
        library = aimeter.Meter(sensors=[FakeSensor(clock, WATT)], clock=clock, region="FR")
        with library.track("inner"):
            library.close()
            clock.sleep(30.0)
        clock.sleep(30.0)
    (row,) = meter.records()
    assert (row.status, row.duration_s) == ("ok", pytest.approx(60.0, abs=0.1))


def test_a_call_that_is_ended_through_the_current_one(meter, clock):
    """Hooks begin a call and keep nothing: it stays open until `current_call` is told to end."""

    def begin():
        meter.track("hooked").__enter__()

    def end():
        aimeter.current_call().__exit__(None, None, None)

    begin()
    with meter.track("inside"):
        clock.sleep(30.0)
    end()
    assert [(row.name, row.status, row.duration_s) for row in meter.records()] == [
        ("inside", "ok", 30.0),
        ("hooked", "ok", 30.0),
    ]


@pytest.mark.parametrize("way", ["stack", "generator", "context", "variable", "partial"])
def test_a_call_that_somebody_holds_stays_open(meter, clock, way):
    """However it is held: by a stack, a suspended generator, a context of its own, a variable, or its end alone."""

    def generator():
        with meter.track("held"):
            yield

    held, stack = [], contextlib.ExitStack()
    call = meter.track("held")
    if way == "stack":
        stack.enter_context(call)
    elif way == "generator":
        held = [generator()]
        next(held[0])
    elif way == "context":
        context = contextvars.copy_context()
        context.run(call.__enter__)
        held = [context, call]
    else:
        call.__enter__()
        held = [call if way == "variable" else functools.partial(call.__exit__, None, None, None)]
    if way != "variable":
        del call
    for _ in range(3):
        with meter.track("other"):
            clock.sleep(20.0)
    if way == "stack":
        stack.close()
    elif way == "generator":
        next(held[0], None)
    elif way == "context":
        held[0].run(held[1].__exit__, None, None, None)
    elif way == "variable":
        held[0].__exit__(None, None, None)
    else:
        held[0]()
    row = next(row for row in meter.records() if row.name == "held")
    assert (row.status, row.duration_s) == ("ok", 60.0)


# Configuring again


def test_configuring_again_keeps_records_and_summary():
    """In a notebook the settings change; what was metered before is still there, also of calls that were open."""
    told = in_a_process(
        """
        import aimeter
        aimeter.configure(memory_rows=100)
        with aimeter.track("first"):
            pass
        with aimeter.track("second"):
            aimeter.configure(region="DE", memory_rows=2)
        with aimeter.track("third"):
            pass
        print(aimeter.summary().total.calls, *[row.name for row in aimeter.records()])
        aimeter.configure(region="SE")
        print(aimeter.summary().total.calls)
        """
    )
    assert told == ["3", "second", "third", "3"]
