"""A load to learn from: calls whose ends show how late a sensor is, and how far back it looks."""

from __future__ import annotations

import importlib
import inspect
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from aimeter._calls.cuda_sync import wait_for_devices
from aimeter.errors import ConfigurationError, did_you_mean

if TYPE_CHECKING:
    from aimeter._curve.trace import Trace
    from aimeter.meter import Meter
    from aimeter.sensors.base import Clock

Load = Callable[[], object]
Progress = Callable[[Sequence[int]], Iterable[int]]

AUTO = "auto"

_CALLS, _TURNS = 48, 3
"""A sensor that looks at a quarter of the time sees the end of a quarter of the calls; if that was not enough, there
are as many calls once more, and again."""

_MOST_S = 120.0
"""Somebody waits for it. A load of which too little fits into this time is too slow to teach anything."""

_BUSY_S = 0.4
"""A call must outlast three periods of a sensor of 100 ms, so that the level before its end is known."""

_IDLE_S = 0.35
_GOLDEN = 0.382
"""Ends of calls are not to keep step with a sensor: multiples of this part of a period fill it most evenly."""

_MATRIX = 4096


def load_named(text: str) -> Load:
    """Return the function that ``MODULE:FUNCTION`` or ``auto`` means.

    Raises:
        ConfigurationError: There is none.
    """
    if text == AUTO:
        return _multiply()
    module_name, _, name = text.partition(":")
    example = "Give MODULE:FUNCTION, a function without arguments that can be imported from here"
    if not module_name or not name:
        message = f"--load {text}: this names no function. {example}, e.g. --load app:generate; or auto."
        raise ConfigurationError(message)
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # a script that was never meant to be imported may exit
        message = f"--load {text}: importing {module_name} raised {error!r}. {example}."
        raise ConfigurationError(message) from error
    found = getattr(module, name, None)
    if not callable(found) or inspect.iscoroutinefunction(found):
        names = [one for one, value in vars(module).items() if callable(value)]
        what = "no function" if found is None else "no plain function"
        hint = did_you_mean(name, names) if found is None else ""
        message = f"--load {text}: {module_name} has {what} {name}.{hint} {example}."
        raise ConfigurationError(message)
    fault = _needs_arguments(found)
    if fault:
        message = (
            f"--load {text}: {name} cannot be called without arguments: {fault}. {example}, that calls it."
        )
        raise ConfigurationError(message)
    return found  # type: ignore[no-any-return]


def _needs_arguments(function: Callable[..., object]) -> str:
    """Return why a function cannot be called without arguments; empty if it can, or does not tell."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some that are written in C
        return ""
    try:
        signature.bind()
    except TypeError as error:
        return str(error)
    return ""


def _multiply() -> Load:
    """Return a function that multiplies matrices on every CUDA device that torch has.

    Raises:
        ConfigurationError: There is no torch, or no CUDA.
    """
    try:
        import torch  # noqa: PLC0415 - takes seconds, and only this load needs it

        devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    except Exception:  # noqa: BLE001 - an installation that is broken is as good as none
        devices = ()
    if not devices:
        message = (
            "--load auto multiplies matrices with PyTorch on CUDA, which is not to be had here. "
            "Give a load of your own: --load MODULE:FUNCTION. (A CPU's counters need none: they are renewed every "
            "millisecond.)"
        )
        raise ConfigurationError(message)
    made: list[torch.Tensor] = []

    def multiply() -> None:
        if not made:  # not before the device was seen at rest
            made.extend(torch.rand(_MATRIX, _MATRIX, device=f"cuda:{number}") for number in devices)
        for matrix in made:
            torch.mm(matrix, matrix)

    return multiply


def run_calls(
    meter: Meter, load: Load, *, clock: Clock, sleep: Callable[[float], object], progress: Progress
) -> str:
    """Make calls of a load, with pauses, for two minutes at most; return why it was given up, or nothing.

    Args:
        meter: Meters them.
        load: Called again and again within each call.
        clock: The meter's clock.
        sleep: Waits.
        progress: Shows the calls as they pass.
    """
    try:
        load()  # what is loaded and compiled first is no even load
        wait_for_devices()
        until_s = clock() + _MOST_S
        for _ in range(_TURNS):
            sleep(_IDLE_S)
            whole = _calls(meter, load, until_s, clock=clock, sleep=sleep, progress=progress)
            meter.flush()
            if not whole or not meter.sampler.snapshot(lambda traces: any(map(not_learned, traces))):
                break
    except (Exception, SystemExit) as error:  # noqa: BLE001 - somebody else's code; what was measured at rest stands
        return f"the load raised {error!r}"
    return ""


def _calls(
    meter: Meter,
    load: Load,
    until_s: float,
    *,
    clock: Clock,
    sleep: Callable[[float], object],
    progress: Progress,
) -> bool:
    """Make a turn of calls; return whether there was time for all of them."""
    period_s = meter.sampler.snapshot(lambda traces: max(map(_period_s, traces)))
    cycle_s = (math.ceil((_BUSY_S + _IDLE_S) / period_s) + _GOLDEN) * period_s
    end_s = clock()
    for _ in progress(range(_CALLS)):
        end_s = max(end_s + cycle_s, clock() + _IDLE_S + _BUSY_S)
        if end_s > until_s:
            break
        sleep(max(end_s - _BUSY_S - clock(), 0.0))
        with meter.track("calibrate"):
            load()
            wait_for_devices()
            while clock() < end_s:
                load()
                wait_for_devices()
    sleep(_IDLE_S)
    return end_s <= until_s


def _period_s(trace: Trace) -> float:
    """Return how often a channel's figure is renewed, as learned or documented."""
    return trace.channel.period_s if trace.learned.period is None else trace.learned.period.middle_s


def not_learned(trace: Trace, fault: str = "") -> str:
    """Return why latency and window of a channel were not learned; empty if they were, or cannot be."""
    ramp = trace.conclude()
    if ramp is None:
        return ""
    missing = [
        name
        for name, found, wanted in (
            ("latency", ramp.latency, True),
            ("window", ramp.window, trace.channel.quantity == "power"),
        )
        if wanted and found is None
    ]
    reason = (
        fault
        or (not trace.alive and trace.reason)
        or "its power did not fall alike often enough when calls of the load ended"
    )
    channel = trace.channel
    which = " and ".join(missing)
    return f"{channel.id} ({channel.name}): {which} not learned: {reason}." if missing else ""
