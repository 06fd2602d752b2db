"""Carbon intensity: true to codecarbon's files, honest about what is missing, silent on the network."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import shutil
import socket
import subprocess
import sys
from fractions import Fraction
from importlib import metadata
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimeter._support import log
from aimeter.carbon import co2e_g, lookup, offline, resolve, tables
from aimeter.carbon.intensity import describe_method, g_per_kwh_from_lb_per_mwh
from aimeter.carbon.location import WORLD, known
from aimeter.carbon.tables import (
    CHINA,
    CLOUD,
    COUNTRIES,
    NORDIC,
    PROVINCES,
    STATES,
    TABLES,
    WORLD_AVERAGE,
    DataSet,
    installed,
    load,
)
from aimeter.errors import ConfigurationError, UnknownRegionError

REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "regions.md"
PINNED = "3.3.2"
pinned = pytest.mark.skipif(
    metadata.version("codecarbon") != PINNED, reason=f"oracle values are those of codecarbon {PINNED}"
)


@pytest.fixture(autouse=True)
def _fresh():
    """Let every test read the tables, and warn, as for the first time."""
    log._said.clear()
    for cached in (offline._lookup, load):
        cached.cache_clear()


@pytest.fixture
def data(tmp_path):
    """A copy of codecarbon's data that a test may spoil."""
    source = installed().folder
    for part in ("private_infra", "cloud"):
        shutil.copytree(source / part, tmp_path / part)
    return DataSet(tmp_path, "9.9")


def path_in(data, file):
    """Return the one path of `file` in `data`, whose year varies with codecarbon's version."""
    paths = list(data.folder.glob(file))
    if not paths:
        pytest.skip(f"this version of codecarbon has no {file}")
    return max(paths)


def rewrite(data, file, change):
    """Change one JSON file of `data` in place."""
    path = path_in(data, file)
    document = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(change(document) or document), encoding="utf-8")


