"""The trials: each puts one question to the device, and answers in plain numbers."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import aimeter
from aimeter.record import Record
from aimeter.sensors import nvml
from benchmarks.hardware import publications
from benchmarks.hardware.board import Board, work
from benchmarks.hardware.reader import Change, Reader, Recording
from benchmarks.rig import aimeter_threads, cpu_s_of
from benchmarks.verdict import Bare

Figures = dict[str, Any]
Span = tuple[float, float]

LENGTHS_S = (0.001, 0.005, 0.02, 0.1)
"""Lengths of the short calls."""


@dataclass
class Rig:
    """What a trial works with.

    Attributes:
        board: The device.
        reader: Watches it from outside aimeter.
        effort: 1 for the whole programme; less shortens the trials in proportion.
        patience: 1 waits as long as a real device needs to come to rest.
        chance: Draws lengths and pauses.
        latency_s: How late the counter is, once the trial of the steps has shown it.
        spans: Begins and ends of the work of the recorded trial.
        recording: What the reader saw of it.
    """

    board: Board
    reader: Reader
    effort: float = 1.0
    patience: float = 1.0
    chance: random.Random = field(default_factory=lambda: random.Random(0))
    latency_s: float = 0.0
    spans: list[Span] = field(default_factory=list)
    recording: Recording | None = None

    def times(self, number: int, least: int = 2) -> int:
        """Return so many repetitions, in proportion to the effort."""
        return max(round(number * self.effort), least)

    def meter(self, **settings: Any) -> aimeter.Meter:
        """Return a meter of this device alone."""
        sensors = []
        for sensor in nvml.probe()[0]:
            if any(channel.device == self.board.uuid for channel in sensor.channels):
                sensors.append(sensor)
            else:
                sensor.close()
        return aimeter.Meter(log=None, sensors=sensors, **{"calibration": "off", **settings})

    def rest(self, seconds: float) -> None:
        """Let device and meters come to rest."""
        time.sleep(seconds * self.patience)

    def pause(self, least_s: float, most_s: float) -> None:
        """Wait for a time that chance decides, so that no phase of a meter is preferred."""
        time.sleep(self.chance.uniform(least_s, most_s))


def cost_of_reading(rig: Rig) -> Figures:
    """How long does one reading of each meter take, in seconds?"""
    with rig.reader(rig.board.uuid) as recording:
        time.sleep(2 * rig.effort + 0.2)
    figures = {}
    for name, seen in recording.seen.items():
        p50, p95, p99 = np.percentile(seen.cost_s, [50, 95, 99])
        figures[name] = {
            "readings": len(seen.cost_s),
            "median_s": float(p50),
            "p95_s": float(p95),
            "p99_s": float(p99),
            "max_s": max(seen.cost_s),
        }
    return figures


def publication(rig: Rig) -> Figures:
    """How often is each meter renewed, how late is it, and over how long is a power a mean?

    Work of a length that chance decides, between pauses long enough for a mean over one second to come to rest.
    """
    spans = []
    with rig.reader(rig.board.uuid) as recording:
        rig.rest(1.0)
        for _ in range(rig.times(24, 5)):
            spans.append(work(rig.board, rig.chance.uniform(0.3, 0.9)))
            rig.rest(rig.chance.uniform(0.9, 1.5))
    rig.spans, rig.recording = spans, recording
    figures: Figures = {}
    for name, seen in recording.seen.items():
        steps = publications.steps(seen.changes)
        response = publications.response(seen.changes, spans, counter=name == "counter")
        figures[name] = {
            **({} if steps is None else steps._asdict()),
            **({} if response is None else response._asdict()),
        }
    if "counter" in figures:
        rig.latency_s = figures["counter"].get("latency_s", 0.0)
    return figures


def samples(rig: Rig) -> Figures:
    """What does the driver's ring of power samples hold, what does reading it cost, and of which time does it tell?"""
    import pynvml as nv

    nv.nvmlInit()
    try:
        handle = nv.nvmlDeviceGetHandleByUUID(rig.board.uuid)
        seen: dict[int, float] = {}
        costs, spans = [], []
        for number in range(rig.times(30, 4)):
            spans.append(work(rig.board, rig.chance.uniform(0.1, 0.4)))
            rig.pause(0.3, 0.8)
            began_s = time.perf_counter()
            _, ring = nv.nvmlDeviceGetSamples(handle, nv.NVML_TOTAL_POWER_SAMPLES, max(seen, default=0))
            costs.append(time.perf_counter() - began_s)
            if number == 0:
                held = len(ring)
            seen |= {one.timeStamp: one.sampleValue.uiVal / 1e3 for one in ring}
            # Stamps are of the system's clock; its distance from the monotonic one is taken at the latest reading.
            zero_s = time.time() - time.perf_counter()
    finally:
        nv.nvmlShutdown()
    times_s = [stamp / 1e6 - zero_s for stamp in sorted(seen)]
    changes = [Change(at_s, at_s, seen[stamp]) for at_s, stamp in zip(times_s, sorted(seen), strict=True)]
    gaps = np.diff(times_s)
    fit = publications.response(changes, spans, counter=False)
    return {
        "held": held,
        "held_s": float(held * np.median(gaps)),
        "median_cost_s": statistics.median(costs),
        "period_s": float(np.median(gaps)),
        "shortest_s": float(np.min(gaps)),
        "longest_s": float(np.max(gaps)),
        **({} if fit is None else fit._asdict()),
    }


