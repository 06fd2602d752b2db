"""The per-vCPU model, against the exact integral of its own formula over a known utilisation."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimeter.sensors import estimate
from aimeter.sensors.base import Outcome, Sensor
from aimeter.sensors.cgroup import cpu_limit
from aimeter.sensors.estimate import SHARES, UNKNOWN, microarchitecture, power_w


class Times(NamedTuple):
    """What psutil gives on Linux."""

    user: float = 50.0
    nice: float = 50.0
    system: float = 50.0
    idle: float = 50.0
    iowait: float = 50.0
    irq: float = 50.0
    softirq: float = 50.0
    steal: float = 50.0
    guest: float = 50.0
    guest_nice: float = 50.0


SAPPHIRE_RAPIDS = """processor\t: 0
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 143
model name\t: Intel(R) Xeon(R) Processor @ 2.10GHz
stepping\t: 8

processor\t: 1
vendor_id\t: GenuineIntel
model\t\t: 1
"""


class Machine:
    """A machine whose clock and CPU times are moved by hand."""

    def __init__(self, cpus=4):
        self.cpus = cpus
        self.now = 1000.0
        self.times = Times()
        self.broken = False

    def clock(self):
        return self.now

    def cpu_times(self):
        if self.broken:
            raise OSError(5, "Input/output error")
        return self.times

    def run(self, seconds, **shares):
        """Let time pass with the given parts of all CPUs in each state, the rest idle."""
        total = seconds * self.cpus
        shares["idle"] = 1 - sum(part for state, part in shares.items() if not state.startswith("guest"))
        moved = {state: getattr(self.times, state) + part * total for state, part in shares.items()}
        self.times = self.times._replace(**moved)
        self.now += seconds


@pytest.fixture
def host(tmp_path):
    """A folder with an empty ``proc`` and an empty ``cgroup``."""
    for name in ("proc/self", "cgroup"):
        (tmp_path / name).mkdir(parents=True)
    return tmp_path


def write(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(f"{text}\n")


def build(host, machine, cpuinfo=SAPPHIRE_RAPIDS):
    (host / "proc" / "cpuinfo").write_text(cpuinfo)
    (sensor,), (finding,) = estimate.probe(
        host / "proc", host / "cgroup", clock=machine.clock, cpu_times=machine.cpu_times, online=machine.cpus
    )
    assert isinstance(sensor, Sensor)
    assert finding.status == "used"
    return sensor


def joules(sensor):
    (reading,) = sensor.read()
    assert reading.outcome is Outcome.OK
    return reading.value


def test_guest_of_a_large_server(host):
    """4 busy vCPUs on a 350 W Xeon draw their own share, 16 W, not the whole chip's 350 W."""
    machine = Machine(cpus=4)
    sensor = build(host, machine)
    start_j = joules(sensor)
    machine.run(10.0, user=1.0)
    mean_w = (joules(sensor) - start_j) / 10
    assert mean_w == pytest.approx(15.96)
    low_w, high_w = (4 * watts for watts in SHARES["Sapphire Rapids"].max_range_w)
    assert 12 <= low_w < mean_w < high_w <= 19.5


SERVERS = Path(__file__).with_name("specpower.csv")
"""Measured servers: threads, and watts at the wall, idle and at full load. Out of data/SPECpower-2026-03-09.csv (SHA-256
c19bd829f2753765ba4cc5b8d723f41c76a8a9afc54ad5444caf3a06e66a4c11) of cloud-carbon-footprint/ccf-coefficients at b0032d9,
Apache-2.0: the results whose CPU bears a name that this repository's data/amd-*.csv and intel-*.csv give for a
microarchitecture, as a whole (``8490`` is no ``8490H``), whatever else stands before and after it."""


def servers():
    with SERVERS.open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name", SHARES)
def test_watts_of_a_cpu_are_those_of_its_measured_servers(name):
    """Each value of the table is the median, or a percentile, of what was published for servers of that kind."""
    share = SHARES[name]
    kind = [row for row in servers() if row["microarchitecture"] == name]
    for column, median_w, range_w in [
        ("idle_w", share.idle_w, share.idle_range_w),
        ("full_w", share.max_w, share.max_range_w),
    ]:
        true_w = np.percentile([float(row[column]) / int(row["threads"]) for row in kind], [50, 10, 90])
        for stated, true in zip([median_w, *(range_w or ())], true_w, strict=False):
            assert stated == pytest.approx(true, abs=0.0051 if true < 10 else 0.051)


