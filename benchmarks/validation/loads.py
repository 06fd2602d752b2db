"""Kinds of load, as data: what the device draws and when calls begin and end.

Powers are those of an H100, which idles at 70 W and may draw 700 W; machines scale them to their own limits.
What each call draws begins and ends with it, but nothing tells aimeter so, and some loads break that rule.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import NamedTuple

from .waveform import JUST_AFTER_S, Piece, Waveform, add

IDLE_W, LIMIT_W = 70.0, 700.0
_AFTER_W, _AFTER_TAU_S = 110.0, 0.4
"""After work a device falls to idle slowly: clocks and fans take their time."""

LAUNCH_S = 0.001
"""What a call causes begins so much later at most: tensors are made and kernels launched first."""

_NOISE, _NOISE_S = 0.03, 0.02
"""The plateau's noise, and how often it changes."""


class Span(NamedTuple):
    """One call: its times, the position of the call around it (None: no call), and whether it is judged."""

    start_s: float
    end_s: float
    parent: int | None = None
    judged: bool = True


class Load(NamedTuple):
    """What happens on a machine."""

    waveform: Waveform
    spans: list[Span]
    end_s: float


class _Script:
    """A load being written, with one thing after another."""

    def __init__(self, choose: random.Random, *, warm_up: bool = True) -> None:
        self.choose = choose
        self.now_s = 0.0
        self.pieces = [Piece(0.0, IDLE_W)]
        self.spans: list[Span] = []
        self.wait(0.1)
        if warm_up:
            with_call = self.now_s
            self.plateau(300.0, 0.5)
            self.spans.append(Span(with_call, self.now_s, judged=False))
            self.rest(3.0)

    def draw(self, watts: float) -> None:
        self.pieces.append(Piece(self.now_s, watts))

    def wait(self, seconds: float) -> None:
        self.now_s += seconds

    def plateau(self, watts: float, seconds: float, noise: float = _NOISE) -> None:
        end = self.now_s + seconds
        while self.now_s < end - 1e-9:
            self.draw(watts * self.choose.gauss(1, noise))
            self.wait(min(_NOISE_S, end - self.now_s))
        self.now_s = end

    def rest(self, seconds: float) -> None:
        """Do nothing: the device falls to idle."""
        self.draw(_AFTER_W)
        self.pieces.append(Piece(self.now_s + JUST_AFTER_S, IDLE_W, _AFTER_TAU_S))
        self.wait(seconds)

    def work(self, seconds: float, plateau_w: float, spike_w: float, spike_s: float = 0.05) -> None:
        """Make one call that causes a spike and a plateau."""
        start = self.now_s
        spike_s = min(0.1 * seconds, spike_s)
        self.draw(spike_w)
        self.wait(spike_s)
        self.plateau(plateau_w, seconds - spike_s)
        self.spans.append(Span(start, self.now_s))

    def done(self) -> Load:
        self.rest(1.0)
        return Load(Waveform(self.pieces), self.spans, self.now_s)


def _length_s(choose: random.Random, least_s: float = 0.01, most_s: float = 3.0) -> float:
    return math.exp(choose.uniform(math.log(least_s), math.log(most_s)))


def serving(choose: random.Random, calls: int) -> Load:
    """Calls of 10 ms to 3 s (log-uniform), gaps of 20 to 300 ms, a spike of 450 to 690 W and a plateau."""
    script = _Script(choose)
    for _ in range(calls):
        script.work(_length_s(choose), choose.uniform(200, 400), choose.uniform(450, 690))
        script.rest(choose.uniform(0.02, 0.3))
    return script.done()


def never_idle(choose: random.Random, calls: int) -> Load:
    """Serving from the first moment, with gaps of 1 to 30 ms: the device is never seen idle."""
    script = _Script(choose, warm_up=False)
    for _ in range(calls):
        script.work(_length_s(choose), choose.uniform(200, 400), choose.uniform(450, 690))
        script.rest(choose.uniform(0.001, 0.03))
    return script.done()