def duty_cycle(rig: Rig) -> Figures:
    """Work on and off: do the meters agree with each other, and does aimeter agree with the counter?"""
    figures = {}
    for on_s, off_s in ((0.1, 0.1), (0.02, 0.08), (1.0, 0.5)):
        with rig.reader(rig.board.uuid) as recording, rig.meter() as meter:
            rig.rest(1.5)
            begin_s = time.perf_counter()
            with meter.track("whole") as whole:
                while time.perf_counter() - begin_s < max(10 * rig.effort, 0.8):
                    with meter.track("on"):
                        work(rig.board, on_s)
                    time.sleep(off_s)
            end_s = time.perf_counter()
            rig.rest(1.5)
            meter.flush()
            record = whole.record
        assert record is not None
        counted_j = recording.energy_j(begin_s, end_s, rig.latency_s)
        figures[f"{1e3 * on_s:g} ms on, {1e3 * off_s:g} ms off"] = {
            "seconds": end_s - begin_s,
            "counter_j": counted_j,
            "aimeter_j": record.energy_j,
            "error_j": record.error_j,
            "resolution_j": record.resolution_j,
            "method": record.gpu_method,
            "aimeter_over_counter": _ratio(record.energy_j, counted_j),
            "instant_over_counter": _power_over(recording, "instant", begin_s, end_s, counted_j),
            "average_over_counter": _power_over(recording, "average", begin_s, end_s, counted_j),
        }
    return figures


def _ratio(one: float | None, other: float) -> float | None:
    return None if one is None or not other else one / other


def _power_over(recording: Recording, name: str, begin_s: float, end_s: float, counted_j: float) -> Any:
    if name not in recording.seen:
        return None
    shift_s = 0.5 if name == "average" else 0.0
    return recording.integral_j(name, begin_s, end_s, shift_s) / counted_j


def conservation(rig: Rig) -> Figures:
    """Calls of several threads that overlap on the device: do shares and the rest add up to what it drew?"""
    threads, each = 4, rig.times(30)
    with rig.reader(rig.board.uuid) as recording, rig.meter() as meter:
        rig.rest(1.5)

        def serve(seed: int) -> None:
            chance = random.Random(seed)
            with rig.board.apart():
                for _ in range(each):
                    with meter.track("served"):
                        work(rig.board, chance.uniform(0.005, 0.12))
                    time.sleep(chance.uniform(0.0, 0.1))

        begin_s = time.perf_counter()
        with meter.track("around"):
            pass  # accounts begin here
        before_j = _all_j(meter)
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(serve, range(threads)))
        rig.rest(0.5)
        with meter.track("around"):
            pass
        end_s = time.perf_counter()
        rig.rest(1.5)
        after_j = _all_j(meter)
        concurrency = statistics.fmean(row.concurrency for row in meter.records() if row.name == "served")
    attributed_j, counted_j = after_j - before_j, recording.energy_j(begin_s, end_s, rig.latency_s)
    return {
        "calls": threads * each,
        "concurrency": concurrency,
        "shares_and_rest_j": attributed_j,
        "counter_j": counted_j,
        "ratio": _ratio(attributed_j, counted_j),
    }


