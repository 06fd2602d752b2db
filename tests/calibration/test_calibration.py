"""Calibrations: what readings at rest show, what is kept of it, when it is used, and what that does to rows."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import logging
import math
import os
import random
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

import aimeter
from aimeter._curve.calibration import (
    MAX_AGE_S,
    Calibration,
    Calibrations,
    Machine,
    store,
    this_machine,
)
from aimeter._curve.response_fit import Estimate
from aimeter._curve.update_times import Interval
from aimeter._support.system import cache_folder
from aimeter.calibration import measure as calibrating
from aimeter.calibration.load import load_named
from aimeter.calibration.measure import measure_at_rest
from aimeter.calibration.rest import Rest, not_at_rest, rest_of, steps_of
from aimeter.commands.doctor import examine
from aimeter.commands.show import show
from aimeter.errors import ConfigurationError
from aimeter.sensors import nvml as nvml_sensor
from aimeter.sensors.base import Channel, Outcome
from aimeter.testing import FakeClock, FakeSensor
from tests import children
from tests.emulator.clock import EmulatedClock
from tests.emulator.nvml import ENERGY, NOT_SUPPORTED, PRESETS

NOW_S = 1_795_000_000.0
HERE = Machine("0123abcd", "6.1.0", "570.86.15")
GPU = Channel(
    id="gpu:0", kind="gpu", method="counter", quantity="energy", name="NVIDIA H100", device="GPU-1", source="nvml",
    period_s=0.1, max_power_w=700.0,
)  # fmt: skip
OF_GPU = Calibration("gpu:3", "nvml", "counter", "GPU-1", "NVIDIA H100", 70.0, 0.5, 0.1, 0.001, NOW_S)
OF_CPU = Calibration("cpu:0", "powercap", "counter", "/x/0", "package-0", 20.0, 0.2, None, None, NOW_S)


def stored(path, *, machine=HERE, now_s=NOW_S + 60):
    return Calibrations(path, machine=lambda: machine, now=lambda: now_s)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "cache" / "aimeter" / "calibration.json"


# What readings show


@given(
    st.floats(0.01, 1.0),
    st.floats(0, 100),
    st.lists(st.sampled_from([1, 1, 1, 2, 3]), min_size=12, max_size=40).filter(
        lambda gaps: sum(gap == 1 for gap in gaps) > 0.6 * len(gaps)
    ),
    st.floats(0.05, 0.3),
    st.randoms(use_true_random=False),
)
def test_the_period_of_a_staircase_is_found(period_s, phase_s, gaps, looseness, random):
    """Changes of which some were missed give the period to their own uncertainty, and hardly any jitter."""
    half_s = looseness * period_s / 2
    changes = []
    for number in [0, *itertools.accumulate(gaps)]:
        early_s = random.uniform(0, 2 * half_s)
        when_s = phase_s + number * period_s
        changes.append(Interval(when_s - early_s, when_s - early_s + 2 * half_s))
    found = steps_of(changes)
    assert found.period_s == pytest.approx(period_s, abs=2 * half_s / sum(gaps) * 1.5)
    assert found.jitter_s <= half_s * (1 + 1e-9)


def test_changes_that_are_loosely_known_are_counted_as_lies_best_on_a_line():
    """The median of the times between them may be a third more than the period; the line shows that it is not."""
    gaps, late = [1, 1, 3, 1, 1, 1, 1, 2, 3, 1, 2, 1, 2, 1], "010100100101010"
    numbers = [0, *itertools.accumulate(gaps)]
    times_s = [0.1 * number - 0.03 * (one == "1") for number, one in zip(numbers, late, strict=True)]
    found = steps_of([Interval(time_s, time_s + 0.03) for time_s in times_s])
    assert found.period_s == pytest.approx(0.1, rel=0.02)
    assert found.jitter_s <= 0.015


def test_changes_too_close_to_be_told_apart_show_no_period():
    """A value that is new at every reading has no known period; nor have a few changes."""
    assert steps_of([Interval(0.1 * k, 0.1 * k + 0.1) for k in range(30)]) is None
    assert steps_of([Interval(k, k + 0.1) for k in range(5)]) is None
    assert steps_of([]) is None


@given(st.floats(1, 500), st.integers(5, 30), st.floats(0.01, 0.9))
def test_idle_power_is_what_was_drawn_most_of_the_time(watts, seconds, step_s):
    """A constant power is found exactly; a burst for less than half of the time does not move it."""
    times = np.arange(0, seconds + 1e-9, step_s)
    steady = watts * times
    rest = rest_of(times, steady, times)
    if rest is None:
        assert seconds < 3 * (1 + step_s) + step_s
        return
    assert rest.idle_w == pytest.approx(watts)
    assert rest.spread_w == pytest.approx(0, abs=1e-6 * watts)
    burst_s = seconds / 2 - 3
    if burst_s > 0:
        with_burst = steady + 10 * watts * np.minimum(times, burst_s)
        assert rest_of(times, with_burst, times).idle_w == pytest.approx(watts)


def test_what_was_not_metered_is_no_idle_power():
    """Stretches in which a meter was silent are left out, rather than taken for 0 W."""
    times = np.arange(0.0, 20.0, 0.5)
    covered = np.where(times < 12, times, np.maximum(12.0, times - 4))
    joules = 50 * covered
    assert rest_of(times, joules, covered).idle_w == pytest.approx(50)
    assert rest_of(times, np.zeros_like(times), np.zeros_like(times)) is None


@pytest.mark.parametrize(
    ("channel", "rest", "busy", "says"),
    [
        (GPU, Rest(70, 1), 1.0, ""),
        (GPU, None, 0.0, "hardly ever renewed"),
        (GPU, Rest(0, 0), 0.0, "nothing"),
        (GPU, Rest(70, 30), 0.0, "varied by 43%"),
        (GPU, Rest(400, 1), 0.0, "400 W of at most 700 W"),
        (replace(GPU, kind="cpu", max_power_w=None), Rest(20, 1), 0.05, ""),
        (replace(GPU, kind="cpu", max_power_w=None), Rest(20, 1), 0.9, "90% busy"),
        (replace(GPU, kind="dram", max_power_w=None), Rest(20, 1), 0.9, "90% busy"),
    ],
)
def test_a_device_that_works_is_not_calibrated(channel, rest, busy, says):
    """What was drawn under load is not taken for idle power, and the reason is told."""
    found = not_at_rest(channel, rest, busy)
    assert says in found
    assert bool(found) == bool(says)


# What is kept


positive = st.floats(0.001, 1e4)
calibrations = st.builds(
    Calibration,
    *[st.text(max_size=8) for _ in range(5)],
    idle_w=positive, spread_w=positive, period_s=st.none() | positive, jitter_s=st.none() | positive,
    latency_s=st.none() | positive, latency_error_s=st.none() | positive,
    window_s=st.none() | positive, window_error_s=st.none() | positive,
    measured_s=st.floats(NOW_S, NOW_S + 30),
)  # fmt: skip


@given(
    st.lists(calibrations, max_size=5, unique_by=lambda one: (one.source, one.method, one.device, one.name))
)
def test_what_is_stored_is_found(tmp_path_factory, many):
    """Every calibration comes back as it was, for its own channel and no other."""
    path = tmp_path_factory.mktemp("x") / "calibration.json"
    store(path, HERE, many)
    kept = stored(path)
    for one in many:
        assert (
            kept.of(replace(GPU, source=one.source, method=one.method, device=one.device, name=one.name))
            == one
        )
    assert kept.of(replace(GPU, device="another one")) is None
    assert kept.problem == ""


def test_a_device_is_known_by_its_identity_and_not_its_number(file):
    """A GPU that is numbered anew is found; the same number of another GPU, or another way to read it, is not."""
    store(file, HERE, [OF_GPU])
    assert stored(file).of(replace(GPU, id="gpu:7")) == OF_GPU
    for other in ({"device": "GPU-2"}, {"method": "power"}, {"source": "other"}, {"name": "2 vCPUs"}):
        assert stored(file).of(replace(GPU, **other)) is None


def test_newer_calibrations_take_the_place_of_older_ones(file):
    """Channels measured again replace theirs; the others stay, other machines' too, until the system changes."""
    elsewhere = Machine("ffff", "5.0", None)
    store(file, elsewhere, [OF_CPU])
    store(file, HERE, [OF_GPU, OF_CPU])
    store(file, HERE, [replace(OF_GPU, idle_w=75.0)])
    assert stored(file).of(GPU).idle_w == 75.0
    cpu = replace(GPU, source="powercap", device="/x/0", name="package-0")
    assert stored(file).of(cpu) == OF_CPU
    assert stored(file, machine=elsewhere).of(cpu) == OF_CPU
    renewed = replace(HERE, kernel="6.2.0")
    store(file, renewed, [OF_GPU])
    assert stored(file, machine=renewed).of(cpu) is None


