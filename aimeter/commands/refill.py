"""Completing the rows of a log that wait for their provider's value, into a new one."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from aimeter.carbon.providers.base import utc
from aimeter.carbon.recompute import again, is_provisional, times
from aimeter.commands.asking import Answers, chosen
from aimeter.commands.report import find
from aimeter.errors import ConfigurationError
from aimeter.record import Record
from aimeter.report import read
from aimeter.report.export import export_log


@dataclass(frozen=True, slots=True)
class Refill:
    """What completing a log came to.

    Attributes:
        path: The new file.
        rows: Rows in it.
        waiting: Rows of the old one that waited for their provider's value.
        filled: Those that have it now.
        before_g: Grams of the filled rows before; likewise `after_g`.
        problems: Why others have not.
    """

    path: str
    rows: int
    waiting: int
    filled: int
    before_g: float
    after_g: float
    problems: tuple[str, ...]


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
    records = list(read(find([log])))
    zones: dict[str, Answers] = {}
    fresh: list[Record] = []
    waiting = filled = 0
    before_g = after_g = 0.0
    for record in records:
        if not is_provisional(record):
            fresh.append(record)
            continue
        waiting += 1
        zone = _zone_in(record, asked.name) or default_zone
        complete = None
        if zone is not None:
            complete = _complete(record, zones.setdefault(zone, Answers(asked, zone)))
        if complete is not None:
            filled += 1
            before_g += record.co2e_g or 0.0
            after_g += complete.co2e_g or 0.0
        fresh.append(complete or record)
    rows = export_log(fresh, new)
    problems = tuple(f"{zone}: {known.problem}" for zone, known in zones.items() if known.problem)
    return Refill(str(new), rows, waiting, filled, before_g, after_g, problems)


def _complete(record: Record, known: Answers) -> Record | None:
    try:
        start_s, end_s = times(record)
    except ValueError:
        return None
    intensity = known.over(start_s, end_s)
    if intensity is None:
        return None
    remark = {"provider": known.provider.name, "zone": known.zone, "refilled": utc(time.time())}
    return again([record], intensity, remark)[0]


def _zone_in(record: Record, name: str) -> str | None:
    """Return the zone that a row remarks it waits for, if it is this provider's."""
    own = record.meta.get("aimeter")
    remark = own.get("carbon") if isinstance(own, Mapping) else None
    if not isinstance(remark, Mapping) or remark.get("provider") != name:
        return None
    zone = remark.get("zone")
    return zone if isinstance(zone, str) else None
