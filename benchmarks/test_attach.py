"""What an attached pipeline costs: a call, a token, and the start of an instrumented program. Needs the extra ``demo``."""

from __future__ import annotations

import importlib
import importlib.util
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from time import perf_counter
from typing import Any

import pytest

import aimeter
from benchmarks.rig import Hardware
from benchmarks.verdict import Finding, slowness

CALL_PER_CENT = 0.5
TOKEN_US = 2.0
START_MS = 20.0


@pytest.fixture
def tiny() -> Any:
    for package in ("torch", "transformers", "diffusers"):
        pytest.importorskip(package, reason=f"{package} is not installed; it comes with the extra demo")
    module = importlib.import_module("tests.tiny_models")
    torch = importlib.import_module("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield module
    torch.set_num_threads(before)


@pytest.fixture
def meter(hardware: Hardware) -> Iterator[aimeter.Meter]:
    """A meter of a GPU and RAPL."""
    hardware.gpus(1)
    with aimeter.Meter(powercap=hardware.powercap, region="FR") as made:
        yield made


def extra(
    run: Callable[[], object], attach: Callable[[], object], detach: Callable[[], object], pairs: int
) -> float:
    """Return the seconds that being attached adds to a run: best lap over best lap, in pairs in random order."""
    best = {False: float("inf"), True: float("inf")}
    for _ in range(pairs):
        for on in random.sample([False, True], 2):
            (attach if on else detach)()
            run()  # so that neither pays for the change
            began = perf_counter()
            run()
            best[on] = min(best[on], perf_counter() - began)
    detach()
    return best[True] - best[False]


def test_a_call(tiny: Any, meter: aimeter.Meter, full: bool, note: Callable[[Finding], None]) -> None:
    """Pipelines of 0.1 and 0.4 M parameters: 32 new tokens, 10 steps.

    What metering adds is found with as little of a model's own work as there can be, whose scatter would hide it, and
    set against the call.
    """
    pipe = tiny.text_pipeline()
    painter = tiny.stable_diffusion()
    painter.set_progress_bar_config(disable=True)

    def text(tokens: int) -> object:
        return pipe("two trains", max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False)

    def image(steps: int) -> object:
        return painter("snow", num_inference_steps=steps, height=16, width=16)

    for name, subject, run, usual in (("text", pipe, text, 32), ("image", painter, image, 10)):
        laps = []
        for _ in range(5):
            began = perf_counter()
            run(usual)
            laps.append(perf_counter() - began)
        whole, pairs = min(laps), 200 if full else 60

        def tracked(run: Callable[[int], object] = run) -> None:
            with meter.track("around"):
                run(1)

        attach, detach = partial(meter.attach, subject), partial(aimeter.detach, subject)
        added = extra(partial(run, 1), attach, detach, pairs)
        above = extra(tracked, attach, detach, pairs)
        for what, figure in (("", added), (", above track() around it", above)):
            note(
                Finding(
                    f"attached {name} pipeline, of its call{what}",
                    100 * figure / whole,
                    "%",
                    at_most=CALL_PER_CENT,
                    note=f"{1e6 * figure:.0f} us of {1e3 * whole:.0f} ms",
                )
            )


def test_a_token(tiny: Any, meter: aimeter.Meter, full: bool, note: Callable[[Finding], None]) -> None:
    """What each further token costs: the marker's question, asked a great many times, metered and not."""
    criteria = importlib.import_module("transformers.generation.stopping_criteria")
    torch = importlib.import_module("torch")
    empty, ids = criteria.StoppingCriteriaList(), torch.ones(1, 4, dtype=torch.long)
    handlers = importlib.import_module("aimeter.adapters.transformers")
    model = tiny.llama(400)
    rounds = 2000

    def ask() -> None:
        for _ in range(rounds):
            empty(ids, None)

    def begin() -> None:
        meter.attach(model)
        handlers._decoding.set(handlers.Decoding())  # as after the first token

    added = extra(ask, begin, lambda: aimeter.detach(model), 30 if full else 15)
    slow = slowness()
    note(
        Finding(
            "a token more",
            1e6 * added / rounds / slow,
            "us",
            at_most=TOKEN_US,
            note=f"at an ordinary machine's speed; this one: 1/{slow:.1f}",
        )
    )


IN_PLACE = """
from time import perf_counter
import importlib.metadata  # which the framework loads itself
import aimeter
from aimeter.adapters import instrument as instrumentation

spent = 0.0

def timed(function):
    def run(*given):
        global spent
        began = perf_counter()
        try:
            return function(*given)
        finally:
            spent += perf_counter() - began

    return run

instrumentation._finished = timed(instrumentation._finished)
instrumentation._waiting_for = timed(instrumentation._waiting_for)
timed(aimeter.instrument)()
from transformers import LlamaForCausalLM, pipeline
print(spent)
"""


def test_start(full: bool, note: Callable[[Finding], None]) -> None:
    """What instrument() adds to the start of a program that imports nothing, and takes while transformers is imported.

    The latter is timed inside, as importing transformers takes seconds that scatter by more than that.
    """

    def seconds(code: str) -> float:
        done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
        return float(done.stdout)

    slow = slowness()
    timed = "from time import perf_counter as now; t = now(); import aimeter; {}; print(now() - t)"
    laps = 40 if full else 15
    on, off = (
        min(seconds(timed.format(code)) for _ in range(laps)) for code in ("aimeter.instrument()", "pass")
    )
    figures = {"of a bare program": on - off}
    if importlib.util.find_spec("transformers") is not None:
        figures["while transformers is imported"] = min(seconds(IN_PLACE) for _ in range(5 if full else 2))
    for name, added in figures.items():
        note(
            Finding(
                f"instrument() at the start {name}",
                1e3 * added / slow,
                "ms",
                at_most=START_MS,
                note=f"at an ordinary machine's speed; here {1e3 * added:.1f} ms",
            )
        )