@pytest.mark.parametrize(
    ("machine", "now_s", "says"),
    [
        (replace(HERE, identity="ffff"), NOW_S, "another machine"),
        (replace(HERE, kernel="6.2.0"), NOW_S, "kernel was 6.1.0"),
        (replace(HERE, driver="580.1"), NOW_S, "driver was 570.86.15 then and is 580.1"),
        (replace(HERE, driver=None), NOW_S, "is None now"),
        (HERE, NOW_S + MAX_AGE_S + 3600, "30 days old"),
        (HERE, NOW_S - 10 * 86400, "in the future"),
    ],
)
def test_stale_and_foreign_calibrations_are_not_used_and_said_once(file, caplog, machine, now_s, says):
    """One of another machine, kernel or driver, or too old, is passed over with one line at INFO."""
    store(file, HERE, [OF_GPU])
    caplog.set_level(logging.INFO, "aimeter")
    kept = stored(file, machine=machine, now_s=now_s)
    assert kept.of(GPU) is None
    assert kept.of(GPU) is None
    (line,) = caplog.records
    assert line.levelno == logging.INFO
    assert says in line.getMessage()
    assert "aimeter calibrate" in line.getMessage()
    assert says in kept.problem


def test_the_gpus_driver_is_no_business_of_the_cpu(file):
    """A new NVIDIA driver leaves the calibration of the CPU in use."""
    store(file, HERE, [OF_GPU, OF_CPU])
    kept = stored(file, machine=replace(HERE, driver="580.1"))
    assert kept.of(replace(GPU, source="powercap", device="/x/0", name="package-0")) == OF_CPU
    assert kept.of(GPU) is None


