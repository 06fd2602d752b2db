"""Live intensity in rows: never waiting, never raising, never asking faster than allowed, and saying what was used."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import aimeter
from aimeter._support.secret import Secret
from aimeter.carbon.cache import Cache, Known
from aimeter.carbon.feed import FIRST_DELAY_S, LONGEST_DELAY_S, REFUSED_DELAY_S, Feed
from aimeter.carbon.intensity import Intensity
from aimeter.carbon.providers import ProviderFault
from aimeter.carbon.providers.electricitymaps import ElectricityMaps
from aimeter.carbon.providers.gb import GreatBritain
from aimeter.carbon.series import Kind, Point, Series
from aimeter.errors import ConfigurationError
from aimeter.logs.recompute import is_provisional
from aimeter.testing import FakeClock, FakeSensor
from tests.carbon_server import FAULTS, Answer, CarbonServer, at, hurry

KIND = Kind("direct", "consumption")
OFFLINE = Intensity(
    56.039, "offline tables", "average;location-based;lifecycle;production;estimated=no", "FR", 2023
)
KEY = "SECRET-KEY"
ROOT = Path(__file__).parents[2]


@pytest.fixture
def server():
    made = CarbonServer()
    yield made
    made.close()


class Scripted:
    """A provider that says what it is told, and counts how often it is asked."""

    name = "scripted"
    cache_key = "scripted"

    def __init__(self, *points, period_s=1800.0):
        self.points = points
        self.period_s = period_s
        self.asked = 0
        self.fault = None

    def zone_of(self, zone):
        return zone.code

    def series(self, zone, start_s, end_s):
        self.asked += 1
        if self.fault is not None:
            raise self.fault
        return Series(zone, KIND, "scripted", tuple(self.points))


class Clock:
    def __init__(self, now_s=1_000_000.0):
        self.now_s = now_s

    def __call__(self):
        return self.now_s


def feed_of(provider, clock, folder=None, **options):
    """A feed whose requests are made by hand, with `refresh`."""
    made = Feed(
        provider, "FR", OFFLINE, cache=Cache(folder), max_age_s=options.pop("max_age_s", 7200.0), now=clock
    )
    made._busy.acquire()  # so that no thread is started
    return made


def test_until_a_value_arrives_the_row_has_the_fallback_and_says_so():
    """Before the first answer: the offline value, marked, with a reason; after it: the provider's."""
    clock = Clock()
    feed = feed_of(Scripted(Point(clock.now_s - 100, clock.now_s + 1700, 80)), clock)
    found = feed.over(clock.now_s - 1, clock.now_s)
    assert found.intensity.g_per_kwh == 56.039
    assert found.intensity.method.endswith(";fallback")
    assert found.remark == {"provider": "scripted", "zone": "FR", "reason": "it has not answered yet"}
    feed.refresh()
    found = feed.over(clock.now_s - 1, clock.now_s)
    assert (found.intensity.g_per_kwh, found.intensity.source) == (80, "scripted")
    assert found.intensity.method == "average;location-based;direct;consumption;estimated=no"
    assert found.remark["values"] == [{"from": at(clock.now_s - 100), "g_per_kwh": 80}]


def test_a_call_across_two_values_has_their_mean_by_time():
    """100 s at 80 and 300 s at 160 g/kWh: 140, with both values in the remark."""
    clock = Clock()
    feed = feed_of(Scripted(Point(0, clock.now_s, 80), Point(clock.now_s, clock.now_s + 900, 160)), clock)
    feed.refresh()
    found = feed.over(clock.now_s - 100, clock.now_s + 300)
    assert found.intensity.g_per_kwh == pytest.approx(140)
    assert [(value["g_per_kwh"], value["s"]) for value in found.remark["values"]] == [(80, 100), (160, 300)]


