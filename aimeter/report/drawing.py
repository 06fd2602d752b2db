"""A summary as it is drawn on standard error."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aimeter._support import stderr

if TYPE_CHECKING:
    from aimeter.report.summary import Summary


def drawn(summary: Summary) -> str:
    """Return a summary as lines: in a terminal in its width, by rich, and otherwise in plain text."""
    if not stderr.terminal():
        return f"{summary}\n"
    from rich.console import Console  # noqa: PLC0415 - loaded when first needed

    console = Console(stderr=True, highlight=False)
    with console.capture() as capture:
        console.print(summary)
    return capture.get()