def test_without_a_file_nothing_is_said(file, caplog):
    """No file, and the setting off, are no problem and no message."""
    caplog.set_level(logging.DEBUG, "aimeter")
    for path in (file, None):
        kept = stored(path)
        assert kept.of(GPU) is None
        assert kept.problem == ""
    assert not caplog.records


WHOLE = {"schema": 1, "machines": {HERE.identity: {"kernel": "6.1.0", "driver": None, "channels": []}}}


def with_channel(**changes):
    channel = {**{key: getattr(OF_GPU, key) for key in OF_GPU.__dataclass_fields__}, **changes}
    channel = {key: value for key, value in channel.items() if value is not ...}
    return {
        "schema": 1,
        "machines": {HERE.identity: {"kernel": "6.1.0", "driver": None, "channels": [channel]}},
    }


@pytest.mark.parametrize(
    "text",
    [
        b"", b"{", b"[]", b"null", b"7", b"\xff\xfe", b'{"schema": 1}', b'{"schema": 1, "machines": []}',
        b'{"schema": 1, "machines": {"0123abcd": 3}}', b'{"schema": 2, "machines": {}}', b"[" * 100_000,
        *[json.dumps(with_channel(**bad)).encode() for bad in (
            {"idle_w": -1}, {"idle_w": "many"}, {"idle_w": None}, {"idle_w": math.nan}, {"idle_w": True},
            {"idle_w": ...}, {"period_s": 0}, {"window_s": 0}, {"latency_s": -1}, {"window_error_s": "much"}, {"period_s": math.inf}, {"spread_w": []}, {"measured_s": None},
        )],
    ],
)  # fmt: skip
def test_a_malformed_file_is_passed_over_with_one_line(file, caplog, text):
    """Whatever the file holds, nothing raises, nothing of it is used, one line says so; calibrating mends it."""
    file.parent.mkdir(parents=True)
    file.write_bytes(text)
    kept = stored(file)
    assert kept.of(GPU) is None
    assert kept.of(GPU) is None
    (line,) = caplog.records
    assert str(file) in line.getMessage()
    assert "aimeter calibrate" in line.getMessage()
    store(file, HERE, [OF_GPU])
    assert stored(file).of(GPU) == OF_GPU


def test_a_file_from_before_latencies_were_learned_is_used(file):
    """What older versions wrote has neither latency nor window, and everything else counts."""
    old = dict.fromkeys(("latency_s", "latency_error_s", "window_s", "window_error_s"), ...)
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(with_channel(**old)))
    machine = replace(HERE, driver=None)
    known = stored(file, machine=machine).of(GPU)
    assert known == OF_GPU
    assert (known.latency, known.window) == (None, None)


junk = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=3) | st.integers(),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["schema", "machines", "0123abcd", "kernel", "driver", "channels", "idle_w"]), inner),
)  # fmt: skip


@given(junk)
def test_no_document_raises(tmp_path_factory, document):
    """Any JSON at all leads to no calibration rather than an exception."""
    path = tmp_path_factory.mktemp("x") / "calibration.json"
    path.write_text(json.dumps(document))
    assert stored(path).of(GPU) is None


def test_a_disk_that_is_full_leaves_the_old_file(file, monkeypatch):
    """What cannot be written whole is not there at all, and the older calibration stays."""
    store(file, HERE, [OF_GPU])

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        store(file, HERE, [replace(OF_GPU, idle_w=1.0)])
    assert stored(file).of(GPU) == OF_GPU
    assert list(file.parent.iterdir()) == [file]


