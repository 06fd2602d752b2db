"""Notebooks: ``%load_ext aimeter``, then ``%%aimeter name`` over a cell and ``%aimeter`` before a line.

The cell or line is one call of that name. What it took is shown under it, with the power of each device meanwhile,
whether it ended well or raised.
"""

from __future__ import annotations

import ast
from html import escape
from typing import TYPE_CHECKING, NamedTuple

from IPython.core.magic import Magics, line_cell_magic, magics_class
from IPython.display import display

from aimeter._api import default_meter
from aimeter._support.units import printable, quantity
from aimeter.report.charts.base import COLOURS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from IPython.core.interactiveshell import InteractiveShell

    from aimeter._calls.call import Call
    from aimeter._curve.trace import Trace
    from aimeter.meter import Meter

_WIDTH_PX, _HEIGHT_PX = 480, 64


class Power(NamedTuple):
    """The mean power of a device between readings: from each time to the next, in seconds of the call."""

    device: str
    times_s: tuple[float, ...]
    watts: tuple[float, ...]


class Shown:
    """What is shown under a cell."""

    def __init__(self, call: Call, power: Sequence[Power]) -> None:
        self._call, self._power = call, power

    def __repr__(self) -> str:
        record = self._call.record
        return repr(self._call) if record is None else repr(record)

    def _repr_html_(self) -> str:
        return (self._call._repr_html_() or "") + _plot(self._power, self._call.duration_s)


@magics_class
class AimeterMagics(Magics):  # type: ignore[misc]  # likewise
    """The magics."""

    shell: InteractiveShell

    @line_cell_magic  # type: ignore[untyped-decorator]  # IPython has no types that are known here
    def aimeter(self, line: str, cell: str | None = None) -> None:
        """Meter a cell as one call, ``%%aimeter name``, or a line, ``%aimeter statement``."""
        name = line.strip() if cell is not None else ""
        meter = default_meter()
        code = line if cell is None else cell
        call = meter.track(name or f"cell {self.shell.execution_count}")
        try:
            with call:
                _run(self.shell, code)
        finally:
            display(Shown(call, _power(meter, call)))


def load(shell: InteractiveShell) -> None:
    """Make the magics known."""
    shell.register_magics(AimeterMagics)


def _run(shell: InteractiveShell, cell: str) -> None:
    """Run code as a cell: its last line, if that is an expression, is shown."""
    text = shell.transform_cell(cell)
    name = shell.compile.cache(text, shell.execution_count, raw_code=cell)
    with shell.builtin_trap:
        body = shell.transform_ast(shell.compile.ast_parse(text, filename=name)).body
        last = (
            body.pop()
            if body and isinstance(body[-1], ast.Expr) and not cell.rstrip().endswith(";")
            else None
        )
        exec(shell.compile(ast.Module(body, []), name, "exec"), shell.user_ns)  # noqa: S102 - the user's own cell
        if last is not None:
            exec(shell.compile(ast.Interactive([last]), name, "single"), shell.user_ns)  # noqa: S102 - likewise


def _power(meter: Meter, call: Call) -> list[Power]:
    """Return the power of each device while a call was open, as far as its sensors' readings tell."""
    begin_s, end_s = call.start_s, call.end_s

    def take(traces: Sequence[Trace]) -> list[Power]:
        found = []
        for trace in traces:
            times, joules, _ = trace.curve.knots.tolist()
            inside = [k for k, time_s in enumerate(times) if begin_s <= time_s <= end_s]
            if not inside or not trace.alive:
                continue
            knots = range(max(inside[0] - 1, 0), min(inside[-1] + 2, len(times)))
            pairs = [(k, k + 1) for k in knots[:-1] if times[k + 1] > times[k]]
            watts = [(joules[b] - joules[a]) / (times[b] - times[a]) for a, b in pairs]
            ends = [min(max(times[a], begin_s), end_s) - begin_s for a, _ in pairs]
            if pairs:
                found.append(
                    Power(trace.channel.id, (*ends, min(times[pairs[-1][1]], end_s) - begin_s), tuple(watts))
                )
        return found

    return meter.sampler.snapshot(take) if call.ended and begin_s < end_s else []


def _plot(power: Sequence[Power], duration_s: float) -> str:
    """Draw power over the time of a call as a small SVG; nothing if nothing is known."""
    most_w = max((max(one.watts) for one in power), default=0.0)
    if most_w <= 0 or duration_s <= 0:
        return ""
    lines, names = [], []
    for one, colour in zip(power, COLOURS, strict=False):
        points = []
        for begin_s, end_s, watts in zip(one.times_s, one.times_s[1:], one.watts, strict=False):
            y = _HEIGHT_PX * (1 - watts / most_w)
            points += [f"{_WIDTH_PX * at / duration_s:.1f},{y:.1f}" for at in (begin_s, end_s)]
        lines.append(
            f'<polyline points="{" ".join(points)}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
        )
        names.append(f'<span style="color:{colour}">{escape(printable(one.device))}</span>')
    title = f"Power over {quantity(duration_s, 's', largest=0)}, up to {quantity(most_w, 'W')}"
    return (
        f'<svg role="img" aria-label="{escape(title)}" viewBox="-2 -2 {_WIDTH_PX + 4} {_HEIGHT_PX + 4}" '
        f'style="display:block;margin-top:8px;max-width:{_WIDTH_PX}px">{"".join(lines)}</svg>'
        f"<small>{escape(title)}: {', '.join(names)}</small>"
    )
