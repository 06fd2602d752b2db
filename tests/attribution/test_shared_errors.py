"""How wrong a share may be: what each edge of a call, and each one of others inside it, adds to its resolution."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import aimeter
from aimeter._attribution import energy
from aimeter._curve.activity import Activity
from aimeter._curve.curve import Points
from aimeter._curve.resolution import half_width, resolution
from aimeter.testing import FakeClock, FakeSensor
from tests.energies import energy_between
from tests.fakes import Looked

QUANTUM_J = 5.0
WATTS = 1000.0


class Bench:
    """Calls on a counter that is read whenever one begins or ends, and is then off by `QUANTUM_J` at most."""

    def __init__(self, interval_s=60.0, **channel):
        self.clock = FakeClock(1.0)
        self.sensor = Looked(self.clock, WATTS, quantum_j=QUANTUM_J, **channel)
        self.meter = aimeter.Meter(
            sensors=[self.sensor], clock=self.clock, region="FR", calibration="off", interval_s=interval_s
        )
        # The first value is the origin, which is exact.
        self.meter.sampler.refresh(0)
        self.wait(0.01)

    def begin(self, around=None, **options):
        call = self.meter.track("call", **options)
        self.meter.sampler.refresh(0)
        call.__enter__()
        call._parent = around  # what the context variable would say in a task of its own
        return call

    def end(self, call):
        self.meter.sampler.refresh(0)
        call.finish("ok", None)
        self.meter.sampler.refresh(0)

    def wait(self, seconds=1.0):
        self.clock.sleep(seconds)


@pytest.fixture
def bench():
    return Bench()


def in_quanta(squares):
    """Return the half-width of independent errors of so many quanta each, by their squares."""
    return pytest.approx(QUANTUM_J * np.sqrt(squares), rel=1e-6)


def test_a_call_alone_is_off_by_its_two_ends(bench):
    """Nobody else is there: each end counts in full."""
    alone = bench.begin()
    bench.wait()
    bench.end(alone)
    assert alone.energy_j == pytest.approx(WATTS)
    assert alone.resolution_j == in_quanta(1 + 1)


@pytest.mark.parametrize("others", [1, 2, 7])
def test_a_call_inside_others_is_off_by_its_part_of_the_power_at_its_ends(bench, others):
    """An energy on the wrong side of an end was shared by n there: 1 / n of it is the call's."""
    around = [bench.begin() for _ in range(others)]
    bench.wait()
    inside = bench.begin()
    bench.wait()
    bench.end(inside)
    bench.wait()
    for call in around:
        bench.end(call)
    n = others + 1
    assert inside.energy_j == pytest.approx(WATTS / n)
    assert inside.resolution_j == in_quanta(2 / n**2)


def test_who_begins_or_ends_inside_a_call_divides_by_the_wrong_number(bench):
    """Two ends in full, and at each edge of the other one an energy that is shared by 2 and not by 1, or the reverse."""
    around = bench.begin()
    bench.wait()
    inside = bench.begin()
    bench.wait()
    bench.end(inside)
    bench.wait()
    bench.end(around)
    assert around.energy_j == pytest.approx(2.5 * WATTS)
    assert around.resolution_j == in_quanta(1 + 1 + 2 * (1 - 1 / 2) ** 2)


def test_every_edge_inside_adds_its_own_error(bench):
    """From 1 to 2 to 3 sharers and back; those before and after the call, and its own two ends, are none of it."""
    for _ in range(3):
        bench.end(bench.begin())
        bench.wait()
    around = bench.begin()
    bench.wait()
    second = bench.begin()
    bench.wait()
    third = bench.begin()
    bench.wait()
    bench.end(second)
    bench.wait()
    bench.end(around)
    bench.wait()
    bench.end(third)
    one, two, three = 1.0, 1 / 2, 1 / 3
    assert around.resolution_j == in_quanta(one**2 + two**2 + (one - two) ** 2 + 2 * (two - three) ** 2)
    assert second.resolution_j == in_quanta(two**2 + three**2 + (two - three) ** 2)
    assert third.resolution_j == in_quanta(three**2 + one**2 + (three - two) ** 2 + (two - one) ** 2)
    assert sum(call.energy_j for call in (around, second, third)) == pytest.approx(5 * WATTS)


def test_a_call_of_more_weight_is_off_by_more(bench):
    """A part of w / n of the power at an end, and w times what any other call is off by."""
    heavy = bench.begin(weight=3.0)
    bench.wait()
    light = bench.begin()
    bench.wait(3.0)
    bench.end(light)
    bench.wait()
    bench.end(heavy)
    assert heavy.resolution_j == in_quanta(1 + 1 + 2 * (3 / 3 - 3 / 4) ** 2)
    assert light.resolution_j == in_quanta(2 * (1 / 4) ** 2)


