"""Intensity over time: integrated exactly, monotone in every factor, honest about gaps."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aimeter.carbon.intensity import co2e_error_g, co2e_g, half_width
from aimeter.carbon.providers.mix import Factor, factors, intensity
from aimeter.carbon.series import Kind, Point, integral, kind_from, mean, tidy, within

G = st.floats(0.001, 2000)
LIFECYCLE = Kind("lifecycle", "production")


@st.composite
def point_lists(draw):
    """A tidy series of a few points, with gaps between some."""
    moment = draw(st.floats(0, 1e6))
    points = []
    for _ in range(draw(st.integers(1, 8))):
        width = draw(st.floats(1, 4000))
        points.append(Point(moment, moment + width, draw(G)))
        moment += width + draw(st.sampled_from([0.0, 0.0, 500.0]))
    return points


@given(point_lists(), st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)))
def test_an_integral_is_the_sum_of_its_parts(points, cuts):
    """Cut anywhere, the parts add up to the whole."""
    low, high = points[0].start_s - 100, points[-1].end_s + 100
    first, middle, last = sorted(low + cut * (high - low) for cut in cuts)
    whole = integral(points, first, last)
    parts = integral(points, first, middle) + integral(points, middle, last)
    assert whole == pytest.approx(parts, rel=1e-9, abs=1e-3)


@given(point_lists())
def test_the_whole_integral_is_that_of_its_points(points):
    """Over everything it is the sum of value times width."""
    exact = math.fsum(point.g_per_kwh * (point.end_s - point.start_s) for point in points)
    assert integral(points, -1e9, 1e9) == pytest.approx(exact)


@given(point_lists(), st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_a_mean_lies_between_the_values_it_is_made_of(points, cuts):
    """The mean is within its parts' range, and mean times covered time is the integral."""
    low, high = points[0].start_s, points[-1].end_s
    start, end = sorted(low + cut * (high - low) for cut in cuts)
    found = mean(points, start, end)
    if found is None:
        assert integral(points, start, end) == 0
        return
    values = [part.g_per_kwh for part in found.parts]
    assert min(values) * (1 - 1e-9) <= found.g_per_kwh <= max(values) * (1 + 1e-9)
    assert 0 <= found.covered <= 1
    if end - start > 1e-3:
        area = found.g_per_kwh * found.covered * (end - start)
        assert area == pytest.approx(integral(points, start, end), rel=1e-6, abs=1e-3)


def test_a_call_that_spans_two_values_uses_both():
    """A quarter at 100 and three quarters at 300 g/kWh is 250; bounds and the flag go along."""
    points = (Point(0, 10, 100, estimated=False, lower=90, upper=120), Point(10, 40, 300, True, 250, 310))
    found = mean(points, 0, 40)
    assert (found.g_per_kwh, found.lower, found.upper) == (250, 210, 262.5)
    assert found.estimated
    assert found.covered == 1
    assert mean(points, 2, 9).g_per_kwh == 100
    assert mean(points, 10, 10).g_per_kwh == 300
    assert mean(points, 35, 45).covered == 0.5
    assert mean(points, 40, 50) is None
    assert mean((), 0, 1) is None


def test_bounds_need_every_part():
    """One part without a bound leaves the mean without it."""
    points = (Point(0, 10, 100, lower=90), Point(10, 20, 100))
    assert mean(points, 0, 20).lower is None


def test_tidying():
    """In order, plausible, without overlaps; of two that begin together the later given stays."""
    points = tidy(
        [Point(20, 30, 5), Point(0, 15, 1), Point(10, 20, 2), Point(0, 12, 3), Point(5, 5, 9), Point(40, 50, -1),
         Point(50, 60, math.nan), Point(60, math.inf, 1), Point(70, 80, 0)],
        LIFECYCLE,
    )  # fmt: skip
    assert points == (Point(0, 10, 3), Point(10, 20, 2), Point(20, 30, 5))
    assert within(points, 10, 20) == (Point(10, 20, 2),)


def test_kinds_are_read_back():
    """A kind survives its own text, and what a text leaves open is the cautious choice."""
    kind = Kind("direct-co2", "flow-traced", "marginal", "market-based")
    assert kind_from(kind.describe(estimated=True)) == kind
    assert kind_from("") == Kind("direct", "unstated")


ROUNDING_G = 1e-150
"""The square of less is no number of full precision any more."""


@given(st.floats(0, 1e9), st.floats(0, 1e6), G, st.floats(0, 500), st.floats(1, 3), st.floats(1, 2))
@example(5e-324, 5e-324, 1.0, 0.0, 1.0, 1.5)
@example(1e-160, 1e-160, 1.0, 1e-3, 1.0, 1.5)
def test_grams_and_their_error_are_monotone_in_each_factor(energy_j, error_j, g, half, pue, factor):
    """More energy, intensity, PUE or error never gives less; scaling energy and error scales both."""
    base = co2e_error_g(energy_j, error_j, g, half, pue)
    assert base >= co2e_g(error_j, g, pue) * (1 - 1e-12) - ROUNDING_G
    for more in (
        (energy_j * factor, error_j, g, half, pue),
        (energy_j, error_j * factor, g, half, pue),
        (energy_j, error_j, g * factor, half, pue),
        (energy_j, error_j, g, half * factor, pue),
        (energy_j, error_j, g, half, pue * factor),
    ):
        assert co2e_error_g(*more) >= base * (1 - 1e-12) - ROUNDING_G
    scaled = co2e_error_g(energy_j * factor, error_j * factor, g, half, pue)
    assert scaled == pytest.approx(base * factor, rel=1e-9, abs=ROUNDING_G)


def test_the_error_of_grams_by_hand():
    """3 % of energy and 4 % of intensity are 5 % of grams."""
    grams = co2e_g(3.6e6, 100)
    assert co2e_error_g(3.6e6, 0.03 * 3.6e6, 100, half_width(100, 97, 104)) == pytest.approx(0.05 * grams)
    assert half_width(100, None, None) == 0


FUELS = st.dictionaries(st.sampled_from(sorted(factors())), st.floats(0.1, 1e5), min_size=1)


@given(FUELS, st.floats(0.01, 100))
def test_a_mix_lies_between_its_fuels(generation, scale):
    """The intensity is within its fuels' factors, inside its bounds, and indifferent to the unit."""
    middle, lower, upper = intensity(generation)
    known = [factors()[fuel] for fuel in generation]
    assert min(one.g_per_kwh for one in known) - 1e-6 <= middle <= max(one.g_per_kwh for one in known) + 1e-6
    assert lower <= middle + 1e-6
    assert middle <= upper + 1e-6
    scaled = intensity({fuel: amount * scale for fuel, amount in generation.items()})
    assert scaled[0] == pytest.approx(middle)


def test_the_factors_are_those_of_the_panel(tmp_path):
    """The medians of IPCC AR5 stand in the file; a malformed row loses that row only."""
    known = factors()
    assert {fuel: known[fuel].g_per_kwh for fuel in ("coal", "gas", "nuclear", "hydro", "wind", "solar")} == {
        "coal": 820, "gas": 490, "nuclear": 12, "hydro": 24, "wind": 11, "solar": 48,
    }  # fmt: skip
    path = tmp_path / "factors.csv"
    path.write_text("fuel,g_per_kwh,lower,upper\ncoal,820,740,910\ngas,many,1,2\noil,650\nwind,11,12,13\n")
    assert factors(path) == {"coal": Factor(820, 740, 910)}
    assert intensity({"coal": -5.0}) is None
    assert intensity({}) is None
