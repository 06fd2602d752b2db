"""aimeter carbon and aimeter sci: the same joules elsewhere, at another hour, completed, and for each unit."""

from __future__ import annotations

import copy
import json
import os
import pickle
import re
import subprocess
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import pytest
import typer.main
from typer.testing import CliRunner

import aimeter
from aimeter import settings
from aimeter._support.secret import Secret
from aimeter.carbon.offline import lookup
from aimeter.carbon.place import Step
from aimeter.carbon.providers import provider
from aimeter.carbon.series import Kind, Point, Series
from aimeter.cli import app
from aimeter.commands import show as showing
from aimeter.commands.best import best
from aimeter.commands.carbon import group as carbon
from aimeter.commands.compare import compare
from aimeter.commands.diagnosis import CarbonReport, ProviderReport
from aimeter.commands.refill import refill
from aimeter.commands.sci import of_rows, score
from aimeter.errors import ConfigurationError
from aimeter.logs.export import export_log
from aimeter.logs.recompute import again, is_provisional
from aimeter.report import read
from tests.records import make_record

HOUR = 3600.0
ROOT = Path(aimeter.__file__).parents[1]
REFERENCE = ROOT / "docs" / "reference" / "cli.md"
FALLBACK = "average;location-based;lifecycle;production;estimated=no;fallback"


