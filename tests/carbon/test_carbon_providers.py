"""Providers of intensity over time, through the real HTTP client, against a server that plays them and their faults."""

from __future__ import annotations

import contextlib
import gzip
import logging
import socket
import subprocess
import sys
import threading
import time
import traceback
from base64 import b64encode
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from aimeter._support.secret import Secret
from aimeter.carbon.location import resolve
from aimeter.carbon.providers import KEYS, NAMES, Forecaster, Provider, ProviderFault, http, mix, provider
from aimeter.carbon.providers.base import NoValuesError, checked
from aimeter.carbon.providers.eia930 import Eia930
from aimeter.carbon.providers.electricitymaps import ElectricityMaps
from aimeter.carbon.providers.entsoe import Entsoe
from aimeter.carbon.providers.file_or_url import FileOrUrl
from aimeter.carbon.providers.gb import GreatBritain
from aimeter.carbon.providers.offline import Offline
from aimeter.carbon.providers.rte import Rte
from aimeter.carbon.providers.user import UserProvider
from aimeter.carbon.providers.watttime import WattTime
from aimeter.carbon.series import Kind, Point, Series
from aimeter.errors import ConfigurationError
from tests.carbon_server import FAULTS, Answer, CarbonServer, at, hurry

KEY = "SECRET-KEY"
HOUR = 3600.0
NOW = time.time() // HOUR * HOUR


@pytest.fixture
def server():
    made = CarbonServer()
    yield made
    made.close()


def all_of(server):
    """Every provider that asks over HTTP, with a zone it knows."""
    return {
        "electricitymaps": (ElectricityMaps(Secret(KEY), base=server.url), "FR"),
        "electricitymaps-v3": (ElectricityMaps(Secret(KEY), version="v3", base=server.url), "FR"),
        "watttime": (WattTime("me", Secret(KEY), base=server.url), "CAISO_NORTH"),
        "gb": (GreatBritain(server.url), "GB"),
        "rte": (Rte(server.url), "FR"),
        "entsoe": (Entsoe(Secret(KEY), server.url), "10YFR-RTE------C"),
        "eia930": (Eia930(Secret(KEY), server.url), "CISO"),
        "file": (FileOrUrl(f"{server.url}/grid.csv?key={KEY}"), "FR"),
    }


PROVIDERS = ("electricitymaps", "electricitymaps-v3", "watttime", "gb", "rte", "entsoe", "eia930", "file")


def values(series):
    return [(point.start_s, point.end_s, pytest.approx(point.g_per_kwh)) for point in series.points]


# What each says, in the shape that it documents


def test_electricity_maps_history(server):
    """v4: hourly values with their own estimated flag; the zone, the basis and no look-up of the caller are asked for."""
    server.answer = lambda seen: Answer(
        {
            "zone": "FR",
            "data": [
                {"zone": "FR", "carbonIntensity": 30, "datetime": at(NOW - HOUR), "updatedAt": at(NOW),
                 "emissionFactorType": "lifecycle", "isEstimated": False, "estimationMethod": None},
                {"zone": "FR", "carbonIntensity": 42, "datetime": at(NOW), "updatedAt": at(NOW),
                 "emissionFactorType": "lifecycle", "isEstimated": True, "estimationMethod": "TIME_SLICER_AVERAGE"},
            ],
            "temporalGranularity": "hourly",
        }
    )  # fmt: skip
    series = ElectricityMaps(Secret(KEY), base=server.url).series("FR", NOW, NOW + 60)
    assert values(series) == [(NOW - HOUR, NOW, 30), (NOW, NOW + HOUR, 42)]
    assert [point.estimated for point in series.points] == [False, True]
    assert series.kind == Kind("lifecycle", "flow-traced")
    (seen,) = server.seen
    assert seen.path == "/v4/carbon-intensity/history"
    assert seen.query == {"zone": "FR", "emissionFactorType": "lifecycle", "disableCallerLookup": "true"}
    assert seen.headers["auth-token"] == KEY


def test_electricity_maps_past_data_centre_and_forecast(server):
    """v4: the past by range, a cloud region by name, a forecast whose fields may be absent; v3 by its own path."""
    asked = ElectricityMaps(Secret(KEY), "direct", base=server.url)
    server.answer = lambda seen: Answer(
        {"zone": "DE", "data": [
            {"zone": "DE", "carbonIntensity": 300, "datetime": "2026-01-01T00:00:00.000Z",
             "emissionFactorType": "direct", "flowTraced": False, "temporalGranularity": "15_minutes"}]}
    )  # fmt: skip
    long_ago = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
    series = asked.series("gcp:europe-west3", long_ago, long_ago + 600)
    assert values(series) == [(long_ago, long_ago + 900, 300)]
    assert series.kind == Kind("direct", "production")
    assert server.seen[0].path == "/v4/carbon-intensity/past-range"
    assert server.seen[0].query["dataCenterProvider"] == "gcp"
    assert server.seen[0].query["dataCenterRegion"] == "europe-west3"
    server.answer = lambda seen: Answer(
        {
            "zone": "DE",
            "forecast": [{"datetime": at(NOW)}, {"carbonIntensity": 200, "datetime": at(NOW + HOUR)}],
        }
    )
    series = asked.forecast("DE", NOW, NOW + 20 * HOUR)
    assert values(series) == [(NOW + HOUR, NOW + 2 * HOUR, 200)]
    assert series.points[0].estimated
    assert server.seen[1].query["horizonHours"] == "24"
    old = ElectricityMaps(Secret(KEY), version="v3", base=server.url)
    server.answer = lambda seen: Answer(
        {"zone": "FR", "history": [], "carbonIntensity": 33, "datetime": at(NOW), "updatedAt": at(NOW)}
    )
    assert values(old.series("FR", NOW, NOW)) == [(NOW, NOW + HOUR, 33)]
    assert server.seen[2].path.startswith("/v3/")


