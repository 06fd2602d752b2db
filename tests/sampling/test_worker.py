"""The working thread and the one that watches it, seen from inside: turns, claims, closing, going without."""

from __future__ import annotations

import threading
import time

import pytest

import aimeter
from aimeter.testing import FakeSensor
from tests.programs import run


class Slow(FakeSensor):
    """Answers at once until it is told to wait."""

    def __init__(self, channel="gpu:0", power_w=100.0):
        super().__init__(time.perf_counter, power_w, id=channel)
        self.waiting = threading.Event()
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.closed = threading.Event()

    def read(self):
        if not self.may_answer.is_set():
            self.waiting.set()
            self.may_answer.wait(30)
        return super().read()

    def close(self):
        self.closed.set()


@pytest.fixture
def slow():
    sensor = Slow()
    yield sensor
    sensor.may_answer.set()


def hang(sensor, meter):
    """Have the sensor keep the thread that asks it."""
    sensor.may_answer.clear()
    meter.sampler.ensure_running()
    assert sensor.waiting.wait(30)


def threads():
    return sorted(thread.name for thread in threading.enumerate() if thread.name.startswith("aimeter"))


def until(condition):
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_another_thread_takes_over(slow, caplog):
    """A sensor that does not answer is left to its thread; the others go on, and it comes back when it answers."""
    other = Slow("cpu:0", 50.0)
    with aimeter.Meter(sensors=[slow, other], region="FR") as meter:
        with meter.track("before") as before:
            time.sleep(0.1)
        assert before.record.coverage == 1
        hang(slow, meter)
        with meter.track("during") as during:
            time.sleep(0.1)
        assert during.record.gpu_j is None
        assert during.record.meta["aimeter"]["missing"] == {"gpu:0": "has not answered for 1 s"}
        assert during.cpu_j == pytest.approx(50 * during.duration_s, abs=3 * during.error_j)
        assert threads().count("aimeter") >= 2
        slow.may_answer.set()
        until(lambda: meter.sampler.readers.traces[0].alive)
        with meter.track("after") as after:
            time.sleep(0.1)
        assert after.gpu_j == pytest.approx(100 * after.duration_s, abs=3 * after.error_j)
    assert slow.closed.is_set()
    assert [line for line in caplog.messages if "gpu:0" in line] == caplog.messages
    assert len(caplog.messages) == 1


def test_a_sensor_is_closed_after_its_answer(slow):
    """Closing a meter does not wait for a sensor that hangs; whoever waits for its answer closes it then."""
    meter = aimeter.Meter(sensors=[slow], region="FR")
    with meter.track("work") as call:
        time.sleep(0.05)
    hang(slow, meter)
    meter.close()
    assert not slow.closed.is_set()
    assert call.record.status == "ok"
    slow.may_answer.set()
    assert slow.closed.wait(30)


def test_a_call_after_closing(slow):
    """A call made after its meter was closed has a row, no thread, and no sensor that would be read."""
    meter = aimeter.Meter(sensors=[slow], region="FR")
    meter.close()
    reads = slow.reads
    with meter.track("late") as late:
        pass
    assert (late.record.status, late.record.energy_j, slow.reads) == ("ok", None, reads)


def test_calls_read_the_sensors_themselves_when_no_thread_does(slow):
    """After the last exit handler no thread serves a sampler: each call reads at its begin and its end."""
    meter = aimeter.Meter(sensors=[slow], region="FR")
    meter.sampler.retire()
    reads = slow.reads
    with meter.track("last") as call:
        time.sleep(0.1)
        least_s, open_j, most_s = call.duration_s, call.energy_j, call.duration_s
    assert slow.reads >= reads + 2
    assert call.settled is not None
    assert call.energy_j == pytest.approx(100 * call.duration_s, abs=3 * call.error_j)
    assert 100 * least_s - 3 * call.error_j <= open_j <= 100 * most_s + 3 * call.error_j
    meter.close()


def test_a_thread_is_started_again_when_needed(tmp_path):
    """The threads end a while after the last call, and the next call starts them again: in a program that has no other calls."""
    run(
        """
        import aimeter._sampling.sampler as module
        module.LINGER_S = 0.05
        with new_meter() as meter:
            for _ in range(2):
                with meter.track("work") as call:
                    sleep(0.02)
                assert off(call) <= 3
                until(lambda: not meter.sampler.ready)
                until(lambda: "aimeter" not in [thread.name for thread in of_aimeter()])
        """,
        tmp_path / "calls.csv",
    )


def test_several_meters_share_the_threads():
    """One thread serves all samplers, however many meters there are."""
    meters = [aimeter.Meter(sensors=[Slow(power_w=10.0 * n)], region="FR") for n in range(1, 6)]
    until(lambda: threads().count("aimeter") == 1)
    calls = [meter.track("work") for meter in meters]
    for call in calls:
        call.__enter__()
    time.sleep(0.1)
    for call in calls:
        call.__exit__(None, None, None)
    for n, call in enumerate(calls, 1):
        assert call.energy_j == pytest.approx(10 * n * call.duration_s, abs=3 * call.error_j)
    for meter in meters:
        meter.close()


def test_figures_asked_for_by_a_sink(slow):
    """A sink may ask for joules and flush, in the thread that a flush waits for, and has them."""
    seen = []

    class Asking:
        lost_rows, last_fault = 0, ""

        def write(self, records):
            seen.extend(records)
            if records:
                meter.flush()
                with meter.track("of the sink") as call:
                    pass
                seen.append(call.energy_j - 100 * call.duration_s)
                seen.append(3 * call.error_j)

        def reopen(self):
            """Do nothing."""

        def close(self):
            """Do nothing."""

    meter = aimeter.Meter(sensors=[slow], sinks=[Asking()], region="FR")
    with meter.track("work"):
        pass
    until(lambda: len(seen) >= 3)
    assert seen[0].name == "work"
    assert abs(seen[1]) <= seen[2]
    meter.delivery._sinks.pop()
    meter.close()