@pytest.fixture(autouse=True)
def _alone(tmp_path, monkeypatch):
    """No settings but a test's own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").write_text("")
    for name in ("AIMETER_CARBON_PROVIDER", "AIMETER_REGION", "AIMETER_LOG"):
        monkeypatch.delenv(name, raising=False)


def log_of(path, *rows):
    export_log(rows, path)
    return str(path)


def kilowatt_hour(**changes):
    """A row of 1 kWh with an intensity of 100 g/kWh."""
    values = {
        "energy_j": 3.6e6,
        "self_j": 3.6e6,
        "error_j": 3.6e4,
        "intensity_g_per_kwh": 100.0,
        "co2e_g": 100.0,
    }
    return make_record(**{**values, **changes})


def grid(path, start_s, values, header="# kind: average;location-based;direct;production\n"):
    """A CSV file with an hourly value each."""
    lines = [
        f"{datetime.fromtimestamp(start_s + k * HOUR, UTC).isoformat()},{v}" for k, v in enumerate(values)
    ]
    path.write_text(header + "start,g_per_kwh\n" + "\n".join(lines) + "\n")
    return str(path)


def run(*arguments):
    return CliRunner().invoke(app, list(arguments))


# compare


def test_the_same_joules_elsewhere(tmp_path):
    """2 kWh at PUE 1.5 in France and Sweden: energy times PUE times intensity, least first, with the ratio."""
    log = log_of(
        tmp_path / "a.csv", kilowatt_hour(pue=1.5), kilowatt_hour(pue=1.5), kilowatt_hour(self_j=None)
    )
    found = compare([log], ["FR", "aws:eu-north-1"])
    assert (found.rows, found.unknown) == (2, 1)
    assert found.energy_j == 7.2e6
    logged, least, most = found.places
    assert logged.co2e_g == pytest.approx(300)
    assert least.co2e_g == pytest.approx(2 * 1.5 * lookup("SE").g_per_kwh)
    assert most.co2e_g == pytest.approx(2 * 1.5 * lookup("FR").g_per_kwh)
    assert most.ratio == pytest.approx(most.co2e_g / 300)
    assert found.warnings == ()


def test_rows_without_an_intensity_do_not_bend_the_ratio(tmp_path):
    """Elsewhere they have grams and as logged they have none: that is told, and the ratio is of intensities."""
    log = log_of(tmp_path / "a.csv", kilowatt_hour(), kilowatt_hour(intensity_g_per_kwh=None, co2e_g=None))
    found = compare([log], ["FR"])
    assert found.places[0].co2e_g == pytest.approx(100)
    assert found.places[1].co2e_g == pytest.approx(2 * 56.039)
    assert found.places[1].ratio == pytest.approx(0.56039)
    assert "1 rows have energy and no intensity" in found.warnings[-1]


def test_a_bad_place_or_log_is_one_line(tmp_path):
    """As a process: exit status 2 and one line that says what to do, on standard error."""
    log = log_of(tmp_path / "a.csv", kilowatt_hour())
    for arguments in (
        ("show", "Atlantis"),
        ("compare", log, "--regions", "Georgia"),
        ("refill", log, "-o", log),
    ):
        ran = subprocess.run(
            [sys.executable, "-m", "aimeter", "carbon", *arguments],
            env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (ran.returncode, ran.stdout) == (2, "")
        assert ran.stderr.startswith("aimeter: ")
        assert ran.stderr.count("\n") == 1


def test_children_are_not_counted_twice(tmp_path):
    """A parent of 3 kWh with a child of 2 is 3 kWh."""
    parent = kilowatt_hour(call_id="p", energy_j=3 * 3.6e6, self_j=3.6e6)
    child = kilowatt_hour(call_id="c", parent_id="p", energy_j=2 * 3.6e6, self_j=2 * 3.6e6)
    assert compare([log_of(tmp_path / "a.csv", parent, child)], []).energy_j == 3 * 3.6e6


def test_bases_that_differ_are_warned_about(tmp_path):
    """A life-cycle number and one of stacks must not be ranked: the comparison says so."""
    log = log_of(
        tmp_path / "a.csv", kilowatt_hour(intensity_method="average;location-based;lifecycle;production")
    )
    assert "basis" in compare([log], ["US-VA"]).warnings[0]


def test_at_another_hour(tmp_path, monkeypatch):
    """Moved by one hour, a call has the intensity of that hour."""
    start = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
    monkeypatch.setenv("AIMETER_CARBON_PROVIDER", grid(tmp_path / "grid.csv", start, [100, 300, 50]))
    monkeypatch.setenv("AIMETER_REGION", "FR")
    row = kilowatt_hour(start="2026-01-01T00:30:00.000000Z", duration_s=HOUR)
    found = compare([log_of(tmp_path / "a.csv", row)], [], shift_h=1.0)
    by_place = {one.place: one.co2e_g for one in found.places}
    assert by_place == {
        "as logged": pytest.approx(100),
        "when it ran, by the provider": pytest.approx(200),
        "+1 h, by the provider": pytest.approx(175),
    }


def test_a_gap_in_the_providers_values_is_not_ranked(tmp_path, monkeypatch):
    """Values for one of two rows are told as that, and have no grams to rank against all of the energy."""
    start = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
    monkeypatch.setenv("AIMETER_CARBON_PROVIDER", grid(tmp_path / "grid.csv", start, [100, 300]))
    monkeypatch.setenv("AIMETER_REGION", "FR")
    log = log_of(
        tmp_path / "a.csv",
        kilowatt_hour(start="2026-01-01T00:00:00.000000Z"),
        kilowatt_hour(start="2026-01-01T01:00:00.000000Z"),
    )
    found = compare([log], [], shift_h=1.0)
    partial = next(one for one in found.places if one.place.startswith("+1 h"))
    assert partial.place.endswith("(1 of 2 rows)")
    assert (partial.co2e_g, partial.ratio) == (None, None)
    assert any("1 of 2 rows" in text for text in found.warnings)
    whole = next(one for one in found.places if one.place == "when it ran, by the provider")
    assert whole.co2e_g == pytest.approx(400)


@pytest.mark.parametrize("shift_h", [float("nan"), float("inf"), 1e300])
def test_a_shift_that_is_no_time_is_refused(tmp_path, shift_h):
    """A shift of nan hours is a bad option, not a traceback."""
    with pytest.raises(ConfigurationError, match="--shift"):
        compare([log_of(tmp_path / "a.csv", kilowatt_hour())], [], shift_h=shift_h)


def test_average_and_marginal_are_not_ranked(tmp_path):
    """A marginal rate as logged next to an average elsewhere: the comparison says so."""
    log = log_of(
        tmp_path / "a.csv", kilowatt_hour(intensity_method="marginal;location-based;lifecycle;production")
    )
    assert "average, marginal" in compare([log], ["FR"]).warnings[0]


# show, best


def test_show_says_value_source_year_and_neighbours():
    """The number with where it is from, and what is around it."""
    ran = run("carbon", "show", "FR")
    assert ran.exit_code == 0
    assert re.search(r"56\.04 g CO2e/kWh, 2023", ran.stdout)
    assert "global_energy_mix.json" in ran.stdout
    assert re.search(r"DE +Germany", ran.stdout)
    document = json.loads(run("carbon", "show", "aws:us-west-2", "--json").stdout)
    assert len(document["published"]) == 7
    assert document["intensity"]["year"] == 2023


def test_best_finds_the_lowest_hours_ahead(tmp_path):
    """The lowest window first, none overlapping another, with the ratio to now."""
    now = time.time() // HOUR * HOUR
    place = grid(tmp_path / "grid.csv", now, [400, 300, 50, 60, 200, 100])
    found = best(6, 2.0, now=lambda: now, carbon_provider=place, region="FR")
    assert found.now_g_per_kwh == 400
    assert [round(window.g_per_kwh) for window in found.windows] == [55, 150, 350]
    assert found.windows[0].start == datetime.fromtimestamp(now + 2 * HOUR, UTC).strftime(
        "%Y-%m-%dT%H:%M:%SZ"
    )
    assert found.windows[0].ratio == pytest.approx(55 / 400)
    ran = run("carbon", "best", "--provider", place, "--region", "FR", "--hours", "3")
    assert ran.exit_code == 0


def test_best_tries_the_window_at_the_end_of_what_was_asked_for(tmp_path):
    """From 00:30 for 2.5 hours, falling: the lowest hour is the last one, between two edges of the values."""
    now = time.time() // HOUR * HOUR
    place = grid(tmp_path / "grid.csv", now, [400, 300, 200, 100, 50])
    found = best(3, 1.0, now=lambda: now + HOUR / 2, carbon_provider=place, region="FR")
    assert found.windows[0].g_per_kwh == pytest.approx(150)


def test_best_needs_a_forecast(tmp_path):
    """Without a provider, with one that has no forecast, or with an empty one: what to do, in one line."""
    with pytest.raises(ConfigurationError, match="--provider"):
        best(24)
    with pytest.raises(ConfigurationError, match="has no forecast"):
        best(24, carbon_provider="rte", region="FR")
    with pytest.raises(ConfigurationError, match="There is no forecast"):
        best(24, carbon_provider=str(tmp_path / "none.csv"), region="FR")


# refill


def test_refill_completes_the_rows_that_wait_into_a_new_file(tmp_path):
    """Fallback and held rows get the value of their time; all others, and the old file, stay as they are."""
    start = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
    place = grid(tmp_path / "grid.csv", start, [100, 300])
    at_half = {"start": "2026-01-01T00:30:00.000000Z", "duration_s": HOUR}
    remark = {
        "aimeter": {"carbon": {"provider": "file", "zone": "FR", "reason": "x"}, "meter_cpu_s": 1.0},
        "mine": 2,
    }
    rows = [
        kilowatt_hour(call_id="settled", **at_half),
        kilowatt_hour(call_id="fallback", intensity_method=FALLBACK, meta=remark, pue=2.0, **at_half),
        kilowatt_hour(call_id="held", intensity_method="average;x;held", **at_half),
        kilowatt_hour(call_id="late", intensity_method=FALLBACK, start="2026-02-01T00:00:00.000000Z"),
        kilowatt_hour(call_id="odd", intensity_method=FALLBACK, start="once"),
        kilowatt_hour(call_id="unknown", energy_j=None, intensity_method=FALLBACK, co2e_g=None, **at_half),
    ]
    log = log_of(tmp_path / "old.csv", *rows)
    before = Path(log).read_bytes()
    result = refill(log, tmp_path / "new.csv", carbon_provider=place, region="FR")
    assert (result.rows, result.waiting, result.filled) == (6, 5, 3)
    new = {row.call_id: row for row in read(tmp_path / "new.csv")}
    assert new["settled"] == next(iter(read(log)))
    assert new["fallback"].intensity_g_per_kwh == 200
    assert new["fallback"].co2e_g == pytest.approx(400)
    assert new["fallback"].co2e_error_g == pytest.approx(4)
    assert new["fallback"].meta["mine"] == 2
    assert new["fallback"].meta["aimeter"]["meter_cpu_s"] == 1.0
    assert "refilled" in new["fallback"].meta["aimeter"]["carbon"]
    assert not is_provisional(new["held"])
    assert is_provisional(new["late"])
    assert new["unknown"].co2e_g is None
    assert Path(log).read_bytes() == before
    with pytest.raises(ConfigurationError, match="exists"):
        refill(log, tmp_path / "new.csv", carbon_provider=place, region="FR")


def test_refill_needs_no_place_where_the_rows_have_it(tmp_path):
    """The zone that a row waits for is in its remark; without it, and without a region, the row stays."""
    start = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
    at_once = {"start": "2026-01-01T00:00:00.000000Z", "intensity_method": FALLBACK}
    remark = {"aimeter": {"carbon": {"provider": "file", "zone": "FR"}}}
    rows = [kilowatt_hour(meta=remark, **at_once), kilowatt_hour(**at_once)]
    log = log_of(tmp_path / "old.csv", *rows)
    result = refill(log, tmp_path / "new.csv", carbon_provider=grid(tmp_path / "grid.csv", start, [70]))
    assert (result.waiting, result.filled) == (2, 1)


def test_refill_across_two_answers_and_past_a_week_without_values(tmp_path):
    """Answers that overlap at their common end are one series; a week of which nothing is known stops no other."""
    week = 7 * 24 * HOUR
    edge = datetime(2026, 6, 1, tzinfo=UTC).timestamp() // week * week

    def provide(zone, start, end):
        begin = start.timestamp()
        if begin == edge - 2 * week:
            return []
        hours = range(-6, int((end.timestamp() - begin) / HOUR) + 1)
        return [
            (datetime.fromtimestamp(begin + k * HOUR, UTC), 100.0 if begin < edge else 300.0) for k in hours
        ]

    rows = [
        kilowatt_hour(
            intensity_method=FALLBACK, duration_s=2 * HOUR, start=datetime.fromtimestamp(at, UTC).isoformat()
        )
        for at in (edge - 2 * week + HOUR, edge - 10 * HOUR, edge - 3 * HOUR, edge + HOUR)
    ]
    refill(log_of(tmp_path / "old.csv", *rows), tmp_path / "new.csv", carbon_provider=provide, region="FR")
    found = [row.intensity_g_per_kwh for row in read(tmp_path / "new.csv")]
    assert found[:2] == [100, 100]  # the first as it was: of its week nothing is known
    assert is_provisional(next(read(tmp_path / "new.csv")))
    assert found[3] == 300
    across = kilowatt_hour(intensity_method=FALLBACK, duration_s=24 * HOUR, start=rows[1].start)
    refill(log_of(tmp_path / "a.csv", across), tmp_path / "b.csv", carbon_provider=provide, region="FR")
    # The later answer has the six hours before the edge as well, and the newer answer counts.
    assert next(read(tmp_path / "b.csv")).intensity_g_per_kwh == pytest.approx((4 * 100 + 20 * 300) / 24)


@pytest.mark.parametrize(
    ("weeks", "duration_s"), [(range(700), HOUR), ([0], 9e8)], ids=["700 weeks", "a call of 28 years"]
)
def test_a_log_of_any_times_asks_a_provider_so_often(tmp_path, weeks, duration_s):
    """A log may say that its calls lie anywhere in time: a command asks for ten years of it, and says so."""
    asked = []

    def provide(zone, start, end):
        asked.append(start)
        return 100.0

    first = datetime(1990, 1, 1, tzinfo=UTC).timestamp()
    rows = [
        kilowatt_hour(
            intensity_method=FALLBACK,
            duration_s=duration_s,
            start=datetime.fromtimestamp(first + week * 7 * 24 * HOUR, UTC).isoformat(),
        )
        for week in weeks
    ]
    result = refill(
        log_of(tmp_path / "old.csv", *rows), tmp_path / "new.csv", carbon_provider=provide, region="FR"
    )
    assert len(asked) == 520
    assert result.filled < result.waiting == len(rows)
    assert any("not asked any more, after 520 weeks" in problem for problem in result.problems)


def test_slow_answers_do_not_add_up_without_end(tmp_path, monkeypatch):
    """However slow each answer is, a command asks for five minutes altogether."""
    asked = []

    def provide(zone, start, end):
        asked.append(start)
        clock[0] += 14.0
        return 100.0

    clock = [0.0]
    monkeypatch.setattr("aimeter.commands.asking.time.monotonic", lambda: clock[0])
    first = datetime(2020, 1, 1, tzinfo=UTC).timestamp()
    rows = [
        kilowatt_hour(
            intensity_method=FALLBACK,
            start=datetime.fromtimestamp(first + k * 7 * 24 * HOUR, UTC).isoformat(),
        )
        for k in range(100)
    ]
    refill(log_of(tmp_path / "old.csv", *rows), tmp_path / "new.csv", carbon_provider=provide, region="FR")
    assert len(asked) == 22


def waiting_for(name, zone):
    return {"aimeter": {"carbon": {"provider": name, "zone": zone}}}


def test_a_row_that_waits_for_another_provider_stays_waiting(tmp_path):
    """Another provider's zone is never answered with this one's: the row stays, with the reason, exit status 1."""
    start = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
    at_once = {"start": "2026-01-01T00:00:00.000000Z", "intensity_method": FALLBACK}
    rows = [
        kilowatt_hour(meta=waiting_for("eia930", "US48"), **at_once),
        kilowatt_hour(meta=waiting_for("file", "FR"), **at_once),
    ]
    log = log_of(tmp_path / "old.csv", *rows)
    place = grid(tmp_path / "grid.csv", start, [70])
    result = refill(log, tmp_path / "new.csv", carbon_provider=place, region="FR")
    assert (result.waiting, result.filled) == (2, 1)
    assert next(read(tmp_path / "new.csv")).co2e_g == 100
    assert "eia930 for US48" in result.problems[0]
    ran = run("carbon", "refill", log, "-o", str(tmp_path / "x.csv"), "--provider", place, "--region", "FR")
    assert ran.exit_code == 1
    assert "eia930 for US48" in ran.stdout


def test_the_total_of_a_refill_counts_each_joule_once(tmp_path):
    """A parent of 3 kWh with a child of 2 is 300 g before and 210 g now; lines that were no rows are told."""
    start = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
    at_once = {"start": "2026-01-01T00:00:00.000000Z", "intensity_method": FALLBACK}
    rows = [
        kilowatt_hour(call_id="p", energy_j=3 * 3.6e6, co2e_g=300.0, **at_once),
        kilowatt_hour(
            call_id="c", parent_id="p", energy_j=2 * 3.6e6, self_j=2 * 3.6e6, co2e_g=200.0, **at_once
        ),
    ]
    log = log_of(tmp_path / "old.csv", *rows)
    with Path(log).open("a") as file:
        file.write("torn,line\n")
    place = grid(tmp_path / "grid.csv", start, [70])
    result = refill(log, tmp_path / "new.csv", carbon_provider=place, region="FR")
    assert (result.before_g, result.after_g) == (pytest.approx(300), pytest.approx(210))
    assert (result.filled, result.skipped) == (2, 1)
    ran = run("carbon", "refill", log, "-o", str(tmp_path / "x.csv"), "--provider", place, "--region", "FR")
    assert "1 line" in ran.stdout
    told = [*score([log], "images").warnings, *compare([log], ["FR"]).warnings]
    assert sum("1 line of the log could not be read" in text for text in told) == 2


def test_a_refilled_row_keeps_what_else_was_said_of_it(tmp_path):
    """A detected place stays detected; a row of schema 1, without a source of its PUE, has one in the new file."""
    start = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
    row = kilowatt_hour(
        start="2026-01-01T00:00:00.000000Z",
        intensity_method=FALLBACK.replace(";fallback", ";detected;fallback"),
        pue=1.2,
        pue_source="",
    )
    log = log_of(tmp_path / "old.jsonl", row, row._replace(intensity_method="average", pue=1.0))
    place = grid(tmp_path / "grid.csv", start, [70])
    refill(log, tmp_path / "new.csv", carbon_provider=place, region="FR")
    new, settled = read(tmp_path / "new.csv")
    assert new.intensity_method.endswith(";detected")
    assert (new.pue_source, settled.pue_source) == ("given", "at the plug")


def test_refill_takes_no_market_based_values(tmp_path):
    """A market-based series never becomes co2e_g."""
    kind = Kind("lifecycle", "production", "average", "market-based")
    own = lambda zone, start, end: Series(zone, kind, "x", (Point(0, 4e9, 5.0),))  # noqa: E731 - a provider in a line
    log = log_of(tmp_path / "old.csv", kilowatt_hour(intensity_method=FALLBACK))
    result = refill(log, tmp_path / "new.csv", carbon_provider=own, region="FR")
    assert result.filled == 0
    assert "market_g_per_kwh" in result.problems[0]


def test_refill_asks_a_failing_provider_once(tmp_path):
    """Rows of many weeks, a provider that fails: one attempt, the rows as they were, exit status 1."""
    asked = []

    def failing(*_):
        asked.append(1)
        raise OSError

    rows = [
        kilowatt_hour(intensity_method=FALLBACK, start=f"2026-0{m}-01T00:00:00.000000Z") for m in range(1, 7)
    ]
    log = log_of(tmp_path / "old.jsonl", *rows)
    result = refill(log, tmp_path / "new.jsonl", carbon_provider=failing, region="FR")
    assert (result.filled, len(asked), len(result.problems)) == (0, 1, 1)
    assert [row.co2e_g for row in read(tmp_path / "new.jsonl")] == [100.0] * 6
    ran = run(
        "carbon", "refill", log, "-o", str(tmp_path / "x.csv"), "--provider", "/none.csv", "--region", "FR"
    )
    assert ran.exit_code == 1


def test_a_row_is_recomputed_from_its_own_joules():
    """Again with its own intensity a row is what it was; with another, grams are in proportion."""
    row = kilowatt_hour(co2e_error_g=1.0)
    same = again([row], lookup("FR"))[0]
    assert same.co2e_g == pytest.approx(lookup("FR").g_per_kwh)
    assert (
        same._replace(
            **{
                name: getattr(row, name)
                for name in row._fields
                if name.startswith(("intensity", "co2e", "zone"))
            }
        )
        == row
    )


# sci


def test_the_score_by_hand(tmp_path):
    """(2 kWh * 100 g/kWh + M) / 8 images, with M from the rows and every term shown."""
    rows = [
        kilowatt_hour(
            call_id=str(k), images=4.0, embodied_g=20.0, embodied_lower_g=10.0, embodied_upper_g=40.0
        )
        for k in range(2)
    ]
    found = of_rows(rows, "images")
    assert found.sci_g == pytest.approx((2 * 100 + 40) / 8)
    assert (found.sci_lower_g, found.sci_upper_g) == (pytest.approx(220 / 8), pytest.approx(280 / 8))
    assert (found.e_kwh, found.i_g_per_kwh, found.r, found.o_g) == (2, 100, 8, 200)
    assert found.warnings == ()
    log = log_of(tmp_path / "a.csv", *rows)
    text = run("sci", log, "--per", "images").stdout
    for term in ("SCI = (E * I + M) / R", "E ", "I ", "M ", "R ", "boundary", "8 images", "2 kWh"):
        assert term in text
    assert json.loads(run("sci", log, "--per", "images", "--json").stdout)["sci_g"] == pytest.approx(30)


def test_nested_rows_count_once():
    """Energy by self_j, units by the outermost that counts them, making by the outermost call."""
    parent = kilowatt_hour(call_id="p", energy_j=2 * 3.6e6, images=4.0, embodied_g=20.0,
                           embodied_lower_g=20.0, embodied_upper_g=20.0)  # fmt: skip
    child = kilowatt_hour(call_id="c", parent_id="p", images=4.0, embodied_g=10.0)
    found = of_rows([parent, child], "images")
    assert (found.e_kwh, found.r, found.m_g) == (2, 4, 20)


def test_an_enclosing_call_outside_the_selection_takes_no_units_away(tmp_path):
    """--name inner: the outer call's images are not selected, so the inner one's four are R."""
    rows = [
        kilowatt_hour(call_id="o", name="outer", images=4.0),
        kilowatt_hour(call_id="i", name="inner", parent_id="o", images=4.0),
    ]
    assert score([log_of(tmp_path / "a.csv", *rows)], "images", name="inner").r == 4


def test_hardware_may_be_named(tmp_path):
    """--embodied gives M from the calls' time and the share of it."""
    log = log_of(tmp_path / "a.csv", kilowatt_hour(images=1.0, duration_s=100.0, concurrency=2.0))
    found = score([log], "images", hardware="h100")
    year = 365.25 * 86400
    assert found.m_lower_g == pytest.approx(164e3 * 50 / (6 * year))
    assert found.m_upper_g == pytest.approx(575e3 * 50 / (3 * year * 0.3))