def test_watttime(server):
    """v3: logs in once, converts pounds for a megawatt-hour, names the model; marginal on request."""

    def play(seen):
        if seen.path == "/login":
            return Answer({"token": "TOKEN"})
        signal = seen.query["signal_type"]
        return Answer(
            {
                "data": [{"point_time": at(NOW + 300 * k, "%Y-%m-%dT%H:%M:%S+00:00"), "value": 1000.0 + k} for k in (0, 1)],
                "meta": {"data_point_period_seconds": 300, "region": "CAISO_NORTH", "signal_type": signal,
                         "units": "lbs_co2_per_mwh", "model": {"date": "2026-03-01"}, "warnings": []},
            }
        )  # fmt: skip

    server.answer = play
    asked = WattTime("me", Secret(KEY), base=server.url)
    series = asked.series("CAISO_NORTH", NOW, NOW + 600)
    assert values(series) == [(NOW, NOW + 300, 453.59237), (NOW + 300, NOW + 600, 454.04596237)]
    assert series.kind.signal == "average"
    assert "2026-03-01" in series.source
    asked.signal = "marginal"
    assert asked.forecast("CAISO_NORTH", NOW, NOW + HOUR).kind.signal == "marginal"
    assert [seen.path for seen in server.seen] == ["/login", "/v3/historical", "/v3/forecast"]
    assert server.seen[0].headers["Authorization"].startswith("Basic ")
    assert server.seen[1].headers["Authorization"] == "Bearer TOKEN"
    assert server.seen[2].query["signal_type"] == "co2_moer"


def test_great_britain(server):
    """National: actual where it is out, else the forecast, marked estimated."""
    half = 1800.0
    server.answer = lambda seen: Answer(
        {"data": [
            {"from": at(NOW - half, "%Y-%m-%dT%H:%MZ"), "to": at(NOW, "%Y-%m-%dT%H:%MZ"),
             "intensity": {"forecast": 266, "actual": 263, "index": "moderate"}},
            {"from": at(NOW, "%Y-%m-%dT%H:%MZ"), "to": at(NOW + half, "%Y-%m-%dT%H:%MZ"),
             "intensity": {"forecast": 250, "actual": None, "index": "moderate"}},
        ]}
    )  # fmt: skip
    series = GreatBritain(server.url).series("GB", NOW - half, NOW + 60)
    assert values(series) == [(NOW - half, NOW, 263), (NOW, NOW + half, 250)]
    assert [point.estimated for point in series.points] == [False, True]
    assert series.kind == Kind("direct-co2", "consumption")
    assert server.seen[0].path.startswith("/intensity/")


@pytest.mark.parametrize(("zone", "end"), [("13", "regionid/13"), ("rg10", "postcode/RG10")])
def test_great_britain_by_region(server, zone, end):
    """Regional: by number or outward postcode; forecasts only; ahead as well."""
    server.answer = lambda seen: Answer(
        {"data": {"regionid": 13, "dnoregion": "UKPN London", "shortname": "London", "data": [
            {"from": at(NOW, "%Y-%m-%dT%H:%MZ"), "to": at(NOW + 1800, "%Y-%m-%dT%H:%MZ"),
             "intensity": {"forecast": 180, "index": "moderate"}, "generationmix": []}]}}
    )  # fmt: skip
    series = GreatBritain(server.url).forecast(zone, NOW, NOW + 24 * HOUR)
    assert values(series) == [(NOW, NOW + 1800, 180)]
    assert series.points[0].estimated
    assert "London" in series.source
    assert server.seen[0].path.endswith(f"fw24h/{end}")


def test_rte_live_and_consolidated(server):
    """Quarters of an hour from the live data set, half hours from the consolidated one, page by page."""

    def play(seen):
        offset = int(seen.query["offset"])
        count = 100 if offset == 0 else 3
        return Answer(
            {"total_count": 103, "results": [
                {"date_heure": at(NOW - 900 * (offset + k), "%Y-%m-%dT%H:%M:%S+00:00"), "taux_co2": 20 + k}
                for k in range(count)]}
        )  # fmt: skip

    server.answer = play
    series = Rte(server.url).series("FR", NOW - 100 * 900, NOW)
    assert len(series.points) == 103
    assert values(series)[-1] == (NOW, NOW + 900, 20)
    assert series.points[-1].estimated
    assert series.kind == Kind("direct-co2", "production")
    assert "eco2mix-national-tr" in server.seen[0].path
    assert "taux_co2 IS NOT NULL" in server.seen[0].query["where"]
    server.answer = lambda seen: Answer(
        {"results": [{"date_heure": "2025-01-01T00:00:00+00:00", "taux_co2": 31}]}
    )
    old = datetime(2025, 1, 1, tzinfo=UTC).timestamp()
    series = Rte(server.url).series("FR", old, old + HOUR)
    assert values(series) == [(old, old + 1800, 31)]
    assert not series.points[0].estimated
    assert "eco2mix-national-cons-def" in server.seen[-1].path


def test_slow_pages_do_not_add_up(server, monkeypatch):
    """Each page has its time, and all of them no more than one: what has come till then is the answer."""
    monkeypatch.setattr("aimeter.carbon.providers.rte.TOTAL_S", 0.0)
    row = {"date_heure": at(NOW - 900, "%Y-%m-%dT%H:%M:%S+00:00"), "taux_co2": 20}
    server.answer = lambda seen: Answer({"results": [row] * 100})
    assert len(Rte(server.url).series("FR", NOW - HOUR, NOW).points) == 1
    assert len(server.seen) == 1


