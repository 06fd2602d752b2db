"""Whose joules: shares are conserved, and are what a plain reckoning gives."""

from __future__ import annotations

import gc
import random
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import aimeter
from aimeter._attribution import closing, energy
from aimeter._attribution.edges import Entry
from aimeter._attribution.rows import together
from aimeter._attribution.shares import Shares
from aimeter._calls.call import Call
from aimeter._curve.curve import Points
from aimeter.testing import FakeClock, FakeSensor
from tests.energies import used_part


class Plain:
    """The same calls reckoned the slow way: instant by instant, on the true power."""

    def __init__(self, energy_j):
        self.energy_j = energy_j
        self.parent, self.open, self.suspended = {}, set(), set()
        self.own, self.window, self.unattributed = {}, {}, 0.0
        self.last_s = None

    def children(self, call):
        return [c for c in self.open if self.parent[c] == call and c not in self.suspended]

    def move_to(self, now_s):
        if self.last_s is not None and now_s > self.last_s:
            joules = self.energy_j(self.last_s, now_s)
            leaves = [c for c in self.open if c not in self.suspended and not self.children(c)]
            for call in leaves:
                self.own[call] += joules / len(leaves)
            if not leaves:
                self.unattributed += joules
            for call in self.open:
                self.window[call] += joules
        self.last_s = now_s

    def begin(self, call, parent, now_s):
        self.move_to(now_s)
        self.parent[call], self.own[call], self.window[call] = parent, 0.0, 0.0
        self.open.add(call)

    def end(self, call, now_s):
        self.move_to(now_s)
        self.open.discard(call)
        self.suspended.discard(call)
        for child in self.open:
            if self.parent[child] is call:
                self.parent[child] = self.parent[call]

    def figures(self, call):
        """Return what the row has of its own part and its window."""
        return tuple(pytest.approx(one[call], rel=1e-6, abs=1e-4) for one in (self.own, self.window))

    def pause(self, call, now_s):
        """Suspend a call, or resume it; return whether it is suspended now."""
        self.move_to(now_s)
        self.suspended ^= {call}
        return call in self.suspended


def power(seed):
    """A power that changes at irregular times, and its exact integral."""
    levels = [50.0 + (seed * 7919 * (i + 1)) % 331 for i in range(97)]
    width = 0.037

    def energy(start, end):
        total, at = 0.0, start
        while at < end - 1e-12:
            index = int(at / width + 1e-9)
            until = min((index + 1) * width, end)
            total += levels[index % 97] * (until - at)
            at = until
        return total

    return (lambda t: levels[int(t / width + 1e-9) % 97]), energy