def test_processes_that_calibrate_at_once_leave_a_whole_file(file):
    """A reader sees the file of one process or another, never a part."""
    pids = [
        children.start(lambda k=k: [store(file, HERE, [replace(OF_GPU, idle_w=50.0 + k)]) for _ in range(20)])
        for k in range(3)
    ]
    seen = 0
    while pids:
        seen += stored(file).of(GPU) is not None
        assert stored(file).problem == ""
        done, status = os.waitpid(pids[0], os.WNOHANG)
        if done:
            assert status == 0
            pids.pop(0)
    assert stored(file).of(GPU).idle_w in {50.0, 51.0, 52.0}


def test_the_file_is_where_the_system_keeps_caches(tmp_path, monkeypatch):
    """XDG on Linux (a relative folder is ignored), and what macOS and Windows have."""
    monkeypatch.setenv("HOME", str(tmp_path))
    in_home = tmp_path / ".cache" / "aimeter"
    assert cache_folder({}, "linux") == in_home
    assert cache_folder({"XDG_CACHE_HOME": ""}, "linux") == in_home
    assert cache_folder({"XDG_CACHE_HOME": "relative"}, "linux") == in_home
    assert cache_folder({"XDG_CACHE_HOME": "/caches"}, "linux") == Path("/caches/aimeter")
    assert cache_folder({}, "darwin") == tmp_path / "Library" / "Caches" / "aimeter"
    assert cache_folder({"LOCALAPPDATA": "/local"}, "win32") == Path("/local/aimeter")


def test_a_machine_is_told_from_others_without_naming_it(tmp_path):
    """Another machine-id or CPU is another machine; neither the id nor the host's name can be seen."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "proc").mkdir()
    machine_id, info = tmp_path / "etc" / "machine-id", tmp_path / "proc" / "cpuinfo"
    identities = set()
    for text, cpu in (("a" * 32, "One"), ("b" * 32, "One"), ("b" * 32, "Two"), ("", "Two")):
        machine_id.write_text(f"{text}\n")
        info.write_text(f"processor\t: 0\nmodel name\t: {cpu}\n")
        machine = this_machine(tmp_path)
        assert machine == this_machine(tmp_path)
        assert not text or text not in machine.identity
        identities.add(machine.identity)
    assert len(identities) == 4
    assert os.uname().nodename not in machine.identity


# Measuring


QUIET = {"log": None, "region": "FR"}


def test_an_emulated_gpu_at_rest(nvml):
    """Idle power, its spread and the true period of a GPU are found; a burst of another program's does not matter."""
    clock = EmulatedClock(nvml)
    gpu = nvml.add("h100", latency_s=0.0003, counter_period_s=0.08)
    quiet = [(0.05, 70.0 + (-1) ** k) for k in range(120)]
    gpu.play([*quiet, (0.7, 300.0), *quiet, *quiet])
    sensors, _ = nvml_sensor.probe({}, clock)
    (found,), problems = measure_at_rest(
        sensors, 10.0, QUIET, clock=clock, sleep=clock.sleep, cpu_s=lambda: 0.0
    )
    assert problems == []
    assert found.idle_w == pytest.approx(70.0, rel=0.01)
    assert found.spread_w < 3
    assert found.period_s == pytest.approx(0.08, rel=0.005)
    assert found.jitter_s < 0.005
    assert (found.source, found.method, found.device) == ("nvml", "counter", gpu.uuid)
    assert found.measured_s == pytest.approx(time.time(), abs=60)


def test_devices_that_fail_are_told_and_do_not_stop_the_others():
    """A dead sensor, and one that works all the time, are problems with a reason; a healthy one is calibrated."""
    clock = FakeClock()
    good = FakeSensor(clock, 40.0, period_s=0.1)
    lost = FakeSensor(clock, 40.0, period_s=0.1, id="gpu:1")
    lost.fault = Outcome.GONE
    busy = FakeSensor(clock, 40.0, id="cpu:0")
    measured, problems = measure_at_rest(
        [good, lost, busy], 6.0, QUIET, clock=clock, sleep=clock.sleep, cpu_s=lambda: 1e6 * clock()
    )
    assert [one.id for one in measured] == ["gpu:0"]
    assert measured[0].idle_w == pytest.approx(40.0, rel=0.01)
    assert sorted(problem.split(" is not calibrated: ")[0] for problem in problems) == [
        "cpu:0 (fake)",
        "gpu:1 (fake)",
    ]
    assert any("the test says so" in problem for problem in problems)
    assert any("busy" in problem for problem in problems)


# Under a load


