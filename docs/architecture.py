"""Draw how aimeter is built, from its code: ``python docs/architecture.py`` renews the page on the architecture.

The table of packages has the first line of each docstring, in the order of the layers in pyproject.toml. The picture
has the way of the data on top, and below who imports whom, without the arrows that follow from others.
"""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "explanation" / "architecture.md"
PICTURE = PAGE.with_suffix(".svg")
BEGIN, END = "<!-- packages -->\n", "<!-- end of packages -->\n"

EVERYBODYS = frozenset({"__init__", "_support", "errors", "_version", "_standin"})
"""What anybody may import, and what hands names out: no arrow says anything of them."""

Imports = Mapping[str, Mapping[str, frozenset[str]]]
"""Of each package what it imports: which names from which other one."""


class Step(NamedTuple):
    """Data that goes from one package to another, as a type that both know."""

    start: str
    end: str
    what: str


FLOW = (
    Step("sensors", "_sampling", "Reading"),
    Step("_sampling", "_curve", "Reading"),
    Step("_curve", "_attribution", "Trace"),
    Step("_attribution", "_meters", "Figures"),
    Step("_meters", "sinks", "Record"),
)
JOINING = (Step("_calls", "_attribution", "Call"), Step("carbon", "_attribution", "Accounting"))


def layers() -> list[list[str]]:
    """Return the layers of the contract, top first."""
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    contracts = tomllib.loads(text)["tool"]["importlinter"]["contracts"]
    (found,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    return [[name.strip() for name in layer.split("|")] for layer in found]


def files_of(name: str) -> list[Path]:
    """Return the files of a package, or the one of a module, `__init__` first."""
    folder = ROOT / "aimeter" / name
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]


def about(name: str) -> str:
    """Return the first line of a package's docstring."""
    folder = ROOT / "aimeter" / name
    file = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
    return (ast.get_docstring(ast.parse(file.read_text("utf-8"))) or "").partition("\n")[0]


def imports(names: Sequence[str]) -> Imports:
    """Return who imports what from whom; imports for types alone and those in functions count."""
    found: dict[str, dict[str, set[str]]] = {name: {} for name in names}
    for name in names:
        for file in files_of(name):
            for other, what in _imported(file):
                if other != name and other in found:
                    found[name].setdefault(other, set()).add(what)
    return {
        name: {other: frozenset(what) for other, what in others.items()} for name, others in found.items()
    }


def _imported(file: Path) -> Iterator[tuple[str, str]]:
    """Yield the package and the name of each import from aimeter."""
    package = file.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("aimeter."):
                    yield alias.name.split(".")[1], alias.name
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else ()
            path = (*base, *(node.module or "").split(".")) if node.module else base
            if path[0] == "aimeter":
                for alias in node.names:
                    yield (path[1] if len(path) > 1 else alias.name), alias.name


def reduced(found: Imports) -> dict[str, list[str]]:
    """Return the arrows that do not follow from others, of all but what is everybody's."""
    names = [name for name in found if name not in EVERYBODYS]
    arrows = {name: [other for other in names if other in found[name]] for name in names}

    def below(name: str) -> set[str]:
        return {name}.union(*(below(other) for other in arrows[name]))

    return {
        name: [one for one in others if not any(one in below(other) for other in others if other != one)]
        for name, others in arrows.items()
    }


def table(names: Sequence[str]) -> str:
    """Return the packages with a line each, from what users touch down to what knows of nothing."""
    rows = [f"| `{name}` | {about(name)} |" for name in names]
    return "\n".join(["| `aimeter.…` | |", "|---|---|", *rows, ""])


# The picture

_INK, _LINE, _BOX, _MARKED = "#1f2933", "#9aa5b1", "#f5f7fa", "#dbeafe"
_FONT = 'font-family="system-ui, sans-serif" font-size="12"'
_WIDTH, _BOX_WIDTH, _BOX_HEIGHT, _ROW, _TOP = 860, 96, 28, 66, 210


def _box(x: float, y: float, name: str, fill: str) -> str:
    left = (
        f'<rect x="{x - _BOX_WIDTH / 2:.0f}" y="{y:.0f}" width="{_BOX_WIDTH}" height="{_BOX_HEIGHT}" rx="5" '
    )
    return left + f'fill="{fill}" stroke="{_LINE}"/>' + _text(x, y + 18, name)


def _text(x: float, y: float, text: str, more: str = "") -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="middle" fill="{_INK}"{more}>{escape(text)}</text>'


def _line(points: Sequence[tuple[float, float]], colour: str) -> str:
    joined = " ".join(f"{x:.0f},{y:.0f}" for x, y in points)
    return f'<polyline points="{joined}" fill="none" stroke="{colour}" stroke-width="1.2" marker-end="url(#head)"/>'


