"""The Software Carbon Intensity of a log (ISO/IEC 21031:2024): ``SCI = (E * I + M) / R``, every term shown.

E is the energy in kWh, times the rows' PUE. I is the location-based intensity in g CO2e/kWh; market-based measures
are not allowed. M is the embodied carbon in grams. R is the number of functional units, from a count in the rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from aimeter.carbon.intensity import J_PER_KWH
from aimeter.carbon.overheads import embodied
from aimeter.commands.report import MOST_METHODS, find, unread
from aimeter.errors import ConfigurationError, did_you_mean
from aimeter.logs.recompute import is_provisional
from aimeter.record import COUNTS, Record
from aimeter.report import read
from aimeter.report.division import between_processes
from aimeter.report.summary import UNDIVIDED, told
from aimeter.sensors.base import KINDS

_MOST_NEAR = 1000
"""Names that are compared with one that is in no row; each takes a tenth of a millisecond."""


@dataclass(frozen=True, slots=True)
class Score:
    """A score and what it is made of.

    Attributes:
        sci_g: Grams of CO2e for each functional unit.
        sci_lower_g: With the least M; likewise `sci_upper_g`, with the most.
        unit: The functional unit, one of the counts.
        r: How many there are.
        e_kwh: Energy, PUE included.
        i_g_per_kwh: Intensity: the mean over the energy.
        o_g: ``E * I``, the operational part.
        m_g: Embodied part; None if none was given. Likewise its bounds `m_lower_g`, `m_upper_g`.
        m_source: What the embodied part is of.
        pue: Least and greatest PUE in the rows.
        methods: The kinds of intensity that occur.
        rows: Rows that were counted.
        boundary: What is inside, and what is not, in words.
        warnings: Why the score is partial, if it is.
    """

    sci_g: float
    sci_lower_g: float
    sci_upper_g: float
    unit: str
    r: float
    e_kwh: float
    i_g_per_kwh: float
    o_g: float
    m_g: float | None
    m_lower_g: float | None
    m_upper_g: float | None
    m_source: str | None
    pue: tuple[float, float]
    methods: tuple[str, ...]
    rows: int
    boundary: str
    warnings: tuple[str, ...]


def score(logs: Sequence[str], per: str, *, name: str | None = None, hardware: str | None = None) -> Score:
    """Return the SCI of some logs.

    Args:
        logs: Paths or patterns.
        per: The count that is the functional unit.
        name: Only calls of this name, and what they called.
        hardware: Whose making to count, see `aimeter.carbon.overheads.embodied`; by default what the rows have.

    Raises:
        ConfigurationError: A log is unknown, there is no such count, or the rows lack what a term needs.
    """
    if per not in COUNTS:
        message = f"--per takes a count of the rows: {', '.join(COUNTS)}.{did_you_mean(per, COUNTS)}"
        raise ConfigurationError(message)
    if hardware is not None:
        embodied(hardware)
    found = read(find(logs))
    rows = list(found)
    division, undivided = between_processes(lambda: rows)
    if division is not None:
        rows = list(map(division.divided, rows))
    parents: dict[str | None, Record] = {row.call_id: row for row in rows}
    if name is not None:
        names = {row.name for row in rows}
        if name not in names:
            message = f"The log has no call named {name!r}.{did_you_mean(name, islice(names, _MOST_NEAR))}"
            raise ConfigurationError(message)
        inside = _within(parents, lambda one: one.name == name)
        rows = [row for row in rows if row.name == name or inside(row.parent_id)]
    result = of_rows(rows, per, parents=parents, hardware=hardware)
    remarks = [] if division is None else [told(division.processes)]
    remarks += [UNDIVIDED] if undivided else []
    remarks += [f"{unread(found.skipped)}: the score lacks them."] if found.skipped else []
    return replace(result, warnings=(*result.warnings, *remarks))


def _within(
    parents: Mapping[str | None, Record], holds: Callable[[Record], bool]
) -> Callable[[str | None], bool]:
    """Return what tells whether something holds for the row of an identifier or for one that encloses it.

    Each row is looked at once, however deep they stand inside each other and though some go in a circle.
    """
    known: dict[str | None, bool] = {}

    def within(call_id: str | None) -> bool:
        line = []
        while call_id in parents and call_id not in known:
            line.append(call_id)
            known[call_id] = holds(parents[call_id])
            if not known[call_id]:
                call_id = parents[call_id].parent_id
        found = known.get(call_id, False)
        known.update(dict.fromkeys(line, found))
        return found

    return within


def of_rows(
    rows: Sequence[Record],
    per: str,
    *,
    parents: Mapping[str | None, Record] | None = None,
    hardware: str | None = None,
) -> Score:
    """Return the SCI of some rows; see `score`."""
    above: Mapping[str | None, Record] = {row.call_id: row for row in rows} if parents is None else parents
    chosen = {row.call_id for row in rows}
    counted = _within(above, lambda one: one.call_id in chosen and getattr(one, per) is not None)
    units = 0.0
    for row in rows:
        count: float | None = getattr(row, per)
        # A parent that counts its images, and children that count theirs, mean the same images.
        if count is not None and not counted(row.parent_id):
            units += count
    metered = [row for row in rows if row.self_j is not None]
    e_kwh = sum((row.self_j or 0.0) * row.pue for row in metered) / J_PER_KWH
    known = [row for row in metered if row.intensity_g_per_kwh is not None]
    known_kwh = sum((row.self_j or 0.0) * row.pue for row in known) / J_PER_KWH
    grams = sum((row.self_j or 0.0) / J_PER_KWH * row.pue * (row.intensity_g_per_kwh or 0.0) for row in known)
    _refuse(rows, units, known_kwh, per)
    intensity = grams / known_kwh
    outermost = [row for row in rows if row.parent_id not in chosen]
    made = _making(outermost, hardware)
    m_g, m_lower_g, m_upper_g, m_source = made if made is not None else (None, None, None, None)
    o_g = e_kwh * intensity
    if not all(map(math.isfinite, (o_g / units, (m_upper_g or 0.0) / units))):
        message = f"The score is too large for a number: {units:g} {per} cannot be true."
        raise ConfigurationError(message)
    pues = [row.pue for row in metered]
    return Score(
        sci_g=(o_g + (m_g or 0.0)) / units,
        sci_lower_g=(o_g + (m_lower_g or 0.0)) / units,
        sci_upper_g=(o_g + (m_upper_g or 0.0)) / units,
        unit=per,
        r=units,
        e_kwh=e_kwh,
        i_g_per_kwh=intensity,
        o_g=o_g,
        m_g=m_g,
        m_lower_g=m_lower_g,
        m_upper_g=m_upper_g,
        m_source=m_source,
        pue=(min(pues), max(pues)),
        methods=tuple(sorted({row.intensity_method or "" for row in known})[:MOST_METHODS]),
        rows=len(rows),
        boundary=_boundary(metered, m_source),
        warnings=tuple(_warnings(rows, metered, known, per, made is not None)),
    )


def _refuse(rows: Sequence[Record], units: float, known_kwh: float, per: str) -> None:
    """Raise where a term cannot be had at all."""
    if not units > 0:
        counted = [one for one in COUNTS if any(getattr(row, one) is not None for row in rows)]
        instead = f" They count {', '.join(counted)}." if counted else ""
        message = f"No row counts any {per}: track('x', {per}=…) or call.count({per}=…) does.{instead}"
        raise ConfigurationError(message)
    if not known_kwh > 0:
        message = "No row has both energy and an intensity, so there is neither E nor I."
        raise ConfigurationError(message)
    if any("market-based" in (row.intensity_method or "") for row in rows):
        message = (
            "Some rows have a market-based intensity, which SCI does not allow: meter with a location-based one, "
            "such as a region's."
        )
        raise ConfigurationError(message)


def _making(outermost: Sequence[Record], hardware: str | None) -> tuple[float, float, float, str] | None:
    """Return the embodied grams of calls that no other encloses, with their bounds and source."""
    if hardware is not None:
        made = embodied(hardware)
        used_s = sum(row.duration_s / row.concurrency for row in outermost)
        return (*made.grams(used_s), made.source)
    given = [row for row in outermost if row.embodied_g is not None]
    if not given:
        return None
    return (
        sum(row.embodied_g or 0.0 for row in given),
        sum(row.embodied_lower_g or 0.0 for row in given),
        sum(row.embodied_upper_g or 0.0 for row in given),
        f"column embodied_g of {len(given)} of {len(outermost)} outermost rows",
    )


def _boundary(metered: Sequence[Record], m_source: str | None) -> str:
    said = {device.partition(":")[0] for row in metered for device in row.devices.split()}
    kinds = sorted({kind if kind in KINDS else "other" for kind in said})
    building = "the building by PUE" if any(row.pue > 1 for row in metered) else "no building (PUE 1)"
    making = "the making of the hardware" if m_source else "no making of hardware"
    return (
        f"{', '.join(kinds) or 'no device'} as metered while calls were open, {building}, {making}. Not inside: "
        "hardware reserved but idle between calls, network, storage, the user's own device."
    )


def _warnings(
    rows: Sequence[Record],
    metered: Sequence[Record],
    known: Sequence[Record],
    per: str,
    has_making: bool,  # noqa: FBT001 - one of five facts
) -> list[str]:
    found = []
    if len(metered) < len(rows):
        found.append(f"{len(rows) - len(metered)} of {len(rows)} rows have no energy: E is too small.")
    if len(known) < len(metered):
        found.append(
            f"{len(metered) - len(known)} rows have energy and no intensity: they count at the mean of the others."
        )
    without = sum(getattr(row, per) is None for row in rows)
    if without:
        found.append(f"{without} of {len(rows)} rows count no {per} themselves; their energy is inside.")
    if any("marginal" in (row.intensity_method or "") for row in known):
        found.append("Some intensities are marginal: SCI allows that, if it is said.")
    if any("assumed" in (row.intensity_method or "") for row in known):
        found.append("Some rows have an assumed world average: set a region.")
    waiting = sum(is_provisional(row) for row in known)
    if waiting:
        found.append(f"{waiting} rows wait for their provider's value: aimeter carbon refill completes them.")
    if not has_making:
        found.append("M is not given, so this is the operational part alone: add --embodied or the setting.")
    return found
