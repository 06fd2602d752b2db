"""What entering and leaving a call costs, beside a bare context manager that takes two timestamps."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Iterator
from time import perf_counter

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import aimeter
from benchmarks.rig import Hardware
from benchmarks.verdict import Bare, Finding

MOST = 4.0
"""Wanted: at most this many times the cost of the bare context manager."""

CALLS = (200, 400)
"""Calls in a lap, drawn anew for each: a fixed number falls into step with the garbage collector."""


def bare(calls: int) -> float:
    began = perf_counter()
    for _ in range(calls):
        with Bare():
            pass
    return (perf_counter() - began) / calls


def named(calls: int) -> float:
    began = perf_counter()
    for _ in range(calls):
        with aimeter.track("x"):
            pass
    return (perf_counter() - began) / calls


def unnamed(calls: int) -> float:
    began = perf_counter()
    for _ in range(calls):
        with aimeter.track():
            pass
    return (perf_counter() - began) / calls


def counted(calls: int) -> float:
    began = perf_counter()
    for _ in range(calls):
        with aimeter.track("x", images=4):
            pass
    return (perf_counter() - began) / calls


FORMS = {'track("x")': named, "track()": unnamed, 'track("x", images=4)': counted}


def ratios(rounds: int) -> dict[str, tuple[float, float]]:
    """Return for each form its cost over the bare one's: best lap over best lap, and the median of both.

    Laps are short, in random order and with pauses for the background to settle: so the best one shows the cost
    that the caller pays, whatever else the machine is doing.
    """
    laps: dict[str, list[float]] = {name: [] for name in ("bare", *FORMS)}
    forms: list[tuple[str, Callable[[int], float]]] = [("bare", bare), *FORMS.items()]
    for _ in range(rounds):
        random.shuffle(forms)
        for name, form in forms:
            laps[name].append(form(random.randint(*CALLS)))
        aimeter.flush()
    least, usual = min(laps["bare"]), statistics.median(laps["bare"])
    return {name: (min(laps[name]) / least, statistics.median(laps[name]) / usual) for name in FORMS}


@pytest.fixture(params=[0, 8], ids="{} GPUs".format)
def gpus(request: pytest.FixtureRequest, hardware: Hardware) -> Iterator[int]:
    """Meter with so many GPUs and RAPL."""
    hardware.gpus(request.param)
    meter = aimeter.configure(powercap=hardware.powercap, region="FR")
    with meter.track("first"):  # finds the sensors
        pass
    read = {trace.channel.id for trace in meter.sampler.readers.traces}
    assert len([channel for channel in read if channel.startswith("gpu")]) == request.param
    yield request.param
    meter.close()


def test_a_call_costs_little_more_than_two_timestamps(
    gpus: int, full: bool, note: Callable[[Finding], None], benchmark: BenchmarkFixture
) -> None:
    found = ratios(400 if full else 80)
    benchmark.extra_info["ratios"] = found
    benchmark.pedantic(named, args=(300,), rounds=20, setup=aimeter.flush)
    for form, (best, median) in found.items():
        note(Finding(f"with {form}, {gpus} GPUs", best, "x", at_most=MOST, note=f"median {median:.3g} x"))


def test_calls_without_a_pause(full: bool, note: Callable[[Finding], None], hardware: Hardware) -> None:
    """What a loop sees that does nothing but make calls, so that settling and writing take its CPU."""
    with aimeter.Meter(sensors=hardware.sensors(0), region="FR") as meter:
        calls = 50_000 if full else 10_000
        floor = min(bare(1000) for _ in range(20))
        began = perf_counter()
        for _ in range(calls):
            with meter.track("x"):
                pass
        note(
            Finding("calls without a pause, settling included", (perf_counter() - began) / calls / floor, "x")
        )