def _arrow(places: Sequence[tuple[float, float]]) -> str:
    """Return an arrow from below the first place to the top of the last, straight down at those it passes."""
    (x, y), *passed, end = places
    beside = [(px, py + down) for px, py in passed for down in (0, _BOX_HEIGHT)]
    return _line([(x, y + _BOX_HEIGHT), *beside, end], _LINE)


def _flow(found: Imports) -> Iterator[str]:
    """Yield the way of the data: the chain in one line, and what joins it from below.

    Raises:
        ValueError: Neither end of a step knows the type that it says.
    """
    for start, end, what in (*FLOW, *JOINING):
        if not (what in found[end].get(start, ()) or what in found[start].get(end, ())) and not all(
            any(what in names for names in found[one].values()) for one in (start, end)
        ):
            message = f"no {what} goes from {start} to {end}: say in FLOW what does"
            raise ValueError(message)
    chain = [FLOW[0].start, *(step.end for step in FLOW)]
    step_px = (_WIDTH - _BOX_WIDTH - 20) / (len(chain) - 1)
    at = {name: 10 + _BOX_WIDTH / 2 + place * step_px for place, name in enumerate(chain)}
    yield _text(_WIDTH / 2, 22, "The way of the data", ' font-weight="600"')
    for start, end, what in FLOW:
        yield _line([(at[start] + _BOX_WIDTH / 2, 58), (at[end] - _BOX_WIDTH / 2 - 1, 58)], _INK)
        yield _text((at[start] + at[end]) / 2, 50, what, ' font-size="11"')
    for place, (start, end, what) in enumerate(JOINING):
        x = at[end] + (place - (len(JOINING) - 1) / 2) * 1.3 * _BOX_WIDTH
        yield _line([(x, 116), (at[end] + (x - at[end]) / 3, 73)], _INK)
        yield _text(x + (30 if x > at[end] else -24), 100, what, ' font-size="11"')
        yield _box(x, 116, start, _MARKED)
    yield from (_box(x, 44, name, _MARKED) for name, x in at.items())


def _ways(arrows: Mapping[str, Sequence[str]]) -> tuple[list[list[str]], list[list[str]]]:
    """Return the rows, lowest first, and for each arrow its way down through them.

    A package stands by the longest way down from it. Where an arrow passes a row it has a place of its own there, so
    that it crosses no box. Each row is in the order of what its places are linked with.
    """

    def height(name: str) -> int:
        return max((height(other) + 1 for other in arrows[name]), default=0)

    rows: list[list[str]] = [[] for _ in range(1 + max(map(height, arrows)))]
    for name in arrows:
        rows[height(name)].append(name)
    ways = []
    for name, others in arrows.items():
        for other in others:
            passed = {
                f"{name} to {other} at {row}": row for row in range(height(name) - 1, height(other), -1)
            }
            for place, level in passed.items():
                rows[level].append(place)
            ways.append([name, *passed, other])
    linked: dict[str, list[str]] = {place: [] for row in rows for place in row}
    for way in ways:
        for upper, lower in pairwise(way):
            linked[upper].append(lower)
            linked[lower].append(upper)
    for _ in range(12):
        for row in rows:
            at = _places(rows)
            row.sort(key=lambda place: mean(at[other][0] for other in linked[place] or [place]))
    return rows, ways


def _places(rows: Sequence[Sequence[str]]) -> dict[str, tuple[float, float]]:
    return {
        name: (_WIDTH * (place + 0.5) / len(row), _TOP + (len(rows) - 1 - height) * _ROW)
        for height, row in enumerate(rows)
        for place, name in enumerate(row)
    }


def picture(found: Imports) -> str:
    """Return the picture as SVG."""
    arrows = reduced(found)
    rows, ways = _ways(arrows)
    at = _places(rows)
    marked = {name for step in (*FLOW, *JOINING) for name in step[:2]}
    height = _TOP + len(rows) * _ROW - 20
    title = "How data goes through aimeter, and which package imports which"
    size = f'viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}"'
    head = 'viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{title}" {_FONT}>',
            f'<defs><marker id="head" {head}><path d="M0 0 8 4 0 8z" fill="{_INK}"/></marker></defs>',
            f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
            *_flow(found),
            _text(_WIDTH / 2, _TOP - 22, "Who imports whom", ' font-weight="600"'),
            *(_arrow([at[place] for place in way]) for way in ways),
            *(_box(*at[name], name, _MARKED if name in marked else _BOX) for name in arrows),
            "</svg>\n",
        ]
    )


def filled(page: str) -> str:
    """Return the page with the table of packages anew."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + "\n" + table([name for layer in layers() for name in layer]) + "\n" + END + after


def drawn() -> str:
    """Return the picture of the code as it is."""
    return picture(imports([name for layer in layers() for name in layer]))


if __name__ == "__main__":
    PICTURE.write_text(drawn(), "utf-8")
    PAGE.write_text(filled(PAGE.read_text("utf-8")), "utf-8")
