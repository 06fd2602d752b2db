"""A record as one line of text, CSV (RFC 4180) or JSON Lines. Pure functions, no files.

A record is always exactly one line: a line break inside a value is written as an escape. So a torn line harms
nobody but itself, and a file can be repaired, followed and counted line by line.
"""

from __future__ import annotations

import json
import math
import numbers
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from operator import attrgetter
from typing import Any, get_type_hints

from aimeter.record import COLUMNS, Record

NEWLINE = b"\r\n"
"""Line end of the CSV log, RFC 4180 section 2."""

_CONTROL = re.compile("[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_FORMULA = re.compile("'*[=+\\-@\t\uff1d\uff0b\uff0d\uff20]")
_GUARDED = re.compile("'" + _FORMULA.pattern)
_ODD_START = frozenset("'=+-@\t\uff1d\uff0b\uff0d\uff20")
_ODD = re.compile('[",\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]')


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


def escaped(text: str) -> str:
    r"""Return `text` with lone surrogates and control characters, the tab excepted, as escapes (``\x1b``)."""
    return _CONTROL.sub(_escape, text)


def guarded(text: str) -> str:
    """Return `text` with a leading apostrophe where a spreadsheet would take it for a formula.

    The characters are those of OWASP's page "CSV Injection". Text that already starts with apostrophes before
    such a character gets one more, so `unguarded` is the exact inverse.
    """
    return f"'{text}" if _FORMULA.match(text) else text


def unguarded(text: str) -> str:
    """Undo `guarded`."""
    return text[1:] if _GUARDED.match(text) else text


def csv_text(text: str) -> str:
    """Return `text` as one CSV field: escaped, guarded, and quoted where RFC 4180 asks for it."""
    if text[:1] not in _ODD_START and not _ODD.search(text):
        return text
    text = guarded(escaped(text))
    return _quoted(text) if '"' in text or "," in text else text


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


# --- what a caller may have noted


def _simplified(value: object) -> object:
    """Give JSON a number for a NumPy scalar, and text for anything else that it does not know."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    try:
        return str(value)
    except Exception:  # noqa: BLE001  `__str__` is the caller's own code; the row is worth more than the note
        return f"<{type(value).__name__}>"


_DEEPEST_NOTE = 20


def _plain(value: object, inside: frozenset[int] = frozenset()) -> object:
    """Return a copy that JSON takes; what holds itself or lies 20 levels deep becomes an ellipsis."""
    if isinstance(value, str):
        return _LONE_SURROGATE.sub(_escape, value)
    if value is None or isinstance(value, int | float):
        return None if isinstance(value, float) and not math.isfinite(value) else value
    if id(value) in inside or len(inside) == _DEEPEST_NOTE:
        return "…"
    inside |= {id(value)}
    if isinstance(value, Mapping):
        return {str(_plain(_simplified(key))): _plain(held, inside) for key, held in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(held, inside) for held in value]
    return _plain(_simplified(value), inside)


_encode = json.JSONEncoder(
    separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=_simplified
).encode


def json_text(value: object) -> str:
    """Return `value` as compact JSON, whatever it holds: what JSON lacks becomes text, the infinite null."""
    try:
        text = _encode(value)
        text.encode()
    except (TypeError, ValueError, RecursionError):
        return _encode(_plain(value))
    return text


# --- a record

_TYPES: dict[str, object] = get_type_hints(Record)
_UNIQUE = frozenset({"call_id", "parent_id", "start"})
_NOT_FINITE = frozenset({"nan", "inf", "-inf"})

_number_text = "%.9g".__mod__
"""The shortest text with at most 9 significant digits; a method in C, as numbers are most of the work."""


def _writers(text: Callable[[str], str], meta: Callable[[Any], str]) -> tuple[Callable[[Any], str], ...]:
    """Choose how each column is written; text that recurs from row to row is made once."""
    by_type: dict[object, Callable[[Any], str]] = {
        int: str,
        float: _number_text,
        float | None: _number_text,
        Mapping[str, object]: meta,
    }
    cached = lru_cache(maxsize=4096)(text)
    return tuple(by_type.get(_TYPES[column], text if column in _UNIQUE else cached) for column in COLUMNS)


_values = attrgetter(*COLUMNS)


def _fields(record: Record, writers: Sequence[Callable[[Any], str]], unknown: str) -> list[str]:
    values = _values(record)
    fields = [
        unknown if value is None else write(value) for write, value in zip(writers, values, strict=True)
    ]
    if not _NOT_FINITE.isdisjoint(fields):
        for place, value in enumerate(values):
            if isinstance(value, float) and not math.isfinite(value):
                fields[place] = unknown
    return fields


def _csv_meta(meta: Mapping[str, object]) -> str:
    return _quoted(json_text(dict(meta))) if meta else "{}"


_CSV_WRITERS = _writers(csv_text, _csv_meta)
_CSV_FIELD = re.compile(',("[^"]*(?:""[^"]*)*"|[^",]*)')
CSV_HEADER: bytes = ",".join(COLUMNS).encode() + NEWLINE


def csv_line(record: Record) -> bytes:
    """Return the record as one whole CSV line, UTF-8, with its line end."""
    return (",".join(_fields(record, _CSV_WRITERS, "")) + "\r\n").encode()


_JSON_WRITERS = _writers(json_text, lambda meta: json_text(dict(meta)))
_JSON_TEMPLATE = "{" + ",".join(f'"{column}":%s' for column in COLUMNS) + "}\n"


def json_line(record: Record) -> bytes:
    """Return the record as one whole line of JSON, UTF-8: every column in order, unknown as null."""
    return (_JSON_TEMPLATE % tuple(_fields(record, _JSON_WRITERS, "null"))).encode()


def csv_fields(line: bytes) -> list[str]:
    """Split one CSV line, with or without its line end, into fields; a line that is no CSV is one field."""
    text = line.decode("utf-8", "backslashreplace").rstrip("\r\n")
    if '"' not in text:
        return text.split(",")
    fields = _CSV_FIELD.findall("," + text)
    if sum(map(len, fields)) + len(fields) != len(text) + 1:
        return [text]
    return [field[1:-1].replace('""', '"') if field[:1] == '"' else field for field in fields]