def test_the_newest_value_is_held_for_a_while_and_no_longer():
    """Up to max_age_s past its end the newest value stands in, marked held; after that the fallback does."""
    clock = Clock()
    feed = feed_of(Scripted(Point(clock.now_s - 1800, clock.now_s, 80)), clock, max_age_s=600)
    feed.refresh()
    held = feed.over(clock.now_s - 10, clock.now_s + 500)
    assert held.intensity.g_per_kwh == 80
    assert held.intensity.method.endswith("estimated=yes;held")
    assert feed.over(clock.now_s + 5, clock.now_s + 500) is feed.over(clock.now_s + 5, clock.now_s + 501)
    assert not feed.over(clock.now_s - 20, clock.now_s - 10).intensity.method.endswith(";held")
    late = feed.over(clock.now_s + 601, clock.now_s + 602)
    assert late.intensity.method.endswith(";fallback")
    assert late.remark["reason"] == "it has no value of that time yet"


def test_what_was_known_stands_while_the_newest_value_is_held():
    """Of a call from within one value to beyond the newest, each known value counts for its time, the newest for the rest."""
    clock = Clock()
    feed = feed_of(
        Scripted(*(Point(clock.now_s + 100 * k, clock.now_s + 100 * (k + 1), 80 + 40 * k) for k in range(3))),
        clock,
        max_age_s=600,
    )
    feed.refresh()
    found = feed.over(clock.now_s + 50, clock.now_s + 400)
    assert found.intensity.g_per_kwh == pytest.approx((50 * 80 + 100 * 120 + 200 * 160) / 350)
    assert [(one["g_per_kwh"], one["s"]) for one in found.remark["values"]] == [
        (80, 50),
        (120, 100),
        (160, 200),
    ]


@pytest.mark.parametrize(("values", "more"), [(24, None), (30, 6)])
def test_of_many_values_the_first_are_told_and_the_rest_counted(values, more):
    """A call of many hours has a remark of bounded length, which says how many values it leaves out."""
    clock = Clock()
    feed = feed_of(
        Scripted(*(Point(clock.now_s + k, clock.now_s + k + 1, 80 + k) for k in range(values))), clock
    )
    feed.refresh()
    found = feed.over(clock.now_s, clock.now_s + values - 1e-3)
    assert len(found.remark["values"]) == 24
    assert found.remark.get("more_values") == more


def test_it_is_asked_once_a_period():
    """When the newest value ends, at the latest in a period; a quarter of it where the next value is late."""
    clock = Clock()
    provider = Scripted(Point(clock.now_s - 900, clock.now_s + 900, 80))
    feed = feed_of(provider, clock)
    feed.refresh()
    assert feed.known.expires_s == clock.now_s + 900
    provider.points = (Point(clock.now_s - 900, clock.now_s - 800, 80),)
    feed.refresh()
    assert feed.known.expires_s == clock.now_s + provider.period_s / 4
    provider.points = (Point(clock.now_s - 900, clock.now_s + 9000, 80),)
    feed.refresh()
    assert feed.known.expires_s == clock.now_s + provider.period_s
    for period_s, wanted_s in ((0.0, 60.0), (1e9, 86400.0)):
        provider.points, provider.period_s = (Point(clock.now_s - 900, clock.now_s + 9e5, 80),), period_s
        feed.refresh()
        assert feed.known.expires_s == clock.now_s + wanted_s


@pytest.mark.parametrize(
    ("fault", "waits"),
    [
        (ProviderFault("down"), [30, 60, 120, 240, 480, 960, 1920, 3600, 3600]),
        (ProviderFault("401", refused=True), [3600, 7200, 14400, 28800, 57600, 86400, 86400]),
        (ProviderFault("429", retry_after_s=500), [500, 500, 500, 500, 500, 960]),
        (ProviderFault("429", retry_after_s=1e9), [86400]),
    ],
)
def test_a_provider_that_fails_is_left_alone_ever_longer(fault, waits, caplog):
    """Half a minute after a failure, an hour after a refusal, doubling; Retry-After first; one log line in all."""
    assert (FIRST_DELAY_S, REFUSED_DELAY_S, LONGEST_DELAY_S) == (30, 3600, 86400)
    clock = Clock()
    provider = Scripted()
    provider.fault = fault
    feed = feed_of(provider, clock)
    for wait in waits:
        feed.refresh()
        assert feed.known.rest_until_s - clock.now_s == wait
        clock.now_s = feed.known.rest_until_s
    assert len([one for one in caplog.records if one.levelno >= logging.WARNING]) == 1
    assert feed.over(0, 1).remark["reason"] == str(fault)