def _all_j(meter: aimeter.Meter) -> float:
    """Return what all calls that have ended and the time without any drew."""
    meter.flush()
    shares = sum(row.energy_j or 0.0 for row in meter.records() if row.parent_id is None)
    return shares + sum(meter.unattributed_j().values())


def short_calls(rig: Rig) -> Figures:
    """Equal short calls at any moment: how far is each from what one of them draws, and do the bars hold that?

    The truth owes nothing to aimeter: what the counter gained over all calls and pauses, less the power at rest of the
    same pauses without calls, is what the calls drew above rest. A call in the midst of others, back to back, may draw
    another power, as the clocks have risen.
    """
    figures = {}
    for length_s in LENGTHS_S:
        number = rig.times(1000 if length_s < 0.1 else 400, 8)
        with rig.reader(rig.board.uuid) as recording, rig.meter(memory_rows=number + 10) as meter:
            with meter.track("warm-up"):
                work(rig.board, 0.5)
            rig.rest(3.0)
            begin_s = time.perf_counter()
            lengths = []
            for _ in range(number):
                with meter.track("short"):
                    began_s, ended_s = work(rig.board, length_s)
                lengths.append(ended_s - began_s)
                rig.pause(0.0, 0.06)
            end_s = time.perf_counter()
            rig.rest(2.0)
            meter.flush()
            rows = [row for row in meter.records() if row.name == "short"]
        late_s = rig.latency_s
        rest_w = recording.energy_j(end_s + 0.3, end_s + 1.3, late_s)
        above_j = recording.energy_j(begin_s, end_s, late_s) - rest_w * (end_s - begin_s)
        true_j = above_j / number + rest_w * statistics.fmean(lengths)
        figures[f"{1e3 * length_s:g} ms"] = {
            "length_s": statistics.fmean(lengths),
            "length_sd_s": statistics.stdev(lengths),
            "true_j": true_j,
            "back_to_back_j": back_to_back(rig, length_s),
            "rest_w": rest_w,
            **_held(rows, true_j),
        }
    return figures


def back_to_back(rig: Rig, length_s: float) -> float:
    """Return the joules of one call of this length by the counter, from a block without pauses."""
    number = max(round(2.0 * max(rig.effort, 0.25) / length_s), 4)
    with rig.reader(rig.board.uuid) as recording:
        rig.rest(0.5)
        begin_s = time.perf_counter()
        for _ in range(number):
            work(rig.board, length_s)
        end_s = time.perf_counter()
        rig.rest(0.5)
    return recording.energy_j(begin_s, end_s, rig.latency_s) / number


def _held(rows: Sequence[Record], true_j: float) -> Figures:
    """Return how far calls that did the same are from what one draws, and how many hold that inside their bars."""
    known = [row for row in rows if row.energy_j is not None and row.resolution_j is not None]
    joules = np.array([row.energy_j for row in known], dtype=float)
    bars = np.array([row.resolution_j for row in known], dtype=float)
    errors = np.array([row.error_j for row in known], dtype=float)
    off = np.abs(joules - true_j)
    return {
        "calls": len(known),
        "unmetered": len(rows) - len(known),
        "mean_over_true": float(np.mean(joules)) / true_j,
        "median_off": float(np.median(off)) / true_j,
        "p95_off": float(np.percentile(off, 95)) / true_j,
        "resolution": float(np.median(bars)) / true_j,
        "inside_resolution": float(np.mean(off <= bars)),
        "inside_error": float(np.mean(off <= errors)),
        "coverage": float(np.mean([row.coverage for row in known])),
    }


def synchronisation(rig: Rig) -> Figures:
    """A call that returns before its work is done: what do its joules say with `sync` and without?"""
    figures = {}
    for sync in ("auto", "off"):
        with rig.meter(sync=sync) as meter:
            rig.rest(1.0)
            for _ in range(rig.times(20)):
                with meter.track("launched"):
                    rig.board.enqueue(0.1)
                rig.board.wait()
                rig.pause(0.2, 0.4)
            meter.flush()
            rows = meter.records()
        figures[sync] = {
            "mean_s": statistics.fmean(row.duration_s for row in rows),
            "mean_j": statistics.fmean(row.energy_j or 0.0 for row in rows),
        }
    return figures