def warnings_in(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


# Oracle values: read off the files of codecarbon 3.3.2, states as lb/MWh times 0.45359237.
@pinned
@pytest.mark.parametrize(
    ("region", "g_per_kwh", "zone", "year"),
    [
        ("FRA", 56.039, "FR", 2023),
        ("US", 369.473, "US", 2023),
        ("Germany", 380.95, "DE", 2023),
        ("GB", 237.589, "GB", 2023),
        ("SE", 40.695, "SE", 2023),
        ("CA", 170.043, "CA", 2023),
        ("IND", 713.441, "IN", 2023),
        ("CN", 582.317, "CN", 2023),
        ("SGP", 470.783, "SG", 2023),
        ("PL", 661.926, "PL", 2023),
        ("EH", 666.667, "EH", 2009),
        ("FI", 79.158, "FI", 2023),
        ("US-CA", 179.06, "US-CA", 2023),
        ("US-VA", 244.76, "US-VA", 2023),
        ("US-OR", 165.54, "US-OR", 2023),
        ("US-DC", 179.17, "US-DC", 2023),
        ("SE3", 27.0, "SE-SE3", 2025),
        ("NO-NO4", 51.7, "NO-NO4", 2025),
        ("CN-GD", 441.9, "CN-GD", 2023),
        ("aws:us-west-2", 165.54, "US-OR", 2023),
        ("aws:eu-west-3", 56.039, "FR", 2023),
        ("azure:westeurope", 267.622, "NL", 2023),
        ("azure:centralus", 287.65, "US-IA", 2023),
        ("gcp:us-central1", 430, "gcp:us-central1", None),
        ("gcp:me-central1", 575, "gcp:me-central1", None),
        ("gcp:europe-north2", 40.695, "SE", 2023),
        ("WORLD", 475, "WORLD", None),
    ],
)
def test_oracle(region, g_per_kwh, zone, year):
    """A region has exactly the value that codecarbon's file gives it."""
    got = lookup(region)
    assert got.g_per_kwh == pytest.approx(g_per_kwh, rel=3e-5)
    assert (got.zone, got.year) == (zone, year)


@pinned
def test_canada_is_computed_from_its_mix():
    """Quebec is what CodeCarbon computes from the mix (3.94), to the rounding of its published factors."""
    got = lookup("CA-QC")
    assert got.g_per_kwh == pytest.approx(3.94, rel=2e-3)
    assert got.g_per_kwh == pytest.approx((0.2 * 743 + 0.3 * 816) / 100.01)
    assert got.method == "average;location-based;direct;production;estimated=yes"


def test_no_region_is_the_world_average_and_says_so(caplog):
    """Without a region the figure is the world's, marked in the row and said once: never a definite place."""
    with caplog.at_level(logging.WARNING, logger="aimeter"):
        got = [lookup() for _ in range(3)] + [lookup(None, None)]
    assert {value.g_per_kwh for value in got} == {475.0}
    assert got[0].zone == "WORLD"
    assert got[0].method.endswith(";world-average;assumed")
    (text,) = warnings_in(caplog)
    assert "AIMETER_REGION" in text
    assert "region=" in text


def test_asking_for_the_world_is_no_assumption(caplog):
    """The world average on request is not marked as assumed and gives no warning."""
    got = lookup("WORLD")
    assert got.method.endswith(";world-average")
    assert not warnings_in(caplog)


def test_no_network(monkeypatch):
    """No lookup opens a socket or asks for a host's address."""

    def refuse(*_, **__):
        pytest.fail("the network was used")

    for name in ("socket", "create_connection", "getaddrinfo", "gethostbyname"):
        monkeypatch.setattr(socket, name, refuse)
    for zone in known():
        with contextlib.suppress(UnknownRegionError):
            lookup(zone.code)
    lookup()
    lookup("FR", 10)


@pinned
def test_cloud_region_is_mapped_to_its_state():
    """AWS us-east-1 is Virginia, 244.76, not the world's 475; the row names both."""
    got = lookup("aws:us-east-1")
    assert got.g_per_kwh == pytest.approx(244.76, abs=0.005)
    assert got.zone == "US-VA"
    assert got.source.endswith("; virginia; 2023; for aws:us-east-1")


@pytest.mark.parametrize(
    "region", ["FR", "US-VA", "CA-QC", "SE3", "aws:eu-west-1", "gcp:us-central1", "WORLD"]
)
def test_source_names_data_set_version_file_key_and_year(region):
    """Each source names data set, version, an existing file, a key in it, and the year or its absence."""
    got = lookup(region)
    dataset, file, key, year, *_ = got.source.split("; ")
    assert dataset == f"codecarbon {metadata.version('codecarbon')}"
    assert key.removeprefix("gcp ") in (installed().folder / file).read_text(encoding="utf-8-sig")
    assert year == (str(got.year) if got.year else "year not stated")


def test_versions_do_not_mix(data):
    """Two releases of the data give two values, each with its own version in the source."""
    rewrite(data, STATES.file, lambda d: d["virginia"].update(emissions=813.802))
    other = offline.intensity_of(resolve("US-VA"), data)
    assert other.g_per_kwh == pytest.approx(369.13, abs=0.005)
    assert other.source.startswith("codecarbon 9.9; ")
    assert other.source != lookup("US-VA").source


def test_neither_codecarbon_nor_pandas_is_imported():
    """A lookup imports the standard library only."""
    code = (
        "from aimeter.carbon import lookup; lookup('FR'); lookup('us-east-1'); lookup('us-east1')\n"
        "print([name for name in sys.modules if name.split('.')[0] not in sys.stdlib_module_names"
        " and not name.startswith(('aimeter', '_'))])"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", _with_path(code)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def _with_path(code):
    """Return `code` behind the path of this interpreter, without what site-packages start by themselves."""
    return f"import sys; sys.path[:0] = {[str(Path(__file__).parents[2]), *sys.path]!r}\n{code}"


def test_importing_reads_nothing():
    """Tables are loaded at the first lookup, not at import."""
    code = (
        "from aimeter.carbon import lookup, regions, tables\n"
        "caches = (regions.countries, regions.cloud_regions, tables.load, tables.installed)\n"
        "print([cached.cache_info().currsize for cached in caches]); lookup('FR')\n"
        "print(tables.load.cache_info().currsize)"
    )
    done = subprocess.run(
        [sys.executable, "-c", _with_path(code)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\n")[:2] == ["[0, 0, 0, 0]", "1"]


def test_codecarbon_not_installed(caplog):
    """Without codecarbon a figure is None with a reason, with a region or without, and is said once."""
    find = type(None)  # called, it gives None
    for region in ("FR", "FR", None, None):
        got = lookup(region, find=find)
        assert got.g_per_kwh is None
        assert got.source.startswith("none: codecarbon is not installed")
        assert (got.method, got.year) == ("none", None)
    assert len(warnings_in(caplog)) == 2


@pytest.mark.parametrize("stub", [None, ModuleType("codecarbon")])
def test_blocked_codecarbon_is_not_installed(monkeypatch, stub):
    """A codecarbon that is blocked or stubbed in sys.modules counts as not installed and raises nothing."""
    if stub is not None:
        stub.__spec__ = None
    monkeypatch.setitem(sys.modules, "codecarbon", stub)
    assert installed.__wrapped__() is None


def test_the_version_is_that_of_the_metadata(tmp_path):
    """What the folder beside the package says is what its metadata say; two such folders say nothing."""
    package = installed().folder.parent
    assert tables._version_beside(package) in {"", metadata.version("codecarbon")}
    assert installed().version == metadata.version("codecarbon")
    assert tables._version_beside(tmp_path / "codecarbon") == ""
    (tmp_path / "codecarbon-1.2.3.dist-info").mkdir()
    assert tables._version_beside(tmp_path / "codecarbon") == "1.2.3"
    (tmp_path / "codecarbon-1.2.4.dist-info").mkdir()
    assert tables._version_beside(tmp_path / "codecarbon") == ""


def test_version_unknown(monkeypatch):
    """Data without metadata of the package are used, and the source says that the version is unknown."""

    def missing(_):
        raise metadata.PackageNotFoundError

    monkeypatch.setattr(tables, "_version_beside", lambda _: "")
    monkeypatch.setattr(metadata, "version", missing)
    got = lookup("FR", find=installed.__wrapped__)
    assert got.g_per_kwh is not None
    assert got.source.startswith("codecarbon of unknown version; ")


@pytest.mark.parametrize(
    ("region", "file"),
    [
        ("FR", COUNTRIES.file),
        ("US-VA", STATES.file),
        ("CA-QC", PROVINCES.file),
        ("CA-QC", WORLD_AVERAGE.file),
        ("SE3", NORDIC.file),
        ("CN-GD", CHINA.file),
        ("WORLD", WORLD_AVERAGE.file),
    ],
)
@pytest.mark.parametrize(
    "text", [None, "", "{", "[]", "{}", '{"data": 3}', '{"data": []}', '{"x": 1}', "\0", "\ufeff{}"]
)
def test_unusable_file_is_no_value(data, caplog, region, file, text):
    """A file that is missing, torn or of another layout gives None, a reason and one warning."""
    path = path_in(data, file)
    path.unlink()
    if text is not None:
        path.write_text(text, encoding="utf-8")
    for _ in range(2):
        got = offline.intensity_of(resolve(region), data)
        assert got.g_per_kwh is None
        assert got.method == "none"
        assert offline._table_of(resolve(region))[0].file.rpartition("/")[2] in got.source
    assert len(warnings_in(caplog)) == 1
    other = "SE" if region != "FR" else "US-VA"
    assert offline.intensity_of(resolve(other), data).g_per_kwh is not None


def test_no_data_folder(tmp_path):
    """A package without its data folder gives None, not an exception."""
    got = offline.intensity_of(resolve("FR"), DataSet(tmp_path / "absent", "9.9"))
    assert got.g_per_kwh is None


@pytest.mark.parametrize("text", [None, "", "a,b\n1,2\n", "\0"])
def test_unusable_cloud_file_falls_back(data, text):
    """Without Google's own file its regions have the value of their state, and the source says so."""
    path = data.folder / "cloud" / "impact.csv"
    path.unlink()
    if text is not None:
        path.write_text(text)
    got = offline.intensity_of(resolve("gcp:us-central1"), data)
    assert got.zone == "US-IA"
    assert got.source.endswith("; for gcp:us-central1")


@pytest.mark.parametrize(
    "value", [0.0, -1, 2000.1, None, "many", [], {}, float("nan"), float("inf"), 10**400]
)
def test_unusable_row_loses_that_row_only(data, value):
    """A value that is missing, 0 or impossible loses its country and leaves all others as they were."""
    before = load(COUNTRIES, data).rows
    load.cache_clear()
    rewrite(data, COUNTRIES.file, lambda d: d["FRA"].update(carbon_intensity=value))
    assert load(COUNTRIES, data).rows == {key: row for key, row in before.items() if key != "FRA"}
    with pytest.raises(UnknownRegionError, match=r"France \(FR\) has no usable .* intensity_g_per_kwh="):
        offline.intensity_of(resolve("FR"), data)


@pytest.mark.parametrize(("table", "key"), [(COUNTRIES, "FRA"), (STATES, "virginia"), (PROVINCES, "quebec")])
@pytest.mark.parametrize(
    "row", [None, 3, "text", [], {}, {"total": 0, "coal": 1, "petroleum": 1, "naturalGas": 1}]
)
def test_row_of_another_kind(data, table, key, row):
    """A row of any other kind loses that row only."""
    rewrite(data, table.file, lambda d: d.update({key: row}))
    rows = load(table, data).rows
    assert key not in {row.key for row in rows.values()}
    assert len(rows) == len(load(table, installed()).rows) - 1


def test_year_is_optional(data):
    """A row without a year keeps its value, and the source says that the year is not stated."""
    rewrite(data, COUNTRIES.file, lambda d: d["FRA"].pop("year") and None)
    got = offline.intensity_of(resolve("FR"), data)
    assert (got.g_per_kwh, got.year) == (56.039, None)
    assert got.source.endswith("; FRA; year not stated")


def test_newest_folder_wins(data):
    """Of several years' files the newest is read; a folder that is no year never wins."""
    infra = data.folder / "private_infra"
    for name, emissions in (("1999", 1.0), ("2031", 3.0), ("old", 2.0)):
        (infra / name).mkdir()
        text = json.dumps({"virginia": {"emissions": emissions, "regionCode": "VA"}})
        (infra / name / "usa_emissions.json").write_text(text)
    got = offline.intensity_of(resolve("US-VA"), data)
    assert got.g_per_kwh == pytest.approx(3 * 0.45359237)
    assert got.year == 2031
    assert "private_infra/2031/usa_emissions.json" in got.source


def test_country_exactly_zero_is_missing():
    """The Central African Republic's 0.0 in the table is no clean grid but a hole."""
    with pytest.raises(UnknownRegionError, match="Central African Republic"):
        lookup("CAF")


@pytest.mark.parametrize("region", ["ATA", "Kosovo"])
def test_known_place_without_a_value(region):
    """A place that no table has is refused with the remedy; with the user's number it is accepted."""
    with pytest.raises(UnknownRegionError, match="AIMETER_INTENSITY_G_PER_KWH"):
        lookup(region)
    assert lookup(region, 33.0).zone == resolve(region).code


def test_users_number_wins(caplog):
    """The user's number is taken as it is, says whose it is, and needs neither region nor data."""
    got = lookup(None, 12.5, find=type(None))
    assert got == offline.Intensity(12.5, "given by the user", "given", None, None)
    assert lookup("aws:us-east-1", 12.5).zone == "aws:us-east-1"
    assert lookup("our own hall", 12.5).zone == "our own hall"
    assert lookup("FR", 0).g_per_kwh == 0
    assert not warnings_in(caplog)


@pytest.mark.parametrize("number", [-0.1, 2000.1, float("nan"), float("inf")])
def test_users_number_is_checked(number):
    """The user's number must be possible."""
    with pytest.raises(ConfigurationError, match="intensity_g_per_kwh"):
        lookup("FR", number)


@pytest.mark.parametrize("region", [3, ["FR"], b"FR"])
def test_region_must_be_text(region):
    """A region of another type is refused, hashable or not."""
    with pytest.raises(UnknownRegionError, match="is a text"):
        lookup(region)


def test_lookup_is_cached():
    """A second lookup gives the same object without reading or resolving anything."""
    assert lookup("aws:us-east-1") is lookup("aws:us-east-1")


@pinned
def test_number_of_rows():
    """Every usable row of each file is read: 213 countries less one that is 0, 51 states, and so on."""
    counts = {table: len(load(table, installed()).rows) for table in TABLES}
    assert counts == {
        COUNTRIES: 212, STATES: 51, PROVINCES: 13, NORDIC: 10, CHINA: 30, CLOUD: 40, WORLD_AVERAGE: 1
    }  # fmt: skip


def test_method_form():
    """Every method has the documented form."""
    basis, flow = r"(lifecycle|direct|direct-co2)", r"(production|consumption|unstated)"
    for table in TABLES:
        method = describe_method(table.basis, table.flow, estimated=table.estimated)
        assert re.fullmatch(f"average;location-based;{basis};{flow};estimated=(yes|no)", method)


def test_reference_page_lists_every_table():
    """The reference page has each table's file and method, and the holes of the pinned version."""
    page = REFERENCE.read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| .* \| `(\S+?)`.* \| `(average\S+)` \|$", page, flags=re.MULTILINE))
    want = {
        table.file: describe_method(table.basis, table.flow, estimated=table.estimated) for table in TABLES
    }
    want[WORLD_AVERAGE.file] += ";world-average"
    assert rows == want


@pinned
def test_reference_page_lists_every_hole():
    """Each known zone has a value or is on the reference page's list of places without one."""
    holes = []
    for zone in known():
        try:
            assert lookup(zone.code).g_per_kwh > 0
        except UnknownRegionError:
            holes.append(zone.code)
    page = REFERENCE.read_text(encoding="utf-8").partition("## Places without a number")[2]
    listed = re.search(r"\n\n((?:[A-Z]{2}(?:-[A-Z]{2})?\s)+)", page)
    assert listed.group(1).split() == holes


@given(st.floats(0, 1e12), st.floats(0, 2000), st.floats(1, 3))
def test_grams(energy_j, g_per_kwh, pue):
    """Grams are J / 3.6e6 x g/kWh x PUE, to the rounding of four operations."""
    exact = Fraction(energy_j) / 3_600_000 * Fraction(g_per_kwh) * Fraction(pue)
    assert co2e_g(energy_j, g_per_kwh, pue) == pytest.approx(float(exact), rel=1e-15 * 5, abs=1e-300)


@given(st.floats(0, 1e9), st.floats(0, 1e9), st.floats(0, 2000), st.floats(1, 3))
def test_grams_are_monotone_and_add_up(one_j, other_j, g_per_kwh, pue):
    """More joules are never fewer grams, and the grams of parts sum to those of the whole."""
    one, other, both = (co2e_g(energy_j, g_per_kwh, pue) for energy_j in (one_j, other_j, one_j + other_j))
    assert one <= both
    assert other <= both
    assert one + other == pytest.approx(both, rel=1e-12, abs=1e-300)
    assert co2e_g(one_j, g_per_kwh) <= co2e_g(one_j, g_per_kwh, pue)


def test_one_kilowatt_hour():
    """One kilowatt-hour at 400 g/kWh is 400 g, at the IT boundary unless a PUE is given."""
    assert co2e_g(3.6e6, 400.0) == 400.0
    assert co2e_g(3.6e6, 400.0, 1.5) == 600.0


@given(st.floats(0, 1e6))
def test_pounds_per_megawatt_hour(lb_per_mwh):
    """A pound is exactly 453.59237 g and a megawatt-hour 1000 kWh."""
    exact = Fraction(lb_per_mwh) * Fraction(45359237, 100000) / 1000
    assert g_per_kwh_from_lb_per_mwh(lb_per_mwh) == pytest.approx(float(exact), rel=1e-15, abs=1e-300)


@given(
    st.fixed_dictionaries(
        {fuel: st.floats(0, 100) for fuel in ("coal", "petroleum", "naturalGas", "hydro", "wind")}
    )
)
def test_province_is_bounded_by_its_fuels(mix):
    """A province's figure is the mean of its fuels' own, in which what burns nothing counts as 0."""
    factors = {"coal": 995, "petroleum": 816, "natural_gas": 743}
    mix["hydro"] += 1.0
    total = sum(mix.values())
    code, g_per_kwh, year = PROVINCES.value("quebec", ({**mix, "total": total}, factors, 2023))
    assert (code, year) == ("CA-QC", 2023)
    burnt = 995 * mix["coal"] + 816 * mix["petroleum"] + 743 * mix["naturalGas"]
    assert g_per_kwh == pytest.approx(burnt / total)
    alone = dict.fromkeys(mix, 0.0) | {"naturalGas": 7.0, "total": 7.0}
    assert PROVINCES.value("quebec", (alone, factors, 2023))[1] == pytest.approx(743)


def test_world_zone():
    """The world is a zone like any other, in any letter case."""
    assert resolve(" world ") is WORLD
