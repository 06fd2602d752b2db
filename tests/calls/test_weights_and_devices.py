"""Calls that say how much they count, and which devices they use."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import aimeter
from aimeter.sensors.base import Outcome
from aimeter.testing import FakeClock, FakeSensor

DEVICES = ("gpu:0", "gpu:1", "cpu:0")
WATTS = {"gpu:0": 300.0, "gpu:1": 110.0, "cpu:0": 45.0}
NAMED = {
    None: DEVICES,
    "gpu:0": ("gpu:0",),
    "gpu:1": ("gpu:1",),
    "gpu": ("gpu:0", "gpu:1"),
    "cpu": ("cpu:0",),
    ("gpu:1", "cpu:0"): ("gpu:1", "cpu:0"),
    "gpu:7": (),
}


def new_meter(clock, **settings):
    sensors = [FakeSensor(clock, watts, id=name) for name, watts in WATTS.items()]
    return aimeter.Meter(sensors=sensors, clock=clock, region="FR", **settings)


def near(joules):
    return pytest.approx(joules, rel=1e-3)


@pytest.fixture
def clock():
    return FakeClock(1.0)


@pytest.fixture
def meter(clock):
    return new_meter(clock)


class Plain:
    """The same calls reckoned the slow way: instant by instant and device by device."""

    def __init__(self):
        self.parent, self.weight, self.uses = {}, {}, {}
        self.open, self.own, self.total = [], {}, {}
        self.lost = dict.fromkeys(DEVICES, 0.0)

    def around(self, call, device):
        """Return the nearest call around one that has a part in the device."""
        call = self.parent[call]
        while call is not None and device not in self.uses[call]:
            call = self.parent[call]
        return call

    def pass_time(self, seconds):
        for device in DEVICES:
            here = [call for call in self.open if device in self.uses[call]]
            busy = {self.around(call, device) for call in here}
            leaves = [call for call in here if call not in busy]
            whole = sum(self.weight[call] for call in leaves)
            if not leaves:
                self.lost[device] += WATTS[device] * seconds
            for call in leaves:
                joules = WATTS[device] * seconds * self.weight[call] / whole
                self.own[call] += joules
                for one in itertools.takewhile(lambda c: c is not None, self.chain(call)):
                    self.total[one] += joules

    def chain(self, call):
        while call is not None:
            yield call
            call = self.parent[call]

    def begin(self, call, parent, weight, devices):
        self.parent[call] = parent
        self.weight[call] = weight or (1.0 if parent is None else self.weight[parent])
        inherited = DEVICES if parent is None else self.uses[parent]
        self.uses[call] = [one for one in inherited if one in NAMED[devices]]
        self.own[call] = self.total[call] = 0.0
        self.open.append(call)

    def end(self, call):
        self.open.remove(call)
        for child in self.parent:
            if self.parent[child] is call and child in self.open:
                self.parent[child] = self.parent[call]


steps = st.lists(
    st.tuples(
        st.sampled_from(["begin", "nest", "nest", "end"]),
        st.sampled_from([0.0, 0.01, 0.13]),
        st.integers(min_value=0, max_value=10),
        st.sampled_from([None, None, 0.25, 1.0, 3.0]),
        st.sampled_from([None, None, *list(NAMED)[1:]]),
    ),
    min_size=1,
    max_size=30,
)


@settings(max_examples=80, deadline=None)
@given(steps)
def test_shares_are_what_a_plain_reckoning_gives(script):
    """Any pattern of nesting, overlap, weights and devices; shares and nobody's add up to what each device drew."""
    clock = FakeClock(1.0)
    meter, plain, calls = new_meter(clock, interval_s=60.0), Plain(), []
    begin_s = clock()

    def begin(parent, weight, devices):
        call = meter.track(f"call {len(calls)}", weight=weight, devices=devices)
        meter.sampler.refresh(0)
        call.__enter__()
        call._parent = parent  # what the context variable would say in a task of its own
        calls.append(call)
        plain.begin(call, parent, weight, devices)

    for what, seconds, pick, weight, devices in script:
        running = [call for call in calls if not call.ended]
        if what == "begin" or (what == "nest" and not running):
            begin(None, weight, devices)
        elif what == "nest":
            begin(running[pick % len(running)], weight, devices)
        elif running:
            call = running[pick % len(running)]
            meter.sampler.refresh(0)
            call.finish("ok", None)
            plain.end(call)
        clock.now_s += seconds
        plain.pass_time(seconds)
        meter.sampler.refresh(0)
        if pick == 3:
            meter.sampler.settle()
    for call in [call for call in calls if not call.ended]:
        call.finish("ok", None)
        plain.end(call)
    meter.sampler.refresh(0)
    drawn = sum(WATTS.values()) * (clock() - begin_s)
    meter.flush()
    for call in calls:
        record = call.record
        assert (record.energy_j is None) == (not plain.uses[call])
        assert (record.energy_j or 0.0) == pytest.approx(plain.total[call], abs=1e-6)
        assert (record.self_j or 0.0) == pytest.approx(plain.own[call], abs=1e-6)
    shared = sum(call.record.self_j or 0.0 for call in calls)
    assert shared + sum(plain.lost.values()) == pytest.approx(drawn, abs=1e-6)