def test_while_it_rests_no_thread_is_started(monkeypatch):
    """However many rows are made during the back-off, nobody asks."""
    clock = Clock()
    provider = Scripted()
    provider.fault = ProviderFault("down")
    feed = feed_of(provider, clock)
    feed.refresh()
    feed._busy.release()
    monkeypatch.setattr(threading.Thread, "start", lambda _: pytest.fail("a thread was started"))
    for _ in range(100):
        feed.over(clock.now_s, clock.now_s)
    assert provider.asked == 1


def test_a_clock_set_back_does_not_silence_the_provider():
    """After the wall clock has gone back by a month it is asked again, not in a month."""
    clock = Clock()
    provider = Scripted(Point(clock.now_s - 9e6, clock.now_s + 9e6, 80))
    feed = feed_of(provider, clock)
    feed.refresh()
    clock.now_s -= 30 * 86400
    feed._busy.release()
    feed.over(clock.now_s, clock.now_s)
    wait_for(lambda: provider.asked == 2)


def test_a_success_after_failures_begins_anew(caplog):
    """After an answer the delay starts over, and a later failure is told again."""
    clock = Clock()
    provider = Scripted(Point(clock.now_s - 900, clock.now_s + 90_000, 80))
    feed = feed_of(provider, clock)
    for _ in range(2):
        provider.fault = ProviderFault("down")
        feed.refresh()
        assert feed.known.delay_s == FIRST_DELAY_S
        provider.fault = None
        feed.refresh()
        assert feed.known.problem == ""
    assert len(caplog.records) == 2


@pytest.mark.parametrize("days", [-3000, -30, 2, 300])
def test_values_of_another_time_are_no_answer(days):
    """The past and the future are faults that say which time the values are of."""
    clock = Clock(1.7e9)
    start = clock.now_s + days * 86400
    feed = feed_of(Scripted(Point(start, start + 1800, 80)), clock)
    feed.refresh()
    assert "of another time" in feed.known.problem
    assert feed.over(clock.now_s, clock.now_s).intensity.g_per_kwh == 56.039


def test_answers_are_shared_between_processes_through_the_disk(tmp_path, caplog):
    """What one process has learned, or was refused, another one does not ask for again; both tell of a refusal alone."""
    clock = Clock()
    first = feed_of(Scripted(Point(clock.now_s - 900, clock.now_s + 900, 80)), clock, tmp_path)
    first.refresh()
    other = Scripted()
    second = feed_of(other, clock, tmp_path)
    assert second.over(clock.now_s, clock.now_s).intensity.g_per_kwh == 80
    second.refresh()
    assert (other.asked, caplog.records) == (0, [])
    clock.now_s += 901
    other.fault = ProviderFault("401", refused=True)
    second.refresh()
    first.refresh()
    assert (first.provider.asked, other.asked) == (1, 1)
    assert first.known.problem == "401"
    assert [one.getMessage().count(": 401.") for one in caplog.records] == [1, 1]
    assert first.over(clock.now_s, clock.now_s).intensity.method.endswith(";held")


