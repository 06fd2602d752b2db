"""What a tool can meter besides one call after another, each tried while the GPU draws the same power throughout."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.peers.load import Devices, Span
from benchmarks.peers.tools import TOOLS
from benchmarks.peers.tools.face import Later, Tool, Windows, rows

STEADY_W = 300.0
SETTLE_S = 2.0
"""So long it draws that before anything is tried, for tools that read power as an average."""

PIECE_S = 0.5
CALLS = 3
PATIENCE_S = 60

Found = float | str | None
"""What was said over what was drawn; the name of the exception instead; None where a tool offers no such thing."""


def abilities(make: Callable[[], Tool], devices: Devices, _options: object) -> dict[str, Any]:
    """Try each ability with one tool."""
    tool = make()
    settle(devices)
    # The first call may set the tool up.
    _metered(tool, lambda: None)
    result = {
        **_nested(tool, devices),
        "at_once": _at_once(tool, devices) if isinstance(tool, Windows) else None,
        "coroutine": _decorated(tool, devices, _coroutine, asyncio.run),
        "stream": _decorated(tool, devices, _stream, list),
    }
    kept = {how: _kept(tool, how) for how in ("exit", "killed")}
    return {
        "version": tool.version,
        "abilities": {
            **result,
            "log": kept["exit"][0],
            "rows": kept["exit"][1],
            "rows_if_killed": kept["killed"][1],
        },
    }


def settle(devices: Devices) -> None:
    """Draw the same power from now on, and wait until it has always been so as far as tools can tell."""
    devices.set_gpu(STEADY_W, time.perf_counter())
    time.sleep(SETTLE_S)


def _nested(tool: Tool, devices: Devices) -> dict[str, Found]:
    """Have a call within a call; the outer one's joules are its own and the inner one's."""
    spans: dict[str, Span] = {}
    readings: dict[str, Later] = {}

    def inner() -> None:
        spans["inner"] = _pass()

    def outer() -> None:
        start = _pass().start_s
        readings["inner"] = _metered(tool, inner)
        spans["outer"] = Span(start, _pass().end_s)

    readings["outer"] = _metered(tool, outer)
    tool.finish()
    return {which: _ratio(devices, spans[which], readings[which]) for which in ("outer", "inner")}


def _metered(tool: Tool, body: Callable[[], None]) -> Later:
    """Meter a call as a window or, where there are none, as a function with a decorator of its own."""
    offered = None if isinstance(tool, Windows) else tool.decorated(body)
    if offered is None:
        return tool.call(body)
    function, later = offered
    function()
    return later


def _at_once(tool: Windows, devices: Devices) -> Found:
    """Have two coroutines open at once in one thread; return the sum of both over what was drawn."""
    spans: list[Span] = []

    async def body() -> None:
        start = time.perf_counter()
        await asyncio.sleep(2 * PIECE_S)
        spans.append(Span(start, time.perf_counter()))

    async def second() -> Later:
        # It starts later, so that it is open when the first one ends.
        await asyncio.sleep(PIECE_S)
        return await tool.call_async(body)

    async def both() -> tuple[Later, Later]:
        return await asyncio.gather(tool.call_async(body), second())

    try:
        readings = asyncio.run(both())
        tool.finish()
        said = [reading().gpu_j for reading in readings]
    except Exception as error:  # noqa: BLE001 - a tool that was not made for this may raise anything
        return type(error).__name__
    if None in said:
        return f"{len(said) - said.count(None)} of {len(said)}"
    drawn = devices.truth(Span(spans[0].start_s, spans[-1].end_s)).gpu_j
    return float(f"{sum(said) / drawn:.6g}")


def _coroutine(spans: list[Span]) -> Callable[[], Awaitable[None]]:
    async def coroutine() -> None:
        start = time.perf_counter()
        await asyncio.sleep(2 * PIECE_S)
        spans.append(Span(start, time.perf_counter()))

    return coroutine


def _stream(spans: list[Span]) -> Callable[[], Iterator[int]]:
    def stream() -> Iterator[int]:
        start = time.perf_counter()
        for token in range(10):
            time.sleep(PIECE_S / 5)
            yield token
        spans.append(Span(start, time.perf_counter()))

    return stream


def _decorated(
    tool: Tool,
    devices: Devices,
    make: Callable[[list[Span]], Callable[[], Any]],
    use: Callable[[Any], object],
) -> Found:
    """Put the tool's decorator on a function, and use what the function returns."""
    spans: list[Span] = []
    offered = tool.decorated(make(spans))
    if offered is None:
        return None
    function, later = offered
    try:
        use(function())
        return _ratio(devices, spans[0], later)
    except Exception as error:  # noqa: BLE001 - as above
        return type(error).__name__


def _pass() -> Span:
    start = time.perf_counter()
    time.sleep(PIECE_S)
    return Span(start, time.perf_counter())


def _ratio(devices: Devices, span: Span, later: Later) -> Found:
    said = later().gpu_j
    return "nothing" if said is None else float(f"{said / devices.truth(span).gpu_j:.6g}")


def _kept(tool: Tool, how: str) -> tuple[str, int]:
    """Let a program make calls with a log and end; return the log's form and the rows that are left."""
    name = next(name for name, kind in TOOLS.items() if kind is type(tool))
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.peers.abilities", name, folder, how]
        quiet: Any = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        with subprocess.Popen(command, start_new_session=True, **quiet) as program:
            program.wait(PATIENCE_S)
        # What a killed program started may outlive it.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(program.pid, signal.SIGKILL)
        return rows(Path(folder))


def main(name: str, folder: str, how: str) -> None:
    """Make calls with a log in `folder`; then end as a program does, or be killed."""
    logged = TOOLS[name].logged(Path(folder))
    for _ in range(CALLS):
        logged.call(lambda: time.sleep(0.2))
    if how == "killed":
        time.sleep(SETTLE_S)
        os.kill(os.getpid(), signal.SIGKILL)
    logged.end()


if __name__ == "__main__":
    main(*sys.argv[1:])