def test_no_measured_server_is_left_out():
    """The table has each microarchitecture that was measured, and a range where there are enough servers for one."""
    assert {row["microarchitecture"] for row in servers()} == set(SHARES)
    without = {name for name, share in SHARES.items() if share.max_range_w is None}
    assert without == {"Ivy Bridge"}  # three servers
    assert {name for name, share in SHARES.items() if share.idle_range_w is None} - without == {"Coffee Lake"}


def test_watts_of_an_unknown_cpu_are_the_published_average():
    """CCF's MIN_WATTS_AVG and MAX_WATTS_AVG of AWS (its packages/aws/src/domain/AwsFootprintEstimationConstants.ts)."""
    assert UNKNOWN == (0.74, 3.5, None, None)


@pytest.mark.parametrize("name", [*SHARES, None])
def test_power_follows_utilisation_in_a_line(name):
    """At half load the model has half of the dynamic range, as measured servers have .43 to .75 of it."""
    share = SHARES[name] if name else UNKNOWN
    idle_w, half_w, full_w = (power_w(share, 8, utilisation) for utilisation in (0, 0.5, 1))
    assert idle_w == pytest.approx(8 * share.idle_w)
    assert full_w == pytest.approx(8 * share.max_w)
    assert 0.43 <= (half_w - idle_w) / (full_w - idle_w) <= 0.75
    assert 0 < share.idle_w < share.max_w


def test_estimates_are_marked(host):
    """The channel says that it is an estimate, from what, how wrong it may be, and in what steps it moves."""
    (channel,) = build(host, Machine()).channels
    assert (channel.id, channel.kind, channel.method, channel.quantity) == (
        "cpu:0",
        "cpu",
        "estimate",
        "energy",
    )
    assert (channel.relative_error, channel.period_s, channel.source) == (0.5, 0.01, "psutil")
    assert channel.quantum_j == pytest.approx(0.01 * (3.99 - 0.90))


@pytest.mark.parametrize(
    ("cpuinfo", "quota", "words"),
    [
        (
            SAPPHIRE_RAPIDS,
            "",
            "64 CPUs at 57.6 W idle and 255.4 W busy (servers of its kind: 197.8 to 309.8 W)",
        ),
        (
            SAPPHIRE_RAPIDS,
            "50000 100000",
            "0.5 of 64 CPUs, as the control group allows at 0.5 W idle and 2.0 W busy (servers of its kind: 1.5 to 2.4 W)",
        ),
        ("", "", "64 CPUs at 47.4 W idle and 224.0 W busy"),
    ],
)
@pytest.mark.parametrize("dead", [False, True])
def test_what_the_model_assumes_is_told(host, monkeypatch, cpuinfo, quota, words, dead):
    """How many CPUs, the watts at rest and under load, those of the servers it is taken from, and how sure that is."""
    monkeypatch.setattr(estimate.platform, "processor", lambda: "")
    machine = Machine()
    note = ""
    if quota:
        pod_v2(host, quota=quota, path="/kubepods/pod1", usage=int(not dead))
        note = "the control group's CPU time is zero"
    elif dead:
        machine.times = Times(*[0.0] * len(Times._fields))
        note = "the machine's CPU times are all zero"
    (host / "proc" / "cpuinfo").write_text(cpuinfo)
    _, (finding,) = estimate.probe(host / "proc", host / "cgroup", cpu_times=machine.cpu_times, online=64)
    told = f"The model puts {words}, give or take half."
    if dead:
        told += f" Of the work only this process's own is seen, as {note}."
    assert finding.detail == told


def test_a_cpu_without_cpuinfo_is_the_one_that_the_platform_names(host, monkeypatch):
    """Windows has no /proc, and names its CPU in a word of its own."""
    named = "Intel64 Family 6 Model 143 Stepping 8, GenuineIntel"
    monkeypatch.setattr(estimate.platform, "processor", lambda: named)
    (sensor,), _ = estimate.probe(host / "none", host / "cgroup", cpu_times=Machine().cpu_times, online=2)
    assert sensor.channels[0].name == "2 vCPUs, Sapphire Rapids"


