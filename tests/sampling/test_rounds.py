"""The sampler's rounds on a clock that is told when to move: what is settled when, and when there is nothing left to do."""

from __future__ import annotations

import contextlib
import sys
import threading

import pytest

import aimeter
from aimeter._sampling.driver import GUARD_S
from aimeter._sampling.sampler import LINGER_S
from aimeter.testing import FakeSensor
from tests.programs import run


def near(joules):
    return pytest.approx(joules, rel=1e-3)


def test_a_call_that_ends_in_the_moment_in_which_it_was_asked_is_flushed(clock, meter):
    """What a clock gives the same time as the newest that is settled may not be settled itself."""
    with meter.track("x") as call:
        clock.sleep(1.0)
        assert call.energy_j == near(100.0)
    meter.flush()
    [row] = meter.records()
    assert (row.energy_j, row.status) == (near(100.0), "ok")


@pytest.mark.parametrize("interval_s", [0.05, 2.0])
def test_a_sampler_does_not_retire_in_a_long_call(clock, interval_s):
    """However long nothing begins or ends: while a call is open the sensors are read, and for a while after it."""
    sensors = [FakeSensor(clock, 100.0)]
    meter = aimeter.Meter(sensors=sensors, clock=clock, region="FR", interval_s=interval_s)
    sampler = meter.sampler
    with meter.track("long") as call:
        for _ in range(200):
            clock.sleep(LINGER_S / 2)
            assert not sampler.try_stop()
    while call.settled is None:
        clock.sleep(LINGER_S / 4)
    assert not sampler.try_stop()
    clock.sleep(2 * LINGER_S)
    assert sampler.try_stop()
    assert not sampler.ready
    assert call.energy_j == near(100 * LINGER_S * 100.0)


class Hand:
    """A clock that is moved by hand, and drives nothing."""

    now_s = 1000.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def no_thread(monkeypatch):
    """Have no thread started."""

    def refuse(self):
        raise RuntimeError

    monkeypatch.setattr(threading.Thread, "start", refuse)


@pytest.mark.usefixtures("no_thread")
@pytest.mark.parametrize("retired", [False, True])
def test_calls_that_no_thread_serves_have_all_their_joules(caplog, retired):
    """Each reads the sensors as it begins and ends, also those that were open when the sampler retired at exit."""
    clock = Hand()
    meter = aimeter.Meter(sensors=[FakeSensor(clock, 100.0)], clock=clock, region="FR", calibration="off")
    with meter.track("long") as long:
        clock.now_s += 10.0
        if retired:
            meter.sampler.retire()
        clock.now_s += 1000.0
        assert (long.energy_j, long.window_j) == (near(101_000.0),) * 2
        with meter.track("inner") as inner:
            clock.now_s += 5.0
        assert inner.settled.energy_j == near(500.0)
        clock.now_s += 2.0
    assert (inner.energy_j, inner.record.coverage) == (near(500.0), 1.0)
    assert (long.energy_j, long.self_j, long.record.coverage) == (near(101_700.0), near(101_200.0), 1.0)
    assert meter.unattributed_j() == {"gpu:0": pytest.approx(0.0, abs=1e-6)}
    assert ["no thread can be started" in line for line in caplog.messages] == [True]


@pytest.mark.usefixtures("no_thread")
def test_calls_that_begin_cut_no_step_of_a_counter_short(caplog):
    """Only who has ended cannot wait for a counter's next step: those that begin meanwhile take none of its joules."""
    clock = Hand()
    meter = aimeter.Meter(
        sensors=[FakeSensor(clock, 100.0, period_s=1.0)], clock=clock, region="FR", calibration="off"
    )
    with meter.track("long") as long, contextlib.ExitStack() as inside:
        for _ in range(20):
            clock.now_s += 0.9
            inside.enter_context(meter.track("inside"))
            clock.now_s += 0.1
            meter.sampler.ensure_running()
    assert long.energy_j == pytest.approx(2000.0, abs=100.0)  # a step at either end
    assert long.record.coverage == pytest.approx(1.0, abs=0.01)
    assert len(caplog.messages) == 1


def test_a_flush_does_not_wait_for_a_sensor_longer_than_it_was_told(clock):
    """The row comes at the end of that time, without what the sensor has not said; a shorter time is kept as well."""
    sensor = FakeSensor(clock, 100.0, period_s=30.0)
    meter = aimeter.Meter(sensors=[sensor], clock=clock, region="FR", calibration="off")
    for wait_s in (2.0, 0.01):
        with meter.track("x") as call:
            clock.sleep(1.0)
        asked_s = clock()
        meter.flush(wait_s)
        assert clock() - asked_s == pytest.approx(wait_s)
        assert call.settled is not None
        assert call.settled.coverage < 1


def test_a_flush_goes_on_while_calls_are_settled(clock):
    """Each that is settled in the time shows that waiting helps: the last is not cut short then."""
    sensor = FakeSensor(clock, 100.0, period_s=0.5)
    meter = aimeter.Meter(sensors=[sensor], clock=clock, region="FR", calibration="off")
    with meter.track("first") as first:
        clock.sleep(3.4)
    with meter.track("second") as second:
        clock.sleep(0.12)
    assert first.settled is None
    meter.flush(0.3)  # the step at 1003.5 tells of the first, and only that at 1004 of the second
    assert clock() == pytest.approx(1004.0, abs=0.1)
    assert [call.settled.coverage for call in (first, second)] == [1.0, 1.0]


def test_settling_stays_behind_by_the_time_that_a_thread_may_be_kept_from_its_next_step():
    """It may have to wait for the interpreter between a call's stamp and the queue; more would delay every figure."""
    assert sys.getswitchinterval() < GUARD_S <= 3 * sys.getswitchinterval()


def test_a_flush_gives_up_on_a_round_that_hangs(tmp_path):
    """Whoever holds the state does not hold the program: the call is settled once it is let go of."""
    source = """
    from aimeter._sampling import sampler as module
    module.PATIENCE_S = module.SETTLING_TIMEOUT_S = 0.05
    meter = new_meter()
    with meter.track("first") as first:
        sleep(0.05)
    meter.flush()
    held, free = threading.Event(), threading.Event()
    def hang():
        with meter.sampler.alone(-1):
            held.set()
            free.wait()
    hanging = threading.Thread(target=hang)
    hanging.start()
    held.wait()
    with meter.track("second") as second:
        pass
    meter.flush(0.05)
    assert first.settled and not second.settled
    free.set()
    hanging.join()
    meter.flush()
    assert second.settled
    """
    run(source, tmp_path / "calls.csv")


@pytest.mark.parametrize("interval_s", [0.05, 0.5])
def test_a_figure_that_is_asked_for_takes_a_part_of_an_interval(clock, interval_s):
    """A clock that is told to move is moved until the figure is known, and not much further: tests go by its time."""
    sensor = FakeSensor(clock, 100.0)
    meter = aimeter.Meter(
        sensors=[sensor], clock=clock, region="FR", calibration="off", interval_s=interval_s
    )
    with meter.track("x") as call:
        clock.sleep(2.0)
    asked_s = clock()
    assert call.energy_j == near(200.0)
    assert clock() - asked_s <= interval_s / 5 + 1e-9
