"""The sampler's rounds on a clock that is told when to move: what is settled when, and when there is nothing left to do."""

from __future__ import annotations

import pytest

from aimeter._sampling.sampler import LINGER_S


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


def test_a_sampler_does_not_retire_in_a_long_call(clock, meter):
    """However long nothing begins or ends: while a call is open the sensors are read, and for a while after it."""
    sampler = meter.sampler
    with meter.track("long") as call:
        for _ in range(200):
            clock.sleep(LINGER_S)
            assert not sampler.try_stop()
    clock.sleep(LINGER_S / 2)
    assert not sampler.try_stop()
    clock.sleep(2 * LINGER_S)
    assert sampler.try_stop()
    assert not sampler.ready
    assert call.energy_j == near(200 * LINGER_S * 100.0)