def test_a_weight_of_three_gets_three_times_as_much(clock, meter):
    """Two calls share a device by their weights while both are open; alone, each gets all."""
    big, small = meter.track("big", weight=3), meter.track("small")
    with big:
        clock.sleep(1.0)
        with small:
            small._parent = None
            clock.sleep(1.0)
    power = sum(WATTS.values())
    assert big.energy_j == near(1.75 * power)
    assert small.energy_j == near(0.25 * power)
    assert big.record.concurrency == near(2 / 1.75)


def test_a_call_on_one_gpu_leaves_the_other_to_the_call_around_it(clock, meter):
    """A child that names a device gets that device; its parent goes on with the others, and holds the child's."""
    with meter.track("outer") as outer:
        clock.sleep(1.0)
        with meter.track("inner", devices="gpu:1") as inner:
            clock.sleep(2.0)
    assert inner.energy_j == near(2 * WATTS["gpu:1"])
    assert inner.record.devices.startswith("gpu:1")
    assert inner.cpu_j is None
    assert outer.energy_j == near(3 * sum(WATTS.values()))
    assert outer.record.self_j == near(outer.energy_j - inner.energy_j)


def test_children_inherit_devices_and_weight(clock, meter):
    """A call inside one that is limited to a device is limited to it as well, unless it says otherwise."""
    outer, inner, beside = (
        meter.track("outer", devices=["gpu:0"], weight=2),
        meter.track("inner"),
        meter.track("beside"),
    )
    with outer, inner, beside:
        beside._parent = None
        clock.sleep(1.0)
    assert inner.energy_j == near(WATTS["gpu:0"] * 2 / 3)
    assert beside.energy_j == near(WATTS["gpu:0"] / 3 + WATTS["gpu:1"] + WATTS["cpu:0"])


def test_devices_named_while_calls_are_open_divide_what_is_known(clock, meter):
    """A first selection of devices in mid-run takes nothing from calls that are open, settled or being read."""
    with meter.track("long") as long:
        clock.sleep(1.0)
        with meter.track("early") as early:
            clock.sleep(1.0)
        meter.flush()
        assert long.energy_j == near(long.duration_s * sum(WATTS.values()))
        with meter.track("gpu", devices="gpu") as gpu:
            clock.sleep(1.0)
            assert gpu.energy_j == near(gpu.duration_s * (WATTS["gpu:0"] + WATTS["gpu:1"]))
    assert early.energy_j == near(sum(WATTS.values()))
    assert gpu.energy_j == near(gpu.duration_s * (WATTS["gpu:0"] + WATTS["gpu:1"]))
    assert long.energy_j == near(long.duration_s * sum(WATTS.values()))


def test_devices_named_while_children_are_open_leave_them_their_relatives(clock, meter):
    """A call that outlives its parent belongs to the next one around it, also where devices were divided meanwhile."""
    outer, parent, child = (meter.track(name) for name in ("outer", "parent", "child"))
    for call in (outer, parent, child):
        call.__enter__()
    clock.sleep(1.0)
    with meter.track("gpu", devices="gpu"):
        clock.sleep(1.0)
    parent.finish("ok", None)
    clock.sleep(1.0)
    child.finish("ok", None)
    clock.sleep(1.0)
    outer.finish("ok", None)
    power, gpus = sum(WATTS.values()), WATTS["gpu:0"] + WATTS["gpu:1"]
    assert child.energy_j == near(3 * power)
    assert child.self_j == near(3 * power - gpus)
    assert (parent.energy_j, parent.self_j) == (near(2 * power), pytest.approx(0.0, abs=1e-6))
    assert (outer.energy_j, outer.self_j) == (near(4 * power), near(power))