def cost_of_metering(rig: Rig) -> Figures:
    """What does metering cost with the real driver: at a call, and in the background?"""
    with rig.meter() as meter:
        bare_s, call_s = [], []
        for _ in range(rig.times(200)):
            for laps, block in ((bare_s, Bare), (call_s, lambda: meter.track("x"))):
                began_s = time.perf_counter()
                for _ in range(200):
                    with block():
                        pass
                laps.append((time.perf_counter() - began_s) / 200)
            meter.flush()
        figures: Figures = {"bare_s": min(bare_s), "call_s": min(call_s), "ratio": min(call_s) / min(bare_s)}
    for label, pause_s in (("one call open", 60.0), ("a call every 0.5 s", 0.45)):
        with rig.meter() as meter:
            with meter.track("warm-up"):
                rig.rest(1.0)
            threads, seconds = aimeter_threads(), max(8 * rig.effort, 0.5)
            before_s, began_s = cpu_s_of(threads), time.perf_counter()
            while time.perf_counter() - began_s < seconds:
                with meter.track("call"):
                    time.sleep(min(pause_s, seconds))
                time.sleep(pause_s / 9 if pause_s < seconds else 0.0)
            spent_s, passed_s = cpu_s_of(threads) - before_s, time.perf_counter() - began_s
            figures[f"sampler, {label}"] = spent_s / passed_s
    return figures


def learned(rig: Rig) -> Figures:
    """What does aimeter learn of the meter from the ends of calls, beside what the fast reader saw?"""
    with rig.meter() as meter:
        for _ in range(rig.times(30, 4)):
            with meter.track("load"):
                work(rig.board, rig.chance.uniform(0.2, 0.6))
            rig.pause(0.5, 0.9)
        meter.flush()
        rig.rest(2.5)
        meter.flush()
        figures = {}
        for trace in meter.sampler.readers.traces:
            ramp = trace.conclude()
            figures[f"{trace.channel.id} {trace.channel.method}"] = {
                "period_s": trace.learned.period_s,
                "idle_w": trace.idle_w,
                "latency": None if ramp is None or ramp.latency is None else ramp.latency._asdict(),
                "window": None if ramp is None or ramp.window is None else ramp.window._asdict(),
            }
    return figures


def language_model(rig: Rig) -> Figures:
    """A small random Llama: joules of a prompt token and of a new one, from the parts that `attach` tells apart."""
    import torch
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32_000,
        hidden_size=2048,
        intermediate_size=5632,
        num_hidden_layers=16,
        num_attention_heads=16,
        num_key_value_heads=4,
        max_position_embeddings=4096,
    )
    with torch.device("cuda"):
        model: Any = LlamaForCausalLM(config).to(torch.float16).eval()
    generation = GenerationConfig(max_new_tokens=64, min_new_tokens=64, do_sample=False, pad_token_id=0)
    prompt = torch.randint(3, 32_000, (4, 1024), device="cuda")
    model.generate(prompt, attention_mask=torch.ones_like(prompt), generation_config=generation)
    with rig.meter() as meter:
        meter.attach(model)
        for _ in range(rig.times(12)):
            model.generate(prompt, attention_mask=torch.ones_like(prompt), generation_config=generation)
            rig.pause(0.1, 0.4)
        meter.flush()
        rows = meter.records()
        aimeter.detach(model)
    figures: Figures = {}
    for name in sorted({row.name for row in rows}):
        same = [row for row in rows if row.name == name]
        figures[name] = {
            "calls": len(same),
            "mean_s": statistics.fmean(row.duration_s for row in same),
            "mean_j": statistics.fmean(row.energy_j or 0.0 for row in same),
            "median_resolution_j": statistics.median(row.resolution_j or 0.0 for row in same),
            "tokens_in": same[0].tokens_in,
            "tokens_out": same[0].tokens_out,
        }
    return figures


TRIALS: dict[str, Callable[[Rig], Figures]] = {
    "cost of reading": cost_of_reading,
    "publication": publication,
    "samples": samples,
    "learned": learned,
    "duty cycle": duty_cycle,
    "short calls": short_calls,
    "conservation": conservation,
    "synchronisation": synchronisation,
    "cost of metering": cost_of_metering,
    "language model": language_model,
}
