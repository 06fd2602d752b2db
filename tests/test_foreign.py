"""Sensors, sinks and notes by somebody else: whatever they answer or raise, the others go on and every row arrives."""

from __future__ import annotations

import json
import math
import os
import textwrap
import time
from collections.abc import Mapping
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

import aimeter
from aimeter._support.notes import class_name, plain, text
from aimeter.logs.read import read
from aimeter.sensors.base import Outcome, Reading, heard
from aimeter.testing import FakeClock, FakeSensor
from tests.programs import names, run

NOW = 1000.0
OK = Outcome.OK

ANSWERS = {
    "None": lambda now: None,
    "a list of None": lambda now: [None],
    "a number": lambda now: [1],
    "text": lambda now: "x",
    "nothing": lambda now: [],
    "too many": lambda now: [Reading(now, now, OK, 1.0)] * 3,
    "a text for a value": lambda now: [Reading(now, now, OK, "x")],
    "a huge integer": lambda now: [Reading(now, now, OK, 10**400)],
    "no value": lambda now: [Reading(now, now, OK, None)],
    "an infinite value": lambda now: [Reading(now, now, OK, math.inf)],
    "times that are no numbers": lambda now: [Reading(math.nan, math.nan, OK, 5.0)],
    "times to come": lambda now: [Reading(now + 1e9, now + 1e9, OK, 5e5)],
    "times before all": lambda now: [Reading(-math.inf, -math.inf, OK, 5.0)],
    "times that run back": lambda now: [Reading(now, now - 1, OK, 5.0)],
    "no outcome": lambda now: [Reading(now, now, None, 1.0)],
}


class Nameless(type):
    @property
    def __name__(cls):
        raise RuntimeError


class UnshownError(Exception, metaclass=Nameless):
    """An exception that cannot be shown, of a class that cannot be named."""

    def __str__(self):
        raise SystemExit(3)

    __repr__ = __str__


RAISED = (
    SystemExit,
    KeyboardInterrupt,
    GeneratorExit,
    RuntimeError,
    RecursionError,
    MemoryError,
    UnshownError,
)


class Foreign(FakeSensor):
    """A sensor that goes wrong after some readings."""

    def __init__(self, clock, wrong):
        super().__init__(clock, 100.0)
        self.wrong = wrong

    def read(self):
        answer = super().read()
        if self.reads < 4:
            return answer
        return self.wrong(self._clock())


def raising(kind):
    def wrong(_):
        raise kind

    return wrong


@pytest.mark.parametrize(
    "wrong",
    [*ANSWERS.values(), *map(raising, RAISED)],
    ids=[*ANSWERS, *map(class_name, RAISED)],
)
def test_a_sensor_by_somebody_else_costs_no_other(wrong):
    """Whatever one sensor answers or raises, the other one's joules are right in every row."""
    clock = FakeClock()
    other = FakeSensor(clock, 50.0, id="cpu:0", period_s=0.02)
    with aimeter.Meter(sensors=[Foreign(clock, wrong), other], clock=clock, region="FR") as meter:
        for _ in range(25):
            with meter.track("a"):
                clock.sleep(0.05)
        rows = meter.records()
    assert len(rows) == 25
    for row in rows:
        assert abs(row.cpu_j - 50.0 * row.duration_s) <= row.error_j + 1e-6


@given(
    st.lists(
        st.one_of(
            st.none(),
            st.integers(),
            st.text(),
            st.tuples(),
            st.tuples(st.floats(), st.floats(), st.sampled_from([*Outcome, None, "ok"]), st.one_of(st.none(), st.floats(), st.integers(), st.text()), st.text()),
        ),
        max_size=3,
    )
)  # fmt: skip
def test_an_answer_is_heard_as_readings(answer):
    """One reading a channel, whose stamps are finite and not to come, and whose value is a number if it is good."""
    for reading in heard(answer, 1, NOW, "somebody's"):
        assert math.isfinite(reading.after_s)
        assert reading.before_s <= reading.after_s <= NOW + 10.0
        assert (reading.outcome is OK) == (reading.value is not None)
        assert reading.value is None or math.isfinite(reading.value)


class Raising(Mapping):
    def __getitem__(self, key):
        raise RuntimeError

    def __iter__(self):
        return iter("ab")

    def __len__(self):
        return 2


class NoIterator(list):
    def __iter__(self):
        raise OSError


class NoFloat(float):
    def __float__(self):
        raise RuntimeError

    __repr__ = __str__ = __float__


class Exits:
    def __str__(self):
        raise SystemExit(3)

    __repr__ = __format__ = __str__


