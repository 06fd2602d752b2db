"""When sensors are read and calls are settled: often where something begins or ends, seldom in between, never never."""

from __future__ import annotations

import itertools

import pytest

import aimeter
from aimeter._sampling.source import FIRST_RETRY_S, LONGEST_RETRY_S
from aimeter.sensors.base import Outcome
from aimeter.testing import FakeSensor

INTERVAL_S = 0.05
LONGEST_S = 8 * INTERVAL_S
SLACK_S = 0.003


class Noted(FakeSensor):
    """Knows when it was read, and when it was taken up again."""

    def __init__(self, *given, **channel):
        super().__init__(*given, **channel)
        self.read_s, self.reopened_s = [], []

    def read(self):
        self.read_s.append(self._clock())
        return super().read()

    def reopen(self):
        self.reopened_s.append(self._clock())

    def gaps(self, begin_s, end_s):
        """Return pairs of a reading in this time and the next one."""
        return [(a, b) for a, b in itertools.pairwise(self.read_s) if a >= begin_s and b <= end_s]


def meter_of(clock, *sensors, **options):
    return aimeter.Meter(sensors=list(sensors), clock=clock, region="FR", calibration="off", **options)


def test_a_counter_is_read_often_around_events_and_seldom_between(clock):
    """Two readings are no further apart than a fifth of the time since something began or ended, or eight intervals."""
    sensor = Noted(clock, 100.0)
    meter = meter_of(clock, sensor, interval_s=INTERVAL_S)
    with meter.track("long") as long:
        clock.sleep(30.0)
        with meter.track("inner") as inner:
            clock.sleep(0.2)
        clock.sleep(30.0)
    events = [long.start_s, inner.start_s, inner.end_s]
    gaps = sensor.gaps(long.start_s, long.end_s)
    for a, b in gaps:
        event_s = max(event for event in events if event <= a + SLACK_S)
        assert b - a <= max(INTERVAL_S, min(0.2 * (b - event_s), LONGEST_S)) + SLACK_S
    quiet = [read for read in sensor.read_s if long.start_s + 3.0 <= read <= inner.start_s]
    assert len(quiet) <= 1.3 * (inner.start_s - long.start_s - 3.0) / LONGEST_S
    assert all(any(event <= read <= event + INTERVAL_S for read in sensor.read_s) for event in events)


@pytest.mark.parametrize("period_s", [0.02, 0.1])
def test_a_power_is_read_all_the_time(clock, period_s):
    """What a power was between two readings nobody knows: it is read at the interval, however long the call."""
    sensor = Noted(clock, 100.0, quantity="power", period_s=period_s)
    meter = meter_of(clock, sensor, interval_s=INTERVAL_S)
    with meter.track("long") as long:
        clock.sleep(30.0)
    assert max(b - a for a, b in sensor.gaps(long.start_s, long.end_s)) <= INTERVAL_S + SLACK_S


def test_a_call_in_the_calm_of_another_is_settled_at_once(clock):
    """Its row does not wait for the round that would come if nothing happened."""
    meter = meter_of(clock, FakeSensor(clock, 100.0), interval_s=0.5)
    with meter.track("long"):
        clock.sleep(60.0)
        with meter.track("inner") as inner:
            clock.sleep(0.7)
        clock.sleep(0.6)
        assert inner.settled.energy_j == pytest.approx(70.0)


def test_a_shorter_interval_holds_for_sensors_that_are_read_already(clock):
    """The meter that asks for the shortest one has it from the next reading on."""
    sensor = Noted(clock, 100.0)
    meter = meter_of(clock, sensor, interval_s=0.5)
    with meter.track("long"):
        clock.sleep(4.0)
        changed_s = clock()
        meter.sampler.readers.set_interval(0.1)
        clock.sleep(0.2)
        with meter.track("inner") as inner:
            clock.sleep(1.0)
    before_s = [b - a for a, b in sensor.gaps(inner.start_s - 3.6, changed_s)]
    assert before_s == [pytest.approx(0.5, abs=SLACK_S)] * len(before_s)
    assert len(before_s) > 4
    assert max(b - a for a, b in sensor.gaps(inner.start_s, inner.end_s)) <= 0.2 + SLACK_S
    assert sensor.gaps(inner.start_s, inner.end_s)[0][1] <= inner.start_s + 0.1 + SLACK_S


def test_a_sensor_that_is_gone_is_tried_less_and_less_often(clock, caplog):
    """After a quarter of a second, twice as long each time, and at last once a minute; then it meters again."""
    sensor = Noted(clock, 100.0)
    meter = meter_of(clock, sensor)
    with meter.track("long"):
        clock.sleep(1.0)
        sensor.fault = Outcome.GONE
        clock.sleep(600.0)
        tries_s = [b - a for a, b in itertools.pairwise(sensor.reopened_s)]
        sensor.fault = None
        clock.sleep(LONGEST_RETRY_S + 1.0)
        with meter.track("back") as back:
            clock.sleep(1.0)
    planned = [min(FIRST_RETRY_S * 2**n, LONGEST_RETRY_S) for n in range(1, len(tries_s) + 1)]
    assert tries_s == [pytest.approx(one, abs=LONGEST_S + SLACK_S) for one in planned]
    assert len(tries_s) > 8
    assert (back.energy_j, back.record.coverage) == (pytest.approx(100.0), 1.0)
    assert len(caplog.messages) == 1


def test_a_sensor_that_was_back_for_long_is_tried_again_as_soon_as_the_first_time(clock):
    """Not a minute later, because it had been away for long once."""
    sensor = Noted(clock, 100.0)
    meter = meter_of(clock, sensor)
    with meter.track("long"):
        clock.sleep(1.0)
        sensor.fault = Outcome.GONE
        clock.sleep(600.0)
        sensor.fault = None
        clock.sleep(LONGEST_RETRY_S + 10.0)
        sensor.fault = Outcome.GONE
        sensor.reopened_s.clear()
        clock.sleep(2.0)
    tries_s = [b - a for a, b in itertools.pairwise(sensor.reopened_s)]
    assert tries_s[0] == pytest.approx(2 * FIRST_RETRY_S, abs=LONGEST_S + SLACK_S)
    assert tries_s[0] < 1.0