def at_work(nvml, preset, *, counter=True, before_load=lambda _gpu, _time_s: None, **sensor):
    """Return what calibrating one emulated GPU under a load of its own learns, and the problems."""
    clock, choose = EmulatedClock(nvml), random.Random(2)
    gpu = nvml.add(preset, latency_s=0.0003, **sensor)
    if not counter:
        gpu.fault(ENERGY, NOT_SUPPORTED)
    idle_w, most_w = PRESETS[preset]["idle_w"], PRESETS[preset]["max_limit_w"]
    gpu.set_power(idle_w)

    def load():
        before_load(gpu, clock())
        gpu.set_power(0.6 * most_w * choose.gauss(1, 0.03))
        clock.sleep(0.02)
        gpu.set_power(1.4 * idle_w)
        gpu.set_power(idle_w, at=clock() + 1e-6, tau_s=0.4)

    sensors, _ = nvml_sensor.probe({}, clock)
    shown = []
    measured, problems = measure_at_rest(
        sensors, 5.0, QUIET, clock=clock, sleep=clock.sleep, cpu_s=lambda: 0.0, load=load,
        progress=lambda steps: shown.append(len(steps)) or steps,
    )  # fmt: skip
    assert shown[1] >= 30
    return measured, problems


@pytest.mark.parametrize(
    ("preset", "sensor", "latency_s", "window_s"),
    [
        ("h100", {"counter_latency_s": 0.015}, 0.015, None),
        ("a100", {"counter": False, "instant_window_s": 0.018, "instant_latency_s": 0.008}, 0.008, 0.018),
        ("t4", {"counter": False, "instant_window_s": 0.02}, 0.01, 0.02),
        ("rtx3090", {"counter": False, "instant_latency_s": 0.01}, 0.01, 0.1),
    ],
)
def test_a_load_teaches_latency_and_window(nvml, preset, sensor, latency_s, window_s):
    """The ends of calls made on purpose give latency and window, the truth within their half-widths."""
    (found,), problems = at_work(nvml, preset, **sensor)
    assert problems == []
    assert found.idle_w == pytest.approx(PRESETS[preset]["idle_w"], rel=0.01)
    assert abs(found.latency_s - latency_s) <= found.latency_error_s < 0.006
    if window_s is None:
        assert found.window is None
    else:
        assert abs(found.window_s - window_s) <= found.window_error_s < 0.25 * window_s


def test_a_power_that_takes_over_from_a_counter_teaches_nothing_about_it(nvml):
    """Where a counter dies during the load, latency and window of the power that follows are not the counter's."""
    died_s = []

    def die(gpu, time_s):
        if not died_s:
            died_s.append(time_s)
            gpu.freeze(ENERGY)

    (found,), (problem,) = at_work(nvml, "a100", before_load=die)
    assert (found.method, found.latency, found.window) == ("counter", None, None)
    assert problem.startswith("gpu:0 (NVIDIA A100-SXM4-40GB): latency not learned: ")
    assert "not advanced" in problem


def at_rest_then(nvml, work, **more):
    """Return what is measured of an emulated GPU that rests at 70 W before and during `work(clock)`."""
    nvml.reset()
    clock = EmulatedClock(nvml)
    nvml.add("h100", latency_s=0.0003).set_power(70.0)
    sensors, _ = nvml_sensor.probe({}, clock)
    return measure_at_rest(
        sensors, 5.0, QUIET, clock=clock, sleep=clock.sleep, cpu_s=lambda: 0.0, load=lambda: work(clock), **more
    )  # fmt: skip


@pytest.mark.parametrize(
    ("work", "says"),
    [
        (lambda _: 1 / 0, "the load raised ZeroDivisionError"),
        (lambda _: sys.exit(0), "the load raised SystemExit(0)"),
        (lambda clock: clock.sleep(0.05), "did not fall"),
    ],
)
def test_a_load_that_fails_or_does_not_load_is_told(nvml, work, says):
    """What was measured at rest stands; that latencies were not learned is a problem with its reason."""
    (found,), (problem,) = at_rest_then(nvml, work)
    assert (found.latency, found.window) == (None, None)
    assert found.idle_w == pytest.approx(70.0, rel=0.01)
    assert problem.startswith("gpu:0 (NVIDIA H100 80GB HBM3): latency not learned: ")
    assert says in problem