class Endless(Mapping):
    def __getitem__(self, key):
        return key

    def __iter__(self):
        number = 0
        while True:
            yield number
            number += 1

    def __len__(self):
        return 1


CIRCLE: list[object] = []
CIRCLE.append(CIRCLE)

NOTES = {
    "a fraction beyond floats": Fraction(10**400),
    "a number of a million digits": 10**1_000_000,
    "a mapping that raises": Raising(),
    "a list without iterator": NoIterator([1]),
    "a float that is none": NoFloat(1),
    "text that exits": Exits(),
    "a mapping without end": Endless(),
    "a circle": CIRCLE,
    "a deep one": json.loads("[" * 500 + "]" * 500),
    "odd keys": {("a",): math.inf, Exits(): 1},
    "half a character": "\ud800",
    "long text": "x" * 10**7,
    "many values": list(range(10**6)),
    "nothing, many times": [[None] * 1000] * 1000,
    "many texts": [["x" * 99] * 1000] * 1000,
    "many long texts": ["x" * 10_000] * 1000,
    "many control characters": ["\x01" * 10_000] * 1000,
    "many long keys": {f"{number:010000}": number for number in range(100)},
    "a class that cannot be named": UnshownError(),
}


@pytest.mark.parametrize("key", ["note", "model"])
@pytest.mark.parametrize("note", NOTES.values(), ids=NOTES)
def test_a_note_costs_itself_at_most(tmp_path, note, key):
    """Whatever is noted, its row and all others are in the log, each bounded in length."""
    clock = FakeClock()
    log = tmp_path / "calls.jsonl"
    with aimeter.Meter(sensors=[FakeSensor(clock)], clock=clock, region="FR", log=log) as meter:
        for name in ("before", "with it", "after"):
            with meter.track(name) as call:
                if name == "with it":
                    call.note(**{key: note})
        assert meter.lost_rows == 0
    lines = log.read_text("utf-8").splitlines()
    assert [json.loads(line)["name"] for line in lines] == ["before", "with it", "after"]
    assert max(map(len, lines)) < 700_000


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_many_notes_and_long_names_cost_no_row(tmp_path, suffix):
    """Whatever a call's notes come to together, and its name, the row is read back."""
    clock, log = FakeClock(), tmp_path / f"calls.{suffix}"
    with aimeter.Meter(sensors=[FakeSensor(clock)], clock=clock, region="FR", log=log) as meter:
        with meter.track("many") as call:
            for number in range(300):
                call.note(**{f"note{number}": ["\x01" * 10_000] * 10})
        with meter.track("key") as call:
            call.note(**{"k" * 20_000_000: 1})
        with meter.track("n" * 20_000_000):
            pass
        with meter.track("renamed") as call:
            call.rename("r" * 20_000_000)
    rows = read(log)
    assert [row.name[:4] for row in rows] == ["many", "key", "nnnn", "rrrr"]
    assert rows.skipped == 0


def test_notes_are_as_they_were_when_they_were_given():
    """What changes later changes no row."""
    clock, held = FakeClock(), {"a": [1]}
    with aimeter.Meter(sensors=[FakeSensor(clock)], clock=clock, region="FR") as meter:
        with meter.track("x") as call:
            call.note(held=held)
            held["a"].append(2)
            held["b"] = 3
        assert meter.records()[0].meta["held"] == {"a": [1]}


def test_ctrl_c_passes_while_a_note_is_read():
    """An interrupt is the program's, also in somebody's `__str__`."""

    class Slow:
        def __str__(self):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        plain([Slow()])


@given(st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=50) | st.integers(-(2**63), 2**63),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=40,
))  # fmt: skip
def test_plain_values_stay_as_they_are(value):
    """What JSON takes is kept, half characters as escapes."""

    def escaped(one):
        if isinstance(one, str):
            return text(one)
        if isinstance(one, list):
            return [escaped(part) for part in one]
        if isinstance(one, dict):
            return {text(key): escaped(part) for key, part in one.items()}
        return one

    assert plain(value) == escaped(value)


@pytest.mark.parametrize("kind", RAISED, ids=class_name)
def test_a_sink_that_raises_anything_costs_no_other(kind):
    """Rows arrive in memory and in the other sinks."""

    class Sink:
        lost_rows, last_fault = 0, ""

        def __init__(self, wrong):
            self.wrong, self.rows = wrong, []

        def write(self, records):
            if self.wrong:
                raise kind
            self.rows += records

        def reopen(self):
            pass

        def close(self):
            if self.wrong:
                raise kind

    clock, good = FakeClock(), Sink(wrong=False)
    with aimeter.Meter(
        sensors=[FakeSensor(clock)], sinks=[Sink(wrong=True), good], clock=clock, region="FR"
    ) as meter:
        for _ in range(3):
            with meter.track("x"):
                clock.sleep(0.1)
        meter.flush()
        assert len(meter.records()) == len(good.rows) == 3