def test_a_process_that_fails_leaves_anothers_values_on_the_disk(tmp_path):
    """What is stored by one process is never written over with the older values of another."""
    clock = Clock()
    start = clock.now_s
    idle = feed_of(Scripted(Point(start - 900, start + 900, 80)), clock, tmp_path)
    idle.refresh()
    clock.now_s += 901
    other = feed_of(Scripted(Point(start + 900, start + 1800, 90)), clock, tmp_path)
    other.refresh()
    clock.now_s = start + 1801
    idle.provider.fault = ProviderFault("down")
    idle.refresh()
    stored = Cache.load(idle._path)
    assert stored.problem == "down"
    assert [point.g_per_kwh for point in stored.series.points] == [80, 90]
    clock.now_s = stored.rest_until_s
    third = feed_of(Scripted(Point(start + 1800, start + 9000, 95)), clock, tmp_path)
    third.refresh()
    clock.now_s = start + 9001
    idle.provider.fault, idle.provider.points = None, (Point(start + 9000, start + 9900, 70),)
    idle.refresh()
    assert [point.g_per_kwh for point in Cache.load(idle._path).series.points] == [80, 90, 95, 70]


def test_an_answer_that_another_process_had_meanwhile_is_no_failure(tmp_path):
    """One process is refused while another one has an answer: the values stand, and nobody rests."""
    clock = Clock()
    other = feed_of(Scripted(Point(clock.now_s - 900, clock.now_s + 900, 80)), clock, tmp_path)
    provider = Scripted()
    provider.fault = ProviderFault("down")
    feed = feed_of(provider, clock, tmp_path)

    def meanwhile(*_):
        other.refresh()
        raise provider.fault

    provider.series = meanwhile
    feed.refresh()
    assert feed.known.problem == ""
    assert Cache.load(feed._path) == other.known == feed.known


@pytest.mark.parametrize("fails", [True, False])
def test_after_a_day_of_rest_it_is_asked_about_now(fails):
    """Idle or failing for days, it is asked about the calls at hand, which are within the day that all plans give."""
    clock = Clock()
    provider = Scripted(Point(0, 1e9, 80))
    feed = feed_of(provider, clock)
    asked = []
    answer = provider.series

    def series(zone, start_s, end_s):
        asked.append(clock.now_s - start_s)
        return answer(zone, start_s, end_s)

    provider.series = series
    provider.fault = ProviderFault("403", refused=True) if fails else None
    for _ in range(8):
        feed.over(clock.now_s - 60, clock.now_s)
        feed.refresh()
        clock.now_s = max(feed.known.rest_until_s, clock.now_s + 30 * 3600)
    assert asked == [3660] * 8
    feed.over(clock.now_s - 90_000, clock.now_s)
    feed.refresh()
    assert asked[-1] == 23 * 3600


def test_an_answer_on_disk_survives_the_way_there(tmp_path):
    """All of it comes back, and values older than a week are let go."""
    series = Series(
        "FR", Kind("lifecycle", "flow-traced", "marginal", "market-based"), "s", (Point(1, 2, 3, True, 1, 4),)
    )
    known = Known(series, 5.0, 6.0, 7.0, "why")
    path = Cache(tmp_path).path("p", "../../etc/FR", "k")
    assert path.parent == tmp_path
    Cache.store(path, known)
    assert Cache.load(path) == known
    fresh = Series("FR", series.kind, "s", (Point(9e5, 9e5 + 60, 10),))
    assert Cache.load(path).with_answer(fresh, 9e5, 1e6).series.points == fresh.points


def test_market_based_values_are_kept_out_of_the_location_based_column():
    """Kinds are kept apart: a market-based series is refused, with the setting that is meant."""
    clock = Clock()
    feed = feed_of(Scripted(), clock)
    point = Point(clock.now_s - 900, clock.now_s + 900, 0)
    feed.provider.series = lambda *_: Series("FR", KIND._replace(accounting="market-based"), "x", (point,))
    feed.refresh()
    assert "market_g_per_kwh" in feed.known.problem


def test_a_series_of_the_users_own_is_tidied():
    """Points out of order, overlapping or impossible are put right before rows see them."""
    clock = Clock()
    now = clock.now_s
    feed = feed_of(
        Scripted(Point(now, now + 900, 90), Point(now - 900, now + 500, 80), Point(now, now, -1)), clock
    )
    feed.refresh()
    assert feed.over(now - 10, now + 10).intensity.g_per_kwh == 85


