"""The few columns of a log that grams need, several times as fast as whole records."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from aimeter._support.machine import UNKNOWN
from aimeter.logs.decode import amount, array, bounded, duration
from aimeter.logs.encode import csv_fields
from aimeter.logs.read import LogPath, Rows, readable

_OF_FIRST = (
    "start",
    "duration_s",
    "self_j",
    "pue",
    "intensity_g_per_kwh",
    "intensity_method",
    "call_id",
    "parent_id",
    "pid",
    "devices",
    "energy_j",
    "window_j",
    "coverage",
    "aimeter_version",
)
_APPENDED = ("devices_j", "machine")


class Brief(NamedTuple):
    """What is needed of a row; see `aimeter.record.Record`."""

    start: str
    duration_s: float
    self_j: float | None
    pue: float
    intensity_g_per_kwh: float | None
    intensity_method: str
    call_id: str
    parent_id: str | None
    pid: int
    devices: str
    energy_j: float | None
    window_j: float | None
    coverage: float
    devices_j: tuple[float, ...]
    machine: str


class BriefResult(Rows[Brief]):
    """The briefs of some logs. What is malformed in other columns than these goes unseen."""

    _places: tuple[list[str], list[int | None]] = [], []

    @staticmethod
    def _fields(line: bytes) -> list[str]:
        """Split a line as `csv_fields` does, by the csv module, which is faster and stricter."""
        text = line.decode("utf-8", "backslashreplace").rstrip("\r\n")
        try:
            return next(csv.reader((text,), strict=True), [""])
        except csv.Error:  # perhaps only a field longer than it takes
            return csv_fields(line)

    def _of_csv(self, fields: Sequence[str], columns: list[str]) -> Brief:
        known, places = self._places
        if known is not columns:
            places = [columns.index(name) if name in columns else None for name in _OF_FIRST + _APPENDED]
            self._places = columns, places
        return _brief(*["" if place is None else fields[place] for place in places])

    def _of_json(self, document: object) -> Brief:
        if not isinstance(document, dict):
            raise TypeError(document)
        missing = [column for column in _OF_FIRST if column not in document]
        if missing:
            message = f"the row has no {missing[0]}"
            raise ValueError(message)
        given = (document.get(column) for column in _OF_FIRST + _APPENDED)
        return _brief(*["" if value is None else str(value) for value in given])


def _brief(
    start: str,
    duration_s: str,
    self_j: str,
    pue: str,
    intensity: str,
    method: str,
    call_id: str,
    parent_id: str,
    pid: str,
    devices: str,
    energy_j: str,
    window_j: str,
    coverage: str,
    version: str,
    devices_j: str,
    machine: str,
) -> Brief:
    if not version:
        message = "aimeter_version is empty: the row is torn"
        raise ValueError(message)
    return Brief(
        start,
        duration(_number(duration_s)),
        _known(self_j),
        _number(pue),
        _known(intensity),
        method,
        call_id,
        parent_id or None,
        int(pid),
        devices,
        _amount(energy_j),
        _amount(window_j),
        _number(coverage),
        array(devices_j),
        machine or UNKNOWN,
    )


def _number(text: str) -> float:
    number = bounded(float(text))
    if math.isnan(number):
        raise ValueError(text)
    return number


def _known(text: str) -> float | None:
    number = bounded(float(text)) if text else math.nan
    return None if math.isnan(number) else number


def _amount(text: str) -> float | None:
    number = _known(text)
    return None if number is None else amount(number)


def read_briefs(paths: LogPath | Iterable[LogPath]) -> BriefResult:
    """Read logs as `aimeter.logs.read` does, a few columns of each row.

    Raises:
        ConfigurationError: A path names no readable file.
        LogSchemaError: A file is no aimeter log.
    """
    return BriefResult(readable(paths))
