"""Puts tables and plots into the page: what stands between its marks is written here, all else by hand."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from benchmarks.peers.plots import plots
from benchmarks.peers.tables import Results, tables

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "peers.md"
_MARKED = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def filled(text: str, blocks: Mapping[str, str]) -> str:
    """Return the page with each marked place filled with the block of its name."""
    return _MARKED.sub(lambda mark: f"{mark[1]}\n{blocks[mark[2]]}\n{mark[3]}", text)


def places(text: str) -> list[str]:
    """Return the names of a page's marked places."""
    return [mark[2] for mark in _MARKED.finditer(text)]


def render(results: Results, folder: Path) -> None:
    """Write the page and its plots into `folder`."""
    (folder / PAGE.name).write_text(filled(PAGE.read_text("utf-8"), tables(results)), "utf-8")
    for name, drawing in plots(results).items():
        (folder / name).write_text(drawing, "utf-8")