def test_another_key_is_another_try(tmp_path):
    """A refusal is kept for the key that was refused; a mended key is tried at once, and neither is on the disk."""
    paths = set()
    for key in ("one-key", "another-key"):
        asked = ElectricityMaps(Secret(key))
        paths.add(Cache(tmp_path).path(asked.name, "FR", asked.cache_key))
        assert key not in asked.cache_key
    assert len(paths) == 2


@pytest.mark.parametrize(
    "text", ["", "{}", "null", "[1]", "\xff", '{"schema": 2}', "[" * 100_000,
             '{"schema":1,"expires_s":NaN,"rest_until_s":0,"delay_s":0,"problem":"","series":null}',
             '{"schema":1,"expires_s":1%s,"rest_until_s":0,"delay_s":0,"problem":"","series":null}' % ("0" * 400),
             '{"schema":1,"expires_s":0,"rest_until_s":0,"delay_s":0,"problem":"","series":{"zone":"FR"}}']
)  # fmt: skip
def test_a_spoilt_cache_is_no_cache(tmp_path, text):
    """Whatever is in the file, nothing is known and nothing raised."""
    path = tmp_path / "x.json"
    path.write_text(text, encoding="latin-1")
    assert Cache.load(path) == Known()
    assert Cache.load(tmp_path) == Known()


@pytest.mark.parametrize("bound", ["NaN", "Infinity", '"x"', "1" + "0" * 400])
def test_a_bound_on_disk_that_is_no_number_loses_itself_alone(tmp_path, bound):
    """The value stays, without the bound."""
    path = tmp_path / "x.json"
    path.write_text(
        '{"schema":1,"expires_s":9,"rest_until_s":0,"delay_s":0,"problem":"","series":{"zone":"FR",'
        '"kind":"direct","source":"s","points":[[1,2,3,false,' + bound + ",4]]}}"
    )
    assert Cache.load(path).series.points == (Point(1, 2, 3, False, None, 4),)


def test_a_cache_that_cannot_be_written_is_no_fault(tmp_path):
    """A folder that cannot be made leaves everything working from memory."""
    (tmp_path / "file").write_text("")
    clock = Clock()
    feed = feed_of(
        Scripted(Point(clock.now_s - 900, clock.now_s + 900, 80)), clock, tmp_path / "file" / "below"
    )
    feed.refresh()
    assert feed.over(clock.now_s, clock.now_s).intensity.g_per_kwh == 80


def test_what_a_provider_raises_stays_in_its_thread(caplog):
    """A provider of the user's own that raises anything at all is a failure like any other."""
    provider = Scripted()
    provider.fault = ZeroDivisionError(KEY)
    feed = Feed(provider, "FR", OFFLINE, cache=Cache(None), max_age_s=0)
    feed.over(time.time(), time.time())
    wait_for(lambda: not feed._busy.locked())  # what the thread logs at last is no other test's
    assert feed.known.problem == "scripted: it raised ZeroDivisionError"
    assert "ZeroDivisionError" in caplog.text
    assert KEY not in caplog.text


# Through a meter


def wait_for(condition, timeout_s=5.0):
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.005)


def metered(tmp_path, **settings):
    clock = FakeClock()
    sensor = FakeSensor(clock, 100.0, relative_error=0.05)
    return clock, aimeter.Meter(
        sensors=[sensor], clock=clock, carbon_cache=tmp_path / "cache", **{"region": "FR", **settings}
    )


def gb_answer(g, then=None):
    """An answer about the last, this and the next half hour: a call may have begun in the last."""
    now = time.time() // 1800 * 1800
    values = [g, g, g if then is None else then]
    return Answer(
        {"data": [
            {"from": at(now + 1800 * k, "%Y-%m-%dT%H:%MZ"), "to": at(now + 1800 * (k + 1), "%Y-%m-%dT%H:%MZ"),
             "intensity": {"forecast": value, "actual": value, "index": "low"}}
            for k, value in enumerate(values, -1)]}
    )  # fmt: skip


