"""What the operating system keeps: small files of ``/sys`` and ``/proc``, which may be absent, empty or forbidden; caches."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from aimeter._support.files import read_whole


def read_text(path: Path) -> str | None:
    """Return the stripped content of `path`, or None if it cannot be read."""
    try:
        return read_whole(path).decode("ascii", "replace").strip()
    except OSError:
        return None


def read_number(path: Path) -> int | None:
    """Return the whole number in `path`, or None if there is none."""
    try:
        return int(read_text(path) or "")
    except ValueError:
        return None


def cpu_list(text: str) -> list[int]:
    """Return the CPUs in a kernel list such as ``0-3,8`` (``Documentation/core-api/printk-formats.rst``).

    Raises:
        ValueError: `text` is no such list.

    """
    cpus: list[int] = []
    for part in text.split(",") if text else ():
        first, _, last = part.partition("-")
        cpus.extend(range(int(first), int(last or first) + 1))
    return cpus


def cache_folder(environ: Mapping[str, str] = os.environ, system: str = sys.platform) -> Path:
    """Return aimeter's folder among what the system has for caches, there or not.

    ``$XDG_CACHE_HOME`` or ``~/.cache`` (XDG Base Directory Specification: a relative path is to be ignored),
    ``~/Library/Caches`` on macOS, ``%LOCALAPPDATA%`` on Windows.
    """
    home = Path(os.path.expanduser("~"))  # noqa: PTH111 - Path.home() raises where there is none
    given = Path(environ.get("LOCALAPPDATA" if system == "win32" else "XDG_CACHE_HOME") or ".")
    if system == "darwin":
        folder = home / "Library" / "Caches"
    elif given.is_absolute():
        folder = given
    else:
        folder = home / ("AppData/Local" if system == "win32" else ".cache")
    return folder / "aimeter"