def entsoe_document(*series):
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<GL_MarketDocument xmlns="urn:iec62325.351:tc57wg16:451-6:generationloaddocument:3:0">'
        f"<mRID>x</mRID>{''.join(series)}</GL_MarketDocument>"
    )


def entsoe_series(code, points, *, storage=False, start=NOW, hours=2, resolution="PT60M"):
    domain = "out" if storage else "in"
    steps = "".join(
        f"<Point><position>{position}</position><quantity>{amount}</quantity></Point>"
        for position, amount in points
    )
    return (
        f"<TimeSeries><mRID>1</mRID><{domain}BiddingZone_Domain.mRID>10YFR</{domain}BiddingZone_Domain.mRID>"
        f"<curveType>A03</curveType><MktPSRType><psrType>{code}</psrType></MktPSRType>"
        f"<Period><timeInterval><start>{at(start, '%Y-%m-%dT%H:%MZ')}</start>"
        f"<end>{at(start + hours * HOUR, '%Y-%m-%dT%H:%MZ')}</end></timeInterval>"
        f"<resolution>{resolution}</resolution>{steps}</Period></TimeSeries>"
    )


def test_entsoe_is_its_mix_times_the_factors(server):
    """Nuclear 12 and gas 490 g/kWh by share; storage is no generation; a missing position repeats the one before."""
    server.answer = lambda seen: Answer(
        entsoe_document(
            entsoe_series("B14", [(1, 900)]),
            entsoe_series("B04", [(1, 100), (2, 300)]),
            entsoe_series("B10", [(1, 5000)]),
            entsoe_series("B10", [(1, 5000)], storage=True),
        )
    )
    series = Entsoe(Secret(KEY), server.url).series("10YFR-RTE------C", NOW, NOW + 2 * HOUR)
    assert values(series) == [
        (NOW, NOW + HOUR, (900 * 12 + 100 * 490) / 1000),
        (NOW + HOUR, NOW + 2 * HOUR, (900 * 12 + 300 * 490) / 1200),
    ]
    first = series.points[0]
    assert (first.lower, first.upper) == (
        pytest.approx((900 * 3.7 + 100 * 410) / 1000),
        pytest.approx((900 * 110 + 100 * 650) / 1000),
    )
    assert first.estimated
    assert server.seen[0].query["documentType"] == "A75"


def entsoe_points(server, *series):
    server.answer = lambda seen: Answer(entsoe_document(*series))
    return values(Entsoe(Secret(KEY), server.url).series("10YFR-RTE------C", NOW, NOW + 2 * HOUR))


def test_entsoe_has_no_value_where_a_type_is_still_missing(server):
    """Gas is out for the first hour only: the second has no value, rather than nuclear's alone."""
    nuclear = entsoe_series("B14", [(1, 1000)])
    assert entsoe_points(server, nuclear, entsoe_series("B04", [(1, 1000)], hours=1)) == [
        (NOW, NOW + HOUR, 251)
    ]
    small = entsoe_series(
        "B16", [(1, 5)], hours=1
    )  # the sun has set: what gave next to nothing is not missed
    assert len(entsoe_points(server, nuclear, small)) == 2


def test_entsoe_steps_of_different_lengths_are_one_mix(server):
    """Nuclear by the hour and gas by the quarter: both count in every quarter."""
    gas = entsoe_series("B04", [(1, 1000)], hours=1, resolution="PT15M")
    found = entsoe_points(server, entsoe_series("B14", [(1, 1000)], hours=1), gas)
    assert found == [(NOW + k * 900, NOW + (k + 1) * 900, 251) for k in range(4)]


def test_eia_has_no_value_for_an_hour_that_lacks_a_fuel(server):
    """In the newest hour coal is not in yet, or null: no value, rather than wind's alone."""
    for late in (
        [],
        [{"period": at(NOW, "%Y-%m-%dT%H"), "respondent": "CISO", "fueltype": "COL", "value": None}],
    ):
        whole = eia_rows(2, {"COL": 250, "WND": 750})
        rows = whole["response"]["data"]
        newest = [row for row in rows if row["period"] == at(NOW, "%Y-%m-%dT%H")]
        rows.remove(next(row for row in newest if row["fueltype"] == "COL"))
        rows += late
        server.answer = lambda seen, whole=whole: Answer(whole)
        series = Eia930(Secret(KEY), server.url).series("CISO", NOW - HOUR, NOW)
        assert values(series) == [(NOW - 2 * HOUR, NOW - HOUR, 0.25 * 820 + 0.75 * 11)]


def test_entsoe_says_that_it_has_no_data(server):
    """An acknowledgement is a fault with the platform's own words, and never the token in them."""
    server.answer = lambda seen: Answer(
        '<?xml version="1.0"?><Acknowledgement_MarketDocument xmlns="urn:x"><Reason><code>999</code>'
        f"<text>No matching data found for {KEY}</text></Reason></Acknowledgement_MarketDocument>"
    )
    with pytest.raises(NoValuesError, match="No matching data found for"):
        Entsoe(Secret(KEY), server.url).series("10YFR-RTE------C", NOW, NOW)


def eia_rows(hours, mix, **changes):
    return {
        "response": {
            "total": "4",
            "data": [
                {"period": at(NOW - HOUR * k, "%Y-%m-%dT%H"), "respondent": "CISO", "fueltype": fuel,
                 "value": str(amount), "value-units": "megawatthours", **changes}
                for k in range(hours) for fuel, amount in mix.items()
            ],
        }
    }  # fmt: skip