def diffusion(choose: random.Random, calls: int) -> Load:
    """Images of 20 to 50 equal steps, each a nested call, with short valleys between; then a decoder."""
    script = _Script(choose)
    while len(script.spans) < calls:
        step_s, watts = _length_s(choose, 0.02, 0.3), choose.uniform(350, 600)
        image = len(script.spans)
        script.spans.append(Span(script.now_s, script.now_s))
        script.draw(choose.uniform(150, 250))
        script.wait(choose.uniform(0.01, 0.05))
        for _ in range(choose.randint(20, 50)):
            begin = script.now_s
            script.plateau(watts, step_s, noise=0.02)
            script.spans.append(Span(begin, script.now_s, parent=image))
            script.draw(choose.uniform(150, 250))
            script.wait(choose.uniform(0.002, 0.005))
        script.plateau(choose.uniform(500, 650), choose.uniform(0.1, 0.3))
        script.spans[image] = script.spans[image]._replace(end_s=script.now_s)
        script.rest(choose.uniform(0.3, 2.0))
    return script.done()


def bursts(choose: random.Random, calls: int) -> Load:
    """Groups of 5 to 30 calls of 1 to 20 ms with hardly a gap, then pauses of 0.5 to 4 s."""
    script = _Script(choose)
    while len(script.spans) < calls:
        watts = choose.uniform(250, 550)
        for _ in range(choose.randint(5, 30)):
            begin = script.now_s
            script.plateau(watts, _length_s(choose, 0.001, 0.02))
            script.spans.append(Span(begin, script.now_s))
            script.draw(120.0)
            script.wait(choose.uniform(0.0005, 0.005))
        script.rest(choose.uniform(0.5, 4.0))
    return script.done()


def language_model(choose: random.Random, calls: int) -> Load:
    """Prefill spikes of 385 to 508 W over a decode plateau of about 295 W that ripples with the tokens.

    The figures are of Qwen3 on an A100 under vLLM: powertrace-sim (Wilkins et al.), instant power.
    """
    script = _Script(choose)
    for _ in range(calls):
        begin = script.now_s
        script.plateau(choose.uniform(385, 508), _length_s(choose, 0.02, 0.3))
        plateau_w, token_s = choose.gauss(295, 10), choose.uniform(0.015, 0.03)
        for _ in range(choose.randint(1, 120)):
            script.draw(plateau_w * choose.gauss(1.05, 0.02))
            script.wait(0.7 * token_s)
            script.draw(plateau_w * choose.gauss(0.88, 0.02))
            script.wait(0.3 * token_s)
        script.spans.append(Span(begin, script.now_s))
        script.rest(0.01 + choose.expovariate(1 / 0.4))
    return script.done()