@pytest.mark.parametrize(("call_s", "least_s"), [(0.4, 100.0), (3.0, 115.0)])
def test_a_load_ends_after_two_minutes(nvml, call_s, least_s):
    """No call begins later than 120 s after the first, also in the middle of a turn; the last one is completed."""
    began_s = []

    def work(clock):
        began_s.append(clock())
        clock.sleep(call_s if len(began_s) > 1 else 200.0)

    (_,), (problem,) = at_rest_then(nvml, work)
    assert "latency not learned" in problem
    assert least_s < began_s[-1] - began_s[1] <= 120.0


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, None])
def test_what_was_measured_at_rest_is_stored_before_the_load(nvml, file, monkeypatch, interruption):
    """A load that is interrupted costs only what it would have taught."""
    seen = []

    def work(_):
        seen.append(stored(file, machine=this_machine(), now_s=time.time())._load())
        if interruption:
            raise interruption
        sys.exit(0)

    monkeypatch.setattr(calibrating, "discover", lambda **_: SimpleNamespace(sensors=()))
    monkeypatch.setattr(calibrating, "load_named", lambda _: None)
    monkeypatch.setattr(
        calibrating,
        "measure_at_rest",
        lambda *_, keep, **__: at_rest_then(nvml, work, keep=keep),
    )
    with pytest.raises(KeyboardInterrupt) if interruption else contextlib.nullcontext():
        outcomes = calibrating.calibrate(5.0, {"calibration": file}, load="app:f")
        assert outcomes.exit_status == calibrating.SOME
    ((one,),) = seen
    assert one.idle_w == pytest.approx(70.0, rel=0.01)


