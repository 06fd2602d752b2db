"""CodeCarbon's logs as records: ``emissions.csv`` of a run a line, and its files of tasks.

Its columns are those of ``codecarbon/output_methods/emissions_data.py``; every version so far has those that are needed here,
and what a version lacks is unknown. Energies are in kWh and emissions in kg of CO2 equivalent there.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from aimeter._support.machine import UNKNOWN
from aimeter._version import __version__
from aimeter.errors import ConfigurationError, LogSchemaError
from aimeter.record import SCHEMA, MeasuredBy, Record

if TYPE_CHECKING:
    import os

_J_PER_KWH = 3.6e6
_NEEDED = frozenset({"timestamp", "run_id", "duration", "emissions", "energy_consumed"})

LACKS = (
    "an error of the energy and of the grams",
    "how the CPU was metered: it may be RAPL, or a constant times a load",
    "memory that was metered: it is computed from its size",
    "idle power, nesting, and sharing: what ran beside a run is in it",
    "coverage and counts of items, images or tokens",
)
"""What these logs do not have, in words."""


class Imported:
    """The records of such a file, as they are read.

    Attributes:
        problems: Lines that were no rows, and why.
        zoneless: Whether a line gives its time without a zone, as all versions so far write it; it is taken for UTC.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.problems: list[str] = []
        self.zoneless = False

    def __iter__(self) -> Iterator[Record]:
        """Yield each row as a record.

        Raises:
            ConfigurationError: The file cannot be read.
            LogSchemaError: It is none of CodeCarbon's.
        """
        try:
            with self.path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
                lines = csv.DictReader(file)
                missing = sorted(_NEEDED - set(lines.fieldnames or ()))
                if missing:
                    message = (
                        f"{self.path} is no log of CodeCarbon's: its first line lacks {', '.join(missing)}."
                    )
                    raise LogSchemaError(message)
                for line in lines:
                    try:
                        ended = datetime.fromisoformat(line["timestamp"] or "")
                        record = _record(line, lines.line_num, ended)
                    except (KeyError, TypeError, ValueError, OverflowError) as fault:
                        self.problems.append(f"{self.path}:{lines.line_num}: {str(fault)[:100]}")
                        continue
                    self.zoneless = self.zoneless or ended.tzinfo is None
                    yield record
        except (OSError, csv.Error) as error:
            message = f"{self.path} cannot be read: {getattr(error, 'strerror', None) or error}."
            raise ConfigurationError(message) from error


def _record(line: Mapping[str, str | None], number: int, ended: datetime) -> Record:
    """Return a line as a record; raise a `ValueError` if it is none."""
    duration_s = _number(line, "duration")
    energy_kwh = _number(line, "energy_consumed")
    emissions_kg = _number(line, "emissions")
    if duration_s is None or duration_s < 0 or energy_kwh is None or energy_kwh < 0:
        message = "it has no duration or energy"
        raise ValueError(message)
    # It writes when the run ended, in local time without its zone; which that was is not known.
    ended = ended.replace(tzinfo=UTC) if ended.tzinfo is None else ended.astimezone(UTC)
    start = ended - timedelta(seconds=duration_s)
    parts = {kind: _joules(line, f"{column}_energy") for kind, column in _KINDS.items()}
    energy_j = energy_kwh * _J_PER_KWH
    pue = _number(line, "pue") or 1.0
    version = line.get("codecarbon_version") or "of unknown version"
    return Record(
        schema=SCHEMA,
        call_id=f"{line['run_id']}-{number}",
        parent_id=None,
        name=line.get("task_name") or line.get("project_name") or "codecarbon",
        status="ok",
        error_type=None,
        start=f"{start:%Y-%m-%dT%H:%M:%S.%f}Z",
        duration_s=duration_s,
        pid=0,
        thread="",
        energy_j=energy_j,
        error_j=None,
        resolution_j=None,
        self_j=energy_j,
        window_j=energy_j,
        idle_j=None,
        gpu_j=parts["gpu"],
        cpu_j=parts["cpu"],
        dram_j=parts["dram"],
        other_j=None,
        gpu_method=_method(parts["gpu"], "counter"),
        cpu_method=_method(parts["cpu"], "estimate"),
        dram_method=_method(parts["dram"], "estimate"),
        devices=" ".join(kind for kind, joules in parts.items() if joules),
        coverage=1.0,
        concurrency=1.0,
        items=None,
        images=None,
        tokens_in=None,
        tokens_out=None,
        steps=None,
        audio_s=None,
        model=line.get("project_name") if line.get("task_name") else None,
        pue=pue,
        intensity_g_per_kwh=None
        if emissions_kg is None or energy_kwh == 0
        else 1000 * emissions_kg / energy_kwh / pue,
        intensity_source=f"codecarbon {version}",
        intensity_method="average",
        zone=line.get("country_iso_code") or line.get("region") or "",
        co2e_g=None if emissions_kg is None else 1000 * emissions_kg,
        embodied_g=None,
        meta={
            "aimeter": {"imported": f"codecarbon {version}"},
            **{key: line[key] for key in _NOTED if line.get(key)},
        },
        aimeter_version=__version__,
        co2e_error_g=None,
        intensity_lower_g_per_kwh=None,
        intensity_upper_g_per_kwh=None,
        market_g_per_kwh=None,
        market_co2e_g=None,
        embodied_lower_g=None,
        embodied_upper_g=None,
        water_site_l=None,
        water_grid_l=None,
        pue_source="" if pue == 1.0 else f"codecarbon {version}",
        devices_j=tuple(joules for joules in parts.values() if joules),
        machine=UNKNOWN,
    )


_KINDS = {"gpu": "gpu", "cpu": "cpu", "dram": "ram"}
_NOTED = ("run_id", "experiment_id", "cpu_model", "gpu_count", "gpu_model", "tracking_mode", "os")


def _method(joules: float | None, usual: MeasuredBy) -> MeasuredBy:
    return usual if joules else "none"


def _number(line: Mapping[str, str | None], column: str) -> float | None:
    text = line.get(column)
    if not text:
        return None
    value = float(text)
    if not math.isfinite(value):
        message = f"{column} is {text}"
        raise ValueError(message)
    return value


def _joules(line: Mapping[str, str | None], column: str) -> float | None:
    kwh = _number(line, column)
    return None if kwh is None else kwh * _J_PER_KWH