def test_eia_is_its_mix_times_the_factors(server):
    """Coal 820 and wind 11 g/kWh by share, for the hour that ends at the period; storage and negatives left out."""
    server.answer = lambda seen: Answer(eia_rows(2, {"COL": 250, "WND": 750, "BAT": 400, "SUN": -3}))
    series = Eia930(Secret(KEY), server.url).series("CISO", NOW - HOUR, NOW)
    assert values(series) == [
        (NOW - 2 * HOUR, NOW - HOUR, 0.25 * 820 + 0.75 * 11),
        (NOW - HOUR, NOW, 0.25 * 820 + 0.75 * 11),
    ]
    assert server.seen[0].query["facets[respondent][]"] == "CISO"


def test_too_much_without_a_factor_is_no_value(server):
    """Up to a tenth of other generation widens the bounds; more of it leaves no value."""
    server.answer = lambda seen: Answer(eia_rows(1, {"COL": 90, "OTH": 10}))
    point = Eia930(Secret(KEY), server.url).series("CISO", NOW - HOUR, NOW).points[0]
    assert point.g_per_kwh == pytest.approx(820)
    assert (point.lower, point.upper) == (pytest.approx(0.9 * 740), pytest.approx(0.9 * 910 + 0.1 * 1100))
    server.answer = lambda seen: Answer(eia_rows(1, {"COL": 80, "OTH": 20}))
    with pytest.raises(ProviderFault, match="no usable value"):
        Eia930(Secret(KEY), server.url).series("CISO", NOW - HOUR, NOW)


CSV = """# kind: average;location-based;lifecycle;consumption
# source: my utility, 2026
start,lb_per_mwh,zone,lower,estimated
2026-01-01T00:00Z,100,FR,50,no
2026-01-01T01:00Z,200,FR,,yes
2026-01-01T01:00Z,900,DE,,no
yesterday,300,FR,,no
2026-01-01T02:00Z,many,FR,,no
2026-01-01T03:00Z,-5,FR,,no
2026-01-01T04:00Z,300
"""


def test_a_file_in_the_documented_form(tmp_path):
    """Units, zone, bounds and notes are read; a value holds to the next; a malformed row loses that row only."""
    path = tmp_path / "grid.csv"
    path.write_text(CSV, encoding="utf-8-sig")
    series = FileOrUrl(str(path)).series("FR", 0, 0)
    begin = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
    assert [(point.start_s - begin, point.g_per_kwh) for point in series.points] == [
        (0.0, pytest.approx(45.359237)),
        (HOUR, pytest.approx(90.718474)),
    ]
    assert series.points[0].end_s == begin + HOUR
    assert series.points[0].lower == pytest.approx(22.6796185)
    assert [point.estimated for point in series.points] == [False, True]
    assert series.kind == Kind("lifecycle", "consumption")
    assert series.source == "grid.csv; my utility, 2026"


def test_a_malformed_row_of_a_file_leaves_a_gap(tmp_path):
    """Its neighbour holds no longer for it, whether its value, its zone or its time cannot be read."""
    path = tmp_path / "grid.csv"
    begin = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
    for bad in ("2026-01-01T11:00Z,FR,abc", "2026-01-01T11:00Z", "2026-01-01T11:00Z,FR,-1", "then,FR,150"):
        path.write_text(f"start,zone,g_per_kwh\n2026-01-01T10:00Z,FR ,100\n{bad}\n2026-01-01T12:00Z,FR,200\n")
        assert values(FileOrUrl(str(path)).series("FR", 0, 0)) == [
            (begin + 10 * HOUR, begin + 11 * HOUR, 100),
            (begin + 12 * HOUR, begin + 13 * HOUR, 200),
        ], bad
    path.write_text("start,g_per_kwh\n2026-01-01T10:00Z,100\n2026-01-01T10:00Z,abc\n2026-01-01T12:00Z,200\n")
    assert values(FileOrUrl(str(path)).series("FR", 0, 0))[0] == (begin + 10 * HOUR, begin + 12 * HOUR, 100)


@pytest.mark.parametrize(
    ("lower", "upper"),
    [(float("nan"), float("inf")), (500.0, -3.0), (-1.0, 99.0), ("x", True), (float("-inf"), 10**400)],
)
def test_bounds_that_cannot_be_are_dropped(lower, upper):
    """A bound is a finite number on its own side of the value, or it is none."""
    series = Series("FR", Kind("direct", "production"), "mine", (Point(0, 10, 100, False, lower, upper),))
    (point,) = checked(series, "mine").points
    assert (point.lower, point.upper) == (None, None)
    kept = series.points[0]._replace(lower=90.0, upper=120.0)
    assert checked(replace(series, points=(kept,)), "mine").points == (kept,)


@pytest.mark.parametrize("unit", ["g_per_kwh", "kg_per_mwh", "lb_per_mwh"])
def test_the_units_of_a_file(server, unit):
    """A gram for a kilowatt-hour is a kilogram for a megawatt-hour, and 1 lb/MWh is 0.45359237 g/kWh."""
    server.answer = lambda seen: Answer(f"start,{unit}\n2026-01-01T00:00Z,100\n")
    (point,) = FileOrUrl(f"{server.url}/a.csv").series("FR", 0, 0).points
    assert point.g_per_kwh == pytest.approx(45.359237 if unit.startswith("lb") else 100)
    assert point.end_s - point.start_s == HOUR


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a,b\n1,2\n",
        "start,g_per_kwh\n2026-01-01T00:00Z," + "1" * 200_000,
        "x" * 200_000,
        "start,g_per_kwh,lb_per_mwh\n",
        "start,g_per_kwh\n",
        "\0\0",
    ],
)
def test_a_file_of_another_form_is_a_fault(tmp_path, text):
    """What is not in the form is a fault that says so, and so is a file that is not there."""
    path = tmp_path / "x.csv"
    path.write_text(text)
    with pytest.raises(ProviderFault):
        FileOrUrl(str(path)).series("FR", 0, 0)
    with pytest.raises(ProviderFault, match="cannot be read"):
        FileOrUrl(str(tmp_path / "none.csv")).series("FR", 0, 0)


