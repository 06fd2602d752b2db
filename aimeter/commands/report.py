"""Add up logs by name."""

from __future__ import annotations

import csv
import glob
import io
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast, get_args

from aimeter import settings
from aimeter._support.files import replacing
from aimeter.commands.progress import progress
from aimeter.errors import ConfigurationError, did_you_mean
from aimeter.logs.encode import guarded
from aimeter.logs.export import checked_target
from aimeter.logs.read import Log, ReadResult, readable
from aimeter.record import COUNTS
from aimeter.report import summarise
from aimeter.report.grouped import grouped
from aimeter.report.summary import By

if TYPE_CHECKING:
    from aimeter.record import Record
    from aimeter.report import Summary, SummaryRow
    from aimeter.report.digest import Digest

MOST_METHODS = 100
"""Kinds of intensity in a log that are told; there are fewer."""

_WILD = "*?["


class Selection(NamedTuple):
    """Which calls are wanted; None stands for any.

    Attributes:
        since: Those that began then or later: a time in ISO 8601 (UTC, if it says no other zone), or how long ago (``90m``).
        until: Those that began before that.
        name: Those whose name matches: a pattern such as ``chat*``.
        model: Those whose model matches.
    """

    since: str | None = None
    until: str | None = None
    name: str | None = None
    model: str | None = None

    def times(self) -> tuple[str, str]:
        """Return from when on, and before when, calls are wanted that began then, as rows write it.

        Raises:
            ConfigurationError: A time is none.
        """
        since = "" if self.since is None else _moment("--since", self.since)
        return since, "~" if self.until is None else _moment("--until", self.until)

    def test(self) -> Callable[[Record], bool] | None:
        """Return what tells whether a call is wanted; None if all are.

        Raises:
            ConfigurationError: A time is none.
        """
        if self == Selection():
            return None
        since, until = self.times()
        name, model = self.name, self.model

        def wanted(record: Record) -> bool:
            return (
                since
                <= (record.start if _USUAL.fullmatch(record.start) else _as_written(record.start))
                < until
                and (name is None or fnmatchcase(record.name, name))
                and (model is None or fnmatchcase(record.model or "", model))
            )

        return wanted


_USUAL = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
"""How rows write a time: as text they are in order."""


def _as_written(text: str) -> str:
    """Return another program's time as rows write it; what is none is before all and after all, and so never wanted."""
    try:
        return _moment("", text)
    except ConfigurationError:
        return "~~"


_AGO = re.compile(r"(\d+(?:\.\d+)?) ?([smhdw])")
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def _moment(option: str, text: str) -> str:
    """Return a moment as rows write it."""
    ago = _AGO.fullmatch(text)
    try:
        if ago:
            moment = datetime.now(UTC) - timedelta(seconds=float(ago[1]) * _UNITS_S[ago[2]])
        else:
            moment = datetime.fromisoformat(text)
            moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        message = (
            f"{option} takes a time such as 2026-11-27, 2026-11-27T14:30 (UTC) or how long ago, "
            f"such as 90m, 36h or 7d, not {text!r}."
        )
        raise ConfigurationError(message) from None
    return f"{moment:%Y-%m-%dT%H:%M:%S.%f}Z"


def add_up(
    logs: Sequence[str],
    by: str = "call",
    selection: Selection = Selection(),  # noqa: B008 - it cannot be changed
) -> tuple[Summary, list[str]]:
    """Return the summary of some logs, and where the first lines are that were no rows.

    Args:
        logs: Paths; patterns such as ``logs/*.csv`` and folders of Parquet may be among them. Without any, the log of the
            settings.
        by: What is shown: ``call``, each name under that of the call around it; ``name``; or ``model``, name and model.

        selection: Which calls are wanted.

    Raises:
        ConfigurationError: There is no such log, or it is none; or `by` is none of them, or a time is none.
    """
    if by not in get_args(By):
        message = f"--by takes {', '.join(get_args(By))}, not {by!r}.{did_you_mean(by, get_args(By))}"
        raise ConfigurationError(message)
    sources = readable(find(logs))
    found = grouped(sources, cast("By", by), *selection.times(), selection.name, selection.model)
    if found is not None:
        return found, []
    rows = ReadResult(sources)
    with progress(sources):
        summary = summarise(rows, cast("By", by), selection.test())
    return summary, rows.problems


