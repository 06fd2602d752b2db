"""The Software Carbon Intensity of a log (ISO/IEC 21031:2024): ``SCI = (E * I + M) / R``, every term shown.

E is the energy in kWh, times the rows' PUE. I is the location-based intensity in g CO2e/kWh; market-based measures
are not allowed. M is the embodied carbon in grams. R is the number of functional units, from a count in the rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from aimeter.carbon.intensity import J_PER_KWH
from aimeter.carbon.overheads import embodied
from aimeter.commands.report import MOST_METHODS, find, unread
from aimeter.errors import ConfigurationError, did_you_mean
from aimeter.logs.brief import read_briefs
from aimeter.logs.recompute import is_provisional
from aimeter.record import COUNTS, Record
from aimeter.report import read
from aimeter.report.divided import between_processes
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
    paths = find(logs)
    division, undivided = between_processes(lambda: read_briefs(paths))
    enclosing = {row.parent_id for row in read_briefs(paths)} - {None}
    found = read(paths)

    def rows() -> Iterator[Record]:
        nonlocal found
        found = read(paths)
        return found if division is None else map(division.divided, found)

    result = _of(rows, enclosing, per, name, hardware)
    remarks = [] if division is None else [told(division.processes)]
    remarks += [UNDIVIDED] if undivided else []
    remarks += [f"{unread(found.skipped)}: the score lacks them."] if found.skipped else []
    return replace(result, warnings=(*result.warnings, *remarks))


def of_rows(rows: Sequence[Record], per: str, *, hardware: str | None = None) -> Score:
    """Return the SCI of some rows; see `score`."""
    return _of(lambda: rows, {row.parent_id for row in rows} - {None}, per, None, hardware)


class _Enclosing(NamedTuple):
    """What is kept of a row that encloses others."""

    parent_id: str | None
    named: bool
    counts: bool


class _Family:
    """Which rows are chosen, and what is told of them by those that enclose them.

    Args:
        rows: All rows; only those that enclose others are kept, and of them the least.
        enclosing: Their identifiers.
        per: The count that is the functional unit.
        name: Calls of this name are chosen, and what they called; None chooses all.

    Raises:
        ConfigurationError: No row has the name.
    """

    def __init__(
        self, rows: Iterable[Record], enclosing: AbstractSet[str | None], per: str, name: str | None
    ) -> None:
        self._name = name
        kept: dict[str | None, _Enclosing] = {}
        names: dict[str, None] = {}
        for row in rows:
            if row.name == name or len(names) < _MOST_NEAR:
                names[row.name] = None
            if row.call_id in enclosing:
                kept[row.call_id] = _Enclosing(row.parent_id, self._named(row), getattr(row, per) is not None)
        if name is not None and name not in names:
            message = f"The log has no call named {name!r}.{did_you_mean(name, names)}"
            raise ConfigurationError(message)
        self.chosen = _within(kept, lambda call_id: kept[call_id].named)
        """Tells whether the row of an identifier is chosen."""
        self.counted = _within(kept, lambda call_id: kept[call_id].counts and self.chosen(call_id))
        """Tells whether it, or one that encloses it, is and counts its units."""

    def _named(self, row: Record) -> bool:
        return self._name is None or row.name == self._name

    def chooses(self, row: Record) -> bool:
        """Tell whether a row is chosen."""
        return self._named(row) or self.chosen(row.parent_id)


def _within(
    kept: Mapping[str | None, _Enclosing], holds: Callable[[str | None], bool]
) -> Callable[[str | None], bool]:
    """Return what tells whether something holds for the row of an identifier or for one that encloses it.

    Each row is looked at once, however deep they stand inside each other and though some go in a circle.
    """
    known: dict[str | None, bool] = {}

    def within(call_id: str | None) -> bool:
        line = []
        while call_id in kept and call_id not in known:
            line.append(call_id)
            known[call_id] = holds(call_id)
            if not known[call_id]:
                call_id = kept[call_id].parent_id
        found = known.get(call_id, False)
        known.update(dict.fromkeys(line, found))
        return found

    return within


@dataclass(slots=True)
class _Making:
    """What rows that nothing encloses say of the making of the hardware."""

    rows: int = 0
    used_s: float = 0.0
    known: int = 0
    grams: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def add(self, row: Record) -> None:
        self.rows += 1
        self.used_s += row.duration_s / row.concurrency
        if row.embodied_g is not None:
            self.known += 1
            middle_g, lower_g, upper_g = self.grams
            self.grams = (
                middle_g + row.embodied_g,
                lower_g + (row.embodied_lower_g or 0.0),
                upper_g + (row.embodied_upper_g or 0.0),
            )


@dataclass(slots=True)
class _Sums:
    """What is added up of the chosen rows, one at a time."""

    per: str
    rows: int = 0
    without: int = 0
    units: float = 0.0
    counts: set[str] = field(default_factory=set)
    market_based: bool = False
    metered: int = 0
    scaled_j: float = 0.0
    pue: tuple[float, float] = (math.inf, -math.inf)
    kinds: set[str] = field(default_factory=set)
    known: int = 0
    known_j: float = 0.0
    grams: float = 0.0
    methods: set[str] = field(default_factory=set)
    marginal: bool = False
    assumed: bool = False
    waiting: int = 0
    making: _Making = field(default_factory=_Making)

    def add(self, row: Record, *, counted: bool, inside: bool) -> None:
        """Add a row; `counted` tells that one which encloses it counts its units, `inside` that there is one."""
        self.rows += 1
        count: float | None = getattr(row, self.per)
        self.without += count is None
        # A parent that counts its images, and children that count theirs, mean the same images.
        if count is not None and not counted:
            self.units += count
        self.counts.update(one for one in COUNTS if getattr(row, one) is not None)
        method = row.intensity_method or ""
        self.market_based |= "market-based" in method
        if not inside:
            self.making.add(row)
        if row.self_j is None:
            return
        self.metered += 1
        scaled_j = row.self_j * row.pue
        self.scaled_j += scaled_j
        self.pue = min(self.pue[0], row.pue), max(self.pue[1], row.pue)
        kinds = {device.partition(":")[0] for device in row.devices.split()}
        self.kinds |= {kind if kind in KINDS else "other" for kind in kinds}
        if row.intensity_g_per_kwh is None:
            return
        self.known += 1
        self.known_j += scaled_j
        self.grams += row.self_j / J_PER_KWH * row.pue * row.intensity_g_per_kwh
        self.methods.add(method)
        if len(self.methods) > MOST_METHODS:
            self.methods.discard(max(self.methods))
        self.marginal |= "marginal" in method
        self.assumed |= "assumed" in method
        self.waiting += is_provisional(row)


def _of(
    rows: Callable[[], Iterable[Record]],
    enclosing: AbstractSet[str | None],
    per: str,
    name: str | None,
    hardware: str | None,
) -> Score:
    """Return the score of rows that are read more than once, as they are not kept."""
    family = _Family(rows() if enclosing or name is not None else (), enclosing, per, name)
    sums = _Sums(per)
    for row in rows():
        if family.chooses(row):
            around = row.parent_id
            sums.add(row, counted=family.counted(around), inside=family.chosen(around))
    return _scored(sums, hardware)


def _scored(sums: _Sums, hardware: str | None) -> Score:
    units, per = sums.units, sums.per
    known_kwh = sums.known_j / J_PER_KWH
    _refuse(sums, known_kwh)
    e_kwh = sums.scaled_j / J_PER_KWH
    intensity = sums.grams / known_kwh
    made = _making(sums, hardware)
    m_g, m_lower_g, m_upper_g, m_source = made if made is not None else (None, None, None, None)
    o_g = e_kwh * intensity
    if not all(map(math.isfinite, (o_g / units, (m_upper_g or 0.0) / units))):
        message = f"The score is too large for a number: {units:g} {per} cannot be true."
        raise ConfigurationError(message)
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
        pue=sums.pue,
        methods=tuple(sorted(sums.methods)),
        rows=sums.rows,
        boundary=_boundary(sums, m_source),
        warnings=tuple(_warnings(sums, has_making=made is not None)),
    )


def _refuse(sums: _Sums, known_kwh: float) -> None:
    """Raise where a term cannot be had at all."""
    if not sums.units > 0:
        per, counted = sums.per, [one for one in COUNTS if one in sums.counts]
        instead = f" They count {', '.join(counted)}." if counted else ""
        message = f"No row counts any {per}: track('x', {per}=…) or call.count({per}=…) does.{instead}"
        raise ConfigurationError(message)
    if not known_kwh > 0:
        message = "No row has both energy and an intensity, so there is neither E nor I."
        raise ConfigurationError(message)
    if sums.market_based:
        message = (
            "Some rows have a market-based intensity, which SCI does not allow: meter with a location-based one, "
            "such as a region's."
        )
        raise ConfigurationError(message)


def _making(sums: _Sums, hardware: str | None) -> tuple[float, float, float, str] | None:
    """Return the embodied grams of calls that no other encloses, with their bounds and source."""
    if hardware is not None:
        made = embodied(hardware)
        return (*made.grams(sums.making.used_s), made.source)
    if not sums.making.known:
        return None
    return (
        *sums.making.grams,
        f"column embodied_g of {sums.making.known} of {sums.making.rows} outermost rows",
    )


def _boundary(sums: _Sums, m_source: str | None) -> str:
    building = "the building by PUE" if sums.pue[1] > 1 else "no building (PUE 1)"
    making = "the making of the hardware" if m_source else "no making of hardware"
    return (
        f"{', '.join(sorted(sums.kinds)) or 'no device'} as metered while calls were open, {building}, {making}. "
        "Not inside: hardware reserved but idle between calls, network, storage, the user's own device."
    )


def _warnings(sums: _Sums, *, has_making: bool) -> Iterator[str]:
    if sums.metered < sums.rows:
        yield f"{sums.rows - sums.metered} of {sums.rows} rows have no energy: E is too small."
    if sums.known < sums.metered:
        without = sums.metered - sums.known
        yield f"{without} rows have energy and no intensity: they count at the mean of the others."
    if sums.without:
        yield f"{sums.without} of {sums.rows} rows count no {sums.per} themselves; their energy is inside."
    if sums.marginal:
        yield "Some intensities are marginal: SCI allows that, if it is said."
    if sums.assumed:
        yield "Some rows have an assumed world average: set a region."
    if sums.waiting:
        yield f"{sums.waiting} rows wait for their provider's value: aimeter carbon refill completes them."
    if not has_making:
        yield "M is not given, so this is the operational part alone: add --embodied or the setting."
