"""Intensity from a file of one's own, or from the address of one: CSV in the form that the docs describe.

A header names the columns. Needed are ``start`` (ISO 8601; UTC unless it says otherwise) and one of ``g_per_kwh``,
``kg_per_mwh`` (the same number) and ``lb_per_mwh``. May be there: ``end`` (else a value holds to the next, the last
one as long as the one before it), ``zone``, ``lower``, ``upper`` (in the same unit), ``estimated`` (yes or no).
Lines before the header that begin with ``#`` say what the numbers are: ``# kind: average;location-based;lifecycle;
consumption`` and ``# source: …``. A malformed row loses that row only.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from urllib.parse import unquote, unquote_plus, urlsplit, urlunsplit

from aimeter._support import files
from aimeter.carbon.intensity import g_per_kwh_from_lb_per_mwh
from aimeter.carbon.location import Zone
from aimeter.carbon.providers.base import HOUR_S, ProviderFault, answer, epoch
from aimeter.carbon.providers.http import MAX_BYTES, Request, get
from aimeter.carbon.series import Point, Series, kind_from

_UNITS: Mapping[str, Callable[[float], float]] = {
    "g_per_kwh": float,
    "kg_per_mwh": float,
    "lb_per_mwh": g_per_kwh_from_lb_per_mwh,
}
_YES = frozenset({"yes", "true", "1"})


@dataclass(frozen=True, slots=True)
class FileOrUrl:
    """A CSV file, local or behind ``http://`` or ``https://``.

    Args:
        place: Path or address. What is behind a ``?`` in an address is taken for secret, and so is a password in it,
            which is sent by HTTP Basic.
        period_s: How often it is looked at anew.
    """

    place: str = field(repr=False)
    period_s: float = HOUR_S
    name: str = "file"

    @property
    def cache_key(self) -> str | None:
        """The address; a file on this machine is read itself."""
        return self.place if self.place.startswith(("http://", "https://")) else None

    def zone_of(self, zone: Zone) -> str:
        """Return the code of the grid that a place draws from, for the column ``zone``."""
        return zone.grid

    def series(self, zone: str, start_s: float, end_s: float) -> Series:
        """Return what the file holds of a zone; times outside the interval are there too."""
        del start_s, end_s  # one file is read whole
        path = self.place
        if self.cache_key is not None:
            path = urlsplit(path).path or "/"
        return read(self._text(), zone, Path(path).name or self.name)

    forecast = series

    def _text(self) -> str:
        if self.cache_key is not None:
            body = get(_request(self.place))
        else:
            body = _read_file(Path(self.place).expanduser())
        try:
            return body.decode("utf-8-sig")
        except UnicodeDecodeError:
            pass
        message = "file: it is not UTF-8"
        raise ProviderFault(message)


def _request(address: str) -> Request:
    """Return the request that an address means: user and password in it are a log-in, and no part of the name."""
    split = urlsplit(address)
    who, at, host = split.netloc.rpartition("@")
    user, _, password = who.partition(":")
    raw = [password or user]
    for piece in split.query.split("&"):
        name, _, value = piece.partition("=")
        raw.append(value or name)
    secrets = dict.fromkeys(
        form for text in raw if text for form in (text, unquote(text), unquote_plus(text))
    )
    url = urlunsplit((split.scheme, host, split.path, split.query, ""))
    login = (unquote(user), unquote(password)) if at else None
    return Request(url, login=login, secrets=tuple(secrets))


def _read_file(path: Path) -> bytes:
    try:
        return files.read_whole(path, MAX_BYTES)
    except OSError as error:
        message = f"file: {path.name} cannot be read ({error.strerror})"
        raise ProviderFault(message) from None


def read(text: str, zone: str, name: str) -> Series:
    """Return the series of a zone from the text of a file.

    Raises:
        ProviderFault: It is no such file, or has no usable row.
    """
    try:
        return _read(text, zone, name)
    except csv.Error as error:
        message = f"file: {name} cannot be read as CSV ({error})"
    raise ProviderFault(message)


def _read(text: str, zone: str, name: str) -> Series:
    lines = text.splitlines()
    notes: dict[str, str] = {}
    begin = 0
    while begin < len(lines) and (lines[begin].startswith("#") or not lines[begin].strip()):
        key, _, value = lines[begin].lstrip("# ").partition(":")
        notes[key.strip().lower()] = value.strip()
        begin += 1
    rows = csv.DictReader(islice(lines, begin, None))
    columns = list(rows.fieldnames or ())
    units = [unit for unit in _UNITS if unit in columns]
    if "start" not in columns or len(units) != 1:
        message = f"file: {name} is not in the documented form: its header needs start and one of {', '.join(_UNITS)}"
        raise ProviderFault(message)
    kind = kind_from(notes.get("kind", ""))
    # A row that breaks off before its zone may be of this one.
    wanted = [row for row in rows if "zone" not in columns or (row["zone"] or zone).strip() == zone]
    source = f"{name}; {notes['source']}" if notes.get("source") else name
    return answer(zone, kind, source, _points(wanted, units[0]))


def _points(rows: Sequence[Mapping[str, str | None]], unit: str) -> list[Point]:
    """Return a point for each row; a malformed one has no value, and ends what holds to the next all the same."""
    begun: list[Point] = []
    cut: set[float] = set()
    for row in rows:
        try:
            start_s = epoch(row["start"])
        except (ValueError, OverflowError):
            cut.update(point.start_s for point in begun[-1:])  # where this one begins is not known
            continue
        begun.append(_point(row, start_s, unit))
    usable = {point.start_s for point in begun if not math.isnan(point.g_per_kwh)}
    begun = [point for point in begun if point.start_s not in usable or not math.isnan(point.g_per_kwh)]
    begun.sort(key=lambda point: point.start_s)
    made = []
    width_s = HOUR_S
    for place, point in enumerate(begun):
        following_s = begun[place + 1].start_s if place + 1 < len(begun) else point.start_s + width_s
        if point.start_s in cut:
            following_s = min(following_s, point.start_s + width_s)
        width_s = following_s - point.start_s or width_s
        made.append(point._replace(end_s=point.end_s or following_s))
    return made


def _point(row: Mapping[str, str | None], start_s: float, unit: str) -> Point:
    """Return what a row says from its start on; its end is 0 if it has none, its value NaN if it is malformed."""
    convert = _UNITS[unit]
    try:
        end_text, *numbers = (row.get(key) or "" for key in ("end", unit, "lower", "upper"))
        end_s = epoch(end_text) if end_text else 0.0
        value = convert(float(numbers[0]))
        lower, upper = (convert(float(text)) if text else None for text in numbers[1:])
    except (ValueError, OverflowError):
        return Point(start_s, 0.0, math.nan)
    if row.get("zone", "") is None:
        return Point(start_s, 0.0, math.nan)
    return Point(start_s, end_s, value, (row.get("estimated") or "").strip().lower() in _YES, lower, upper)