@pytest.mark.parametrize(
    "answer",
    [
        lambda zone, start, end: 100,
        lambda zone, start, end: [(start, 50.0), (start + (end - start) / 2, 150.0)],
        lambda zone, start, end: Series(zone, Kind("direct", "production"), "mine", (Point(0, 10, 100),)),
    ],
)
def test_a_function_of_the_users_own(answer):
    """A number for the whole, pairs of time and number, or a series."""
    series = UserProvider(answer).series("FR", 0.0, 10.0)
    assert sum(p.g_per_kwh * (p.end_s - p.start_s) for p in series.points) >= 1000


@pytest.mark.parametrize("wrong", [None, "x", [1, 2], [("a", 1)], [], -5, 5000, float("nan")])
def test_a_function_that_gives_something_else(wrong):
    """Whatever it gives or raises is a fault, without what it raised."""
    with pytest.raises(ProviderFault):
        UserProvider(lambda *_: wrong).series("FR", 0.0, 10.0)

    def leaky(*_):
        raise RuntimeError(KEY)

    with pytest.raises(ProviderFault) as caught:
        UserProvider(leaky).series("FR", 0.0, 10.0)
    assert KEY not in "".join(traceback.format_exception(caught.value))


def test_the_offline_tables_are_a_provider():
    """One value, of a year, for every time; no network."""
    series = Offline().series("FR", 0.0, 10.0)
    assert (series.points[0].start_s, series.points[0].end_s) == (0.0, 10.0)
    assert series.kind == Kind("lifecycle", "production")
    assert series.year == 2023
    with pytest.raises(ProviderFault):
        Offline().series("AQ", 0.0, 10.0)


def test_every_provider_keeps_to_the_protocol(server):
    """All have the protocol's attributes and methods; those that look ahead are forecasters."""
    own = (Offline(), UserProvider(lambda *_: 1.0))
    every = [one for one, _ in all_of(server).values()] + list(own)
    assert all(isinstance(one, Provider) for one in every)
    ahead = {one.name for one in every if isinstance(one, Forecaster)}
    assert ahead == {"electricitymaps", "electricitymaps-v3", "watttime", "gb", "file", "function <lambda>"}


# Faults


@pytest.mark.parametrize("name", PROVIDERS)
@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_of_every_provider(server, monkeypatch, caplog, name, fault):
    """Whatever it does: one ProviderFault, soon, within memory, and nothing anywhere that shows the key."""
    hurry(monkeypatch, fault)
    caplog.set_level(logging.DEBUG)

    def play(seen):
        if seen.path == "/login" and fault not in {"wrong key", "black hole", "html"}:
            return Answer({"token": "TOKEN"})
        return FAULTS[fault]()

    server.answer = play
    asked, zone = all_of(server)[name]
    with pytest.raises(ProviderFault) as caught:
        asked.series(zone, NOW - HOUR, NOW)
    shown = "".join(traceback.format_exception(caught.value)) + repr(asked) + repr(caught.value) + caplog.text
    chained = caught.value.__context__
    while chained is not None:
        shown += repr(chained) + str(chained)
        chained = chained.__context__
    if name not in {"gb", "rte"}:  # which have no key, so that the word is nobody's secret
        assert KEY not in shown
    assert 0 < len(str(caught.value)) < 400
    assert caught.value.refused == (fault in {"wrong key", "not in the plan", "wrong zone"})
    assert caught.value.retry_after_s == (120 if fault == "too often" else None)


@pytest.mark.parametrize(
    ("name", "document"),
    [
        ("electricitymaps", {"zone": "DE", "data": [{"carbonIntensity": 1, "datetime": at(NOW)}]}),
        ("electricitymaps", {"zone": "FR", "emissionFactorType": "direct",
                             "data": [{"carbonIntensity": 1, "datetime": at(NOW)}]}),
        ("watttime", {"token": "T", "data": [], "meta": {"units": "percent", "region": "CAISO_NORTH"}}),
        ("watttime", {"token": "T", "data": [], "meta": {"units": "lbs_co2_per_mwh", "region": "PJM_DC"}}),
        ("eia930", eia_rows(1, {"COL": 1}, **{"value-units": "gigajoules"})),
        ("eia930", eia_rows(1, {"COL": 1}, respondent="PJM")),
    ],
)  # fmt: skip
def test_another_zone_unit_or_basis_is_refused(server, name, document):
    """An answer about something else than was asked for is a refusal, however well-formed."""
    server.answer = lambda seen: Answer(document)
    asked, zone = all_of(server)[name]
    with pytest.raises(ProviderFault) as caught:
        asked.series(zone, NOW - HOUR, NOW)
    assert caught.value.refused


@pytest.mark.parametrize("value", [-1, 2001, 56039, True, "56", None, 1e400])
def test_values_that_no_grid_has_are_missing(server, value):
    """0 to 2000 g/kWh: what lies outside, such as grams taken for kilograms, is no value."""
    server.answer = lambda seen: Answer(
        {"zone": "FR", "data": [{"carbonIntensity": value, "datetime": at(NOW)}]}
    )
    with pytest.raises(ProviderFault):
        ElectricityMaps(Secret(KEY), base=server.url).series("FR", NOW, NOW)


