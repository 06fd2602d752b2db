"""What providers have answered, on disk, so that no process asks again for what another one knows.

One small JSON file for each provider and zone: its values with their times, until when they count as fresh, and, if
the provider refused, until when it is left alone. Whatever is in a file, reading it raises nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from aimeter._support import files
from aimeter.carbon.series import Point, Series, kind_from, tidy

SCHEMA = 1
KEPT_S = 8 * 86400.0
"""How long values are kept: a week of a log can be completed without asking again."""
_LONGEST = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of one zone from one provider.

    Attributes:
        series: Its values; None before the first answer.
        expires_s: When they are due to be asked for anew, in seconds since 1970.
        rest_until_s: Until when the provider is left alone, because it refused or failed.
        delay_s: How long it was left alone last; 0 after a good answer.
        problem: Why, in words; empty after a good answer.
    """

    series: Series | None = None
    expires_s: float = 0.0
    rest_until_s: float = 0.0
    delay_s: float = 0.0
    problem: str = ""

    def with_answer(self, answer: Series, now_s: float, expires_s: float) -> Known:
        """Return this with a new answer: its values take the place of older ones of the same times."""
        older = self.series.points if self.series is not None and self.series.kind == answer.kind else ()
        kept = (point for point in older if point.end_s > now_s - KEPT_S)
        return Known(replace(answer, points=tidy([*kept, *answer.points], answer.kind)), expires_s)


class Cache:
    """Answers in a folder.

    Args:
        folder: Where; None keeps nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def path(self, provider: str, zone: str, key: str | None) -> Path | None:
        """Return the file of a provider's answers for a zone; no zone's name reaches the path as it is."""
        if self.folder is None or key is None:
            return None
        readable = re.sub(r"[^A-Za-z0-9-]+", "_", f"{provider}-{zone}")[:40]
        digest = hashlib.sha256(f"{provider}\0{zone}\0{key}".encode()).hexdigest()[:16]
        return self.folder / f"{readable}-{digest}.json"

    @staticmethod
    def load(path: Path | None) -> Known:
        """Return what a file holds; nothing if it is missing, malformed, too long or of another schema."""
        if path is None:
            return Known()
        try:
            document = json.loads(files.read_whole(path, _LONGEST))
            if document["schema"] != SCHEMA:
                return Known()
            return _known(document)
        except (OSError, ArithmeticError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return Known()

    @staticmethod
    def store(path: Path | None, known: Known) -> None:
        """Write a file whole; a disk that takes none is no reason to complain."""
        if path is None:
            return
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            with files.replacing(path, durable=False) as file:  # what a crash loses is asked for again
                file.write(json.dumps(_plain(known)).encode())


def _plain(known: Known) -> dict[str, object]:
    series = known.series
    return {
        "schema": SCHEMA,
        "expires_s": known.expires_s,
        "rest_until_s": known.rest_until_s,
        "delay_s": known.delay_s,
        "problem": known.problem,
        "series": None
        if series is None
        else {
            "zone": series.zone,
            "kind": ";".join(series.kind),
            "source": series.source,
            "points": series.points,
        },
    }


def _known(document: Any) -> Known:  # noqa: ANN401 - whatever the file holds
    series = None
    if document["series"] is not None:
        inner = document["series"]
        kind = kind_from(inner["kind"])
        points = [_point(*raw) for raw in inner["points"]]
        series = Series(str(inner["zone"]), kind, str(inner["source"]), tidy(points, kind))
    expires_s, rest_until_s, delay_s = (
        _number(document[key]) for key in ("expires_s", "rest_until_s", "delay_s")
    )
    return Known(series, expires_s, rest_until_s, delay_s, str(document["problem"]))


def _point(start_s: object, end_s: object, value: object, estimated: object, *bounds: object) -> Point:
    lower, upper = (_bound(bound) for bound in bounds)
    return Point(_number(start_s), _number(end_s), _number(value), bool(estimated), lower, upper)


def _bound(raw: object) -> float | None:
    """Return a bound; one that is no number loses itself, and not the whole file."""
    try:
        return None if raw is None else _number(raw)
    except (ArithmeticError, ValueError, TypeError):
        return None


def _number(raw: Any) -> float:  # noqa: ANN401 - whatever JSON may hold
    number = float(raw)
    if isinstance(raw, bool) or not math.isfinite(number):
        raise ValueError(raw)
    return number
