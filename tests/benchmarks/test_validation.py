"""The validation suite: its own truth is right, its page is what it measures, and the bounds hold."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.validation import page
from benchmarks.validation.__main__ import pooled
from benchmarks.validation.accept import CONDITIONS, chance_of, errors, unbalanced, uncovered
from benchmarks.validation.loads import LOADS, Span
from benchmarks.validation.machines import PROFILES, START_S, machine
from benchmarks.validation.score import BIN_NAMES, cells, shares
from benchmarks.validation.waveform import JUST_AFTER_S, Piece, Waveform, add

AGAIN = [("H100", "serving"), ("RAPL of Intel", "diffusion"), ("V100, no counter", "bursts")]
"""What is run once more: enough to notice that the page tells of another estimator."""


@pytest.mark.parametrize("load", LOADS)
def test_the_emulator_and_the_suite_agree_about_the_truth(load):
    """The suite's closed form is the energy that the emulated GPU drew."""
    played = LOADS[load](random.Random(1), 20)
    with machine(PROFILES["H100"], played, random.Random(1)) as this:
        world = this.world
        (_, true, _) = this.devices[0]
        lengths = [(START_S + s.start_s, START_S + s.end_s) for s in played.spans]
        emulated = [world._nvml.device(0).true_energy_j(*one) for one in lengths]
    assert emulated == pytest.approx([true.energy_j(end) - true.energy_j(begin) for begin, end in lengths])


@given(
    st.lists(st.tuples(st.floats(0.01, 2), st.floats(0, 500), st.sampled_from([0.0, 0.1, 1.0])), min_size=1)
)
def test_a_waveform_integrates_its_power(pieces):
    """The joules between two times are the integral of the power."""
    starts = np.cumsum([0.0, *(length for length, _, _ in pieces)])
    waveform = Waveform(
        Piece(start, watts, tau) for start, (_, watts, tau) in zip(starts[:-1], pieces, strict=True)
    )
    times = np.linspace(0, starts[-1], 4001)
    middle = [waveform.power_w(time) for time in (times[1:] + times[:-1]) / 2]
    most = max(watts for _, watts, _ in pieces) + 1
    numeric = float(np.sum(middle)) * times[1]
    assert waveform.energy_j(times[-1]) == pytest.approx(numeric, abs=2 * most * times[1] * len(pieces))


def test_blocks_add_to_a_waveform():
    """Another process's load is on top of what fades and what does not."""
    one = Waveform([Piece(0, 100), Piece(1, 200), Piece(1 + JUST_AFTER_S, 50, 0.5)])
    both = add(one, [(0.5, 1.5, 30), (2, 3, 70)])
    for end in (0.7, 1.2, 1.7, 2.5, 4.0):
        blocks = 30 * np.clip(end - 0.5, 0, 1) + 70 * np.clip(end - 2, 0, 1)
        assert both.energy_j(end) == pytest.approx(one.energy_j(end) + blocks, abs=1e-3)


def test_true_shares_add_up():
    """The true shares of calls that overlap and nest are what was drawn while any was open."""
    waveform = Waveform([Piece(0, 100), Piece(2, 200)])
    spans = [Span(1, 4), Span(1.5, 2.5, parent=0), Span(2, 5)]
    outer, inner, other = shares(spans, waveform)
    assert inner == pytest.approx(50 + 50)
    assert outer == pytest.approx(50 + 50 + 50 + 150)
    assert outer + other == pytest.approx(waveform.energy_j(5) - waveform.energy_j(1))


def test_chance():
    """Few calls outside prove nothing, many do."""
    assert chance_of(18, 20) > 0.2
    assert chance_of(700, 1000) < 1e-12
    assert chance_of(20, 20) == pytest.approx(1)


@pytest.fixture(scope="module")
def again():
    return {(p, load): cells(p, load, pooled(p, load).calls) for p, load in AGAIN}


@pytest.mark.parametrize("combination", AGAIN, ids=" ".join)
def test_the_page_tells_what_is_measured(again, combination):
    """The figures in the docs are this commit's; if not: python -m benchmarks.validation --write."""
    written = {(one.profile, one.load, one.length): one for one in page.read()[0]}
    for one in again[combination]:
        known = written[one.profile, one.load, one.length]
        assert one.calls == known.calls
        assert one.median == pytest.approx(known.median, rel=0.1)
        assert one.half_width == pytest.approx(known.half_width, rel=0.1)
        assert one.within_error == pytest.approx(known.within_error, abs=0.02)


def test_the_page_holds_the_numbers_beside_it():
    """The tables of the page are made of the numbers kept beside the suite."""
    text = page.PAGE.read_text("utf-8")
    for name, table in page.tables(*page.read()).items():
        between = text.partition(page.BEGIN.format(name=name))[2].partition(page.END.format(name=name))[0]
        assert between.strip() == table


def test_the_truth_lies_inside():
    """Honesty: the truth lies inside error_j in at least 95 % of the calls, on every machine under every load."""
    cells, _ = page.read()
    assert {(one.profile, one.load) for one in cells} == {(p, load) for p in PROFILES for load in LOADS}
    assert uncovered(cells) == []


@pytest.mark.parametrize("kind", CONDITIONS)
def test_the_wanted_errors_are_kept(kind):
    """Under the conditions of the comparison errors and biases are as small as wanted."""
    assert errors(kind, page.read()[0]) == []


def test_runs_add_up_to_their_counters():
    """Shares and what is nobody's add up to the counter within 0.1 %, but for the step at either end."""
    assert unbalanced(page.read()[1]) == []


@pytest.mark.parametrize(
    ("profile", "load"),
    [("H100", "neighbour"), ("RAPL of Intel", "neighbour"), ("H100, sampler starved", "serving"),
     ("H100, counter sticks", "serving"), ("H100, steps late by up to 40 ms", "serving")],
)  # fmt: skip
def test_bars_widen_where_an_assumption_fails(profile, load):
    """Another process on the device, a sampler kept from running, a sensor that sticks or is late: wider bars."""
    width = {(one.profile, one.load): one.half_width for one in page.read()[0] if one.length == BIN_NAMES[0]}
    usual = "RAPL of Intel" if profile.startswith("RAPL") else "H100"
    assert width[profile, load] > 1.25 * width[usual, "serving"]