def test_what_is_missing_makes_the_score_partial():
    """Rows without energy, intensity or the unit, an assumed place and no M are told, one by one."""
    rows = [
        kilowatt_hour(call_id="a", images=1.0, intensity_method="average;assumed"),
        kilowatt_hour(call_id="b", images=None, intensity_g_per_kwh=None),
        kilowatt_hour(call_id="c", images=None, self_j=None),
    ]
    found = of_rows(rows, "images")
    assert len(found.warnings) == 5
    waiting = of_rows([kilowatt_hour(images=1.0, intensity_method=FALLBACK)], "images").warnings
    assert any("refill" in text for text in waiting)
    assert found.o_g == pytest.approx(200)
    assert found.m_g is None


@pytest.mark.parametrize(
    ("rows", "per", "hint"),
    [
        ([kilowatt_hour(images=None)], "images", "No row counts"),
        ([kilowatt_hour(images=1.0, intensity_g_per_kwh=None)], "images", "neither E nor I"),
        ([kilowatt_hour(images=1.0, intensity_method="average;market-based")], "images", "market-based"),
    ],
)
def test_a_score_that_cannot_be_had_says_why(rows, per, hint):
    """Without R, E or I, or with a market-based measure, which SCI forbids, there is an error."""
    with pytest.raises(ConfigurationError, match=hint):
        of_rows(rows, per)