@pytest.mark.parametrize(
    ("of_psutil", "of_os", "cpus"), [(5, 3, 5), (None, 3, 3), (None, None, 1), (1, None, 1)]
)
def test_the_cpus_are_those_that_are_online(host, monkeypatch, of_psutil, of_os, cpus):
    """As the system says; at least the one that runs this."""
    monkeypatch.setattr("psutil.cpu_count", lambda: of_psutil)
    monkeypatch.setattr(os, "cpu_count", lambda: of_os)
    (sensor,), _ = estimate.probe(host / "proc", host / "cgroup", cpu_times=Machine().cpu_times)
    assert sensor.channels[0].name.partition(",")[0] == f"{cpus} vCPUs"


def test_memory_is_inside(host):
    """A guest's estimate is one CPU channel; its note says that memory is inside, and none is added."""
    (channel,) = build(host, Machine(cpus=2)).channels
    assert "memory included" in channel.note


def test_memory_size_changes_nothing(host):
    """65 GB or 1 TB of memory: the estimate does not pretend to know, and stays the same."""
    powers = []
    for total_kb in (65_000_000, 1_000_000_000):
        write(host / "proc", meminfo=f"MemTotal: {total_kb} kB")
        machine = Machine()
        sensor = build(host, machine)
        joules(sensor)
        machine.run(1.0, user=0.5)
        powers.append(joules(sensor))
    assert powers[0] == powers[1] == pytest.approx(power_w(SHARES["Sapphire Rapids"], 4, 0.5))


@given(
    pieces=st.lists(
        st.tuples(st.floats(0.001, 100), st.floats(0, 1)).map(lambda piece: (piece[0], piece[1])), max_size=10
    ),
    cpus=st.integers(1, 256),
)
def test_integral_is_exact(pieces, cpus):
    """Read at any moments, the sensor's energy is the sum of power times time of every piece."""
    machine = Machine(cpus)
    share = SHARES["EPYC 3"]
    sensor = estimate.VcpuModel(
        estimate.Channel(
            "cpu:0", "cpu", "estimate", "energy", name="", device="", source="psutil", period_s=0.01
        ),
        share,
        cpus,
        lambda: estimate.busy_s(machine.times),
        clock=machine.clock,
    )
    assert joules(sensor) == 0
    expected_j = 0.0
    for seconds, utilisation in pieces:
        machine.run(seconds, user=utilisation)
        expected_j += power_w(share, cpus, utilisation) * seconds
        assert joules(sensor) == pytest.approx(expected_j, rel=1e-6, abs=1e-6)


def test_what_counts_as_busy(host):
    """Stolen and waiting time is not busy; guest time, which user time contains, is counted once."""
    machine = Machine(cpus=1)
    sensor = build(host, machine)
    start_j = joules(sensor)
    machine.run(1.0, steal=0.3, iowait=0.2)
    idle_j = joules(sensor)
    machine.run(1.0, user=0.5, guest=0.5)
    half_j = joules(sensor)
    machine.run(1.0, nice=0.1, system=0.2, irq=0.1, softirq=0.1, user=0.5)
    share = SHARES["Sapphire Rapids"]
    assert idle_j - start_j == pytest.approx(share.idle_w)
    assert half_j - idle_j == pytest.approx((share.idle_w + share.max_w) / 2)
    assert joules(sensor) - half_j == pytest.approx(share.max_w)


def test_ticks_are_kept(host):
    """CPU times that stand still and then jump by a tick lose no energy, whatever the readings' moments."""
    machine = Machine(cpus=1)
    sensor = build(host, machine)
    start_j = joules(sensor)
    true_s = 0.0
    for _ in range(100):
        machine.now += 0.003
        true_s += 0.003
        ticks = int(true_s / 0.01 + 1e-9) * 0.01
        machine.times = machine.times._replace(user=50.0 + ticks)
        joules(sensor)
    assert joules(sensor) - start_j == pytest.approx(0.3 * 3.99, abs=0.01 * (3.99 - 0.90))