def test_a_sink_that_takes_rows_out_of_its_list_costs_no_other():
    """Each sink has a list of its own."""

    class Sink:
        lost_rows, last_fault = 0, ""

        def __init__(self):
            self.rows = []

        def write(self, records):
            while records:
                self.rows.append(records.pop(0))

        def reopen(self):
            pass

        close = reopen

    clock, one, other = FakeClock(), Sink(), Sink()
    with aimeter.Meter(sensors=[FakeSensor(clock)], sinks=[one, other], clock=clock, region="FR") as meter:
        with meter.track("x"):
            clock.sleep(0.1)
        meter.flush()
    assert len(one.rows) == len(other.rows) == 1


HANGING = """
class Sink:
    lost_rows, last_fault = 0, ""
    def __init__(self, hangs=False):
        self.hangs, self.names, self.closed = hangs, [], 0
    def write(self, records):
        if records and self.hangs:
            released.wait()
        self.names += [record.name for record in records]
    def reopen(self):
        self.names = []
    def close(self):
        self.closed += 1

class Handler(logging.Handler):
    def emit(self, record):
        said.append(record.getMessage())

def took(act):
    began = perf_counter()
    act()
    return perf_counter() - began

released, said = threading.Event(), []
logging.getLogger("aimeter").addHandler(Handler())
hanging, good = Sink(hangs=True), Sink()
meter = aimeter.Meter(sensors=[sensor()], sinks=[hanging, good], log=LOG, region="FR")
"""


def test_a_sink_that_hangs_costs_no_other(tmp_path):
    """Others have their rows, flushing, summing up and the exit take no longer than they may, and it is said once."""
    log = tmp_path / "calls.csv"
    source = """
    for number in range(3):
        with meter.track(f"call {number}"):
            sleep(0.05)
        assert took(meter.flush) < 100, "it hangs for ever"
        assert f"call {number}" in open(LOG).read()
    # It is known to hang: each of a hundred that waited a second for it would take that long.
    assert took(lambda: [meter.flush() for _ in range(100)]) < 50
    assert took(lambda: [meter.summary() for _ in range(100)]) < 50
    assert good.names == [row.name for row in meter.records()] == ["call 0", "call 1", "call 2"]
    assert hanging.names == []
    assert len(said) == 1 and "the sink Sink takes longer" in said[0], said
    with meter.track("open"):
        print(time.time())
        sys.exit(0)
    """
    ended_s = float(run(HANGING + textwrap.dedent(source), log))
    assert time.time() - ended_s < 100
    assert names(log) == ["call 0", "call 1", "call 2", "open"]


def test_a_sink_that_hung_has_its_rows_in_order(tmp_path):
    """What waited is written once it goes on; what found no place is counted, and the thread ends with its work."""
    source = """
    from aimeter._meters import apart
    apart.MOST_WAITING = 100
    for number in range(200):
        with meter.track(f"{number:04}"):
            pass
        if number % 20 == 0:
            meter.flush()
    meter.flush()
    assert 0 < meter.lost_rows < 200
    released.set()
    meter.close()
    assert hanging.names == sorted(hanging.names)
    assert len(hanging.names) == 200 - meter.lost_rows
    assert len(good.names) == 200
    assert hanging.closed == good.closed == 1
    assert not [thread for thread in threading.enumerate() if thread.name == "aimeter-sink"]
    """
    run(HANGING + textwrap.dedent(source), tmp_path / "calls.csv")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks here")
def test_a_child_that_was_forked_while_a_sink_hung(tmp_path):
    """The child's own rows arrive, and those that waited are the parent's."""
    log = tmp_path / "calls.csv"
    source = """
    with meter.track("parent"):
        sleep(0.05)
    meter.flush()
    child = os.fork()
    if not child:
        hanging.hangs = False
        with meter.track("child"):
            sleep(0.05)
        meter.flush()
        assert hanging.names == good.names == ["child"], (hanging.names, good.names)
        sys.exit(0)
    assert os.waitpid(child, 0)[1] == 0
    released.set()
    meter.close()
    assert hanging.names == good.names == ["parent"]
    """
    run(HANGING + textwrap.dedent(source), log)
    assert names(log) == ["child", "parent"]
