"""Which sensors are read, and what becomes of those that are read no more."""

from __future__ import annotations

import pytest

import aimeter
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
