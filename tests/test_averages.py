"""From a moving average back to energy: exact at the publications, whatever the power did inside the window."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimeter.averages import ROUNDING_W, MovingAverage

powers = st.lists(st.floats(min_value=0.0, max_value=700.0), min_size=3, max_size=60)


@pytest.mark.parametrize("width", [1, 10])
@given(powers)
def test_energy_is_recovered_exactly(width, levels):
    """A mean over 0.1 s or over 1 s, published every 0.1 s: the joules of each 0.1 s are found again."""
    period = 0.1
    levels = [50.0] * (width + 1) + levels
    average = MovingAverage(width * period, period)
    truth, start = 0.0, width
    for k in range(start, len(levels)):
        mean = sum(levels[k - width + 1 : k + 1]) / width
        joules = average.publish(k * period, mean)
        if k > start:
            truth += levels[k] * period
        # A power taken for steady may differ by the rounding for as long as a window.
        assert joules == pytest.approx(truth, rel=0.02, abs=(ROUNDING_W + 0.01 * 700) * width * period + 1e-6)


def test_a_steady_power_sets_the_chains_equal():
    """Rounding that made interleaved chains drift is forgotten once the power has been steady for a window."""
    average = MovingAverage(1.0, 0.1)
    for k in range(40):
        average.publish(k * 0.1, 100.0 + (0.3 if k % 2 else -0.3))
    before = average.joules
    for k in range(40, 60):
        average.publish(k * 0.1, 100.0)
    assert average.joules - before == pytest.approx(200.0, rel=1e-3)


def test_energy_never_falls():
    """An average that contradicts itself, as after a sensor's restart, gives no negative energy."""
    average = MovingAverage(1.0, 0.1)
    last = 0.0
    for k, watts in enumerate([500.0] * 12 + [0.0, 400.0, 3.0, 700.0] + [50.0] * 12):
        joules = average.publish(k * 0.1, watts)
        assert joules >= last
        last = joules