def test_zero_is_a_value_only_where_it_can_be_true(server):
    """Exactly 0 counts at the power station and by contract, and is a gap in a life cycle."""
    document = {"zone": "FR", "data": [{"carbonIntensity": 0, "datetime": at(NOW)}]}
    server.answer = lambda seen: Answer(document)
    assert (
        ElectricityMaps(Secret(KEY), "direct", base=server.url).series("FR", NOW, NOW).points[0].g_per_kwh
        == 0
    )
    with pytest.raises(ProviderFault, match="no usable value"):
        ElectricityMaps(Secret(KEY), base=server.url).series("FR", NOW, NOW)


def test_the_netrc_is_not_sent(server, monkeypatch, tmp_path):
    """What the user's ~/.netrc has for a host is not sent to it."""
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password hidden\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with pytest.raises(ProviderFault):
        GreatBritain(server.url).series("GB", NOW, NOW)
    assert "Authorization" not in server.seen[0].headers


def test_a_password_in_an_address_is_sent_and_not_shown(server, caplog):
    """user:password@ in an address is a log-in by HTTP Basic, and is in no text."""
    caplog.set_level(logging.DEBUG)
    server.answer = lambda seen: Answer({"error": "no access for me with pass/word, pass%2Fword"}, 403)
    place = server.url.replace("//", "//me:pass%2Fword@")
    for address in (f"{place}/x.csv", place):
        with pytest.raises(ProviderFault) as caught:
            FileOrUrl(address).series("FR", 0, 0)
        shown = "".join(traceback.format_exception(caught.value)) + caplog.text
        assert "pass/word" not in shown
        assert "pass%2Fword" not in shown
        assert server.seen[-1].headers["Authorization"] == f"Basic {b64encode(b'me:pass/word').decode()}"
    server.answer = lambda seen: Answer("start,g_per_kwh\n2026-01-01T00:00Z,100\n")
    assert "word" not in FileOrUrl(place).series("FR", 0, 0).source


@pytest.mark.parametrize(
    "query", ["SECRET+KEY", "key=SECRET+KEY", "v=1&SECRET%20KEY", "v=1&key=SECRET%20KEY"]
)
def test_a_key_in_an_address_is_never_shown(server, caplog, query):
    """With a name or without, and however the server echoes it; a short value such as v=1 masks nothing."""
    caplog.set_level(logging.DEBUG)
    echo = "SECRET KEY, SECRET+KEY, SECRET%20KEY, v1"
    server.answer = lambda seen: Answer({"error": echo}, 403)
    with pytest.raises(ProviderFault) as caught:
        FileOrUrl(f"{server.url}/x.csv?{query}").series("FR", 0, 0)
    assert "(***, ***, ***, v1)" in str(caught.value)
    assert "SECRET" not in caplog.text
    assert "HTTP/1.1" in caplog.text


@pytest.mark.parametrize("failing", [SystemExit, ValueError])
def test_a_function_that_ends_the_program_is_a_fault(failing):
    """SystemExit in a function of the user's own is a failure like any other."""

    def leave(*_):
        raise failing(KEY)

    with pytest.raises(ProviderFault, match=f"it raised {failing.__name__}"):
        UserProvider(leave).series("FR", 0.0, 10.0)


def test_watttime_logs_in_anew_where_its_token_is_withdrawn(server):
    """A 401 for a token that was good is answered with one log-in, and counts as a refusal after that."""
    good = ["TOKEN-1"]
    document = {
        "data": [{"point_time": at(NOW), "value": 1000.0}],
        "meta": {"region": "CAISO_NORTH", "units": "lbs_co2_per_mwh"},
    }

    def play(seen):
        if seen.path == "/login":
            return Answer({"token": good[-1]})
        granted = seen.headers["Authorization"] == f"Bearer {good[-1]}" and len(good) < 3
        return Answer(document) if granted else Answer({"error": "token"}, 401)

    server.answer = play
    asked = WattTime("me", Secret(KEY), base=server.url)
    asked.series("CAISO_NORTH", NOW, NOW)
    good.append("TOKEN-2")
    assert len(asked.series("CAISO_NORTH", NOW, NOW).points) == 1
    assert [seen.path for seen in server.seen[2:]] == ["/v3/historical", "/login", "/v3/historical"]
    good.append("TOKEN-3")
    with pytest.raises(ProviderFault) as caught:
        asked.series("CAISO_NORTH", NOW, NOW)
    assert caught.value.refused
    assert len(server.seen) == 8
    with pytest.raises(ProviderFault):
        asked.series("CAISO_NORTH", NOW, NOW)
    assert len(server.seen) == 10


def test_watttime_has_the_time_of_one_exchange_for_all(server, monkeypatch):
    """A withdrawn token, the log-in and the answer to come, each slow, are together no slower than one may be."""
    document = {
        "data": [{"point_time": at(NOW), "value": 1000.0}],
        "meta": {"region": "CAISO_NORTH", "units": "lbs_co2_per_mwh"},
    }
    logins = []

    def play(seen):
        if withdrawn:
            time.sleep(0.8)
        if seen.path == "/login":
            logins.append(seen)
            return Answer({"token": f"TOKEN-{len(logins)}"})
        stale = withdrawn and seen.headers["Authorization"] == "Bearer TOKEN-1"
        return Answer({"error": "token"}, 401) if stale else Answer(document)

    withdrawn = False
    server.answer = play
    asked = WattTime("me", Secret(KEY), base=server.url)
    asked.series("CAISO_NORTH", NOW, NOW)
    withdrawn = True
    monkeypatch.setattr("aimeter.carbon.providers.watttime.TOTAL_S", 2.0, raising=False)
    with pytest.raises(ProviderFault, match=r"takes too long|no answer within 2 s"):
        asked.series("CAISO_NORTH", NOW, NOW)
    # On a slow machine the first of them has had all of the time.
    assert ["/v3/historical", "/login"][: len(server.seen) - 2] == [seen.path for seen in server.seen[2:4]]


