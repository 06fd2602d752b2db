"""Errors a programmer can make; every text says what to do. Faults at run time are never raised."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AimeterError(Exception):
    """Base of every exception that aimeter raises."""

    __module__ = "aimeter"


class ConfigurationError(AimeterError, ValueError):
    """A setting that cannot be used: unknown key, wrong type, unusable value."""

    __module__ = "aimeter"


class UnknownRegionError(ConfigurationError):
    """A region that no data set knows."""

    __module__ = "aimeter"


class LogSchemaError(ConfigurationError):
    """A log file that holds another schema, or no aimeter log at all."""

    __module__ = "aimeter"


def near_matches(word: str, known: Iterable[str], *, most: int = 3) -> list[str]:
    """Return up to `most` known words that resemble `word`, best first, ignoring case."""
    by_folded = {candidate.casefold(): candidate for candidate in known}
    found = difflib.get_close_matches(word.casefold(), by_folded, n=most, cutoff=0.6)
    return [by_folded[folded] for folded in found]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``" Did you mean 'a' or 'b'?"`` with a leading space, or an empty string."""
    matches = near_matches(word, known)
    if not matches:
        return ""
    return " Did you mean " + " or ".join(repr(match) for match in matches) + "?"
