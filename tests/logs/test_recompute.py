"""Grams again: what a row would have had, had its meter known another intensity."""

from __future__ import annotations

import pytest

import aimeter
from aimeter.carbon.intensity import Intensity
from aimeter.carbon.offline import lookup
from aimeter.logs.recompute import again, is_provisional, times
from aimeter.testing import FakeClock, FakeSensor
from tests.records import make_record


def a_row(**settings):
    """Return the row of a call of 36 s at 100 W, known to 5 %, by a meter with these settings."""
    clock = FakeClock()
    meter = aimeter.Meter(sensors=[FakeSensor(clock, 100.0, relative_error=0.05)], clock=clock, **settings)
    with meter, meter.track("x", items=3) as call:
        clock.sleep(36.0)
    return call.record._replace(call_id="same", start="same", meta={"user": "kept"})


@pytest.mark.parametrize("settings", [{}, {"pue": 1.4}, {"market_g_per_kwh": 10, "wue_l_per_kwh": 1.8}])
@pytest.mark.parametrize("place", ["FR", "PL", "aws:us-east-1", "WORLD"])
def test_a_row_is_what_a_meter_with_that_intensity_had_made_of_it(settings, place):
    """Each column: grams, their error, source, method and zone are the other place's, and all else is as it was."""
    (found,) = again([a_row(region="SE", **settings)], lookup(place))
    assert found._asdict() == a_row(region=place, **settings)._asdict()


@pytest.mark.parametrize(
    ("lower", "upper", "half"),
    [(80, 130, 30), (60, 130, 40), (None, 130, 30), (80, None, 20), (None, None, 0)],
)
def test_bounds_of_an_intensity_widen_the_error_of_its_grams(lower, upper, half):
    """They come to the row, and the farther one to its error, beside that of the energy."""
    row = make_record(energy_j=3600.0, error_j=180.0, pue=1.4, intensity_lower_g_per_kwh=1.0)
    (found,) = again([row], Intensity(100.0, "s", "m", "z", None, lower, upper))
    assert (found.intensity_lower_g_per_kwh, found.intensity_upper_g_per_kwh) == (lower, upper)
    assert found.co2e_g == pytest.approx(0.1 * 1.4)
    assert found.co2e_error_g == pytest.approx(((180 * 100) ** 2 + (3600 * half) ** 2) ** 0.5 / 3.6e6 * 1.4)


@pytest.mark.parametrize(
    ("energy_j", "error_j", "g_per_kwh", "grams", "error_g"),
    [
        (3600.0, 360.0, 100.0, 0.1, 0.01),
        (3600.0, None, 100.0, 0.1, None),
        (None, None, 100.0, None, None),
        (None, 360.0, 100.0, None, None),
        (3600.0, 360.0, None, None, None),
        (0.0, 0.0, 100.0, 0.0, 0.0),
        (3600.0, 360.0, 0.0, 0.0, 0.0),
    ],
)
def test_what_is_not_known_is_not_made_up(energy_j, error_j, g_per_kwh, grams, error_g):
    """Without joules or an intensity there are no grams, without an error none of them; 0 is a number."""
    row = make_record(energy_j=energy_j, error_j=error_j, pue=1.0, co2e_g=9.0, co2e_error_g=9.0)
    (found,) = again([row], Intensity(g_per_kwh, "s", "m", "z", None))
    assert found.intensity_g_per_kwh == g_per_kwh
    assert (found.co2e_g, found.co2e_error_g) == (
        grams if grams is None else pytest.approx(grams),
        error_g if error_g is None else pytest.approx(error_g),
    )


@pytest.mark.parametrize(
    ("meta", "expected"),
    [
        ({}, {"aimeter": {"carbon": {"new": 1}}}),
        ({"user": 2}, {"user": 2, "aimeter": {"carbon": {"new": 1}}}),
        ({"aimeter": {"host": "a", "carbon": {"old": 3}}}, {"aimeter": {"host": "a", "carbon": {"new": 1}}}),
        ({"aimeter": "the user's own"}, {"aimeter": {"carbon": {"new": 1}}}),
    ],
)
def test_a_remark_takes_the_place_of_the_last_and_of_nothing_else(meta, expected):
    """Notes of the user and of others stay; without a remark all of them do; the row given is not touched."""
    row = make_record(meta=meta)
    before = repr(row)
    intensity = Intensity(100.0, "s", "m", "z", None)
    assert [found.meta for found in again([row, row], intensity, {"new": 1})] == [expected, expected]
    assert again([row], intensity)[0].meta == meta
    assert repr(row) == before


@pytest.mark.parametrize(
    ("method", "waits"),
    [
        ("average;location-based;direct;production;estimated=no", False),
        ("average;location-based;direct;production;estimated=no;held", True),
        ("average;location-based;direct;production;estimated=no;fallback", True),
        ("average;location-based;direct;production;estimated=no;detected", False),
        ("none;fallback", True),
        ("given", False),
        ("", False),
    ],
)
def test_a_row_waits_for_its_providers_value_if_it_says_so(method, waits):
    assert is_provisional(make_record(intensity_method=method)) == waits


def test_a_call_lasts_from_its_start_for_its_duration():
    """In seconds since 1970, whatever the zone that the start is written in."""
    for start in ("2026-11-22T10:00:00.250000Z", "2026-11-22T11:00:00.250000+01:00"):
        assert times(make_record(start=start, duration_s=1.5)) == (1795341600.25, 1795341601.75)
    for wrong in ("", "yesterday", "0001-01-01T00:00:00"):
        with pytest.raises(ValueError):
            times(make_record(start=wrong))
