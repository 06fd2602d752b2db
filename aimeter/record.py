"""The row: one settled call, schema 3, and how it shows itself: in one line for a plain REPL, as a small table for a notebook.

Columns are fixed and in this order; each schema only appends to the one before. Energy is in joules, grams are grams of CO2
equivalent, both at the IT boundary unless `pue` is above 1. Unknown is None (an empty field), never 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from aimeter._support.public import public
from aimeter._support.units import UNKNOWN, printable, quantity

SCHEMA = 3

MeasuredBy = Literal["counter", "power", "estimate", "none"]
DIRECTNESS = {"none": 0, "counter": 1, "power": 2, "estimate": 3}
"""Which of several methods is the least direct, and stands for all: the greatest."""

Status = Literal["ok", "error", "closed", "open"]


@public
class Record(NamedTuple):
    """One settled call. Every number says how it was obtained and how wrong it may be.

    Attributes:
        schema: Version of this row's layout.
        call_id: Unique identifier of the call.
        parent_id: The call that was open around it in the same thread or task, or None.
        name: What the caller named it.
        status: ``ok``; ``error``: it raised; ``closed``: a generator closed before its end; ``open``: the
            interpreter ended while it was open.
        error_type: Name of the exception's class, or None.
        start: Start of the call, ISO 8601 in UTC with microseconds.
        duration_s: From start to end on the monotonic clock.
        pid: Process that made the call.
        thread: Name of the thread that started it.
        energy_j: The call's share of the energy of all metered devices, its children's included.
        error_j: 95 % half-width of `energy_j`: resolution and calibration together.
        resolution_j: 95 % half-width of what sampling and sensor steps leave open; averages out over calls.
        self_j: `energy_j` without what the call's children used while it was open.
        window_j: All that the metered devices drew while the call was open, shared with nobody.
        idle_j: The part of `energy_j` that the devices would have drawn anyway; None until an idle power is known.
        gpu_j: Share of the GPUs' energy; likewise `cpu_j`, `dram_j`, `other_j`.
        gpu_method: ``counter``, ``power``, ``estimate`` or ``none``; likewise `cpu_method`, `dram_method`.
        devices: Identifiers of the metered channels, separated by spaces.
        coverage: Part of the call's time, 0 to 1, that every metered channel's curve really covers.
        concurrency: Among how many calls the energy was shared, on average; 1 is nobody else.
        items: Count given by the caller; likewise `images`, `tokens_in`, `tokens_out`, `steps`, `audio_s`.
        model: Name of the model, as noted by the caller.
        pue: Power usage effectiveness applied to `co2e_g`; 1.0 is the IT boundary.
        intensity_g_per_kwh: Carbon intensity applied, or None.
        intensity_source: Data set, version, key and year of the intensity.
        intensity_method: What kind of intensity: average, location-based, life-cycle …
        zone: Zone the intensity belongs to.
        co2e_g: ``energy_j / 3.6e6 * intensity_g_per_kwh * pue``.
        embodied_g: Making of the hardware, the call's part by time; between `embodied_lower_g` and
            `embodied_upper_g`. None unless chosen.
        meta: JSON object: the caller's notes and aimeter's remarks on the call. For reading only: rows that
            have nothing of their own to say share one.
        aimeter_version: Version that wrote the row; never empty, so a torn row is recognised.
        co2e_error_g: Half-width of `co2e_g` from `error_j` and from the intensity's bounds together.
        intensity_lower_g_per_kwh: The least that the intensity may be, where its source says; likewise
            `intensity_upper_g_per_kwh`.
        market_g_per_kwh: Intensity by contract, or None; `market_co2e_g` is the same sum with it.
        water_site_l: Litres used on site; `water_grid_l` in generating the electricity. None unless chosen.
        pue_source: Where `pue` is from; empty in schema 1.
        devices_j: The call's share of each of `devices`, in joules and in their order; empty in schemas 1 and 2.
        machine: Opaque identifier of the machine, the same for all its processes until it is started anew;
            ``unknown`` in schemas 1 and 2. It stands last, as its fixed length tells whether a line is whole.
    """

    schema: int
    call_id: str
    parent_id: str | None
    name: str
    status: Status
    error_type: str | None
    start: str
    duration_s: float
    pid: int
    thread: str
    energy_j: float | None
    error_j: float | None
    resolution_j: float | None
    self_j: float | None
    window_j: float | None
    idle_j: float | None
    gpu_j: float | None
    cpu_j: float | None
    dram_j: float | None
    other_j: float | None
    gpu_method: MeasuredBy
    cpu_method: MeasuredBy
    dram_method: MeasuredBy
    devices: str
    coverage: float
    concurrency: float
    items: float | None
    images: float | None
    tokens_in: float | None
    tokens_out: float | None
    steps: float | None
    audio_s: float | None
    model: str | None
    pue: float
    intensity_g_per_kwh: float | None
    intensity_source: str | None
    intensity_method: str | None
    zone: str | None
    co2e_g: float | None
    embodied_g: float | None
    meta: Mapping[str, object]
    aimeter_version: str
    co2e_error_g: float | None
    intensity_lower_g_per_kwh: float | None
    intensity_upper_g_per_kwh: float | None
    market_g_per_kwh: float | None
    market_co2e_g: float | None
    embodied_lower_g: float | None
    embodied_upper_g: float | None
    water_site_l: float | None
    water_grid_l: float | None
    pue_source: str
    devices_j: tuple[float, ...]
    machine: str

    def __repr__(self) -> str:
        return f"<{_line(self)}>"

    def _repr_html_(self) -> str:
        return _html(self)


COLUMNS: tuple[str, ...] = Record._fields
FIRST_COLUMNS: tuple[str, ...] = COLUMNS[: COLUMNS.index("aimeter_version") + 1]
"""The columns of schema 1, which every log has."""

COUNTS: tuple[str, ...] = ("items", "images", "tokens_in", "tokens_out", "steps", "audio_s")


def _line(record: Record) -> str:
    """Return what a row says, in one line: name, joules with their error, grams, seconds, how it was measured."""
    told = [f"{record.name}: {_joules(record)}"]
    if record.co2e_g is not None:
        told.append(f"{quantity(record.co2e_g, 'g', record.co2e_error_g, largest=3)} CO2e")
    told.append(quantity(record.duration_s, "s", largest=0))
    counts = _counts(record)
    if counts:
        told.append(counts)
    if record.coverage < 1:
        told.append(f"{record.coverage:.0%} covered")
    if record.status != "ok":
        told.append(record.status if record.error_type is None else f"{record.status} {record.error_type}")
    return printable(", ".join(told))


def _html(record: Record) -> str:
    """Return what a row says as a table in HTML."""
    lines = [
        ("energy", _joules(record)),
        ("of which idle", None if record.idle_j is None else quantity(record.idle_j, "J")),
        ("GPU", _part(record.gpu_j, record.gpu_method)),
        ("CPU", _part(record.cpu_j, record.cpu_method)),
        ("memory", _part(record.dram_j, record.dram_method)),
        ("other", None if record.other_j is None else quantity(record.other_j, "J")),
        (
            "CO2e",
            None if record.co2e_g is None else quantity(record.co2e_g, "g", record.co2e_error_g, largest=3),
        ),
        ("intensity", _intensity(record)),
        ("time", quantity(record.duration_s, "s", largest=0)),
        ("counts", _counts(record) or None),
        ("model", record.model),
        ("covered", f"{record.coverage:.0%}"),
        ("status", record.status if record.error_type is None else f"{record.status}: {record.error_type}"),
    ]
    rows = "".join(
        f'<tr><th style="text-align: left">{name}</th><td style="text-align: left">{_shown(value)}</td></tr>'
        for name, value in lines
        if value is not None
    )
    return f"<table><caption>{_shown(record.name)}</caption><tbody>{rows}</tbody></table>"


def _shown(text: str) -> str:
    from html import escape  # noqa: PLC0415 - rendering is loaded by who looks

    return escape(printable(text))


def _joules(record: Record) -> str:
    if record.energy_j is None:
        return f"energy {UNKNOWN}"
    kinds = zip(
        ("GPU", "CPU", "memory"), (record.gpu_method, record.cpu_method, record.dram_method), strict=True
    )
    how = [f"{kind} by {method}" for kind, method in kinds if method != "none"]
    if record.other_j is not None:
        how.append("other")  # no column says how
    energy = quantity(record.energy_j, "J", record.error_j)
    return f"{energy} ({', '.join(how)})" if how else energy


def _part(joules: float | None, method: str) -> str | None:
    return None if joules is None else f"{quantity(joules, 'J')} ({method})"


def _counts(record: Record) -> str:
    given = ((name, getattr(record, name)) for name in COUNTS)
    return ", ".join(f"{name} {value:g}" for name, value in given if value is not None)


def _intensity(record: Record) -> str | None:
    if record.intensity_g_per_kwh is None:
        return None
    return f"{record.intensity_g_per_kwh:.4g} g/kWh ({record.zone or record.intensity_source})"