def test_times_that_run_backward(host):
    """CPU times that step back take no energy back, and what follows is counted."""
    machine = Machine(cpus=1)
    sensor = build(host, machine)
    start_j = joules(sensor)
    machine.run(1.0, user=1.0)
    machine.times = machine.times._replace(user=20.0)
    middle_j = joules(sensor)
    assert middle_j - start_j >= 0.90
    machine.run(1.0, user=1.0)
    assert joules(sensor) - middle_j == pytest.approx(3.99)


def test_times_that_cannot_be_read(host):
    """A failed reading has no value and a reason; the next one holds what it missed."""
    machine = Machine(cpus=1)
    sensor = build(host, machine)
    start_j = joules(sensor)
    machine.broken = True
    machine.run(1.0, user=1.0)
    (reading,) = sensor.read()
    assert (reading.outcome, reading.value) == (Outcome.AGAIN, None)
    assert "Input/output" in reading.reason
    machine.broken = False
    assert joules(sensor) - start_j == pytest.approx(3.99)


@pytest.mark.parametrize(
    ("family", "model", "stepping", "vendor", "expected"),
    [
        (6, 45, 7, "GenuineIntel", "Sandy Bridge"),
        (6, 62, 4, "GenuineIntel", "Ivy Bridge"),
        (6, 63, 2, "GenuineIntel", "Haswell"),
        (6, 79, 1, "GenuineIntel", "Broadwell"),
        (6, 86, 3, "GenuineIntel", "Broadwell"),
        (6, 85, 4, "GenuineIntel", "Skylake"),
        (6, 85, 5, "GenuineIntel", "Cascade Lake"),
        (6, 85, 7, "GenuineIntel", "Cascade Lake"),
        (6, 142, 10, "GenuineIntel", "Coffee Lake"),
        (6, 158, 10, "GenuineIntel", "Coffee Lake"),
        (6, 106, 6, "GenuineIntel", "Ice Lake"),
        (6, 108, 1, "GenuineIntel", "Ice Lake"),
        (6, 106, 9, "GenuineIntel", "Ice Lake"),
        (6, 143, 8, "GenuineIntel", "Sapphire Rapids"),
        (6, 207, 2, "GenuineIntel", "Emerald Rapids"),
        (6, 173, 1, "GenuineIntel", "Granite Rapids"),
        (6, 174, 1, "GenuineIntel", "Granite Rapids"),
        (23, 1, 2, "AuthenticAMD", "EPYC 1"),
        (23, 49, 0, "AuthenticAMD", "EPYC 2"),
        (25, 1, 1, "AuthenticAMD", "EPYC 3"),
        (25, 17, 1, "AuthenticAMD", "EPYC 4"),
        (25, 160, 2, "AuthenticAMD", "EPYC 4"),
        (26, 2, 1, "AuthenticAMD", "EPYC 5"),
        (26, 17, 0, "AuthenticAMD", "EPYC 5"),
        (6, 154, 3, "GenuineIntel", None),
        (15, 143, 8, "GenuineIntel", None),
        (25, 33, 0, "AuthenticAMD", None),
        (6, 143, 8, "CentaurHauls", None),
    ],
)
def test_microarchitecture(family, model, stepping, vendor, expected):
    """A CPU is known by vendor, family, model and stepping, as cpuinfo or as Windows writes them."""
    cpuinfo = (
        f"vendor_id\t: {vendor}\ncpu family\t: {family}\nmodel\t\t: {model}\nmodel name\t: Some CPU 85\n"
        f"stepping\t: {stepping}\n"
    )
    windows = f"Intel64 Family {family} Model {model} Stepping {stepping}, {vendor}"
    assert microarchitecture(cpuinfo) == microarchitecture(windows) == expected


def test_microarchitecture_of_arm():
    """An Arm CPU is known by implementer and part; other parts and no information at all are unknown."""
    text = "processor\t: 0\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU part\t: {}\nCPU revision\t: 1\n"
    assert microarchitecture(text.format("0xd0c")) == "Neoverse N1"
    assert microarchitecture(text.format("0xd4f")) is None
    assert microarchitecture("") is None


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        ("vendor_id\t: AuthenticAMD\ncpu family\t: 23\n", None),
        ("vendor_id\t: AuthenticAMD\nmodel\t\t: 1\n", None),
        ("vendor_id\t: GenuineIntel\ncpu family\t: 6\n", None),
        ("vendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 85\n", "Skylake"),
    ],
)
def test_what_a_guest_is_not_told_is_not_made_up(cpuinfo, expected):
    """Without its family or model a CPU is unknown; without its stepping, the first of its model."""
    assert microarchitecture(cpuinfo) == expected


