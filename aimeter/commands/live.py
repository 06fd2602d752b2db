"""What happens now, in the terminal: power by device, and calls as a log tells them."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from aimeter import autoload
from aimeter._support.clocks import time
from aimeter._support.units import printable, quantity
from aimeter.logs.read import ReadResult
from aimeter.logs.since import Since
from aimeter.meter import Meter
from aimeter.report.strokes import sparkline
from aimeter.report.table import INK
from aimeter.report.tally import MOST_NAMES, Tally

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.measure import Measurement
    from rich.text import Text

    from aimeter._curve.trace import Trace
    from aimeter.record import Record

REFRESH_S = 0.5
_KEPT = 60
"""Readings of a device that are drawn: half a minute."""

_OUTPUT_LINES = 8


class Gauge(NamedTuple):
    """A meter as it stands.

    Attributes:
        device: Identifier of the channel.
        name: What the device is called.
        method: How it is measured.
        period_s: How often its value is renewed.
        relative_error: 95 % half-width of its calibration.
        watts: Mean power up to the newest reading; None before there are two.
        joules: Energy since it is watched.
        fault: Why it tells nothing, if so.
    """

    device: str
    name: str
    method: str
    period_s: float
    relative_error: float
    watts: float | None
    joules: float
    fault: str


def gauges(traces: Sequence[Trace]) -> list[Gauge]:
    """Return the meters as they stand."""
    return [
        Gauge(
            trace.channel.id,
            trace.channel.name,
            trace.channel.method,
            trace.channel.period_s,
            trace.channel.relative_error,
            trace.last_power_w if len(trace.curve) > 1 else None,
            trace.curve.energy_j,
            "" if trace.alive else trace.reason or "it does not answer",
        )
        for trace in traces
    ]


class Screen:
    """What is shown: draw it as often as wanted.

    Args:
        meter: Reads the devices; None shows calls only.
        log: The log whose calls are shown; None shows devices only.
    """

    def __init__(self, meter: Meter | None, log: Since | None) -> None:
        self._meter, self._log = meter, log
        self._sparks: dict[str, deque[float]] = {}
        self._tally = Tally(MOST_NAMES, over_time=True)
        self._last: Record | None = None
        self._calls = self._skipped = 0
        self.output: deque[str] = deque(maxlen=_OUTPUT_LINES)
        """The newest lines that the command has written."""

    def draw(self) -> RenderableType:
        """Return what is to be seen now."""
        from rich.console import Group  # noqa: PLC0415 - loaded when first drawn
        from rich.text import Text  # noqa: PLC0415 - likewise

        parts: list[RenderableType] = []
        if self._meter is not None:
            parts.append(self._devices(self._meter.sampler.snapshot(gauges)))
        if self._log is not None:
            rows = ReadResult(self._log.take())
            for record in rows:
                self._tally.add(record)
                self._last, self._calls = record, self._calls + 1
            self._skipped += rows.skipped
            parts += [
                Text(),
                self._tally.summary(skipped=self._skipped) if self._calls else Text("No call has ended yet."),
            ]
            if self._last is not None:
                parts.append(Text(f"Newest: {self._last!r}", no_wrap=True, overflow="ellipsis"))
        if self.output:
            parts.append(Text("\n" + "\n".join(map(printable, self.output)), style="dim", no_wrap=True))
        return Group(*parts)

    def _devices(self, found: Sequence[Gauge]) -> RenderableType:
        from rich import box  # noqa: PLC0415 - loaded when first drawn
        from rich.table import Table  # noqa: PLC0415 - likewise
        from rich.text import Text  # noqa: PLC0415 - likewise

        if not found:
            return Text("Looking for meters …")
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, show_edge=False)
        # What is wrong with a meter may take several lines.
        giving_way = {"half a minute", *(["measured by"] if any(gauge.fault for gauge in found) else [])}
        for title in ("device", "now", "half a minute", "so far", "measured by", "error"):
            table.add_column(
                title,
                justify="left" if title in {"device", "half a minute", "measured by"} else "right",
                style=INK if title == "half a minute" else "",
                no_wrap=title not in giving_way,
            )
        for gauge in found:
            sparks = self._sparks.setdefault(gauge.device, deque(maxlen=_KEPT))
            if gauge.watts is not None and not gauge.fault:
                sparks.append(gauge.watts)
            how = f"{gauge.method}, every {quantity(gauge.period_s, 's')}" if gauge.period_s else gauge.method
            now = "" if gauge.watts is None or gauge.fault else quantity(gauge.watts, "W")
            table.add_row(
                Text(printable(gauge.device)),
                Text(now),
                _Line(sparkline(by_twos(sparks))),
                Text(quantity(gauge.joules, "J")),
                Text(printable(gauge.fault) or how),
                Text(f"±{100 * gauge.relative_error:.2g}%"),
            )
        return table


class _Line(NamedTuple):
    """A line over time: where there is no room for all of it, the newest part."""

    blocks: str

    def __rich_console__(self, _: Console, options: ConsoleOptions) -> Iterator[Text]:
        from rich.text import Text  # noqa: PLC0415 - loaded when first drawn

        yield Text(self.blocks[-options.max_width :], no_wrap=True)

    def __rich_measure__(self, _: Console, options: ConsoleOptions) -> Measurement:
        from rich.measure import Measurement  # noqa: PLC0415 - loaded when first drawn

        return Measurement(1, len(self.blocks)).clamp(max_width=options.max_width)


def by_twos(values: Iterable[float]) -> list[float]:
    """Return the mean of each two values; if there are more than one, the first of an odd number is left out."""
    each = [*values]
    each = each[len(each) % 2 :] if len(each) > 1 else each
    return [sum(pair) / len(pair) for pair in (each[at : at + 2] for at in range(0, len(each), 2))]


def watch(
    console: Console,
    *,
    log: Path | None,
    seconds: float | None,
    settings: Mapping[str, object],
    refresh_s: float = REFRESH_S,
) -> None:
    """Show devices, and the calls of a log as it grows, until Ctrl-C or for some seconds."""
    followed = None if log is None else Since(log, whole=True)
    with _watching(console, followed, settings, refresh_s) as (_, pause):
        end_s = None if seconds is None else time.monotonic() + seconds
        with contextlib.suppress(KeyboardInterrupt):
            while end_s is None or time.monotonic() < end_s:
                pause()


def watch_command(
    console: Console,
    command: list[str],
    *,
    log: Path | None,
    settings: Mapping[str, object],
    refresh_s: float = REFRESH_S,
) -> int:
    """Run a Python command that meters its own model calls, and show them and what it prints; return its exit status.

    Raises:
        OSError: It cannot be started.
    """
    with tempfile.TemporaryDirectory(prefix="aimeter-") as folder:
        path = Path(folder) / "calls.csv" if log is None else log
        followed = Since(path)
        environment = autoload.environment(os.environ, {**settings, "log": path})
        process = subprocess.Popen(  # noqa: S603 - the user's command
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        with _watching(console, followed, settings, refresh_s) as (screen, pause):
            reader = threading.Thread(target=_keep_lines, args=(process.stdout, screen.output), daemon=True)
            reader.start()
            while process.poll() is None:
                # What the terminal sends reaches the command, too, which decides what it means.
                with contextlib.suppress(KeyboardInterrupt):
                    pause()
            reader.join(timeout=1.0)
        return process.returncode


@contextlib.contextmanager
def _watching(
    console: Console, followed: Since | None, settings: Mapping[str, object], refresh_s: float
) -> Iterator[tuple[Screen, Callable[[], None]]]:
    from rich.live import Live  # noqa: PLC0415 - loaded when first needed

    with Meter(**{**settings, "log": None, "summary": False}) as meter, meter.track("aimeter watch"):  # type: ignore[arg-type]
        screen = Screen(meter, followed)
        with Live(screen.draw(), console=console, auto_refresh=False, vertical_overflow="crop") as live:

            def pause() -> None:
                time.sleep(refresh_s)
                live.update(screen.draw(), refresh=True)

            try:
                yield screen, pause
                live.update(screen.draw(), refresh=True)
            finally:
                if followed is not None:
                    followed.close()


def _keep_lines(stream: BinaryIO | None, into: deque[str]) -> None:
    for line in stream or ():
        into.append(line.decode("utf-8", "replace").rstrip()[:500])