def test_a_unit_that_is_no_count(tmp_path):
    """--per takes a count, and offers the near one."""
    with pytest.raises(ConfigurationError, match="'images'"):
        score([log_of(tmp_path / "a.csv")], "image")


# all of it


def test_equivalents_on_the_command_line():
    """Energy as energy and grams as grams, with the year."""
    ran = run("carbon", "equivalents", "--kwh", "11.49", "--grams", "1594", "--year", "2024")
    energy, grams = ran.stdout.split("As CO2e")
    assert "522 x full charge" in energy
    assert "4.09 x mile" in grams
    assert "car" not in energy


@pytest.mark.parametrize(
    "options", [(), ("--kwh", "inf"), ("--grams", "nan"), ("--kwh", "1", "--year", "1800")]
)
def test_equivalents_of_nothing_are_an_error(options):
    """No amount, one that is not finite, or a year before all constants: an error, and not silence."""
    ran = run("carbon", "equivalents", *options)
    assert ran.exit_code != 0
    assert ran.stdout == ""


def test_the_reference_has_every_subcommand_and_option():
    """docs/reference/cli.md names each command below carbon, with its options."""
    text = REFERENCE.read_text()
    for name, command in typer.main.get_command(carbon).commands.items():
        _, _, rest = text.partition(f"### `aimeter carbon {name}")
        section = re.split(r"\n##+ ", rest)[0]
        assert section, name
        for parameter in command.params:
            for option in (one for one in parameter.opts if one.startswith("-") and one != "--help"):
                assert f"`{option}" in section, f"{name} {option}"


