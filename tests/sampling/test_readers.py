"""Which sensors are read, and what becomes of those that are read no more."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

import aimeter
from aimeter._calls.call import Call
from aimeter._sampling.sampler import Sampler
from aimeter.testing import FakeSensor
from tests.programs import run


def test_rows_do_not_miss_a_sensor_that_another_one_covers(clock):
    """It was read until the other was found; its calls keep their joules, later ones have the other's, all of them."""
    cpu = FakeSensor(clock, 20.0, id="cpu:0")
    module = FakeSensor(clock, 60.0, id="gpu:0", covers=("cpu",))
    with aimeter.Meter(sensors=[cpu], clock=clock, region="FR") as meter:
        with meter.track("before") as before:
            clock.sleep(1.0)
        clock.sleep(1.0)
        meter.sampler.readers.add([module])
        clock.sleep(1.0)
        reads = cpu.reads
        with meter.track("after") as after:
            clock.sleep(1.0)
        clock.sleep(10.0)
        assert cpu.reads == reads
        assert (before.energy_j, after.energy_j) == (pytest.approx(20.0), pytest.approx(60.0))
        for call in (before, after):
            assert call.record.coverage == pytest.approx(1.0)
            assert "missing" not in call.record.meta["aimeter"]


def test_a_forked_child_asks_through_a_handle_of_its_own(tmp_path):
    """A driver knows the process that opened it, and answers no other: what was inherited is opened anew, once."""
    source = """
    class OfOneProcess(FakeSensor):
        owner, opened = os.getpid(), 0
        def read(self):
            if os.getpid() != self.owner:
                raise RuntimeError("opened by another process")
            return super().read()
        def reopen(self):
            self.owner = os.getpid()
            self.opened += 1

    device = OfOneProcess(perf_counter)
    meter = new_meter(device)
    with meter.track("parent"):
        child = os.fork()
    with meter.track("either") as call:
        sleep(0.1)
    assert call.energy_j is not None and off(call) < 3, call.record
    assert device.opened == (not child), device.opened
    if child:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    """
    run(source, tmp_path / "calls.csv")


class Gpus:
    """The GPUs of a machine, as a sampler looks for them."""

    def __init__(self, sensor):
        self.sensor, self.looked = sensor, 0

    def state(self):
        return "all"

    def find(self):
        self.looked += 1
        return [self.sensor], []


@pytest.mark.parametrize("cpu_only", [0, 1, 50])
def test_gpus_are_looked_for_once_any_call_may_use_them(clock, cpu_only):
    """However many come after it in the same moment that do not."""
    gpus = Gpus(FakeSensor(clock, 300.0))
    cpu = FakeSensor(clock, 20.0, id="cpu:0")
    sampler = Sampler(lambda: ([cpu], []), gpus=gpus, clock=clock, interval_s=0.05)
    host = SimpleNamespace(sampler=sampler, synchronise=False)

    def of_the_cpu(count):
        for _ in range(count):
            with Call(host, "cpu").limit(None, ("cpu",)):
                pass

    of_the_cpu(1)
    clock.sleep(1.0)
    assert gpus.looked == 0
    with Call(host, "any"):
        of_the_cpu(cpu_only)
        clock.sleep(0.5)
        assert gpus.looked == 1
        assert gpus.sensor.reads > 0


@pytest.mark.parametrize("error", [OSError("no driver"), SystemExit(1), KeyboardInterrupt()])
def test_a_search_that_fails_costs_figures_and_nothing_else(clock, caplog, error):
    """Whatever drivers and kernels answer, the program goes on: calls have no joules, and that is said once."""

    def search():
        raise error

    sampler = Sampler(search, clock=clock, interval_s=0.05)
    taken = []
    sampler.deliver_to(taken.append)
    host = SimpleNamespace(sampler=sampler, synchronise=False)
    for _ in range(3):
        with Call(host, "x"):
            clock.sleep(1.0)
    sampler.flush(1.0)
    assert sum(len(figures.calls) for figures in taken) == 3
    assert [type(error).__name__ in text for text in caplog.messages] == [True]


class Held(FakeSensor):
    """A GPU of which a handle is open until it is closed."""

    def __init__(self, clock, device, handles):
        super().__init__(clock, 100.0, id=f"gpu:{device}")
        self._handles = handles
        handles.append(self)

    def close(self):
        self._handles.remove(self)


class Selected:
    """Those GPUs of a machine that a program has selected, opened anew whenever they are looked for."""

    def __init__(self, clock):
        self.clock, self.devices, self.handles = clock, (), []

    def state(self):
        return self.devices

    def find(self):
        return [Held(self.clock, device, self.handles) for device in self.devices], []


def test_of_each_gpu_that_is_selected_one_handle_is_open(clock):
    """Whatever the program selects next: who is used goes on with its own, who isn't any more is let go of."""
    gpus = Selected(clock)
    sampler = Sampler(lambda: ([], []), gpus=gpus, clock=clock, interval_s=0.05)
    host = SimpleNamespace(sampler=sampler, synchronise=False)
    first = {}
    for devices in ((0,), (0, 1), (1,), (1, 2), (), (0, 1, 2)):
        gpus.devices = devices
        kept = set(first) & set(devices)
        with Call(host, "x"):
            clock.sleep(1.0)
        assert sorted(one.channels[0].id for one in gpus.handles) == [f"gpu:{device}" for device in devices]
        used = {int(one.channels[0].id[4:]): one for one in gpus.handles}
        assert all(used[device] is first[device] for device in kept)
        reads = {device: one.reads for device, one in used.items()}
        clock.sleep(1.0)
        assert all(one.reads > reads[device] for device, one in used.items())
        first = used