def test_devices_named_while_a_call_is_open_leave_it_to_be_missed(clock, meter):
    """A call that nobody holds any more is ended soon, also where devices were divided while it was open."""
    lost = meter.track("lost")
    lost.__enter__()
    clock.sleep(1.0)
    with meter.track("gpu", devices="gpu"):
        clock.sleep(1.0)
    lost_id = lost.call_id
    del lost
    meter.sampler.open_calls()
    clock.sleep(10.0)
    [row] = [row for row in meter.records() if row.call_id == lost_id]
    assert row.error_type == "Interrupted"
    assert row.energy_j < 8.0 * sum(WATTS.values())


def test_a_device_that_is_not_metered_is_said_in_the_row(clock, meter, caplog):
    """The call gets no energy, its row names what is missing, and one line of the log says so."""
    for _ in range(2):
        with meter.track("elsewhere", devices="gpu:7") as call:
            clock.sleep(1.0)
    assert (call.energy_j, call.record.coverage) == (None, 0.0)
    assert call.record.meta["aimeter"]["no such device"] == ["gpu:7"]
    assert [record.message.count("gpu:7") for record in caplog.records] == [1]


def test_a_decorated_function_keeps_weight_and_devices(clock, meter):
    """What is given to the decorator holds for every invocation."""

    @meter.track("work", weight=2.0, devices="gpu:0")
    def work():
        clock.sleep(1.0)

    work()
    work()
    assert [record.energy_j for record in meter.records()] == [near(WATTS["gpu:0"])] * 2


@pytest.mark.parametrize(
    ("name", "devices"),
    [("gpu:0~", "gpu:0"), ("gpu:1:GPU-1a2b3c4d", "gpu:1"), ("fake-GPU:1", None), ("GPU-fake", None)],
)
def test_devices_are_named_as_rows_name_them(clock, meter, name, devices):
    """What the column `devices` says can be given back; whatever else cannot be a device is refused."""
    if devices is None and not name.startswith("GPU-"):
        with pytest.raises(ValueError, match="unknown device"):
            meter.track("x", devices=name)
        return
    with meter.track("x", devices=name) as call:
        clock.sleep(1.0)
    assert (call.energy_j is None) == (devices is None)
    assert devices is None or call.energy_j == near(WATTS[devices])


def test_a_weight_of_numpy_is_a_number(clock, meter):
    """Weights take the numbers that counts take."""
    assert meter.track("x", weight=np.int64(8)).weight == 8.0
    assert meter.track("x", weight=np.float32(2)).weight == 2.0


def test_figures_so_far_leave_out_the_devices_not_named(clock, meter):
    """Inside the block, too, what a call has no part in is unknown, not 0."""
    with meter.track("x", devices="gpu") as call:
        clock.sleep(1.0)
        assert (call.cpu_j, call.record.cpu_method) == (None, "none")
        assert "cpu" not in call.record.devices
    with meter.track("y", devices="gpu:7") as call:
        clock.sleep(1.0)
        assert call.energy_j is None


def test_a_dead_device_is_missing_only_where_it_is_named(clock):
    """Coverage tells of the devices that were alive when a call began, however they are shared."""
    sensors = {name: FakeSensor(clock, watts, id=name) for name, watts in WATTS.items()}
    meter = aimeter.Meter(sensors=sensors.values(), clock=clock, region="FR")
    with meter.track("before"):
        clock.sleep(1.0)
    sensors["gpu:1"].fault = Outcome.GONE
    clock.sleep(1.0)
    with meter.track("named", devices="gpu:1") as named:
        clock.sleep(1.0)
    with meter.track("plain") as plain:
        clock.sleep(1.0)
    assert named.record.coverage == 0
    assert plain.record.coverage == 1
    assert plain.energy_j == near(WATTS["gpu:0"] + WATTS["cpu:0"])


