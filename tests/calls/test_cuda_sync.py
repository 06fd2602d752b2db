"""GPU work is asynchronous: a call waits for the devices in use before its end is stamped, and for nothing else."""

from __future__ import annotations

import subprocess
import sys
import types

import pytest

import aimeter
from aimeter._calls import cuda_sync as asynchronous
from aimeter.testing import FakeSensor


class FakeCuda:
    """torch.cuda as far as aimeter asks it: queued work takes time when it is waited for."""

    def __init__(self, clock, queued_s=0.0, *, initialised=True, contexts=(True, False)):
        self.clock, self.queued_s, self.initialised, self.contexts = clock, queued_s, initialised, contexts
        self.waited_for, self.capturing, self.error = [], False, None

    def is_initialized(self):
        return self.initialised

    def is_current_stream_capturing(self):
        return self.capturing

    def device_count(self):
        return len(self.contexts)

    def current_device(self):
        return 0

    def synchronize(self, device):
        if self.error is not None:
            raise self.error
        self.waited_for.append(device)
        self.clock.sleep(self.queued_s)


@pytest.fixture
def sensor(clock):
    return FakeSensor(clock, 100.0)


def torch(monkeypatch, cuda, *, private=True):
    module = types.ModuleType("torch")
    module.cuda = cuda
    module._C = types.SimpleNamespace()
    if private:
        module._C._cuda_hasPrimaryContext = lambda device: cuda.contexts[device]
    monkeypatch.setitem(sys.modules, "torch", module)
    return cuda


def test_queued_work_is_charged_to_the_call(monkeypatch, clock, sensor):
    """0.5 s of kernels still queued at the end of the block belong to the call."""
    cuda = torch(monkeypatch, FakeCuda(clock, 0.5))
    meter = aimeter.Meter(sensors=[sensor], clock=clock, region="FR")
    with meter.track("queued") as call:
        clock.sleep(0.1)
    assert call.energy_j == pytest.approx(60.0, rel=1e-3)
    assert cuda.waited_for == [0]


@pytest.mark.parametrize("current", [0, 1])
def test_the_current_device_is_waited_for_without_changing_to_it(monkeypatch, clock, sensor, current):
    """torch's own way changes the device and back, which is left out where the device is the current one."""
    cuda = torch(monkeypatch, FakeCuda(clock, 0.5, contexts=(True, True)))
    directly = []

    def wait():
        directly.append(current)
        clock.sleep(0.5)

    sys.modules["torch"]._C._cuda_getDevice = lambda: current
    sys.modules["torch"]._C._cuda_synchronize = wait
    meter = aimeter.Meter(sensors=[sensor], clock=clock, region="FR")
    with meter.track("queued") as call:
        pass
    assert (directly, cuda.waited_for) == ([current], [1 - current])
    assert call.energy_j == pytest.approx(100.0, rel=1e-3)


def test_devices_without_a_context_are_left_alone(monkeypatch, clock, sensor):
    """Synchronising a device that is not in use would create a context of hundreds of megabytes on it."""
    cuda = torch(monkeypatch, FakeCuda(clock, contexts=(False, True, False)))
    meter = aimeter.Meter(sensors=[sensor], clock=clock, region="FR")
    with meter.track("x"):
        pass
    assert cuda.waited_for == [1]


def test_without_the_private_question_only_the_current_device_is_waited_for(monkeypatch, clock, sensor):
    """A torch that lost its internal function costs precision, not safety."""
    cuda = torch(monkeypatch, FakeCuda(clock), private=False)
    meter = aimeter.Meter(sensors=[sensor], clock=clock, region="FR")
    with meter.track("x"):
        pass
    assert cuda.waited_for == [0]


@pytest.mark.parametrize("how", ["not initialised", "sync off", "no torch"])
def test_otherwise_nobody_waits(monkeypatch, clock, sensor, how):
    """CUDA that is not initialised is not touched, and sync="off" is obeyed."""
    cuda = FakeCuda(clock, 0.5, initialised=how != "not initialised")
    if how != "no torch":
        torch(monkeypatch, cuda)
    meter = aimeter.Meter(
        sensors=[sensor], clock=clock, region="FR", sync="off" if how == "sync off" else "auto"
    )
    with meter.track("x") as call:
        clock.sleep(0.1)
    assert cuda.waited_for == []
    assert call.duration_s == pytest.approx(0.1)


def test_a_failing_synchronisation_never_reaches_the_caller(monkeypatch, clock, sensor):
    """A CUDA error is for the caller's own code to meet; the row says that it was not synchronised."""
    torch(monkeypatch, FakeCuda(clock)).error = RuntimeError("device-side assert")
    meter = aimeter.Meter(sensors=[sensor], clock=clock, region="FR")
    with meter.track("x") as call:
        clock.sleep(0.1)
    assert "RuntimeError" in call.record.meta["aimeter"]["sync"]


def test_a_graph_that_is_being_captured_is_not_disturbed(monkeypatch, clock, sensor):
    """Synchronising during the capture of a CUDA graph would invalidate it."""
    cuda = torch(monkeypatch, FakeCuda(clock))
    cuda.capturing = True
    meter = aimeter.Meter(sensors=[sensor], clock=clock, region="FR")
    with meter.track("x") as call:
        clock.sleep(0.1)
    assert cuda.waited_for == []
    assert "captured" in call.record.meta["aimeter"]["sync"]


def test_torch_is_never_imported():
    """A program without torch stays without it."""
    code = (
        "import sys, time, aimeter\n"
        "from aimeter.testing import FakeSensor\n"
        "meter = aimeter.Meter(sensors=[FakeSensor(time.perf_counter)], region='FR')\n"
        "with meter.track('x'): pass\n"
        "meter.close()\n"
        "assert not {'torch', 'codecarbon', 'pandas', 'pynvml'} & set(sys.modules), sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_torch_that_has_not_initialised_cuda_is_asked_nothing_more(monkeypatch):
    """A flag of torch's own is enough to know that nothing is queued; without it, torch is asked."""
    for cuda, expected in (
        (types.SimpleNamespace(_initialized=False), False),
        (types.SimpleNamespace(), True),
    ):
        monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(cuda=cuda))
        assert asynchronous.may_be_queued() is expected
