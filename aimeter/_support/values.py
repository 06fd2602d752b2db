"""What a value of a setting may be: converters, which take it as it was written and the folder of relative paths.

They raise ValueError, TypeError or OverflowError for a value that is none of theirs, and ConfigurationError where there
is more to say.
"""

from __future__ import annotations

import math
import operator
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, cast

from aimeter._support.secret import Secret
from aimeter.errors import ConfigurationError


class Rule(NamedTuple):
    """What a setting accepts."""

    expected: str
    convert: Callable[[object, Path], object]
    """Takes the raw value and the folder of relative paths; raises ValueError, TypeError or OverflowError."""
    optional: bool = False
    """None is a value."""
    secret: bool = False
    """The value is not to be shown, not even where it is wrong."""


def to_number(low: float, high: float) -> Callable[[object, Path], float]:
    """Return a converter for finite numbers of any kind, and texts of them, within these limits."""

    def convert(raw: object, _: Path) -> float:
        if isinstance(raw, bool):
            raise TypeError
        value = float(cast("float", raw))  # numbers of any kind, NumPy's too, and text
        if not low <= value <= high or not math.isfinite(value):
            raise ValueError
        return value

    return convert


def is_number(text: str) -> bool:
    """Tell whether a text is a number, be it out of limits."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def to_secret(raw: object, folder: Path) -> Secret:
    """Return a text as one that is not shown."""
    return raw if isinstance(raw, Secret) else Secret(to_text(raw, folder))


def to_count(raw: object, _: Path) -> int:
    """Return a whole number of at least 0."""
    if isinstance(raw, bool):
        raise TypeError
    value = int(raw) if isinstance(raw, str) else operator.index(cast("int", raw))
    if not 0 <= value <= sys.maxsize:
        raise ValueError
    return value


_WORDS = {
    "true": True,
    "1": True,
    "yes": True,
    "on": True,
    "false": False,
    "0": False,
    "no": False,
    "off": False,
}


def to_flag(raw: object, _: Path) -> bool:
    """Return whether a word, or True or False, means yes."""
    try:
        return _WORDS[str(raw).strip().lower()]
    except KeyError:
        raise ValueError from None


def to_sync(raw: object, folder: Path) -> str:
    """Return ``auto`` or ``off``, which True and False mean, too."""
    if isinstance(raw, str) and raw.strip().lower() == "auto":
        return "auto"
    return "auto" if to_flag(raw, folder) else "off"


def auto_or(
    place: Callable[[object, Path], Path],
) -> Callable[[object, Path], Path | str]:
    """Return a converter for ``auto``, ``off``, or the path that `place` makes of anything else."""

    def convert(raw: object, folder: Path) -> Path | str:
        if isinstance(raw, bool | str) and str(raw).strip().lower() in {"auto", *_WORDS}:
            return to_sync(raw, folder)
        return place(raw, folder)

    return convert


def one_of(*words: str) -> Callable[[object, Path], str]:
    """Return a converter for one of these words, in any letter case."""

    def convert(raw: object, folder: Path) -> str:
        word = to_text(raw, folder).lower()
        if word not in words:
            raise ValueError
        return word

    return convert


def to_text(raw: object, _: Path) -> str:
    """Return a text without the blanks around it; an empty one is none."""
    if not isinstance(raw, str):
        raise TypeError
    text = raw.strip()
    if not text:
        raise ValueError
    return text


def to_path(raw: object, folder: Path) -> Path:
    """Return a path, from `folder` on if it is relative; ``~`` is the home folder."""
    text = os.fspath(cast("os.PathLike[str]", raw))
    if not isinstance(text, str):
        raise TypeError
    if not text.strip() or "\0" in text:
        raise ValueError
    try:
        return folder / Path(text).expanduser()
    except RuntimeError:
        raise ValueError from None  # no home folder for ~


def to_file(raw: object, folder: Path) -> Path:
    """Return the path of a regular file, or of nothing yet."""
    path = to_path(raw, folder)
    if os.path.exists(path) and not path.is_file():  # noqa: PTH110 - Path.exists raises where a folder above may not be entered
        message = "It is no regular file."
        raise ConfigurationError(message)
    return path


def to_folder(raw: object, folder: Path) -> Path:
    """Return the path of a folder, or of nothing yet."""
    path = to_path(raw, folder)
    if os.path.exists(path) and not path.is_dir():  # noqa: PTH110 - the same
        message = "It is no folder."
        raise ConfigurationError(message)
    return path