def test_unknown_cpu(host, monkeypatch):
    """A CPU that is in no table gets the average, and its name says so."""
    monkeypatch.setattr(estimate.platform, "processor", lambda: "")
    machine = Machine(cpus=1)
    sensor = build(host, machine, cpuinfo="")
    assert sensor.channels[0].name == "1 vCPUs, unknown CPU"
    start_j = joules(sensor)
    machine.run(1.0, user=1.0)
    assert joules(sensor) - start_j == pytest.approx(3.5)


@pytest.mark.parametrize(("ahead_s", "believed"), [(0.099, True), (0.101, False)])
def test_cpu_time_may_run_ahead_of_the_clock_by_one_period_of_a_quota(host, ahead_s, believed):
    """100 ms on each CPU, in which more of them than the quota allows may be busy; beyond that it is no work."""
    machine = Machine(cpus=2)
    sensor = build(host, machine)
    start_j = joules(sensor)
    machine.now += 1.0
    machine.times = machine.times._replace(user=machine.times.user + 2 * (1 + ahead_s))
    work_j = 2 * (1 + ahead_s) * (3.99 - 0.90)
    assert joules(sensor) - start_j == pytest.approx(2 * 0.90 + believed * work_j)


def test_a_machine_that_cannot_be_read_yet_is_none_of_zeros(host):
    """CPU times that fail when the estimate is set up are read later all the same, and not the process's instead."""
    machine = Machine(cpus=1)
    machine.broken = True
    sensor = build(host, machine)
    assert sensor.channels[0].source == "psutil"
    assert sensor.read()[0].outcome is Outcome.AGAIN
    machine.broken = False
    start_j = joules(sensor)
    machine.run(1.0, user=1.0)
    assert joules(sensor) - start_j == pytest.approx(3.99)


def pod_v2(host, quota="200000 100000", usage=10_000_000, path="/", inner="kubepods/pod1"):
    """A pod as it is seen from its node: version 2."""
    group = host / "cgroup" / inner
    write(host / "cgroup", cgroup__controllers="cpu", cpu__stat="usage_usec 999000000")
    write(host / "cgroup", cpuset__cpus__effective="0-63")
    write(group, cpu__max=quota, cpu__stat=f"usage_usec {usage}\nuser_usec 1")
    write(host / "proc" / "self", cgroup=f"0::{path}")
    return group


def test_pod_on_a_shared_node(host):
    """A pod of 2 CPUs on a busy node of 64 counts its 2 CPUs and its own use, not the node's."""
    machine = Machine(cpus=64)
    group = pod_v2(host, path="/kubepods/pod1")
    sensor = build(host, machine)
    start_j = joules(sensor)
    machine.run(10.0, user=1.0)
    write(group, cpu__stat="usage_usec 15000000\nuser_usec 1")
    share = SHARES["Sapphire Rapids"]
    assert joules(sensor) - start_j == pytest.approx(10 * power_w(share, 2, 0.25))
    assert (sensor.channels[0].source, sensor.channels[0].name) == ("cgroup", "2 vCPUs, Sapphire Rapids")


@pytest.mark.parametrize(
    ("usage", "source"), [("usage_usec 0", "process"), ("usage_usec 1", "cgroup"), ("nonsense", "cgroup")]
)
def test_a_group_that_counts_nothing_is_not_believed(host, usage, source):
    """This process is in it and has worked, so its CPU time of 0 is dead; one that cannot be read yet is asked again."""
    group = pod_v2(host, path="/kubepods/pod1")
    write(group, cpu__stat=usage)
    (channel,) = build(host, Machine(cpus=64)).channels
    assert channel.source == source
    assert ("control group's CPU time is zero" in channel.note) == (source == "process")
    assert (
        channel.device == f"group-{(group / 'cpu.stat').stat().st_ino:x}"
    )  # another pod's is another device