operations = st.lists(
    st.tuples(
        st.sampled_from(["begin", "begin", "nest", "end", "end_any", "pause", "look"]),
        st.floats(min_value=0.0, max_value=0.2),
        st.integers(min_value=0, max_value=10),
    ),
    min_size=1,
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(operations, st.integers(min_value=0, max_value=1000))
def test_shares_are_what_a_plain_reckoning_gives(steps, seed):
    """Any pattern of nesting, overlap and suspension: a share is the sum over instants of power / leaves, at any time."""
    clock = FakeClock(1.0)
    watts, exact = power(seed)
    # A counter without steps, read at every start and end: what is left is the arithmetic of the shares.
    sensor = FakeSensor(clock, watts, energy_j=exact)
    meter = aimeter.Meter(sensors=[sensor], clock=clock, region="FR", interval_s=60.0)
    plain = Plain(exact)
    begin_s = clock()
    plain.move_to(begin_s)
    calls = []

    def begin(parent):
        call = meter.track(f"call {len(calls)}")
        meter.sampler.refresh(0)
        call.__enter__()
        call._parent = parent  # what the context variable would say in a task of its own
        calls.append(call)
        plain.begin(call, parent, clock())

    for operation, seconds, pick in steps:
        running = [call for call in calls if not call.ended]
        call = running[pick % len(running)] if running else None
        if operation == "begin" or call is None:
            begin(None)
        elif operation == "nest":
            begin(call)
        elif operation == "pause":
            meter.sampler.refresh(0)
            call.pause(suspended=plain.pause(call, clock()))
        elif operation == "look":
            plain.move_to(clock())
            assert (call.self_j, call.window_j) == plain.figures(call)
        else:
            # "end" ends calls that have no open child; "end_any" may leave children behind.
            able = [c for c in running if operation == "end_any" or not plain.children(c)]
            call = (able or running)[pick % len(able or running)]
            meter.sampler.refresh(0)
            plain.end(call, clock())
            call.finish("ok", None)
        clock.now_s += seconds
        meter.sampler.refresh(0)
    for call in [call for call in calls if not call.ended]:
        plain.end(call, clock())
        call.finish("ok", None)
    plain.move_to(clock())
    meter.sampler.refresh(0)
    meter.flush()
    rows = {row.call_id: row for row in meter.records()}
    total = sum(row.self_j for row in rows.values())
    for call in calls:
        row = rows[call.call_id]
        assert (row.self_j, row.window_j) == plain.figures(call)
        assert row.self_j - 1e-6 <= row.energy_j <= row.window_j + 1e-4
        assert row.resolution_j >= 0
    unattributed = meter.unattributed_j()["gpu:0"]
    first, last = (
        min(c.start_s for c in calls) if calls else begin_s,
        max([c.end_s for c in calls], default=begin_s),
    )
    assert total + unattributed == pytest.approx(exact(first, last), rel=1e-6, abs=1e-4)


def test_overlapping_calls_share_what_the_device_drew():
    """Two calls on one GPU at 100 W, fully overlapping for 2 s: 100 J each, window 200 J each."""
    clock = FakeClock()
    meter = aimeter.Meter(sensors=[FakeSensor(clock, 100.0)], clock=clock, region="FR")
    first, second = meter.track("first"), meter.track("second")
    with first:
        second.__enter__()
        second._parent = None
        clock.sleep(2.0)
        second.finish("ok", None)
    assert first.energy_j == pytest.approx(100, rel=1e-3)
    assert second.energy_j == pytest.approx(100, rel=1e-3)
    assert first.window_j == pytest.approx(200, rel=1e-3)
    assert first.record.concurrency == pytest.approx(2, rel=1e-3)


def test_a_nested_call_is_part_of_the_one_around_it():
    """Inner and outer are both reported, inner <= outer, and outer's own part is the difference."""
    clock = FakeClock()
    meter = aimeter.Meter(sensors=[FakeSensor(clock, 100.0)], clock=clock, region="FR")
    with meter.track("outer") as outer:
        clock.sleep(1.0)
        with meter.track("inner") as inner:
            clock.sleep(0.5)
        clock.sleep(0.5)
    assert inner.energy_j == pytest.approx(50, rel=1e-3)
    assert outer.energy_j == pytest.approx(200, rel=1e-3)
    assert outer.self_j == pytest.approx(150, rel=1e-3)
    assert inner.record.parent_id == outer.record.call_id


@pytest.mark.parametrize("requests", [2, 100])
def test_concurrent_requests_never_add_up_to_more_than_the_device(requests):
    """The shares of any number of concurrent requests sum to the device's energy, not to a multiple."""
    clock = FakeClock()
    meter = aimeter.Meter(sensors=[FakeSensor(clock, 300.0)], clock=clock, region="FR")
    calls = [meter.track("request") for _ in range(requests)]
    for call in calls:
        call.__enter__()
        call._parent = None
        clock.sleep(0.01)
    begin, end = calls[0].start_s, None
    for call in calls:
        clock.sleep(0.01)
        call.finish("ok", None)
        end = call.end_s
    assert sum(call.energy_j for call in calls) == pytest.approx(300 * (end - begin), rel=1e-3)


def test_idle_is_the_floor_and_stays_it():
    """Load that rises on a device with constant idle power does not change the idle part."""
    clock = FakeClock()
    load = {"w": 0.0}
    sensor = FakeSensor(clock, lambda _: 40.0 + load["w"], period_s=0.02)
    sensor._exact = None
    meter = aimeter.Meter(sensors=[sensor], clock=clock, region="FR")
    with meter.track("warm-up"):
        clock.sleep(0.1)
    clock.sleep(1.5)
    for watts in (50.0, 150.0, 250.0):
        load["w"] = watts
        with meter.track("work") as call:
            clock.sleep(1.0)
        assert call.idle_j == pytest.approx(40.0, rel=0.1)
        load["w"] = 0.0
        clock.sleep(1.0)


def test_idle_is_empty_until_it_was_seen():
    """Without an idle moment there is no idle power, and the column stays empty, not 0."""
    clock = FakeClock()
    meter = aimeter.Meter(sensors=[FakeSensor(clock, 100.0)], clock=clock, region="FR")
    with meter.track("first") as call:
        clock.sleep(0.5)
    assert call.idle_j is None


def test_a_child_that_outlives_its_parent_keeps_its_share():
    """A task begun inside a block and ended after it: the parent holds what it used meanwhile, no more."""
    clock = FakeClock()
    meter = aimeter.Meter(sensors=[FakeSensor(clock, 100.0)], clock=clock, region="FR")
    parent, child = meter.track("parent"), meter.track("child")
    parent.__enter__()
    clock.sleep(1.0)
    child.__enter__()
    clock.sleep(1.0)
    parent.finish("ok", None)
    clock.sleep(1.0)
    child.finish("ok", None)
    assert parent.energy_j == pytest.approx(200, rel=1e-3)
    assert parent.self_j == pytest.approx(100, rel=1e-3)
    assert child.energy_j == pytest.approx(200, rel=1e-3)


def test_a_task_that_outlives_the_calls_around_it_leaves_the_outermost_its_own():
    """One call after another ends around a task: each holds it while both last, and the outermost goes on after it."""
    clock = FakeClock()
    meter = aimeter.Meter(sensors=[FakeSensor(clock, 100.0)], clock=clock, region="FR")
    root, middle, inner, task = calls = [meter.track(name) for name in ("root", "middle", "inner", "task")]
    for call in calls:
        call.__enter__()
        clock.sleep(1.0)
    for call in (inner, middle, task, root):
        call.finish("ok", None)
        clock.sleep(1.0)
    assert task.energy_j == task.self_j == pytest.approx(300, rel=1e-3)
    assert (inner.energy_j, inner.self_j) == pytest.approx((200, 100), rel=1e-3)
    assert (middle.energy_j, middle.self_j) == pytest.approx((400, 100), rel=1e-3)
    assert (root.energy_j, root.self_j) == pytest.approx((700, 200), rel=1e-3)


def test_a_long_call_keeps_nothing_of_the_calls_in_it_that_have_ended():
    """A service in one call for days, with a call inside it for each request: its memory does not grow with them."""
    clock = FakeClock()
    meter = aimeter.Meter(sensors=[FakeSensor(clock, 100.0)], clock=clock, region="FR", memory_rows=1)

    def kept():
        gc.collect()
        return sum(isinstance(one, Entry | Call) for one in gc.get_objects())

    before = kept()
    with meter.track("service"), meter.track("worker") as worker:
        for _ in range(100):
            with meter.track("request"), meter.track("step"):
                clock.sleep(0.02)
        meter.flush()
        assert kept() - before < 10  # the two that are open, and what is known of them
    assert worker.energy_j == pytest.approx(100 * (worker.end_s - worker.start_s), rel=1e-3)


def test_several_devices_add_up():
    """The energy of a call is the sum of its parts, each in its column."""
    clock = FakeClock()
    sensors = [
        FakeSensor(clock, w, id=i)
        for w, i in [(100.0, "gpu:0"), (50.0, "gpu:1"), (20.0, "cpu:0"), (5.0, "dram:0")]
    ]
    meter = aimeter.Meter(sensors=sensors, clock=clock, region="FR")
    with meter.track("x") as call:
        clock.sleep(1.0)
    assert call.gpu_j == pytest.approx(150, rel=1e-3)
    assert call.cpu_j == pytest.approx(20, rel=1e-3)
    assert call.dram_j == pytest.approx(5, rel=1e-3)
    assert call.other_j is None
    assert call.energy_j == pytest.approx(175, rel=1e-3)


def test_a_channel_that_appears_later_disturbs_nobody():
    """A device that falls back to another way of reading becomes a new trace in mid-call."""
    clock = FakeClock()
    sensor = FakeSensor(clock, 100.0)
    meter = aimeter.Meter(sensors=[sensor], clock=clock, region="FR")
    from aimeter._curve.trace import Trace
    from aimeter._sampling.source import Source

    with meter.track("before") as before:
        clock.sleep(0.5)
        late = FakeSensor(clock, 10.0, id="cpu:0")
        trace = Trace(late.channels[0], 0.05)
        meter.sampler.readers.sources.append(Source(sensor=late, traces=[trace]))
        meter.sampler.readers.traces.append(trace)
        clock.sleep(0.5)
    with meter.track("after") as after:
        clock.sleep(1.0)
    assert before.gpu_j == pytest.approx(100, rel=1e-3)
    assert before.cpu_j == pytest.approx(5, rel=0.2)
    assert before.record.coverage < 0.6
    assert after.cpu_j == pytest.approx(10, rel=1e-3)


def test_figures_so_far_of_a_call_that_began_before_its_device():
    """A device that appears while a call is open has its part in what is read of the call."""
    clock = FakeClock()
    meter = aimeter.Meter(sensors=[FakeSensor(clock, 100.0)], clock=clock, region="FR", calibration="off")
    from aimeter._curve.trace import Trace
    from aimeter._sampling.source import Source

    with meter.track("outer") as outer:
        clock.sleep(1.0)
        late = FakeSensor(clock, 50.0, id="cpu:0")
        trace = Trace(late.channels[0], 0.05)
        meter.sampler.readers.sources.append(Source(sensor=late, traces=[trace]))
        meter.sampler.readers.traces.append(trace)
        with meter.track("inner"):
            clock.sleep(1.0)
        clock.sleep(1.0)
        assert outer.gpu_j == pytest.approx(300, rel=1e-3)
        assert outer.cpu_j == pytest.approx(100, rel=1e-3)
    assert outer.cpu_j == pytest.approx(100, rel=1e-3)


def test_a_suspended_child_of_a_closed_parent_goes_on_for_itself():
    """A generator that is suspended when the call around it ends earns nothing more for that call."""
    clock = FakeClock()
    meter = aimeter.Meter(sensors=[FakeSensor(clock, 1.0)], clock=clock, region="FR")

    @meter.track("gen")
    def generator():
        clock.sleep(1.0)
        yield 1
        clock.sleep(2.0)
        yield 2

    made = generator()
    with meter.track("outer") as outer:
        next(made)
        clock.sleep(2.0)
    next(made)
    made.close()
    assert outer.energy_j == pytest.approx(3.0, rel=1e-3)
    assert outer.energy_j <= outer.window_j * (1 + 1e-9)
    by_name = {row.name: row for row in meter.records()}
    assert by_name["gen"].energy_j == pytest.approx(3.0, rel=1e-3)
    assert sum(row.self_j for row in by_name.values()) == pytest.approx(5.0, rel=1e-3)


def test_what_curves_say_is_found_by_name(monkeypatch):
    """One more thing that curves say, wherever it stands, leaves all others in their places."""
    wider = NamedTuple("Wider", [("something_else", object), *Points.__annotations__.items()])

    def figures():
        clock, choose = FakeClock(), random.Random(1)
        sensor = FakeSensor(clock, lambda t: 100.0 + 50.0 * (t % 0.7), period_s=0.1)
        meter = aimeter.Meter(sensors=[sensor], clock=clock, region="FR", calibration="off")
        for _ in range(5):
            with meter.track("outer") as outer:
                around, beside = meter.track("around"), meter.track("beside", weight=2.0)
                with around:
                    clock.sleep(choose.random())
                    beside.__enter__()
                    beside._parent = outer
                    clock.sleep(choose.random())
                    beside.finish("ok", None)
                    clock.sleep(choose.random())
                before = outer.energy_j, outer.window_j
            clock.sleep(choose.random())
            yield before
        clock.sleep(2.0)
        yield from ((row.energy_j, row.window_j, row.error_j, row.coverage) for row in meter.records())

    plain = list(figures())
    whole = energy.read
    monkeypatch.setattr(
        energy,
        "read",
        lambda *given: [wider(np.full_like(one.energy_j, np.nan), *one) for one in whole(*given)],
    )
    for module in (energy, closing):
        monkeypatch.setattr(module, "Points", wider)
    assert list(figures()) == plain


def test_depth_costs_no_more_than_width():
    """Calls nested in one another make as many changes each as calls beside one another, not as many as the depth."""
    clock = FakeClock()
    meter = aimeter.Meter(sensors=[FakeSensor(clock, 1.0)], clock=clock, region="FR")
    calls = [meter.track("deep") for _ in range(500)]
    for call in calls:
        call.__enter__()
    for call in reversed(calls):
        call.finish("ok", None)
    attribution = meter.sampler._settling.attribution()
    attribution._read_queue(clock())
    assert len(attribution._groups.known[0].shares._edges.edge) <= 4 * len(calls)


def test_a_clock_that_stands_still_for_thousands_of_calls_is_no_trap():
    """Edges of one moment are settled together, however many a coarse clock gives it."""
    clock = FakeClock()
    meter = aimeter.Meter(sensors=[FakeSensor(clock, 100.0, period_s=0.1)], clock=clock, region="FR")
    with meter.track("long") as long:
        clock.sleep(1.0)
    for _ in range(5000):
        with meter.track("instant"):
            pass
    clock.sleep(1.0)
    assert len(meter.records()) == 5001
    assert long.energy_j == pytest.approx(100, rel=0.05)


@pytest.mark.parametrize(("period_s", "used"), [(0.1, 0.68), (0.02, 0.96)])
def test_children_heavier_than_their_parent_lie_within_their_error(period_s, used):
    """Short calls of 200 to 400 W inside a long call that draws next to nothing: steps hold both, and bars say so."""
    choose = random.Random(1)
    clock, blocks = FakeClock(), []

    def exact(start, end):
        work = sum(watts * max(0.0, min(end, b) - max(start, a)) for a, b, watts in blocks[-40:])
        return 60 * (end - start) + work

    sensor = FakeSensor(clock, 60.0, energy_j=exact, period_s=period_s, max_power_w=700.0)
    meter = aimeter.Meter(sensors=[sensor], clock=clock, region="FR", calibration="off")
    for _ in range(12):
        blocks.append((clock(), clock() + 0.2, 250.0))
        with meter.track("known"):
            clock.sleep(0.2)
        clock.sleep(0.5)
    clock.sleep(3.0)
    children = []
    with meter.track("request"):
        for _ in range(60):
            length, watts = choose.uniform(0.01, 0.05), choose.uniform(200, 400)
            blocks.append((clock(), clock() + length, watts))
            with meter.track("step") as step:
                clock.sleep(length)
            children.append((step, (60 + watts) * length))
            clock.sleep(choose.uniform(0.02, 0.08))
    clock.sleep(2.0)
    off_j = [step.energy_j - truth for step, truth in children]
    assert used_part(off_j, [step.error_j for step, _ in children]) == pytest.approx(used, rel=0.3)


def test_a_call_that_has_all_of_a_device_has_an_error():
    """Its share may exceed the whole in the last digit: that is no negative variance, whose root is no number."""
    choose = random.Random(1)
    clock = FakeClock()
    meter = aimeter.Meter(sensors=[FakeSensor(clock, 7.0)], clock=clock, region="FR", calibration="off")
    for _ in range(60):
        with meter.track("outer"):
            for _ in range(2):
                clock.sleep(choose.random())
                with meter.track("inner", weight=3.0):
                    clock.sleep(choose.random())
            clock.sleep(choose.random())
    clock.sleep(2.0)
    assert all(row.resolution_j >= 0 for row in meter.records())


def test_errors_of_devices_add_up_where_the_cause_is_the_call():
    """Devices that can tell little of a call are off alike; what is off by the times of readings is independent."""
    energy = np.array([[10.0, 10.0], [10.0, 10.0], [100.0, 100.0]])
    resolution = np.array([[4.0, 0.3], [5.0, 0.4], [1.2, 1.2]])
    assert together(resolution, energy) == pytest.approx([np.hypot(9.0, 1.2), 1.3])


def test_a_failure_while_settling_is_not_for_ever(monkeypatch, caplog):
    """Should settling fail once while a call is open, what comes after is settled."""
    clock = FakeClock()
    meter = aimeter.Meter(sensors=[FakeSensor(clock, 100.0)], clock=clock, region="FR", calibration="off")
    whole = closing.resolution

    def fail_once(*arguments):
        monkeypatch.setattr(closing, "resolution", whole)
        raise ZeroDivisionError

    with meter.track("outer"):
        for k in range(6):
            if k == 2:
                monkeypatch.setattr(closing, "resolution", fail_once)
            with meter.track("inner") as inner:
                clock.sleep(0.5)
            clock.sleep(0.5)
    meter.flush()
    assert inner.record.energy_j == pytest.approx(50.0, rel=0.01)
    assert len(caplog.records) == 1


@pytest.mark.parametrize("most", [1, 2, 5, 9, 10, 50])
def test_no_more_edges_are_settled_at_once_than_may_be(clock, meter, most):
    """All that fit and none beyond, but edges of one moment stay together; if all fit, the time that was asked for."""
    shares = Shares([])
    for _ in range(5):
        with meter.track("x") as call:
            clock.sleep(1.0)
        shares.open(call, call.start_s)
        shares.close(call, call.end_s)
        clock.sleep(1.0)
    shares.settle(1000.5)  # the first edge
    times_s = sorted([1001.0 + k for k in range(9)])
    until_s = shares.manageable_until(2000.0, most)
    assert sum(time_s <= until_s for time_s in times_s) == min(most, 9)
    assert (until_s == 2000.0) is (most >= 9)
    together = Shares([])
    for _ in range(3):
        with meter.track("x") as call:
            pass
        together.open(call, call.start_s)
        together.close(call, call.end_s)
    assert together.manageable_until(2000.0, most) >= clock()