def overlapping(choose: random.Random, calls: int) -> Load:
    """Eight workers that call at the same time, each call with a load of its own."""
    script = _Script(choose)
    changes: list[tuple[float, float]] = []
    begin = end = script.now_s
    first = len(script.spans)
    for _ in range(8):
        now = begin + choose.uniform(0, 0.5)
        for _ in range(calls // 8):
            length, watts = _length_s(choose), choose.uniform(30, 120)
            spike_s = min(0.1 * length, 0.05)
            changes += [(now, watts + 150), (now + spike_s, -150.0), (now + length, -watts)]
            script.spans.append(Span(now, now + length))
            now += length + choose.expovariate(1 / 0.3)
        end = max(end, now)
    script.spans[first:] = sorted(script.spans[first:])
    total = 0.0
    for time, change in sorted(changes):
        total += change
        script.now_s = time
        if total < 1e-6:
            script.rest(0.0)
        else:  # a device that is busy already draws less for one more
            script.draw(_AFTER_W + 580 * (1 - math.exp(-total / 400)) * choose.gauss(1, 0.02))
    script.now_s = end
    return script.done()


def slow_to_rest(choose: random.Random, calls: int) -> Load:
    """Serving on a device that holds its clocks for a while after work, then drops them one by one, and whose idle
    power wanders: no fading in one curve."""
    script = _Script(choose)
    wander_w = 0.0
    for _ in range(calls):
        script.work(_length_s(choose), choose.uniform(200, 400), choose.uniform(450, 690))
        wander_w = 0.9 * wander_w + choose.gauss(0, 2)
        left = choose.uniform(0.02, 0.3) if choose.random() < 0.8 else choose.uniform(0.5, 3)
        for watts, seconds in ((140.0, 0.15), (105.0, 0.35), (85.0, 0.6), (IDLE_W, math.inf)):
            held_s = min(seconds * choose.uniform(0.8, 1.2), left)
            left -= held_s
            script.plateau(watts + wander_w, held_s, noise=0.01)
    return script.done()


def regular(choose: random.Random, calls: int) -> Load:
    """Trains of equal calls at equal distances, some in step with a sensor that is renewed every 100 ms."""
    script = _Script(choose)
    while len(script.spans) < calls:
        busy_s, quiet_s = choose.choice(
            [(0.03, 0.07), (0.06, 0.04), (0.052, 0.052), (0.15, 0.05), (0.02, 0.03)]
        )
        watts = choose.uniform(300, 600)
        script.wait(choose.uniform(0, 0.1))
        for _ in range(choose.randint(20, 50)):
            begin = script.now_s
            script.plateau(watts, busy_s, noise=0.01)
            script.spans.append(Span(begin, script.now_s))
            script.rest(quiet_s)
        script.wait(choose.uniform(0.3, 2.0))
    return script.done()


def host_work(choose: random.Random, calls: int) -> Load:
    """Calls that use the device for one part of their time only, 30 to 95 % of it, somewhere inside."""
    script = _Script(choose)
    for _ in range(calls):
        begin, length = script.now_s, _length_s(choose)
        busy = length * choose.uniform(0.3, 0.95)
        script.wait((length - busy) * choose.random())
        script.plateau(choose.uniform(200, 600), busy)
        script.draw(_AFTER_W)
        script.pieces.append(Piece(script.now_s + JUST_AFTER_S, IDLE_W, _AFTER_TAU_S))
        script.now_s = begin + length
        script.spans.append(Span(begin, script.now_s))
        script.wait(choose.uniform(0.02, 0.3))
    return script.done()


def neighbour(choose: random.Random, calls: int) -> Load:
    """Serving, while another process loads the GPU as it pleases, mostly between the calls."""
    load = serving(choose, calls)
    blocks, now = [], load.spans[0].end_s + 3.2
    while True:
        now += choose.expovariate(1.0)
        length = _length_s(choose, 0.02, 1.0)
        if now + length > load.end_s:
            break
        blocks.append((now, now + length, choose.uniform(50, 250)))
        now += length + 0.01
    return load._replace(waveform=add(load.waveform, blocks))


def light_around(choose: random.Random, calls: int) -> Load:
    """Long calls that wait for the host, with short heavy calls in them."""
    script = _Script(choose)
    while len(script.spans) < calls:
        outer = len(script.spans)
        script.spans.append(Span(script.now_s, script.now_s))
        for _ in range(choose.randint(5, 30)):
            script.draw(choose.uniform(90, 150))
            script.wait(choose.uniform(0.03, 0.2))
            begin = script.now_s
            script.plateau(choose.uniform(300, 600), _length_s(choose, 0.01, 0.1))
            script.spans.append(Span(begin, script.now_s, parent=outer))
        script.draw(choose.uniform(90, 150))
        script.wait(0.05)
        script.spans[outer] = script.spans[outer]._replace(end_s=script.now_s)
        script.rest(choose.uniform(0.3, 2.0))
    return script.done()


def launched(load: Load, choose: random.Random) -> Load:
    """Let what a call causes begin up to `LAUNCH_S` after the call itself."""
    begins = {span.start_s for span in load.spans}
    pieces = load.waveform.pieces
    ends = [piece.start_s for piece in pieces[1:]] + [math.inf]
    late = [
        piece._replace(start_s=min(piece.start_s + choose.uniform(0, LAUNCH_S), (piece.start_s + end_s) / 2))
        if piece.start_s in begins
        else piece
        for piece, end_s in zip(pieces, ends, strict=True)
    ]
    return load._replace(waveform=Waveform(late))


LOADS: dict[str, Callable[[random.Random, int], Load]] = {
    "serving": serving,
    "never idle": never_idle,
    "diffusion": diffusion,
    "bursts": bursts,
    "language model": language_model,
    "overlapping": overlapping,
    "neighbour": neighbour,
    "slow to rest": slow_to_rest,
    "host work": host_work,
    "regular": regular,
    "light around": light_around,
}