def test_a_group_that_counts_nothing_leaves_the_process(host, monkeypatch):
    """All the group's CPUs are at rest, and this process's own work is what is known of theirs."""
    own_s = [100.0]
    monkeypatch.setattr(estimate.time, "process_time", lambda: own_s[0])
    machine = Machine(cpus=64)
    pod_v2(host, path="/kubepods/pod1", usage=0)
    sensor = build(host, machine)
    start_j = joules(sensor)
    machine.now += 10.0
    own_s[0] += 10.0
    assert joules(sensor) - start_j == pytest.approx(10 * (2 * 0.90 + 3.99 - 0.90))


def test_inside_a_container(host):
    """Inside a container, where the mount is its own group, the limit is found there."""
    pod_v2(host, inner=".")
    limit = cpu_limit(64, root=host / "cgroup", membership=host / "proc/self/cgroup")
    assert limit.cpus == 2
    assert limit.used_s() == 10


def test_outermost_group_of_the_tightest_limit(host):
    """The tightest limit on the way from the root counts, with the use of the outermost group setting it."""
    pod_v2(host, path="/kubepods/pod1/app/deep")
    app = host / "cgroup/kubepods/pod1/app"
    write(app, cpu__max="50000 100000", cpu__stat="usage_usec 3000000", cpuset__cpus__effective="0-3,8")
    write(app / "deep", cpu__max="50000 100000", cpu__stat="usage_usec 1000000")
    limit = cpu_limit(64, root=host / "cgroup", membership=host / "proc/self/cgroup")
    assert (limit.cpus, limit.usage) == (0.5, app / "cpu.stat")


def test_cpuset(host):
    """A set of CPUs limits as a quota does."""
    group = pod_v2(host, quota="max 100000", path="/kubepods/pod1")
    write(group, cpuset__cpus__effective="0-3,8")
    limit = cpu_limit(64, root=host / "cgroup", membership=host / "proc/self/cgroup")
    assert (limit.cpus, limit.usage) == (5, group / "cpu.stat")


@pytest.mark.parametrize("quota", ["max 100000", "6400000 100000"])
def test_no_limit(host, quota):
    """A group that may use the whole machine is no limit: the machine's own times are used."""
    pod_v2(host, quota=quota, path="/kubepods/pod1")
    assert cpu_limit(64, root=host / "cgroup", membership=host / "proc/self/cgroup") is None
    assert build(host, Machine(cpus=64)).channels[0].source == "psutil"


@pytest.mark.parametrize(("path", "place"), [("/docker/abc", "docker/abc"), ("/docker/abc", "."), ("/", ".")])
def test_version_1(host, path, place):
    """Version 1: quota, set and account stand in hierarchies of their own, the path perhaps the host's."""
    root = host / "cgroup"
    write(root / "cpu,cpuacct" / place, cpu__cfs_quota_us="150000", cpu__cfs_period_us="100000")
    write(root / "cpu,cpuacct" / place, cpuacct__usage="2500000000")
    write(root / "cpuset" / place, cpuset__cpus="0-7")
    write(
        host / "proc/self",
        cgroup=f"5:cpuset:{path}\n4:cpu,cpuacct:{path}\n1:name=systemd:{path}\n0::{path}",
    )
    limit = cpu_limit(64, root=root, membership=host / "proc/self/cgroup")
    assert limit.cpus == 1.5
    assert limit.usage == root / "cpu,cpuacct" / place / "cpuacct.usage"
    assert limit.used_s() == pytest.approx(2.5)


def test_version_1_without_quota(host):
    """Version 1: a quota of -1 is none, and a set as large as the machine is none."""
    root = host / "cgroup"
    write(root / "cpu,cpuacct", cpu__cfs_quota_us="-1", cpu__cfs_period_us="100000", cpuacct__usage="1")
    write(root / "cpuset", cpuset__effective_cpus="0-63", cpuset__cpus="")
    write(host / "proc/self", cgroup="5:cpuset:/\n4:cpu,cpuacct:/")
    assert cpu_limit(64, root=root, membership=host / "proc/self/cgroup") is None


def test_no_control_groups(tmp_path):
    """Where there are no control groups at all, there is no limit."""
    assert cpu_limit(8, root=tmp_path / "none", membership=tmp_path / "none") is None