def test_idle_is_learned_only_while_no_call_is_open_at_all(clock):
    """A CPU that works for a call that names the GPU alone is not at rest."""
    power = {"cpu": 40.0}
    cpu = FakeSensor(clock, lambda _: power["cpu"], id="cpu:0")
    meter = aimeter.Meter(sensors=[FakeSensor(clock, 100.0), cpu], clock=clock, region="FR")
    with meter.track("first", devices="gpu"):
        power["cpu"] = 200.0
        clock.sleep(5.0)
    power["cpu"] = 40.0
    clock.sleep(3.0)
    with meter.track("light") as light:
        clock.sleep(1.0)
    assert light.record.idle_j == near(140.0)
    assert "implausible" not in light.record.meta["aimeter"]


@pytest.fixture
def divided(clock, meter):
    """A meter whose devices are shared apart, as a call has named some of them."""
    with meter.track("gpu", devices="gpu"):
        clock.sleep(0.1)
    clock.sleep(1.0)
    return meter


def test_devices_shared_apart_are_one_row(clock, divided):
    """A row holds the most sharers on any device, and the time in which its generator was held, as on all of them."""

    @divided.track("held")
    def numbers():
        clock.sleep(1.0)
        yield 1

    made = numbers()
    next(made)
    clock.sleep(2.0)
    made.close()
    with divided.track("plain") as plain, divided.track("beside", devices="gpu") as beside:
        beside._parent = None
        clock.sleep(1.0)
    held, beside, plain = divided.records()[-3:]
    assert [row.name for row in (held, beside, plain)] == ["held", "beside", "plain"]
    assert held.meta["aimeter"]["suspended_s"] == pytest.approx(2.0)
    assert (held.concurrency, beside.concurrency, plain.concurrency) == (near(1.0), near(2.0), near(2.0))
    assert plain.energy_j == near((WATTS["gpu:0"] + WATTS["gpu:1"]) / 2 + WATTS["cpu:0"])


@pytest.mark.parametrize("lost", ["gpu:1", "cpu:0"])
def test_what_is_lost_of_devices_shared_apart_is_not_covered(clock, lost):
    """A call is covered as far as each of its devices is, whichever of them are shared alike."""
    sensors = {name: FakeSensor(clock, watts, id=name) for name, watts in WATTS.items()}
    meter = aimeter.Meter(sensors=sensors.values(), clock=clock, region="FR")
    with meter.track("gpu", devices="gpu"):
        clock.sleep(0.1)
    with meter.track("plain") as plain:
        clock.sleep(1.0)
        meter.sampler.refresh(0)
        sensors[lost].fault = Outcome.GONE
        clock.sleep(3.0)
    assert plain.record.coverage == near(1 / 4)


def test_rows_of_devices_shared_apart_come_in_the_order_of_their_ends(clock, divided):
    """However the calls of one settling are put together."""
    for name, devices in (("a", "gpu"), ("b", None), ("c", "cpu"), ("d", "gpu:0"), ("e", None)):
        with divided.track(name, devices=devices):
            clock.now_s += 0.001
    clock.sleep(1.0)
    assert [row.name for row in divided.records()[-5:]] == ["a", "b", "c", "d", "e"]


def test_devices_named_apart_do_not_count_twice_as_backlog(clock, meter):
    """However many groups there are, an event waits once, and all of them are settled."""
    for name in DEVICES:
        with meter.track("named", devices=name):
            clock.sleep(0.01)
    for _ in range(3000):
        with meter.track("plain"):
            clock.now_s += 1e-5
    assert meter.sampler.intake.backlog <= 6100
    assert len(meter.records()) == 3003


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"weight": "much"}, TypeError, "weight must be a number"),
        ({"weight": True}, TypeError, "weight must be a number"),
        ({"weight": 0}, ValueError, "between 0.001 and 1000"),
        ({"weight": float("nan")}, ValueError, "between 0.001 and 1000"),
        ({"devices": []}, ValueError, "devices is empty"),
        ({"devices": "gqu"}, ValueError, "gpu"),
        ({"devices": "cuda:0"}, ValueError, "unknown device 'cuda:0'"),
        ({"devices": 3}, TypeError, "devices must be names"),
        ({"devices": ["gpu", 3]}, TypeError, "devices must be names"),
    ],
)
def test_bad_weights_and_devices_are_refused_at_once(meter, options, error, words):
    """What cannot be meant is an error where it is written, before anything runs."""
    with pytest.raises(error, match=words):
        meter.track("x", **options)


def test_weight_needs_a_call():
    """A bare decorator has no place for a weight."""
    with pytest.raises(TypeError, match="go with a name"):
        aimeter.Meter(sensors=[], clock=FakeClock()).track(len, weight=2.0)