# Choosing


def test_choosing_by_name():
    """Each name gives its provider, with the key of the settings or of its own variable."""
    environ = dict.fromkeys(KEYS.values(), KEY) | {
        "WATTTIME_USER": "me",
        "WATTTIME_PASSWORD": KEY,
    }
    for name in NAMES:
        chosen = provider(name, environ=environ)
        assert chosen.name == name
        assert KEY not in repr(chosen)
    assert provider("watttime", key=Secret(f"you:{KEY}"), environ={}).user == "you"
    assert provider("grid.csv", environ={}).name == "file"
    assert provider("https://example.org/x", environ={}).name == "file"
    own = Offline()
    assert provider(own, environ={}) is own
    assert provider(lambda *_: 5.0, environ={}).name == "function <lambda>"


@pytest.mark.parametrize(
    ("chosen", "options", "hint"),
    [
        ("gbr", {}, "'gb'"),
        ("electricitymaps", {}, "ELECTRICITYMAPS_TOKEN"),
        ("watttime", {"key": Secret(KEY)}, "WATTTIME_USER"),
        ("entsoe", {}, "ENTSOE_TOKEN"),
        ("eia930", {}, "EIA_API_KEY"),
        ("gb", {"basis": "lifecycle"}, "direct"),
        ("rte", {"signal": "marginal"}, "average"),
        (17, {}, "a path"),
    ],
)
def test_a_provider_that_cannot_be_used_as_it_is_set(chosen, options, hint):
    """An unknown name, a missing key, a kind it does not give: an error at once that says what to do."""
    with pytest.raises(ConfigurationError, match=hint):
        provider(chosen, environ={}, **options)


@pytest.mark.parametrize(
    ("name", "region", "zone"),
    [
        ("electricitymaps", "FR", "FR"),
        ("electricitymaps", "SE3", "SE-SE3"),
        ("electricitymaps", "aws:eu-west-3", "aws:eu-west-3"),
        ("electricitymaps-v3", "aws:eu-west-3", "FR"),
        ("gb", "aws:eu-west-2", "GB"),
        ("rte", "azure:francecentral", "FR"),
        ("entsoe", "FR", "10YFR-RTE------C"),
        ("entsoe", "NO1", "10YNO-1--------2"),
        ("eia930", "US", "US48"),
        ("gb", "FR", None),
        ("rte", "DE", None),
        ("entsoe", "SE", None),
        ("eia930", "US-VA", None),
        ("electricitymaps", "US-VA", None),
        ("watttime", "US-CA", None),
    ],
)
def test_zones(server, name, region, zone):
    """A region has the provider's own name for it, or an error asks for carbon_zone."""
    asked, _ = all_of(server)[name]
    if zone is None:
        with pytest.raises(ConfigurationError, match="carbon_zone"):
            asked.zone_of(resolve(region))
    else:
        assert asked.zone_of(resolve(region)) == zone