def test_usage_that_vanishes(host):
    """A group whose account disappears gives no value and a reason, not an exception."""
    machine = Machine(cpus=64)
    group = pod_v2(host, path="/kubepods/pod1")
    sensor = build(host, machine)
    joules(sensor)
    write(group, cpu__stat="nonsense")
    assert sensor.read()[0].outcome is Outcome.AGAIN
    (group / "cpu.stat").unlink()
    assert sensor.read()[0].outcome is Outcome.AGAIN


def test_this_machine():
    """On the machine of the test the model works as it is, on the real clock and the real CPU times."""
    (sensor,), (finding,) = estimate.probe()
    first = sensor.read()[0]
    deadline = time.perf_counter() + 0.05
    while time.perf_counter() < deadline:
        pass
    last = sensor.read()[0]
    sensor.reopen()
    sensor.close()
    assert finding.detail
    cpus = os.cpu_count()
    most_w = power_w(max(SHARES.values(), key=lambda share: share.max_w), cpus, 1)
    quanta_j = cpus * 2 * sensor.channels[0].quantum_j
    assert 0 < last.value - first.value <= most_w * (last.after_s - first.before_s) + quanta_j


@pytest.mark.parametrize("order", ["cpu,cpuacct", "cpuacct,cpu"])
@pytest.mark.parametrize("links", [True, False])
def test_controllers_of_version_1_are_a_set(host, order, links):
    """The kernel names them in one order, a distribution's folders in another, with links beside them or not."""
    root = host / "cgroup"
    mounted = root / "cpu,cpuacct"
    write(mounted, cpu__cfs_quota_us="200000", cpu__cfs_period_us="100000", cpuacct__usage="2500000000")
    if links:
        for name in ("cpu", "cpuacct"):
            (root / name).symlink_to(mounted)
    write(host / "proc/self", cgroup=f"4:{order}:/")
    limit = cpu_limit(64, root=root, membership=host / "proc/self/cgroup")
    assert limit.cpus == 2
    assert limit.used_s() == pytest.approx(2.5)


def test_cpu_times_of_zeros_are_dead(host, monkeypatch):
    """Under gVisor only the process's own CPU time is real: the estimate uses that, and says what it leaves out."""
    machine = Machine(cpus=4)
    machine.times = Times()._replace(**dict.fromkeys(Times._fields, 0.0))
    own_s = [100.0]
    monkeypatch.setattr(estimate.time, "process_time", lambda: own_s[0])
    sensor = build(host, machine)
    (channel,) = sensor.channels
    assert channel.source == "process"
    assert "only this process" in channel.note
    start_j = joules(sensor)
    machine.now += 10.0
    own_s[0] += 10.0
    share = SHARES["Sapphire Rapids"]
    assert joules(sensor) - start_j == pytest.approx(10 * (4 * share.idle_w + share.max_w - share.idle_w))


def test_states_that_a_platform_has_not_are_no_work(host):
    """Windows and macOS have fewer CPU times: those that are there count, and all of them at 0 are dead too."""

    class Few(NamedTuple):
        user: float
        system: float
        idle: float

    machine = Machine(cpus=1)
    machine.times = Few(50.0, 50.0, 50.0)
    sensor = build(host, machine)
    start_j = joules(sensor)
    machine.now += 1.0
    machine.times = Few(50.5, 50.25, 50.25)
    assert joules(sensor) - start_j == pytest.approx(0.90 + 0.75 * (3.99 - 0.90))
    assert estimate.busy_s(machine.times) == 100.75
    machine.times = Few(0.0, 0.0, 0.0)
    assert build(host, machine).channels[0].source == "process"


@pytest.mark.parametrize("count", ["", "1", "64"])
def test_python_cpu_count_changes_no_hardware(count):
    """PYTHON_CPU_COUNT is for pools of threads; the machine has the CPUs that it has."""
    environ = {**os.environ, "PYTHON_CPU_COUNT": count}
    program = "from aimeter.sensors.estimate import probe; print(probe()[0][0].channels[0].name)"
    command = [sys.executable, *(["-X", f"cpu_count={count}"] if count else []), "-c", program]
    name = subprocess.run(command, env=environ, capture_output=True, text=True, check=True).stdout
    assert name == f"{estimate.probe()[0][0].channels[0].name}\n"