def draw(
    logs: Sequence[str],
    files: Mapping[str, Path],
    selection: Selection = Selection(),  # noqa: B008 - it cannot be changed
) -> Digest:
    """Write a report into files and return what it tells.

    Args:
        logs: As for `add_up`.
        files: By kind: ``html``, ``png`` or ``svg``.
        selection: Which calls are wanted.

    Raises:
        ConfigurationError: As for `add_up`, or what draws is not installed, or a file cannot be written.
    """
    from aimeter.report.digest import digest  # noqa: PLC0415 - loads what draws
    from aimeter.report.page import page  # noqa: PLC0415 - likewise
    from aimeter.report.picture import engine, png, svg  # noqa: PLC0415 - likewise

    engine()
    sources = find(logs)
    targets = {kind: checked_target(path, sources) for kind, path in files.items()}
    if len(set(targets.values())) < len(targets):
        message = "Two forms are to be written into one file: name a file for each."
        raise ConfigurationError(message)
    with progress(readable(sources)):
        found = digest(ReadResult(sources), wanted=selection.test())
    make: dict[str, Callable[[Digest], str | bytes]] = {"html": page, "png": png, "svg": svg}
    for kind, path in targets.items():
        made = make[kind](found)
        try:
            with replacing(path, durable=False) as file:
                file.write(made if isinstance(made, bytes) else made.encode())
        except OSError as error:
            message = f"{path} cannot be written: {error.strerror or error}."
            raise ConfigurationError(message) from error
    return found


def as_csv(summary: Summary) -> str:
    """Return the tree as CSV: a line for each name in its place, with the names around it, in base units."""
    file = io.StringIO()
    write = csv.writer(file).writerow
    write([*_FIGURES, *(f"j_per_{unit}" for unit in COUNTS), "inside"])
    for row, around in _every(summary.tree):
        figures = [row.name, *(getattr(row, figure) for figure in _FIGURES[1:])]
        cells = [*figures, *map(row.per_unit_j.get, COUNTS), " > ".join(around)]
        write([guarded(cell) if isinstance(cell, str) else cell for cell in cells])
    return file.getvalue()


_FIGURES = (
    "name",
    "model",
    "calls",
    "errors",
    "unknown",
    "share",
    "per_call_j",
    "per_call_error_j",
    "energy_j",
    "energy_error_j",
    "self_j",
    "co2e_g",
    "duration_s",
    "coverage",
)


def _every(
    rows: Sequence[SummaryRow], around: tuple[str, ...] = ()
) -> Iterator[tuple[SummaryRow, tuple[str, ...]]]:
    for row in rows:
        yield row, around
        yield from _every(row.parts, (*around, row.name))


def find(logs: Sequence[str | Log]) -> list[Log]:
    """Return the files meant, each once; what has been found stays what it is.

    Raises:
        ConfigurationError: None is named, or a pattern matches none, or a folder has no Parquet.
    """
    if not logs:
        log = settings.load({}).log
        if log is None:
            message = "No log is named and none is set: aimeter report calls.csv"
            raise ConfigurationError(message)
        return [Log(log)]
    found: dict[Path, Log] = {}
    for text in logs:
        if isinstance(text, Log):
            found.setdefault(Path(os.path.realpath(text)), text)
            continue
        for path in _meant(text):
            found.setdefault(
                Path(os.path.realpath(path)), Log(path)
            )  # Path.resolve would raise at a link to itself
    return list(found.values())


def _meant(text: str) -> list[Path]:
    """Return the files that a path, a folder of Parquet or a pattern means."""
    paths = [Path(text)]
    if any(sign in text for sign in _WILD) and not paths[0].exists():
        paths = [Path(match) for match in sorted(glob.glob(text, recursive=True))]  # noqa: PTH207 - takes absolute ones too
        if not paths:
            message = f"No log matches {text}."
            raise ConfigurationError(message)
    found: list[Path] = []
    for path in paths:
        inside = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
        if not inside:
            message = f"{path} is a folder without Parquet: name the logs in it, such as '{path / '*.csv'}'."
            raise ConfigurationError(message)
        found += inside
    return found


def as_json(summary: Summary, problems: Sequence[str]) -> dict[str, object]:
    """Return the summary as plain values; keys are the fields of `Summary` and `SummaryRow`."""
    return {**asdict(summary), "problems": list(problems)}


def unread(skipped: int) -> str:
    """Return what to say of lines of a log that were no whole rows."""
    return f"{skipped:,} line{'' if skipped == 1 else 's'} of the log could not be read"