def test_rows_have_the_providers_value_with_its_source(server, tmp_path):
    """From the request to the row: value, source, method, zone, the grams that follow, and the value in meta."""
    server.answer = lambda seen: gb_answer(200)
    clock, meter = metered(tmp_path, carbon_provider=GreatBritain(server.url), region="GB", pue=1.5)
    wait_for(lambda: meter.carbon.feed.known.series)
    with meter, meter.track("x") as call:
        clock.sleep(36.0)
    row = call.record
    assert row.intensity_g_per_kwh == 200
    assert row.intensity_source == "GB Carbon Intensity API; GB"
    assert row.intensity_method == "average;location-based;direct-co2;consumption;estimated=no"
    assert row.co2e_g == pytest.approx(3600 / 3.6e6 * 200 * 1.5, rel=1e-6)
    assert row.co2e_error_g == pytest.approx(row.error_j / 3.6e6 * 200 * 1.5, rel=1e-6)
    assert (call.co2e_g, call.co2e_error_g) == (row.co2e_g, row.co2e_error_g)
    assert row.meta["aimeter"]["carbon"]["values"][0]["g_per_kwh"] == 200
    assert len(server.seen) == 1


@pytest.mark.parametrize("fault", FAULTS)
def test_whatever_the_provider_does_the_row_falls_back(server, tmp_path, monkeypatch, caplog, fault):
    """Each fault: the call is not delayed, the row has the fallback and says so, one log line, one request."""
    hurry(monkeypatch, fault)
    server.answer = lambda seen: FAULTS[fault]()
    clock, meter = metered(tmp_path, carbon_provider=ElectricityMaps(Secret(KEY), base=server.url))
    calls = []
    for _ in range(5):
        with meter.track("x") as call:
            clock.sleep(1.0)
        calls.append(call.record)

    def told():
        return [one.getMessage() for one in caplog.records if one.name == "aimeter"]

    wait_for(told)
    with meter.track("x") as call:
        clock.sleep(1.0)
    meter.close()
    for row in (*calls, call.record):
        assert row.intensity_g_per_kwh == pytest.approx(56.039)
        assert row.intensity_method.endswith(";fallback")
        assert row.co2e_g is not None
        assert row.meta["aimeter"]["carbon"]["provider"] == "electricitymaps"
    assert len(told()) == 1
    assert "No live carbon intensity" in told()[0]
    assert KEY not in caplog.text + json.dumps(call.record, default=str) + repr(meter.settings)
    assert len(server.seen) == 1
    assert all(KEY not in path.read_text() for path in (tmp_path / "cache").iterdir())


def test_a_users_function_and_its_bounds_reach_the_row(tmp_path):
    """A callable provider with bounds: the row has them, and its error has both parts."""
    now = time.time()
    series = Series("FR", KIND, "mine", (Point(now - 1e4, now + 1e4, 100, lower=80, upper=130),))
    clock, meter = metered(tmp_path, carbon_provider=lambda zone, start, end: series)
    wait_for(lambda: meter.carbon.feed.known.series)
    with meter, meter.track("x") as call:
        clock.sleep(36.0)
    row = call.record
    assert (row.intensity_lower_g_per_kwh, row.intensity_upper_g_per_kwh) == (80, 130)
    wanted = ((row.error_j * 100) ** 2 + (row.energy_j * 30) ** 2) ** 0.5 / 3.6e6
    assert row.co2e_error_g == pytest.approx(wanted)


def test_the_users_own_number_wins_and_asks_nobody(server, tmp_path):
    """With intensity_g_per_kwh there is no request, whatever provider is set."""
    clock, meter = metered(
        tmp_path, carbon_provider=GreatBritain(server.url), intensity_g_per_kwh=42, region="GB"
    )
    with meter, meter.track("x") as call:
        clock.sleep(1.0)
    assert call.record.intensity_g_per_kwh == 42
    assert meter.carbon.feed is None
    assert server.seen == []


def test_a_disabled_meter_asks_nobody(server, tmp_path):
    """enabled=False makes no request."""
    _, meter = metered(tmp_path, carbon_provider=GreatBritain(server.url), region="GB", enabled=False)
    with meter, meter.track("x"):
        pass
    assert server.seen == []


