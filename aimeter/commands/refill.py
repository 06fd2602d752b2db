"""Completing the rows of a log that wait for their provider's value, into a new one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from aimeter._support.clocks import time
from aimeter.carbon.intensity import DETECTED, co2e_g
from aimeter.carbon.providers.base import utc
from aimeter.commands.asking import Answers, chosen
from aimeter.commands.report import find
from aimeter.errors import ConfigurationError
from aimeter.logs.brief import read_briefs
from aimeter.logs.export import export_log
from aimeter.logs.recompute import again, is_provisional, times
from aimeter.record import Record
from aimeter.report import read
from aimeter.report.divided import between_processes
from aimeter.report.division import Division

_MOST_TOLD = 100
"""Reasons why rows are not complete that are told; a log may name any number of zones."""


@dataclass(frozen=True, slots=True)
class Refill:
    """What completing a log came to.

    Attributes:
        path: The new file.
        rows: Rows in it.
        waiting: Rows of the old one that waited for their provider's value.
        filled: Those that have it now.
        before_g: Grams of the filled rows before, each joule counted once; likewise `after_g`.
        problems: Why others have not.
        skipped: Lines of the old log that were no rows, and are not in the new file.
    """

    path: str
    rows: int
    waiting: int
    filled: int
    before_g: float
    after_g: float
    problems: tuple[str, ...]
    skipped: int


def refill(log: str, new: Path, **given: object) -> Refill:
    """Complete the rows that have a fallback or a held value, into a new file; the old one stays as it is.

    A provider is asked once for each week that has such rows, and no more once it has failed.

    Args:
        log: The log.
        new: The file to write, which must not exist.
        **given: Settings that go before others, such as `carbon_provider`.

    Raises:
        ConfigurationError: The log is none, the new file exists, or no provider is set.
    """
    if new.exists():
        message = f"{new} exists. A refilled log is a new file: choose another name."
        raise ConfigurationError(message)
    asked, default_zone = chosen(**given)
    paths = find([log])
    division, _ = between_processes(lambda: read_briefs(paths))
    records = read(paths, once=False)  # what is written back lacks nothing
    zones: dict[str, Answers] = {}
    others: Counter[str] = Counter()
    waiting = filled = 0
    before_g = after_g = 0.0

    def fresh() -> Iterator[Record]:
        nonlocal waiting, filled, before_g, after_g
        for record in map(_of_this_schema, records):
            complete = None
            if is_provisional(record):
                waiting += 1
                name, zone = _waits_for(record)
                if name is not None and name != asked.name:  # its grid may be another country's
                    others[name if zone is None else f"{name} for {zone}"] += 1
                zone = zone or default_zone
                if zone is not None and name in {None, asked.name}:
                    complete = _complete(record, zones.setdefault(zone, Answers(asked, zone)))
            if complete is not None:
                filled += 1
                before_g += _own_g(record, division)
                after_g += _own_g(complete, division)
            yield complete or record

    rows = export_log(fresh(), new)
    problems = [f"{zone}: {known.problem}" for zone, known in zones.items() if known.problem]
    problems += [
        f"{count} rows wait for {other}: refill with that" for other, count in others.most_common(_MOST_TOLD)
    ]
    return Refill(
        str(new), rows, waiting, filled, before_g, after_g, tuple(problems[:_MOST_TOLD]), records.skipped
    )


def _own_g(record: Record, division: Division | None) -> float:
    """Return the grams of a row without those of the rows inside it, and of other processes."""
    record = record if division is None else division.divided(record)
    if record.self_j is None or record.intensity_g_per_kwh is None:
        return 0.0
    return co2e_g(record.self_j, record.intensity_g_per_kwh, record.pue)


def _complete(record: Record, known: Answers) -> Record | None:
    try:
        start_s, end_s = times(record)
    except ValueError:
        return None
    intensity = known.over(start_s, end_s)
    if intensity is None:
        return None
    if DETECTED in (record.intensity_method or ""):
        intensity = replace(intensity, method=intensity.method + DETECTED)
    remark = {"provider": known.provider.name, "zone": known.zone, "refilled": utc(time.time())}
    return again([record], intensity, remark)[0]


def _of_this_schema(record: Record) -> Record:
    """Return a row with what schema 1 did not have, the source of its PUE: a setting's number or the default."""
    if record.pue_source:
        return record
    return record._replace(pue_source="at the plug" if record.pue == 1 else "given")


def _waits_for(record: Record) -> tuple[str | None, str | None]:
    """Return the provider and the zone that a row remarks it waits for; None for what it does not say."""
    own = record.meta.get("aimeter")
    remark = own.get("carbon") if isinstance(own, Mapping) else None
    if not isinstance(remark, Mapping):
        return None, None
    name, zone = remark.get("provider"), remark.get("zone")
    return name if isinstance(name, str) else None, zone if isinstance(zone, str) else None