def test_a_load_may_be_a_builtin_that_tells_no_arguments():
    """What has no signature is not refused for it."""
    assert load_named("builtins:dict") is dict


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("app", "names no function"),
        (":f", "names no function"),
        ("no_such_module_here:f", "importing no_such_module_here raised ModuleNotFoundError"),
        ("json:dumbs", "has no function dumbs. Did you mean 'dumps'"),
        ("json:decoder", "has no plain function decoder"),
        ("app_that_waits:f", "has no plain function f"),
        ("app_that_raises:f", "raised RuntimeError('not today')"),
        ("app_that_asks:f", "cannot be called without arguments: missing a required argument: 'prompt'"),
        ("app_that_exits:f", "importing app_that_exits raised SystemExit(0)"),
    ],
)
def test_a_load_that_cannot_be_is_told_at_once(tmp_path, monkeypatch, text, says):
    """A name that leads to no function is an error that says what to give, before anything is measured."""
    (tmp_path / "app_that_waits.py").write_text("async def f(): pass")
    (tmp_path / "app_that_raises.py").write_text("raise RuntimeError('not today')")
    (tmp_path / "app_that_asks.py").write_text("def f(prompt, n=1): pass")
    (tmp_path / "app_that_exits.py").write_text("raise SystemExit(0)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(ConfigurationError, match=re.escape(says)) as caught:
        load_named(text)
    assert "MODULE:FUNCTION" in str(caught.value)


def test_a_function_of_the_working_folder_is_a_load(tmp_path, monkeypatch):
    """MODULE is looked for where the command is run, as Python does for scripts."""
    (tmp_path / "app_to_load.py").write_text("def generate():\n    return 42\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [one for one in sys.path if one])
    assert load_named("app_to_load:generate")() == 42


def test_auto_needs_cuda(monkeypatch):
    """Without PyTorch on CUDA there is no automatic load, and the error says what to give instead."""
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ConfigurationError, match="--load MODULE:FUNCTION"):
        load_named("auto")


def test_auto_loads_every_device_of_torch(monkeypatch):
    """The automatic load multiplies on each CUDA device, and takes their memory when it is first called, not before."""
    made, multiplied = [], []
    torch = SimpleNamespace(
        cuda=SimpleNamespace(is_available=lambda: True, device_count=lambda: 2),
        rand=lambda *_, device: made.append(device) or device,
        mm=lambda a, b: multiplied.append((a, b)),
    )
    monkeypatch.setitem(sys.modules, "torch", torch)
    load = load_named("auto")
    assert made == []
    load()
    load()
    assert made == ["cuda:0", "cuda:1"]
    assert multiplied == [("cuda:0", "cuda:0"), ("cuda:1", "cuda:1")] * 2


# In use


def gpu_at_rest(nvml, **settings):
    clock = EmulatedClock(nvml)
    gpu = nvml.add("h100", latency_s=0.0003)
    gpu.set_power(70.0)
    sensors, _ = nvml_sensor.probe({}, clock)
    return clock, gpu, aimeter.Meter(sensors=sensors, clock=clock, region="FR", **settings)


def calibrate_gpu(gpu, path, idle_w=70.0, age_s=3600.0):
    measured_s = time.time() - age_s
    one = replace(OF_GPU, device=gpu.uuid, name=gpu.name, idle_w=idle_w, measured_s=measured_s)
    store(path, this_machine(), [one])


def test_the_first_call_knows_the_idle_power(nvml, file):
    """With a calibration the first row has its idle part, says where that is from, and is known better."""
    errors = []
    for setting in ("off", file):
        nvml.reset()
        clock = EmulatedClock(nvml)
        gpu = nvml.add("h100", latency_s=0.0003)
        gpu.set_power(70.0)
        if setting == file:
            calibrate_gpu(gpu, file)
        sensors, _ = nvml_sensor.probe({}, clock)
        meter = aimeter.Meter(sensors=sensors, clock=clock, region="FR", calibration=setting)
        with meter.track("nothing"):
            clock.sleep(1e-6)
        clock.sleep(0.13)
        with meter.track("first") as call:
            gpu.set_power(300.0)
            clock.sleep(0.23)
        gpu.set_power(70.0)
        row = call.record
        truth_j = gpu.true_energy_j(call.start_s, call.end_s)
        assert abs(row.energy_j - truth_j) <= row.error_j
        errors.append(row.resolution_j)
        if setting == file:
            assert row.idle_j == pytest.approx(70.0 * call.duration_s, rel=0.03)
            remark = row.meta["aimeter"]["idle"]
            assert remark["source"] == "calibration"
            assert remark["age_s"] == pytest.approx(3600, abs=60)
        else:
            assert "idle" not in row.meta["aimeter"]
    assert errors[1] < errors[0]


def test_what_is_seen_live_wins(nvml, file):
    """Once the device has been seen at rest, its calibration, whether too low or too high, is forgotten."""
    for idle_w in (50.0, 90.0):
        nvml.reset()
        clock, gpu, _ = gpu_at_rest(nvml)
        calibrate_gpu(gpu, file, idle_w=idle_w)
        sensors, _ = nvml_sensor.probe({}, clock)
        meter = aimeter.Meter(sensors=sensors, clock=clock, region="FR", calibration=file)
        with meter.track("first") as first:
            clock.sleep(1.0)
        assert first.idle_j == pytest.approx(min(idle_w, 70.0), rel=0.05)
        clock.sleep(4.0)
        with meter.track("second") as second:
            clock.sleep(1.0)
        assert second.idle_j == pytest.approx(70.0, rel=0.1)
        assert "idle" not in second.record.meta["aimeter"]


def test_the_calibrated_period_is_where_looking_begins(nvml, file):
    """A counter known to step every 20 ms is taken for that from the first reading on."""
    clock, gpu, _ = gpu_at_rest(nvml)
    gpu.set(counter_period_s=0.02)
    store(
        file,
        this_machine(),
        [replace(OF_GPU, device=gpu.uuid, name=gpu.name, period_s=0.02, measured_s=time.time())],
    )
    sensors, _ = nvml_sensor.probe({}, clock)
    for setting, period_s in (("off", 0.1), (file, 0.02)):
        meter = aimeter.Meter(sensors=sensors, clock=clock, region="FR", calibration=setting)
        assert meter.sampler.readers.traces[0].learned.period_s == period_s


def test_calibrated_latency_and_window_are_used_from_the_first_reading_on(nvml, file):
    """What is not as documented, or better known, is used with its error; what may be is used as documented."""
    for late_s, wide_s, used in (
        (0.012, 0.018, (Estimate(0.012, 0.002), Estimate(0.018, 0.003))),
        (0.011, 0.024, (Estimate(0.011, 0.002), Estimate(0.025, 0.0))),
        (None, None, (Estimate(0.01, 0.008), Estimate(0.025, 0.0))),
    ):
        nvml.reset()
        clock = EmulatedClock(nvml)
        gpu = nvml.add("a100")
        gpu.fault(ENERGY, NOT_SUPPORTED)
        one = replace(
            OF_GPU, device=gpu.uuid, name=gpu.name, method="power", measured_s=time.time(),
            latency_s=late_s, latency_error_s=0.002, window_s=wide_s, window_error_s=0.003,
        )  # fmt: skip
        store(file, this_machine(), [one])
        sensors, _ = nvml_sensor.probe({}, clock)
        meter = aimeter.Meter(sensors=sensors, clock=clock, region="FR", calibration=file)
        (trace,) = meter.sampler.readers.traces
        assert (trace.learned.latency, trace.learned.window) == used


def test_the_doctor_tells_what_is_learned(nvml, file):
    """Latency and window with their errors and their age, and whether they are used; nothing where nothing was learned."""
    gpu = nvml.add("a100")
    gpu.fault(ENERGY, NOT_SUPPORTED)
    gpu.set_power(50.0)
    known = replace(
        OF_GPU, device=gpu.uuid, name=gpu.name, method="power", measured_s=time.time() - 3 * 86400
    )
    store(file, this_machine(), [known])
    assert "learned" not in shown(file)
    for late_s, late_error_s, wide_s, line in (
        (0.012, 0.002, 0.0182, "latency 12.0 ± 2.0 ms, used in place of 10.0 ± 8.0 ms; window 18.2 ± 3.0 ms, used in place of the documented 25 ms"),
        (0.0011, 0.006, 0.0241, "latency 1.1 ± 6.0 ms, not told from 10.0 ± 8.0 ms; window 24.1 ± 3.0 ms, not told from the documented 25 ms"),
    ):  # fmt: skip
        one = replace(
            known, latency_s=late_s, latency_error_s=late_error_s, window_s=wide_s, window_error_s=0.003
        )
        store(file, this_machine(), [one])
        assert f"gpu:0: learned 3 days ago: {line}" in shown(file)
    (meter,) = [
        one for one in examine({"calibration": file}, lambda steps: steps[:2]).meters if one.id == "gpu:0"
    ]
    assert (meter.window_s, meter.learned_window_s, meter.learned_window_error_s) == (0.025, 0.0241, 0.003)
    assert (meter.learned_latency_s, meter.learned_latency_error_s) == (0.0011, 0.006)
    assert meter.learned_age_s == pytest.approx(3 * 86400, abs=60)


def test_the_command_stores_and_the_doctor_shows(nvml, tmp_path):
    """Real processes: calibrate measures an emulated GPU and stores it, doctor then knows its idle power and age."""
    nvml.reset()
    nvml.add("h100").set_power(71.0)
    clean = {key: text for key, text in os.environ.items() if not key.startswith("AIMETER_")}
    clean |= {
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "COLUMNS": "120",
    }
    environ = nvml.environ(tmp_path, base=clean | {"AIMETER_POWERCAP": str(tmp_path / "none")})

    def run(*arguments, **more):
        return subprocess.run(
            [sys.executable, "-m", "aimeter", *arguments],
            env={**environ, **more}, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    ran = run("calibrate", "--json", "--seconds", "5")
    assert ran.returncode in {0, 1}, ran.stderr
    document = json.loads(ran.stdout)
    gpu = next(one for one in document["channels"] if one["id"] == "gpu:0")
    assert gpu["idle_w"] == pytest.approx(71.0, rel=0.02)
    assert gpu["period_s"] == pytest.approx(0.1, rel=0.05)
    assert document["path"] == str(tmp_path / "cache" / "aimeter" / "calibration.json")
    assert Path(document["path"]).exists()
    found = json.loads(run("doctor", "--json").stdout)
    meter = next(one for one in found["meters"] if one["id"] == "gpu:0")
    assert meter["idle_w"] == gpu["idle_w"]
    assert 0 <= meter["idle_age_s"] < 600
    assert found["calibration"] == {"path": document["path"], "problem": ""}
    refused = run("calibrate", AIMETER_CALIBRATION="off")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "'off'" in refused.stderr


def shown(file):
    """What doctor prints of an emulated GPU's idle power."""
    diagnosis = examine({"calibration": file}, progress=lambda steps: steps[:2])
    console = Console(width=120, file=io.StringIO())
    show(diagnosis, console)
    return console.file.getvalue()


def test_the_doctor_tells_idle_power_with_its_age_or_why_not(nvml, file):
    """A calibration in use is shown with its age, one that is not with the reason, none with nothing."""
    gpu = nvml.add("h100")
    gpu.set_power(70.0)
    assert " old" not in shown(file)
    calibrate_gpu(gpu, file, idle_w=71.5, age_s=3 * 86400)
    assert re.search(r"^  gpu:0 .* 71\.5 W, 3 days old", shown(file), re.MULTILINE)
    calibrate_gpu(gpu, file, age_s=40 * 86400)
    assert "is not used for gpu:3 (NVIDIA H100 80GB HBM3): it is 40 days old" in shown(file)


@pytest.mark.parametrize(
    ("where", "told"),
    [
        ("file/calibration.json", "AIMETER_CALIBRATION=FILE"),
        ("folder", "setting calibration is .*folder.* It is no regular file"),
        ("file/below/calibration.json", "AIMETER_CALIBRATION=FILE"),
    ],
)
def test_a_file_that_cannot_be_written_is_told(tmp_path, monkeypatch, where, told):
    """A file or folder in the way is one error that names the file and the setting, before anything is measured."""
    measured = []
    monkeypatch.setattr(calibrating, "discover", lambda **_: measured.append(1))
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigurationError, match=told):
        calibrating.calibrate(5.0, {"calibration": tmp_path / where})
    assert measured == []


def test_a_file_that_can_no_longer_be_written_is_told(file, monkeypatch):
    """A disk that has become full meanwhile is the same error."""

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(calibrating, "discover", lambda **_: aimeter.sensors.discover.Discovery())
    monkeypatch.setattr(calibrating, "measure_at_rest", lambda *_, **__: ([OF_GPU], []))
    monkeypatch.setattr(calibrating, "store", full)
    with pytest.raises(ConfigurationError, match=r"No space .* AIMETER_CALIBRATION=FILE"):
        calibrating.calibrate(5.0, {"calibration": file})