def test_choosing_no_provider_loads_none():
    """Without a provider neither requests nor a provider's file is loaded by metering."""
    code = (
        "import sys, aimeter\n"
        "with aimeter.Meter(log=None, region='FR') as meter:\n"
        "    with meter.track('x'): pass\n"
        "print(*[m for m in sys.modules if m.split('.')[0] in ('requests', 'urllib3') or 'providers' in m], 'END')"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "END"


def test_a_retry_after_may_be_a_date(server):
    """Retry-After is a number of seconds or a date (RFC 9110); anything else is ignored."""

    def told(text):
        server.answer = lambda seen: Answer(b"", 429, {"Retry-After": text})
        with pytest.raises(ProviderFault) as caught:
            GreatBritain(server.url).series("GB", NOW, NOW)
        return caught.value.retry_after_s

    assert [told(text) for text in ("soon", "nan", "-5")] == [None, None, 0.0]
    began = datetime.now(UTC)
    waits_s = told((began + timedelta(seconds=900)).strftime("%a, %d %b %Y %H:%M:%S GMT"))
    # A date is of whole seconds, and it is counted from when the answer came.
    spent_s = (datetime.now(UTC) - began).total_seconds()
    assert 899 - spent_s <= waits_s <= 900


# Limits hold whatever the server does


def test_a_number_beyond_floats_is_a_fault(server):
    """JSON's integers have no end."""
    documents = {
        "eia930": eia_rows(1, {"COL": 1}, value=10**400),
        "watttime": {
            "token": "T",
            "data": [{"point_time": at(NOW), "value": 10**400}],
            "meta": {"units": "lbs_co2_per_mwh", "region": "CAISO_NORTH"},
        },
    }
    for name, document in documents.items():
        server.answer = lambda seen, document=document: Answer(document)
        asked, zone = all_of(server)[name]
        with pytest.raises(ProviderFault, match="not of the documented form"):
            asked.series(zone, NOW - HOUR, NOW)


@pytest.mark.parametrize("encoding", ["UTF-8", "UTF-16"])
def test_entities_are_never_unfolded(server, encoding):
    """Whatever the encoding: four megabytes would become a hundred, within what the parser itself allows."""
    entities = f'<!DOCTYPE x [<!ENTITY a "{"a" * 50}">]><GL_MarketDocument>{"&a;" * 1000}</GL_MarketDocument>'
    body = f'<?xml version="1.0" encoding="{encoding}"?>{entities}'.encode(encoding)
    server.answer = lambda seen: Answer(body)
    with pytest.raises(ProviderFault, match="not of the documented form"):
        Entsoe(Secret(KEY), server.url).series("10YFR-RTE------C", NOW, NOW + HOUR)


def test_few_bytes_do_not_become_many_values(server):
    """A period of one point holds for each minute of a fortnight, and there may be thousands of periods."""
    server.answer = lambda seen: Answer(
        entsoe_document(entsoe_series("B04", [(1, 1)], hours=300, resolution="PT1M") * 20)
    )
    with pytest.raises(ProviderFault, match="more than 200,000 values"):
        Entsoe(Secret(KEY), server.url).series("10YFR-RTE------C", NOW, NOW + HOUR)


def test_steps_that_overlap_without_end_are_a_fault():
    """Each would be counted in each stretch between the begins of all others."""
    steps = [(float(number), 1e6 - number, 1.0) for number in range(2000)]
    with pytest.raises(ProviderFault, match="overlap"):
        mix.points({mix.Source("gas", "B04"): steps})


def test_many_lines_before_the_header_take_no_time(tmp_path):
    """4 MB of blank lines are passed over in a moment; taking each off the front would last for hours."""
    path = tmp_path / "x.csv"
    path.write_text("\n" * 4_000_000 + "start,g_per_kwh\n2026-01-01T00:00Z,100\n")
    began = time.monotonic()
    assert FileOrUrl(str(path)).series("FR", 0, 0).points[0].g_per_kwh == 100
    assert time.monotonic() - began < 30


def test_what_http_basic_sends_is_never_shown(server, caplog):
    """A server may echo the header, in which user and password are no more than written otherwise."""
    caplog.set_level(logging.DEBUG)
    server.answer = lambda seen: Answer({"message": f"bad {seen.headers['Authorization']}"}, 401)
    with pytest.raises(ProviderFault) as caught:
        WattTime("me", Secret(KEY), base=server.url).series("CAISO_NORTH", NOW, NOW)
    assert b64encode(f"me:{KEY}".encode()).decode() not in str(caught.value) + caplog.text
    assert "bad Basic ***" in str(caught.value)


def test_answers_that_never_end_do_not_add_up(monkeypatch):
    """A thread that is still being answered is left alone, but only so many of them."""
    monkeypatch.setattr(http, "_left_alone", [])
    threads = threading.active_count()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        over, held = threading.Event(), []

        def drip():
            while not over.wait(0.02):
                with contextlib.suppress(OSError):
                    held.append(listener.accept()[0])
                    held[-1].sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
                for connection in held:
                    with contextlib.suppress(OSError):
                        connection.sendall(b"a")

        listener.settimeout(0.02)
        server = threading.Thread(target=drip)
        server.start()
        faults = []
        try:
            for _ in range(7):
                with pytest.raises(ProviderFault) as caught:
                    http.get(http.Request(f"http://127.0.0.1:{listener.getsockname()[1]}/"), total_s=0.3)
                faults.append(str(caught.value))
            assert threading.active_count() <= threads + 1 + 4
            assert ["still coming in" in fault for fault in faults] == [False] * 4 + [True] * 3
        finally:
            over.set()
            server.join()
            for connection in held:
                connection.close()
            for thread in http._left_alone:
                thread.join(5)


@pytest.fixture
def redirecting():
    made = CarbonServer()
    yield made
    made.close()


def test_bodies_of_redirections_are_not_read(redirecting):
    """A megabyte that unfolds to a gigabyte, in an answer that only points elsewhere, is left where it is."""
    bomb = gzip.compress(bytes(50_000_000), 9)

    def answer(seen):
        if seen.path == "/a":
            return Answer(bomb, 302, {"Location": "/b", "Content-Encoding": "gzip"})
        return Answer(b"values")

    redirecting.answer = answer
    assert http.get(http.Request(f"{redirecting.url}/a")) == b"values"


def test_redirections_have_an_end(redirecting):
    """A chain without end is the provider's fault."""
    redirecting.answer = lambda seen: Answer(b"", 302, {"Location": f"{seen.path}x"})
    with pytest.raises(ProviderFault, match="redirects more than 5 times"):
        http.get(http.Request(f"{redirecting.url}/a"))
    assert len(redirecting.seen) == 6


def test_keys_follow_no_redirection(redirecting):
    """Where there is a secret, a redirection is an answer like any other, and no good one."""
    redirecting.answer = lambda seen: Answer(b"", 302, {"Location": "/elsewhere"})
    with pytest.raises(ProviderFault, match="302"):
        http.get(http.Request(f"{redirecting.url}/a", headers={"auth-token": "k"}, secrets=("secret",)))
    assert [seen.path for seen in redirecting.seen] == ["/a"]


def test_a_server_that_drips_its_headers_is_left():
    """The time limit is of the whole exchange: not only of silence, and not only of the body."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        over = threading.Event()

        def drip():
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
                while not over.wait(0.05):
                    connection.sendall(b"a")

        server = threading.Thread(target=drip)
        server.start()
        try:
            with pytest.raises(ProviderFault, match="takes too long"):
                http.get(http.Request(f"http://127.0.0.1:{listener.getsockname()[1]}/"), total_s=0.5)
        finally:
            over.set()
            server.join()