def test_a_region_that_only_the_provider_knows_has_no_fallback(tmp_path):
    """Where the offline tables have no value the row has none either until the provider's arrives: joules without
    grams, not the world's nor 0, and a place that it waits for."""
    answer = threading.Event()
    clock, meter = metered(tmp_path, carbon_provider=lambda *_: answer.wait() and 120.0, region="Jersey")
    with meter:
        with meter.track("before") as call:
            clock.sleep(36.0)
        row = call.record
        answer.set()
        wait_for(lambda: meter.carbon.feed.known.series)
        with meter.track("after") as call:
            clock.sleep(36.0)
    assert row.energy_j == pytest.approx(3600)
    assert (row.intensity_g_per_kwh, row.co2e_g, row.co2e_error_g) == (None, None, None)
    assert (row.zone, row.intensity_method) == ("JE", "none;fallback")
    assert row.intensity_source == "none: the offline tables have no value for it"
    assert row.meta["aimeter"]["carbon"]["reason"] == "it has not answered yet"
    assert is_provisional(row)
    assert call.record.intensity_g_per_kwh == 120
    assert call.record.co2e_g == pytest.approx(0.12)
    assert not is_provisional(call.record)


def test_a_known_region_without_a_value_asks_for_the_users_own(tmp_path):
    """Alone it is refused when the meter is made; with the user's number there are grams, of that place."""
    with pytest.raises(ConfigurationError, match=r"Jersey \(JE\) .*intensity_g_per_kwh="):
        metered(tmp_path, region="JE")
    clock, meter = metered(tmp_path, region="Jersey", intensity_g_per_kwh=30)
    with meter, meter.track("x") as call:
        clock.sleep(36.0)
    assert (call.record.zone, call.record.intensity_method) == ("JE", "given")
    assert call.record.co2e_g == pytest.approx(0.03)


def test_an_unknown_region_is_refused_whatever_the_provider(tmp_path):
    """A slip in the name is no place that only the provider knows."""
    with pytest.raises(ConfigurationError, match="Did you mean 'Jersey'"):
        metered(tmp_path, carbon_provider=lambda *_: 120.0, region="Jersy")


@pytest.mark.parametrize(
    ("settings", "hint"),
    [
        ({"carbon_provider": "gb", "region": "FR"}, "carbon_zone"),
        ({"carbon_provider": "gb", "carbon_basis": "lifecycle", "region": "GB"}, "carbon_basis"),
        ({"carbon_provider": "entsoe"}, "ENTSOE_TOKEN"),
    ],
)
def test_a_provider_that_cannot_work_is_an_error_at_once(tmp_path, monkeypatch, settings, hint):
    """What is known to be wrong when the meter is made is an error there, not silence later."""
    monkeypatch.delenv("ENTSOE_TOKEN", raising=False)
    with pytest.raises(ConfigurationError, match=hint):
        metered(tmp_path, **settings)


def test_beyond_the_plug(tmp_path):
    """Market, water and making have columns of their own, and their sources in meta; off, they are empty."""
    clock, meter = metered(
        tmp_path, pue="aws:2024", market_g_per_kwh=10, wue_l_per_kwh="aws:2024", grid_water_l_per_kwh="FR",
        embodied="h100",
    )  # fmt: skip
    with meter, meter.track("x") as call:
        clock.sleep(36.0)
    row = call.record
    assert row.pue == 1.15
    assert row.market_co2e_g == pytest.approx(3600 / 3.6e6 * 10 * 1.15)
    assert row.co2e_g == pytest.approx(3600 / 3.6e6 * 56.039 * 1.15)
    assert row.water_site_l == pytest.approx(3600 / 3.6e6 * 0.15)
    assert row.water_grid_l == pytest.approx(3600 / 3.6e6 * 3.67 * 1.15)
    year = 365.25 * 86400
    assert row.embodied_lower_g == pytest.approx(164e3 * 36 / (6 * year * 1.0))
    assert row.embodied_upper_g == pytest.approx(575e3 * 36 / (3 * year * 0.3))
    assert row.embodied_g == pytest.approx((row.embodied_lower_g * row.embodied_upper_g) ** 0.5)
    assert set(row.meta["aimeter"]["factors"]) == {"pue", "water_site", "water_grid", "embodied"}
    clock, meter = metered(tmp_path)
    with meter, meter.track("x") as call:
        clock.sleep(1.0)
    empty = (
        "market_co2e_g",
        "water_site_l",
        "water_grid_l",
        "embodied_g",
        "embodied_lower_g",
        "embodied_upper_g",
    )
    assert [getattr(call.record, name) for name in empty] == [None] * 6