def test_what_is_passed_among_ones_own_children_is_no_error(bench):
    """Two children at once inside a call that has the device to itself: whoever of them has it, the call has it all."""
    parent = bench.begin()
    bench.wait()
    children = [bench.begin(parent), bench.begin(parent)]
    bench.wait()
    bench.end(children[0])
    bench.wait()
    bench.end(children[1])
    bench.wait()
    bench.end(parent)
    assert parent.energy_j == pytest.approx(4 * WATTS)
    assert parent.resolution_j == in_quanta(1 + 1)
    assert children[0].resolution_j == in_quanta(1 + (1 - 1 / 2) ** 2 + 1 / 4)
    assert children[1].resolution_j == in_quanta(1 / 4 + (1 / 2 - 1) ** 2 + 1)


def test_an_end_counts_with_all_that_runs_inside_the_call(bench):
    """Two of three sharers are children of the call that ends: two thirds of the energy there are its own."""
    beside, parent = bench.begin(), bench.begin()
    bench.wait()
    children = [bench.begin(parent), bench.begin(parent)]
    bench.wait()
    bench.end(parent)
    bench.wait()
    for call in (*children, beside):
        bench.end(call)
    assert parent.energy_j == pytest.approx((1 / 2 + 2 / 3) * WATTS)
    edge = 1 / 2 - 1 / 3  # where both children begin, one after the other, from 2 to 2 to 3 sharers
    assert parent.resolution_j == in_quanta((1 / 2) ** 2 + (2 / 3) ** 2 + edge**2)


def test_an_end_counts_with_what_runs_inside_a_call_that_is_heavier(bench):
    """A child of a tenth of the weight outlives its parent beside a sharer of that weight: half of the energy is theirs."""
    parent, beside = bench.begin(weight=10.0), bench.begin(weight=1.0)
    bench.wait()
    child = bench.begin(parent, weight=1.0)
    bench.wait(3.0)
    bench.end(parent)
    bench.wait()
    bench.end(child)
    bench.end(beside)
    assert parent.energy_j == pytest.approx((10 / 11 + 3 / 2) * WATTS)
    to_eleven, to_two = 10 * (1 / 10 - 1 / 11), 10 * (1 / 11 - 1 / 2)
    assert parent.resolution_j == in_quanta(1 + (1 / 2) ** 2 + to_eleven**2 + to_two**2)


def test_a_gap_between_calls_divides_by_no_number(bench):
    """Where nobody is left, or nobody was, the end of a call is the only error."""
    calls = []
    for _ in range(2):
        calls.append(bench.begin())
        bench.wait()
        bench.end(calls[-1])
        bench.wait(0.01)
    assert [call.resolution_j for call in calls] == [in_quanta(2), in_quanta(2)]


class Plain:
    """Who shared the device with whom, reckoned the slow way: edge by edge."""

    def __init__(self):
        self.parent, self.weight, self.open = {}, {}, []
        self.edges = []
        """Time, call, and the weight of all leaves before and after."""
        self.held = {}
        """Weight of the leaves inside a call when it ended."""

    def leaves(self):
        return [call for call in self.open if not any(self.parent[one] is call for one in self.open)]

    def weight_of(self, calls):
        return sum(self.weight[call] for call in calls)

    def inside(self, leaf, call):
        while leaf is not None and leaf is not call:
            leaf = self.parent[leaf]
        return leaf is call

    def begin(self, call, parent, weight):
        before = self.weight_of(self.leaves())
        self.parent[call] = parent
        self.weight[call] = weight or (1.0 if parent is None else self.weight[parent])
        self.open.append(call)
        self.edges.append((call.start_s, call, before, self.weight_of(self.leaves())))

    def end(self, call):
        before = self.weight_of(self.leaves())
        self.held[call] = self.weight_of([leaf for leaf in self.leaves() if self.inside(leaf, call)])
        self.open.remove(call)
        for child in self.open:
            if self.parent[child] is call:
                self.parent[child] = self.parent[call]
        self.edges.append((call.end_s, call, before, self.weight_of(self.leaves())))

    def resolution_j(self, call, curve, said):
        """Return what errors.md says of a call's share, with what the curve said of each time when it was settled."""
        told = [said[time_s][0] for time_s, *_ in self.edges]
        curve.steady_s = said[call.end_s][1]
        at = Points(*(np.array([line]) for line in zip(*told, strict=True)))
        off_j = np.sqrt(half_width(at) ** 2 + at.phase_j**2 + at.shift_j**2)[0]
        first, last = (k for k, (_, one, *_) in enumerate(self.edges) if one is call)
        weight, record = self.weight[call], call.record
        alone = record.energy_j / record.window_j if record.window_j else 0.0
        others = [
            (off * weight * (1 / before - 1 / after)) ** 2
            for off, (*_, before, after) in zip(
                off_j[first + 1 : last], self.edges[first + 1 : last], strict=True
            )
            if before and after
        ]
        began, ended = (Points(*(line[:, [k]] for line in at)) for k in (first, last))
        parts = weight / self.edges[first][3], self.held[call] / self.edges[last][2]
        variance = np.clip(10 * (1 - alone), 0, 1) * sum(others)
        lapse, used = np.array([call.duration_s]), np.array([[record.energy_j]])
        return resolution([curve], began, ended, parts, np.array([[variance]]), lapse, used).item()


