"""CodeCarbon's installed tables of carbon intensity, read as data.

CodeCarbon (MIT) ships yearly intensities of countries, states, provinces, bidding zones and Google Cloud
regions. Its package is never imported, because importing it starts NVML and other processes and takes over a
logger; its files are found by its import specification and read with the standard library.

The tables draw their boundaries differently (`Table.basis`, `Table.flow`), and every value says how. None is
preferred to another; a region simply has the value of the smallest area that the tables know around it.
"""

from __future__ import annotations

import csv
import importlib.util
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from aimeter.carbon.intensity import MAX_G_PER_KWH, Basis, Flow, g_per_kwh_from_lb_per_mwh
from aimeter.carbon.regions import subdivisions

Entries = Iterable[tuple[str, Any]]
Value = tuple[str, float, int | None]

_UNUSABLE = (ValueError, TypeError, LookupError, ArithmeticError)
"""What reading foreign JSON or CSV can raise when a field is absent or of another kind than expected."""


class DataSet(NamedTuple):
    """CodeCarbon's data folder and the version of the package it belongs to."""

    folder: Path
    version: str


class Row(NamedTuple):
    """One usable row of a table: its key in the file, its value and the year of the data, if stated."""

    key: str
    g_per_kwh: float
    year: int | None


class Loaded(NamedTuple):
    """A table's usable rows by zone, the file they came from, and why there are none if there are none."""

    rows: Mapping[str, Row]
    file: str
    problem: str


@dataclass(frozen=True, slots=True)
class Table:
    """One of codecarbon's files: what its numbers mean, and how to read it.

    Attributes:
        file: Below the data folder; where a ``*`` stands for several folders, the newest is read.
        basis: What the numbers include, as `aimeter.carbon.intensity` explains; likewise `flow`, `estimated`.
        entries: Gives the file's entries, keyed as in the file.
        value: Turns an entry into zone, g/kWh and year.
    """

    file: str
    basis: Basis
    flow: Flow
    estimated: bool
    entries: Callable[[Path], Entries]
    value: Callable[[str, Any], Value]


@cache
def installed() -> DataSet | None:
    """Return the installed codecarbon's data without importing it, or None if it is not installed."""
    try:
        # For a top-level name this runs no code of the package.
        spec = importlib.util.find_spec("codecarbon")
    except (ImportError, ValueError):
        # ValueError: a module without a specification stands in sys.modules under that name.
        return None
    if spec is None or not spec.submodule_search_locations:
        return None
    package = Path(next(iter(spec.submodule_search_locations)))
    return DataSet(package / "data", _version_beside(package) or _version_known())


def _version_beside(package: Path) -> str:
    """Return the version in the name of the one ``.dist-info`` folder beside a package; empty if there is not one.

    The name is ``NAME-VERSION.dist-info`` (Python packaging guide, "Recording installed projects"). To find it so
    takes a tenth of the time that importing `importlib.metadata` does.
    """
    found = list(package.parent.glob(f"{package.name}-*.dist-info"))
    return found[0].name.removesuffix(".dist-info").partition("-")[2] if len(found) == 1 else ""


def _version_known() -> str:
    from importlib import metadata  # noqa: PLC0415 - takes longer to import than all the rest here

    try:
        return metadata.version("codecarbon")
    except metadata.PackageNotFoundError:
        return "of unknown version"


@cache
def load(table: Table, data: DataSet) -> Loaded:
    """Read one of codecarbon's files, once; an unusable row loses that row only.

    Exactly 0 counts as missing: the country table has it for a country whose generation it does not know. So
    does anything above `MAX_G_PER_KWH`.
    """
    file = table.file
    rows: dict[str, Row] = {}
    try:
        paths = [path for path in data.folder.glob(table.file) if path.is_file()]
        if not paths:
            return Loaded({}, file, f"it has no file {file}")
        path = max(paths, key=lambda path: _year(path.parent.name) or 0)
        file = path.relative_to(data.folder).as_posix()
        for key, entry in table.entries(path):
            try:
                zone, g_per_kwh, year = table.value(key, entry)
            except _UNUSABLE:
                continue
            if 0 < g_per_kwh <= MAX_G_PER_KWH:
                rows[zone] = Row(key, g_per_kwh, year)
    except (OSError, csv.Error, *_UNUSABLE) as error:
        return Loaded({}, file, f"{file} cannot be read ({error})")
    return Loaded(rows, file, "" if rows else f"{file} has no usable row")


def _year(raw: object) -> int | None:
    try:
        return int(raw)  # type: ignore[call-overload,no-any-return]  # whatever it is, int() says so
    except _UNUSABLE:
        return None


def _object(document: object) -> dict[str, Any]:
    if not isinstance(document, dict):
        message = "not a JSON object"
        raise TypeError(message)
    return document


def _json(path: Path) -> dict[str, Any]:
    return _object(json.loads(path.read_text(encoding="utf-8-sig")))


def _whole(path: Path) -> Entries:
    return _json(path).items()


def _inner(path: Path) -> Entries:
    return _object(_json(path)["data"]).items()