def test_embodied_shares_add_up(tmp_path):
    """Two calls side by side share the hardware: together they have what one alone would have."""
    clock, meter = metered(tmp_path, embodied="h100")
    with meter:
        with meter.track("outer"), meter.track("a"):
            clock.sleep(10.0)
        clock.sleep(1.0)
        rows = {row.name: row for row in meter.records()}
    year = 365.25 * 86400
    alone_g = 10 * (164e3 / (6 * year * 1.0) * 575e3 / (3 * year * 0.3)) ** 0.5
    # The outer call holds what the one inside it has of the hardware.
    assert rows["outer"].embodied_g == pytest.approx(alone_g)
    assert rows["a"].embodied_g == pytest.approx(alone_g)


def test_a_newer_answer_takes_the_place_of_an_older_one():
    """Calls within one value share what was found, until the provider says otherwise."""
    clock = Clock()
    provider = Scripted(Point(clock.now_s - 900, clock.now_s + 900, 80, True))
    feed = feed_of(provider, clock)
    feed.refresh()
    first = feed.over(clock.now_s, clock.now_s + 1)
    assert feed.over(clock.now_s + 1, clock.now_s + 2) is first
    provider.points = (Point(clock.now_s - 900, clock.now_s + 900, 90),)
    feed.refresh()
    assert feed.over(clock.now_s, clock.now_s + 1).intensity.g_per_kwh == 90


def test_a_forked_child_asks_anew(server, tmp_path):
    """In a child of fork the thread that was asking is not there; the child asks by itself."""
    started = threading.Event()

    def slow(seen):
        started.set()
        if len(server.seen) == 1:
            time.sleep(1.0)
        return gb_answer(200)

    server.answer = slow
    _, meter = metered(tmp_path, carbon_provider=GreatBritain(server.url), region="GB")
    assert started.wait(5)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            end = time.monotonic() + 4
            while meter.carbon.feed.known.series is None and time.monotonic() < end:
                meter.carbon.feed.over(time.time(), time.time())
                time.sleep(0.01)
            found = meter.carbon.feed.over(time.time(), time.time()).intensity.g_per_kwh
            os.write(write, f"{found:g}".encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 100) == b"200"
    os.close(read)
    os.close(write)
    meter.close()


def test_a_black_hole_delays_neither_the_program_nor_its_end(server, tmp_path):
    """A process whose provider never answers makes its calls, writes its rows and ends while that still hangs."""
    server.answer = lambda seen: Answer(way="hang")
    code = (
        "import sys, aimeter\n"
        "from aimeter.carbon.providers import http\n"
        "from aimeter.carbon.providers.gb import GreatBritain\n"
        "http.READ_S = 600\n"
        "meter = aimeter.Meter(log='calls.csv', carbon_provider=GreatBritain(sys.argv[1]), region='GB', sensors=[])\n"
        "for _ in range(100):\n"
        "    with meter.track('x'): pass\n"
        "meter.flush()\n"
    )
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(tmp_path)}
    # The server keeps the request for longer than the child is given here.
    subprocess.run(
        [sys.executable, "-c", code, server.url], env=environ, cwd=tmp_path, check=True, timeout=25
    )
    with (tmp_path / "calls.csv").open() as file:
        assert sum(";fallback" in line for line in file) == 100