scripts = st.lists(
    st.tuples(
        st.sampled_from(["begin", "nest", "nest", "end"]),
        st.sampled_from([0.003, 0.02, 0.13, 0.7]),
        st.integers(min_value=0, max_value=10),
        st.sampled_from([None, None, 0.25, 3.0]),
    ),
    min_size=2,
    max_size=25,
)


@settings(max_examples=60)
@given(scripts, st.booleans())
def test_errors_of_shares_are_what_a_plain_reckoning_gives(script, rested):
    """Any pattern of nesting, overlap and weights on a counter in steps: see "Shared energy" in errors.md."""
    said, whole = {}, energy.read

    def listen(curves, times_s, *rest):
        [points] = found = whole(curves, times_s, *rest)
        for time_s, *point in zip(times_s.tolist(), *points, strict=True):
            said[time_s] = point, curves[0].steady_s
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(energy, "read", listen)
        calls, plain, curve = play(script, rested=rested)
    for call in calls:
        assert call.record.resolution_j == pytest.approx(plain.resolution_j(call, curve, said), rel=1e-6)


def play(script, *, rested):
    """Return the calls of a script, settled, who shared with whom, and the curve of their device."""
    bench, plain, calls = Bench(0.05, look_s=0.004, period_s=0.1, max_power_w=1.5 * WATTS), Plain(), []
    if rested:
        first = bench.begin()
        plain.begin(first, None, None)
        bench.end(first)
        plain.end(first)
        bench.wait(3.0)
    for what, seconds, pick, weight in script:
        running = [call for call in calls if not call.ended]
        if what == "end" and running:
            call = running[pick % len(running)]
            bench.end(call)
            plain.end(call)
        else:
            around = running[pick % len(running)] if what == "nest" and running else None
            calls.append(bench.begin(around, weight=weight))
            plain.begin(calls[-1], around, weight)
        bench.wait(seconds)
    for call in [call for call in calls if not call.ended]:
        bench.end(call)
        plain.end(call)
    bench.wait(2.0)
    [trace] = bench.meter.sampler.readers.traces
    assert len(bench.meter.records()) == len(plain.held)
    return calls, plain, trace.curve


def test_what_is_forgotten_of_calls_changes_no_figure():
    """Energy and error are what the curve says with all calls that ever were, on a device that takes a while to rest."""
    choose, clock, calls = random.Random(3), FakeClock(), []

    def exact(start, end):
        """Return 60 W, 200 W above that in calls, and what decays of it after them by a time of 0.3 s."""
        total = 60.0 * (end - start)
        for begin_s, end_s in calls[-20:]:
            total += 200.0 * max(0.0, min(end, end_s) - max(start, begin_s))
            since, until = (max(time_s - end_s, 0.0) for time_s in (start, end))
            total += 80.0 * 0.3 * (math.exp(-since / 0.3) - math.exp(-until / 0.3))
        return total

    sensor = FakeSensor(clock, 60.0, energy_j=exact, period_s=0.1, max_power_w=700.0)
    meter = aimeter.Meter(sensors=[sensor], clock=clock, region="FR", calibration="off")
    outer, edges = [], []
    for _ in range(40):
        length_s = choose.uniform(0.05, 0.6)
        calls.append((clock(), clock() + length_s))
        with meter.track("outer") as call:
            clock.sleep(length_s / 2)
            with meter.track("inner") as inner:
                clock.sleep(length_s / 4)
            clock.sleep(length_s / 4)
        outer.append(call)
        edges += [(call.start_s, inner.start_s, inner.end_s, call.end_s)]
        clock.sleep(choose.choice([0.03, 0.2, 1.0, 4.0]))
    clock.sleep(2.0)
    assert len(meter.records()) == 80
    [trace] = meter.sampler.readers.traces
    times = np.array([(begin, end) for begin, _, _, end in edges]).ravel()
    shifts = np.array([(begin, end) for _, begin, end, _ in edges]).ravel()
    activity = Activity(times, np.tile([True, False], len(outer)), shifts)
    joules, half_j = energy_between(trace.curve, times[::2], times[1::2], activity)
    assert [call.energy_j for call in outer] == pytest.approx(joules.tolist(), rel=1e-6)
    assert [call.resolution_j for call in outer] == pytest.approx(half_j.tolist(), rel=0.05)
