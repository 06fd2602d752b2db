"""Add up logs by name."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, cast, get_args

from aimeter import settings
from aimeter.errors import ConfigurationError, did_you_mean
from aimeter.logs.read import Log
from aimeter.report import read, summarise
from aimeter.report.summary import By

if TYPE_CHECKING:
    from aimeter.report import Summary

MOST_METHODS = 100
"""Kinds of intensity in a log that are told; there are fewer."""

_WILD = "*?["


def add_up(logs: Sequence[str], by: str = "call") -> tuple[Summary, list[str]]:
    """Return the summary of some logs, and where the first lines are that were no rows.

    Args:
        logs: Paths; patterns such as ``logs/*.csv`` may be among them. Without any, the log of the settings.
        by: What is shown: ``call``, each name under that of the call around it; ``name``; or ``model``, name and model.

    Raises:
        ConfigurationError: There is no such log, or it is none; or `by` is none of them.
    """
    if by not in get_args(By):
        message = f"--by takes {', '.join(get_args(By))}, not {by!r}.{did_you_mean(by, get_args(By))}"
        raise ConfigurationError(message)
    rows = read(find(logs))
    summary = summarise(rows, cast("By", by))
    return summary, rows.problems


def find(logs: Sequence[str]) -> list[Log]:
    """Return the files meant, each once.

    Raises:
        ConfigurationError: None is named, or a pattern matches none.
    """
    if not logs:
        log = settings.load({}).log
        if log is None:
            message = "No log is named and none is set: aimeter report calls.csv"
            raise ConfigurationError(message)
        return [Log(log)]
    found: dict[Path, Log] = {}
    for text in logs:
        paths = [Path(text)]
        if any(sign in text for sign in _WILD) and not paths[0].exists():
            paths = [Path(match) for match in sorted(glob.glob(text, recursive=True))]  # noqa: PTH207 - takes absolute ones too
            if not paths:
                message = f"No log matches {text}."
                raise ConfigurationError(message)
        for path in paths:
            found.setdefault(
                Path(os.path.realpath(path)), Log(path)
            )  # Path.resolve would raise at a link to itself
    return list(found.values())


def as_json(summary: Summary, problems: Sequence[str]) -> dict[str, object]:
    """Return the summary as plain values; keys are the fields of `Summary` and `SummaryRow`."""
    return {**asdict(summary), "problems": list(problems)}


def unread(skipped: int) -> str:
    """Return what to say of lines of a log that were no whole rows."""
    return f"{skipped:,} line{'' if skipped == 1 else 's'} of the log could not be read"
