"""A row of a log as a record again: the inverse of `aimeter.logs.encode`."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import get_type_hints

from aimeter._support.machine import UNKNOWN
from aimeter.logs.encode import unguarded
from aimeter.record import COLUMNS, COUNTS, FIRST_COLUMNS, SCHEMA, Record

MALFORMED = (TypeError, ValueError, OverflowError, RecursionError)
"""What a row that is not one of ours raises, whatever is wrong with it."""


MOST = 1e18
"""Above this no figure of a call is true: as joules it is 278 TWh, more than most countries use of electricity in a year."""
LONGEST_S = 1e9
"""32 years, longer than any process has run; whoever asks for the intensity of a call's time asks week by week."""
ROUNDING = 1e-6
"""What is less than nothing by no more than this, in joules or grams, is a difference of equals."""
LEAST_CONCURRENCY = 0.5
"""It is 1 with nobody else, but for rounding; times are divided by it."""


def bounded(number: float) -> float:
    """Return a figure that may be true.

    Raises:
        ValueError: It is too large for that.
    """
    if abs(number) > MOST:
        message = f"{number:.3g} is too large to be true"
        raise ValueError(message)
    return number


def amount(number: float) -> float:
    """Return a figure that is no less than nothing, as `bounded` does."""
    if number < -ROUNDING:
        message = f"{number:.3g} is less than nothing"
        raise ValueError(message)
    return bounded(number)


def duration(number: float) -> float:
    """Return the seconds of a call, as `bounded` does."""
    if not 0 <= number <= LONGEST_S:
        message = f"no call lasts {number:.3g} s"
        raise ValueError(message)
    return number


def _duration(value: object) -> float:
    return duration(_number(value))


def _concurrency(value: object) -> float:
    number = _number(value)
    if number < LEAST_CONCURRENCY:
        message = f"no call is one of {number:.3g}"
        raise ValueError(message)
    return number


def _optional_number(value: object) -> float | None:
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TypeError(value)
    number = bounded(float(value))
    return None if math.isnan(number) else number


def _optional_amount(value: object) -> float | None:
    number = _optional_number(value)
    return None if number is None else amount(number)


def _number(value: object) -> float:
    number = _optional_number(value)
    if number is None:
        raise ValueError(value)
    return number


def _integer(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise TypeError(value)
    return int(value)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def _optional_text(value: object) -> str | None:
    return None if value is None or value == "" else _text(value)


def _mapping(value: object) -> dict[str, object]:
    if isinstance(value, str):
        value = json.loads(value) if value else {}
    if not isinstance(value, dict):
        raise TypeError(value)
    return value


def array(value: object) -> tuple[float, ...]:
    """Return the numbers of a JSON list, or of its text; none if that is empty."""
    if isinstance(value, str):
        value = json.loads(value) if value else []
    if not isinstance(value, list):
        raise TypeError(value)
    return tuple(_number(each) for each in value)


_BY_TYPE: dict[object, Callable[[object], object]] = {
    int: _integer,
    float: _number,
    float | None: _optional_number,
    str | None: _optional_text,
    Mapping[str, object]: _mapping,
    tuple[float, ...]: array,
}
_TYPES = get_type_hints(Record)
AMOUNTS = (
    "energy_j",
    "error_j",
    "resolution_j",
    "window_j",
    "gpu_j",
    "cpu_j",
    "dram_j",
    "other_j",
    "co2e_g",
    *COUNTS,
)
"""Columns that are no less than nothing."""
_BY_NAME = {
    "duration_s": _duration,
    "concurrency": _concurrency,
    **dict.fromkeys(AMOUNTS, _optional_amount),
}
_READERS = tuple(_BY_NAME.get(column, _BY_TYPE.get(_TYPES[column], _text)) for column in COLUMNS)
_GUARDED = tuple(read in {_text, _optional_text} for read in _READERS)


def _record(values: Sequence[object]) -> Record:
    build: Callable[..., Record] = Record
    try:
        record = build(*[read(value) for read, value in zip(_READERS, values, strict=True)])
    except MALFORMED as fault:
        message = _fault(values)
        raise ValueError(message) from fault
    if not record.aimeter_version:
        message = "aimeter_version is empty: the row is torn"
        raise ValueError(message)
    # The row's layout is the record's from now on.
    return (
        record
        if record.schema == SCHEMA
        else record._replace(schema=SCHEMA, machine=record.machine or UNKNOWN)
    )


def _fault(values: Sequence[object]) -> str:
    """Return which column does not hold what it should, and what it holds."""
    for column, read, value in zip(COLUMNS, _READERS, values, strict=True):
        try:
            read(value)
        except MALFORMED as fault:
            try:
                return f"{column}: {fault}"
            except MALFORMED:  # lists in lists, as deep as they could be read
                return column
    return ""


def record_from_csv(fields: Sequence[str], places: Sequence[int | None]) -> Record:
    """Build the record from a row's fields; `places` holds the place of each of `COLUMNS` among them, if it has one.

    Raises:
        ValueError: A field does not hold what its column should.
    """
    return _record(
        [
            "" if place is None else unguarded(fields[place]) if text else fields[place]
            for place, text in zip(places, _GUARDED, strict=True)
        ]
    )


def record_from_json(row: object) -> Record:
    """Build the record from a decoded line of JSON; keys that this schema does not know are ignored.

    Raises:
        TypeError, ValueError: A column is missing or does not hold what it should.
    """
    if not isinstance(row, dict):
        raise TypeError(row)
    missing = [column for column in FIRST_COLUMNS if column not in row]
    if missing:
        message = f"the row has no {missing[0]}"
        raise ValueError(message)
    return _record([row.get(column, "") for column in COLUMNS])
