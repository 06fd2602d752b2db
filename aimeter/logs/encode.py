"""Records as lines of text, CSV (RFC 4180) or JSON Lines. Pure functions, no files.

A record is always exactly one line: a line break inside a value is written as an escape. So a torn line harms
nobody but itself, and a file can be repaired, followed and counted line by line.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import repeat
from typing import Any, get_type_hints

from aimeter._support.notes import plain
from aimeter.record import COLUMNS, Record

NEWLINE = b"\r\n"
"""Line end of the CSV log, RFC 4180 section 2."""

_CONTROL = re.compile("[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")
_STARTS = "=+\\-@\uff1d\uff0b\uff0d\uff20"
_FORMULA = re.compile(f"[\\s\ufeff\"']*[{_STARTS}]|[ \ufeff\"']*\t")
_WITHIN = re.compile(f"(?<=[;|\t])(?=[\\s\ufeff\"']*[{_STARTS}])")
_GUARDED_WITHIN = re.compile(f"(?<=[;|\t])'(?=[\\s\ufeff\"']*[{_STARTS}])")
_WITHIN_JSON = re.compile(f"([;|][\\s\ufeff\"'\\\\]*)([{_STARTS}])")
_ODD = re.compile('[",;|\x00-\x1f\x7f\ud800-\udfff]')


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


def escaped(text: str) -> str:
    r"""Return `text` with lone surrogates and control characters, the tab excepted, as escapes (``\x1b``)."""
    return _CONTROL.sub(_escape, text)


def guarded(text: str) -> str:
    """Return `text` with an apostrophe wherever a spreadsheet would take what follows for a formula.

    That is at its begin and, as the file may be opened with any separator, after each semicolon, bar and tab. The
    characters are those of OWASP's page "CSV Injection", with what spreadsheets skip before them. What has
    apostrophes there already gets one more, so `unguarded` is the exact inverse.
    """
    text = _WITHIN.sub("'", text)
    return f"'{text}" if _FORMULA.match(text) else text


def unguarded(text: str) -> str:
    """Undo `guarded`."""
    if text[:1] == "'" and _FORMULA.match(text, 1):
        text = text[1:]
    return _GUARDED_WITHIN.sub("", text)


def csv_text(text: str) -> str:
    """Return `text` as one CSV field: escaped, guarded, and quoted where RFC 4180 asks for it."""
    # A letter or digit is neither the begin of a formula nor skipped before one.
    if text[:1].isalnum() and not _ODD.search(text):
        return text
    text = guarded(escaped(text))
    return _quoted(text) if '"' in text or "," in text or text[:1].isspace() else text


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


_LONGEST_JSON = 1_000_000
"""Characters; a row that is longer than 16 MiB is not read back."""


def json_text(value: object) -> str:
    """Return `value` as compact JSON of bounded length: what JSON lacks becomes text, the infinite null."""
    try:
        text = _encode(value)
        text.encode()
    except (TypeError, ValueError, RecursionError):
        return _encode(plain(value))
    return text if len(text) <= _LONGEST_JSON else _encode(plain(value))


# --- records, a column at a time: most of a column needs to be looked at only once

_Column = tuple[Any, ...]
_Texts = Sequence[str] | str
"""A column as text, value by value; a single text is that of all."""
_Writer = Callable[[_Column, str], _Texts]

_TYPES: dict[str, object] = get_type_hints(Record)
_UNIQUE = frozenset({"call_id", "parent_id", "start"})


def _numbers(values: _Column, unknown: str) -> list[str]:
    """Write numbers with at most 9 significant digits; what is not finite is unknown."""
    if None not in values:
        text = "\n".join(repeat("%.9g", len(values))) % values
        if "n" not in text:  # as nan and inf have
            numbers = text.split("\n")
            if text.count(".") == len(numbers):
                return numbers
            return [number if "." in number or "e" in number else f"{number}.0" for number in numbers]
    return [unknown if value is None or not math.isfinite(value) else _number(value) for value in values]


def _number(value: float) -> str:
    """Write a number so that no reader takes its column for integers, whatever the first rows hold."""
    text = f"{value:.9g}"
    return text if "." in text or "e" in text else f"{text}.0"


def _number_lists(write: Callable[[str], str]) -> _Writer:
    """Return how lists of numbers are written, as JSON; what is not finite is null."""

    def column(values: _Column, _: str) -> list[str]:
        return [write(_number_list(value)) for value in values]

    return column


def _number_list(values: tuple[float, ...]) -> str:
    text = _list_template(len(values)) % values
    # Nearly always each number is finite and has a point.
    if text.count(".") == len(values) and "n" not in text:
        return text
    return f"[{','.join(_numbers(values, 'null'))}]" if values else "[]"


@lru_cache(maxsize=64)
def _list_template(length: int) -> str:
    return f"[{','.join(repeat('%.9g', length))}]"


def _texts(write: Callable[[Any], str]) -> _Writer:
    return lambda values, unknown: [unknown if value is None else write(value) for value in values]


def _metas(write: Callable[[Mapping[str, object]], str]) -> _Writer:
    """Return how notes are written, each object once: rows that have none of their own share one."""

    def column(values: _Column, _: str) -> list[str]:
        each = {id(value): value for value in values}
        written = {key: write(value) for key, value in each.items()}
        return [written[id(value)] for value in values]

    return column


def _same_or(write: _Writer) -> _Writer:
    """Return a writer that does its work once if a column has the same value throughout, as most have."""

    def column(values: _Column, unknown: str) -> _Texts:
        if values.count(values[0]) < len(values):
            return write(values, unknown)
        return write(values[:1], unknown)[0]

    return column


def _writers(
    text: Callable[[str], str],
    meta: Callable[[Mapping[str, object]], str],
    array: Callable[[str], str],
) -> tuple[_Writer, ...]:
    """Choose how each column is written; text that recurs from row to row is made once."""
    numbers = _same_or(_numbers)
    by_type: dict[object, _Writer] = {
        int: _same_or(_texts(str)),
        float: numbers,
        float | None: numbers,
        Mapping[str, object]: _metas(meta),
        tuple[float, ...]: _number_lists(array),
    }
    unique, recurring = _texts(text), _same_or(_texts(lru_cache(maxsize=4096)(text)))
    return tuple(
        by_type.get(_TYPES[column], unique if column in _UNIQUE else recurring) for column in COLUMNS
    )


def _lines(records: Sequence[Record], writers: Sequence[_Writer], unknown: str, template: str) -> list[bytes]:
    """Return records as lines of UTF-8, by a template with a ``%s`` for each column.

    What all rows have in common is put into the template first.
    """
    columns = zip(*records, strict=True)
    texts = [write(values, unknown) for write, values in zip(writers, columns, strict=False)]
    filled = template % tuple(text.replace("%", "%%") if isinstance(text, str) else "%s" for text in texts)
    different = [text for text in texts if not isinstance(text, str)]
    fields = zip(*different, strict=True) if different else [()] * len(records)
    return [(filled % each).encode() for each in fields]


def _csv_meta(meta: Mapping[str, object]) -> str:
    if not meta:
        return "{}"
    text = _WITHIN_JSON.sub(lambda found: f"{found[1]}\\u{ord(found[2]):04x}", json_text(dict(meta)))
    return _quoted(text)


def _csv_array(array: str) -> str:
    return f'"{array}"' if "," in array else array


_CSV_WRITERS = _writers(csv_text, _csv_meta, _csv_array)
_CSV_FIELD = re.compile(',("[^"]*(?:""[^"]*)*"|[^",]*)')
_CSV_TEMPLATE = ",".join(repeat("%s", len(COLUMNS))) + "\r\n"
CSV_HEADER: bytes = ",".join(COLUMNS).encode() + NEWLINE


def csv_lines(records: Sequence[Record]) -> list[bytes]:
    """Return each record as one whole CSV line, UTF-8, with its line end."""
    return _lines(records, _CSV_WRITERS, "", _CSV_TEMPLATE) if records else []


def csv_line(record: Record) -> bytes:
    """Return one record as `csv_lines` does."""
    return csv_lines([record])[0]


_JSON_WRITERS = _writers(json_text, lambda meta: json_text(dict(meta)), str)
_JSON_TEMPLATE = "{" + ",".join(f'"{column}":%s' for column in COLUMNS) + "}\n"


def json_lines(records: Sequence[Record]) -> list[bytes]:
    """Return each record as one whole line of JSON, UTF-8: every column in order, unknown as null."""
    return _lines(records, _JSON_WRITERS, "null", _JSON_TEMPLATE) if records else []


def json_line(record: Record) -> bytes:
    """Return one record as `json_lines` does."""
    return json_lines([record])[0]


def csv_fields(line: bytes) -> list[str]:
    """Split one CSV line, with or without its line end, into fields; a line that is no CSV is one field."""
    text = line.decode("utf-8", "backslashreplace").rstrip("\r\n")
    if '"' not in text:
        return text.split(",")
    fields = _CSV_FIELD.findall("," + text)
    if sum(map(len, fields)) + len(fields) != len(text) + 1:
        return [text]
    return [field[1:-1].replace('""', '"') if field[:1] == '"' else field for field in fields]