def _country(key: str, entry: Any) -> Value:  # noqa: ANN401 - foreign JSON
    return key, float(entry["carbon_intensity"]), _year(entry.get("year"))


def _zone(key: str, entry: Any) -> Value:  # noqa: ANN401 - foreign JSON
    # A bidding zone is SE3 in the file and SE-SE3 here; a Chinese province is CN-GD in both.
    return (
        key if "-" in key else f"{key[:2]}-{key}",
        float(entry["emission_factor"]),
        _year(entry.get("year")),
    )


def _states(path: Path) -> Entries:
    document = _json(path)
    source = document.get("_source")
    # Before codecarbon 3.3.2 the folder alone said the year.
    year = _year(source.get("year") if isinstance(source, dict) else path.parent.name)
    # Keys with an underscore are the file's own notes; "usa" is the nation, which the country table has.
    states = (name for name in document if not name.startswith("_") and name != "usa")
    return [(name, (document[name], year)) for name in states]


def _state(_: str, entry: Any) -> Value:  # noqa: ANN401 - foreign JSON
    state, year = entry
    return f"US-{state['regionCode']}", g_per_kwh_from_lb_per_mwh(float(state["emissions"])), year


def _provinces(path: Path) -> Entries:
    factors = _json(path.parent.parent / "carbon_intensity_per_source.json")
    year = _year(path.parent.name)
    return [(name, (mix, factors, year)) for name, mix in _json(path).items()]


def _province(key: str, entry: Any) -> Value:  # noqa: ANN401 - foreign JSON
    """Compute a province's intensity from its mix as CodeCarbon does: three fuels count, all else is 0.

    ``(coal * f_coal + petroleum * f_petroleum + naturalGas * f_gas) / total``, with the factors of
    ``carbon_intensity_per_source.json`` (995, 816 and 743 g/kWh in 3.3.2).
    """
    mix, factors, year = entry
    fuels = (("coal", "coal"), ("petroleum", "petroleum"), ("naturalGas", "natural_gas"))
    grams = sum(mix[fuel] * factors[source] for fuel, source in fuels)
    return _canadian_codes()[key], grams / mix["total"], year


@cache
def _canadian_codes() -> dict[str, str]:
    return {place.name.casefold(): place.code for place in subdivisions() if place.code.startswith("CA-")}


def _rows(path: Path) -> Entries:
    # The file starts with a byte-order mark, which utf-8-sig drops.
    with path.open(encoding="utf-8-sig", newline="") as file:
        return [(f"{row['provider']} {row['region']}", row) for row in csv.DictReader(file)]


def _cloud(_: str, entry: Any) -> Value:  # noqa: ANN401 - foreign CSV
    region = {"me-cenrtal1": "me-central1"}.get(entry["region"], entry["region"])  # misspelt up to 3.3.2
    return f"{entry['provider']}:{region}", float(entry["impact"]), None


def _averages(path: Path) -> Entries:
    return [("world_average", _json(path)["world_average"])]


def _average(_: str, entry: Any) -> Value:  # noqa: ANN401 - foreign JSON
    return "WORLD", float(entry), None


COUNTRIES = Table(
    "private_infra/global_energy_mix.json",
    "lifecycle",
    "production",
    estimated=False,
    entries=_whole,
    value=_country,
)
"""Our World in Data, by ISO 3166-1 alpha-3 code."""

STATES = Table(
    "private_infra/*/usa_emissions.json",
    "direct",
    "production",
    estimated=False,
    entries=_states,
    value=_state,
)
"""US EPA eGRID, total output emission rate in lb CO2e/MWh."""

PROVINCES = Table(
    "private_infra/*/canada_energy_mix.json",
    "direct",
    "production",
    estimated=True,
    entries=_provinces,
    value=_province,
)
"""Canada: shares of fuels, of which coal, oil and gas count."""

NORDIC = Table(
    "private_infra/nordic_emissions.json",
    "lifecycle",
    "production",
    estimated=True,
    entries=_inner,
    value=_zone,
)
"""ENTSO-E generation by type, times a factor for each; what has no factor counts as 0."""

CHINA = Table(
    "private_infra/*/china_provincial_emissions.json",
    "direct-co2",
    "consumption",
    estimated=False,
    entries=_inner,
    value=_zone,
)
"""China's Ministry of Ecology and Environment; exchange between provinces is accounted for. Since 3.3.2."""

CLOUD = Table("cloud/impact.csv", "direct", "unstated", estimated=False, entries=_rows, value=_cloud)
"""Google's own figures, "average operational gross emissions per unit of energy from the grid"."""

WORLD_AVERAGE = Table(
    "private_infra/carbon_intensity_per_source.json",
    "direct-co2",
    "production",
    estimated=False,
    entries=_averages,
    value=_average,
)
"""IEA, Global Energy & CO2 Status Report 2019; in the file as a single number without a year."""

TABLES = (COUNTRIES, STATES, PROVINCES, NORDIC, CHINA, CLOUD, WORLD_AVERAGE)
SUBDIVIDED: Mapping[str, Table] = {"US": STATES, "CA": PROVINCES, "SE": NORDIC, "NO": NORDIC, "CN": CHINA}
"""The table of a country's parts, by the country's alpha-2 code."""
