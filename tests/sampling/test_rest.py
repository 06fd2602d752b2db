"""Calls after a rest, in which nobody read the sensors: the phase of a counter's staircase is then not known."""

from __future__ import annotations

import numpy as np

import aimeter
from aimeter.testing import FakeClock, FakeSensor

WATT, PERIOD_S = 100.0, 0.02


def wake(phase, *, rested_s=1.0):
    """Return error and bar of a call of 0.1 s at constant power, which wakes the sampler so far into a step."""
    clock = FakeClock()
    with aimeter.Meter(
        sensors=[FakeSensor(clock, WATT, period_s=PERIOD_S)], clock=clock, region="FR"
    ) as meter:
        with meter.track("first"):
            clock.sleep(0.1)
        clock.sleep(0.2)
        steps = int((clock() - 1000.0) / PERIOD_S) + int(rested_s / PERIOD_S)
        clock.now_s = 1000.0 + (steps + phase) * PERIOD_S
        meter.sampler.resume()  # as the worker does when a call finds it at rest
        with meter.track("work") as call:
            clock.sleep(0.1)
    assert call.record.coverage == 1
    return call.energy_j - WATT * call.duration_s, call.error_j


def test_a_call_that_wakes_the_sampler_lies_within_its_error_at_any_phase():
    """Its first step is somewhere in a period: the bar of a constant power covers that period's half and little more."""
    error_j, bar_j = np.array([wake(phase) for phase in (np.arange(200) + 0.5) / 200]).T
    inside = np.abs(error_j) <= bar_j
    assert np.mean(inside) >= 0.95
    # Neither low nor high calls are those that lie outside.
    assert np.mean(inside[error_j < 0]) >= 0.95
    assert np.mean(inside[error_j > 0]) >= 0.95
    half_j = WATT * PERIOD_S / 2
    assert 1.05 * half_j <= np.median(bar_j) <= 1.3 * half_j