# doctor


def carbon_report(**changes):
    steps = (
        Step("setting", None, "region is not set"),
        Step("environment", None, "AWS_REGION is set, but …"),
    )
    values = {
        "region": None, "zone": "WORLD", "zone_name": None, "g_per_kwh": 475.0, "source": "s", "year": None,
        "method": "average;assumed", "assumed": True, "pue": 1.15, "place": steps,
        "factors": {"pue": "aws 2024; AWS", "embodied": "1 h100"},
    }  # fmt: skip
    return CarbonReport(**{**values, **changes})


def told(report):
    return "\n".join(str(line) for line in showing._grams(report))


def test_doctor_shows_each_step_and_every_factor():
    """Where the region was looked for and what was found, and the source of each factor beyond the plug."""
    text = told(carbon_report())
    assert "- setting: nothing (region is not set)" in text
    assert "- environment: nothing (AWS_REGION is set, but …)" in text
    assert "PUE of 1.15 (aws 2024; AWS)" in text
    assert "embodied: 1 h100" in text
    assert "- setting" not in told(carbon_report(region="FR"))


def test_doctor_shows_what_the_provider_says_now():
    """Its value with source and method, or why there is none."""
    live = ProviderReport("gb", "GB", 180.0, "GB Carbon Intensity API; GB", "average;…", "")
    assert "live, gb for GB: 180 g CO2e/kWh" in told(carbon_report(provider=live))
    dead = ProviderReport("gb", "GB", None, None, None, "HTTP 503")
    assert "no value now, so rows have the one above. HTTP 503" in told(carbon_report(provider=dead))


def test_no_key_is_shown_by_doctor(tmp_path, monkeypatch):
    """Neither a key setting nor the query of an address is in the diagnosis, for people or as JSON."""
    monkeypatch.setenv("AIMETER_CARBON_KEY", "hush-hush")
    assert "hush" not in repr(settings.load({})) + json.dumps(asdict(settings.load({})), default=str)
    for address in ("https://x.example/a?key=hush", "https://me:hush@x.example/a"):
        given = settings.load({"carbon_provider": address})
        assert "hush" not in repr(given)
        assert provider(given.carbon_provider, environ={}).place == address
    secret = Secret("hush")
    shown = f"{secret} {secret!r} {[secret]} {copy.deepcopy(secret)} {pickle.dumps(secret)!r} {secret.mark()}"
    assert "hush" not in shown
    assert copy.deepcopy(secret).reveal() == "hush"
