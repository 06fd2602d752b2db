"""Small files of ``/sys`` and ``/proc``, which may be absent, empty or forbidden."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .files import read_whole

if TYPE_CHECKING:
    from pathlib import Path


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
