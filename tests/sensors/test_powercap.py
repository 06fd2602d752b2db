"""RAPL through powercap, on an emulated tree whose energy is known exactly."""

from __future__ import annotations

import os
import pickle
import shlex
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimeter.sensors import powercap, rapl
from aimeter.sensors.base import Outcome, Sensor
from tests.children import descriptors
from tests.emulator.powercap import (
    AMD_UNIT_J,
    INTEL_UNIT_J,
    SERVER_DRAM_UNIT_J,
    SERVER_PSYS_UNIT_J,
    PowercapTree,
    public_folder,
    unprivileged,
)


@pytest.fixture
def tree(tmp_path):
    return PowercapTree(tmp_path)


@pytest.fixture
def public_tree():
    with public_folder() as folder:
        yield PowercapTree(folder)


SAPPHIRE_RAPIDS, ICE_LAKE = (
    f"vendor_id : GenuineIntel\ncpu family : 6\nmodel : {model}\nstepping : 8\n" for model in (143, 106)
)


def probe(tree, root=None, proc=Path("/none")):
    return powercap.probe(root or tree.root, clock=tree.clock, sleep=tree.sleep, proc=proc)


def only(sensors):
    (sensor,) = sensors
    assert isinstance(sensor, Sensor)
    return sensor


def joules(sensor, tree, seconds):
    """Let time pass; return the joules by channel, wraps added as `Channel.wrap_j` says."""
    before = sensor.read()
    tree.time += seconds
    after = sensor.read()
    result = {}
    for channel, first, last in zip(sensor.channels, before, after, strict=True):
        assert (first.outcome, last.outcome) == (Outcome.OK, Outcome.OK)
        step_j = last.value - first.value
        result[channel.id] = step_j if step_j >= 0 else step_j + channel.wrap_j
    return result


def statuses(findings):
    return {finding.subject: finding.status for finding in findings}


def server(tree, packages=2):
    """Add packages that draw 50, 60 … W, each with 5, 6 … W of memory behind it, and a psys."""
    zones = {}
    for number in range(packages):
        package = tree.zone(f"package-{number}", watts=50 + 10 * number)
        zones[f"dram:{number}"] = tree.zone(
            "dram", watts=5 + number, parent=package, unit_j=SERVER_DRAM_UNIT_J
        )
        zones[f"cpu:{number}"] = package
    tree.zone("psys", watts=300, unit_j=SERVER_PSYS_UNIT_J)
    return zones


def test_joules_are_the_counters_difference(tree):
    """Over a changing power, each channel gives exactly its zone's joules: no zone twice, none left out."""
    zones = server(tree)
    sensor = only(probe(tree)[0])
    start = tree.time
    zones["cpu:0"].set_power(120, at=start + 0.25)
    zones["cpu:0"].set_power(80, at=start + 0.5)
    measured = joules(sensor, tree, 1.0)
    assert set(measured) == set(zones)
    for channel, energy_j in measured.items():
        # One renewal and one count at each end is all that the staircase hides.
        assert energy_j == pytest.approx(zones[channel].true_energy_j(start, tree.time), abs=0.15, rel=4e-6)


def test_channels_say_what_they_are(tree):
    """A channel carries the zone's kind, place, unit, wrap and error, and keeps the kinds apart."""
    server(tree, packages=1)
    sensor = only(probe(tree)[0])
    package, memory = sensor.channels
    assert (package.id, package.kind, package.name) == ("cpu:0", "cpu", "package-0")
    assert (memory.id, memory.kind, memory.name) == ("dram:0", "dram", "package-0/dram")
    assert {channel.method for channel in sensor.channels} == {"counter"}
    assert package.device == str((tree.devices / "intel-rapl" / "intel-rapl:0").resolve())
    assert package.wrap_j == pytest.approx(262_143.328850)
    assert package.quantum_j == pytest.approx(61.035e-6)
    assert memory.quantum_j == pytest.approx(15.3e-6)
    assert (package.relative_error, memory.relative_error, package.period_s) == (0.1, 0.2, 0.001)


@pytest.mark.parametrize(("unit_j", "full_j"), [(AMD_UNIT_J, 2.0**16), (2.0**-14, 2.0**18)])
def test_rapl_wrap(tree, unit_j, full_j):
    """Across a wrap the difference plus `wrap_j` is the true energy, to one count."""
    zone = tree.zone("package-0", watts=100, unit_j=unit_j, start_j=full_j - 50)
    sensor = only(probe(tree)[0])
    start = tree.time
    before = sensor.read()[0].value
    measured = joules(sensor, tree, 2.0)["cpu:0"]
    assert sensor.read()[0].value < before
    assert measured == pytest.approx(zone.true_energy_j(start, tree.time), abs=0.001 + 100 * 0.001, rel=4e-6)


@pytest.mark.parametrize("range_uj", [0, None])
def test_unknown_range(tree, range_uj):
    """A range of 0, or none, is an unknown wrap, never an assumed one; the zone counts all the same."""
    tree.zone("package-0", watts=50, max_energy_range_uj=range_uj)
    channel = only(probe(tree)[0]).channels[0]
    assert channel.wrap_j is None
    assert channel.quantum_j == 0


@pytest.mark.parametrize("dies", [2, 4])
def test_mirrored_dies_count_once(tree, dies):
    """Dies that show one counter (68 W and 68 W for 68 W) are counted once, whatever their offsets."""
    first = tree.zone("package-0-die-0", watts=68, unit_j=AMD_UNIT_J)
    for die in range(1, dies):
        tree.zone(f"package-0-die-{die}", mirror_of=first, unit_j=AMD_UNIT_J, start_j=100.25 * die)
    sensors, findings = probe(tree)
    assert joules(only(sensors), tree, 10.0) == {"cpu:0": pytest.approx(680, rel=1e-3)}
    assert statuses(findings)["package-0-die-1"] == "unused"


def test_mirrors_of_two_sockets(tree):
    """Each socket's mirrors are dropped; the sockets themselves stay two channels."""
    for package, watts in enumerate((68, 90)):
        first = tree.zone(f"package-{package}-die-0", watts=watts)
        tree.zone(f"package-{package}-die-1", mirror_of=first)
    measured = joules(only(probe(tree)[0]), tree, 10.0)
    assert measured == {"cpu:0": pytest.approx(680, rel=1e-3), "cpu:1": pytest.approx(900, rel=1e-3)}


def test_real_dies_are_all_counted(tree):
    """Dies with counters of their own are all counted, even if their powers differ by a thousandth."""
    tree.zone("package-0-die-0", watts=68.0)
    tree.zone("package-0-die-1", watts=68.068)
    assert len(only(probe(tree)[0]).channels) == 2


def test_packages_that_move_alike_are_all_counted(tree):
    """Two sockets with counts of their own are never taken for mirrors, even if they move alike."""
    first = tree.zone("package-0", watts=50)
    tree.zone("package-1", mirror_of=first, start_j=777.0)
    assert len(only(probe(tree)[0]).channels) == 2


def test_one_register_shown_by_many_packages_is_one(tree):
    """A guest of Xen with eight sockets of one CPU each: every package shows the host's register, and so does memory."""
    package = tree.zone("package-0", watts=80.0)
    memory = tree.zone("dram", parent=package, watts=9.0)
    for number in range(1, 8):
        other = tree.zone(f"package-{number}", mirror_of=package)
        tree.zone("dram", parent=other, mirror_of=memory)
    sensors, findings = probe(tree)
    assert joules(only(sensors), tree, 10.0) == {
        "cpu:0": pytest.approx(800, rel=1e-3),
        "dram:0": pytest.approx(90, rel=1e-3),
    }
    assert [finding.status for finding in findings].count("unused") == 7


@pytest.mark.parametrize(
    ("cpu", "unit_j", "factor"),
    [
        (SAPPHIRE_RAPIDS, SERVER_DRAM_UNIT_J, 3.989),  # Linux before 6.1
        (SAPPHIRE_RAPIDS, INTEL_UNIT_J, 1.0),
        (ICE_LAKE, SERVER_DRAM_UNIT_J, 1.0),
    ],
)
def test_memory_in_a_wrong_unit_is_corrected(tree, tmp_path, cpu, unit_j, factor):
    """The register of Sapphire Rapids counts 61 uJ; older drivers take it for 15.3 uJ, and show a quarter."""
    (tmp_path / "cpuinfo").write_text(cpu)
    package = tree.zone("package-0", watts=200.0)
    tree.zone("dram", parent=package, watts=60.0 / factor, unit_j=unit_j)
    sensors, findings = probe(tree, proc=tmp_path)
    sensor = only(sensors)
    assert joules(sensor, tree, 10.0)["dram:0"] == pytest.approx(600.0, rel=1e-3)
    memory = sensor.channels[1]
    assert memory.wrap_j == pytest.approx(factor * unit_j * 2**32, rel=1e-3)
    told = [finding.detail for finding in findings if finding.subject.endswith("dram")]
    assert ("multiplied" in told[0]) == (factor > 1) == ("multiplied" in memory.note)


@given(
    steps=st.lists(st.integers(1, 10**6), min_size=4, max_size=4),
    offset=st.integers(-(10**9), 10**9),
    late=st.integers(0, 3),
    hidden=st.integers(1, 10**5),
)
def test_mirrors_are_recognised(steps, offset, late, hidden):
    """One counter read twice is recognised at any offset, even if renewed between its readings once."""
    series = [0]
    for step in steps:
        series.append(series[-1] + step)
    twin = [value + offset for value in series]
    twin[late] += hidden
    assert rapl.mirrors(series, [value + offset for value in series])
    assert rapl.mirrors(series, twin)


@given(steps=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)), min_size=4, max_size=4))
def test_different_counters_are_not_mirrors(steps):
    """Counters whose increments differ in more than half of the steps are two."""
    first, second = [0], [0]
    for a, b in steps:
        first.append(first[-1] + a)
        second.append(second[-1] + b)
    moving = [(a, b) for a, b in steps if a or b]
    alike = sum(abs(a - b) <= 1 for a, b in moving)
    assert rapl.mirrors(first, second) == (bool(moving) and 2 * alike >= len(moving))


def test_mmio_repeats_the_package(tree):
    """A package that ``intel-rapl`` and ``intel-rapl-mmio`` both show is counted once, as ``intel-rapl``."""
    package = tree.zone("package-0", watts=15)
    tree.zone("package-0", control="intel-rapl-mmio", mirror_of=package)
    sensors, findings = probe(tree)
    assert joules(only(sensors), tree, 10.0) == {"cpu:0": pytest.approx(150, rel=1e-3)}
    assert "intel-rapl-mmio" not in only(sensors).channels[0].device
    assert [finding.status for finding in findings] == ["used", "unused"]


def test_mmio_alone(tree):
    """Where ``intel-rapl`` is there but dead, ``intel-rapl-mmio`` is what counts the package."""
    tree.zone("package-0", watts=0)
    tree.zone("package-0", watts=15, control="intel-rapl-mmio")
    sensors, findings = probe(tree)
    assert "mmio" in only(sensors).channels[0].device
    assert [finding.status for finding in findings] == ["used", "dead"]


def test_laptop_counts_the_package_only(tree):
    """On a client, core, uncore, psys and memory are not added to the package (29.97 W, not 61.47 W)."""
    package = tree.zone("package-0", watts=15.5)
    for name, watts in (("core", 12.0), ("uncore", 1.0), ("dram", 3.0)):
        tree.zone(name, watts=watts, parent=package)
    tree.zone("psys", watts=29.97)
    sensors, findings = probe(tree)
    assert joules(only(sensors), tree, 10.0) == {"cpu:0": pytest.approx(155, rel=1e-3)}
    assert statuses(findings) == {"package-0": "used", "package-0/dram": "unused", "psys": "unused"}


def test_amd_counts_the_package_only(tree):
    """AMD shows package and core under the name of Intel; only the package counts."""
    package = tree.zone("package-0", watts=40, unit_j=AMD_UNIT_J)
    tree.zone("core", watts=10, parent=package, unit_j=AMD_UNIT_J)
    assert joules(only(probe(tree)[0]), tree, 10.0) == {"cpu:0": pytest.approx(400, rel=1e-3)}


def test_hexadecimal_zone_numbers(tree):
    """From ten zones on their numbers are hexadecimal; channels are numbered by the packages' names."""
    order = [11, 3, 0, 1, 2, 4, 5, 6, 7, 8, 9, 10]
    for number in order:
        tree.zone(f"package-{number}", watts=10 + number)
    sensor = only(probe(tree)[0])
    assert (tree.root / "intel-rapl:b").exists()
    assert [channel.name for channel in sensor.channels] == [f"package-{number}" for number in range(12)]
    measured = joules(sensor, tree, 10.0)
    assert measured["cpu:11"] == pytest.approx(210, rel=1e-3)


def test_mounted_devices_folder(tree):
    """A mount of ``/sys/devices/virtual/powercap``, where no links are, serves as well as ``/sys/class``."""
    server(tree, packages=1)
    assert [channel.id for channel in only(probe(tree, tree.devices)[0]).channels] == ["cpu:0", "dram:0"]


def test_no_tree(tmp_path):
    """Without a powercap tree there is no sensor and one finding says so."""
    sensors, (finding,) = powercap.probe(tmp_path / "nowhere")
    assert (sensors, finding.status) == ([], "missing")


def test_masked_tree(tree):
    """Where a container runtime masks the zones, the finding names the mount that shows them again."""
    server(tree)
    tree.mask()
    sensors, (finding,) = probe(tree)
    assert (sensors, finding.status) == ([], "denied")
    assert "-v /sys/devices/virtual/powercap:" in finding.remedy


@pytest.mark.parametrize("control", [True, False])
def test_empty_tree(tree, control):
    """A tree without zones is missing; the finding names containers as a possible cause."""
    if control:
        tree.control("intel-rapl")
    sensors, (finding,) = probe(tree)
    assert (sensors, finding.status) == ([], "missing")
    assert "container" in finding.detail


def test_unreadable_for_users(public_tree):
    """Without the right to read, there is one finding for all zones; its command mends it."""
    server(public_tree)
    for zone in public_tree.zones:
        zone.deny()
    with unprivileged():
        sensors, findings = probe(public_tree)
    assert sensors == []
    denied = next(finding for finding in findings if finding.status == "denied")
    assert denied.subject == "package-0, package-1, package-0/dram, package-1/dram"
    command = denied.remedy.partition(" (")[0].removeprefix("sudo ")
    here = shlex.quote(str(public_tree.root))
    subprocess.run(command.replace("/sys/class/powercap", here), shell=True, check=True)
    with unprivileged():
        sensors, _ = probe(public_tree)
    assert len(only(sensors).channels) == 4


def test_tree_that_may_not_be_listed(public_tree):
    """A tree whose folder is closed is denied, without an exception."""
    server(public_tree)
    public_tree.root.chmod(0)
    with unprivileged():
        sensors, (finding,) = probe(public_tree)
    public_tree.root.chmod(0o755)
    assert (sensors, finding.status) == ([], "denied")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_unreadable_in_an_unprivileged_process(public_tree):
    """A process of another user, who truly may not read the 0400 files, gets a finding and no exception."""
    server(public_tree)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.setgid(65534)
        os.setuid(65534)
        with os.fdopen(writing, "wb") as pipe:
            pickle.dump(powercap.probe(public_tree.root)[1], pipe)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        findings = pickle.load(pipe)
    assert os.waitpid(child, 0)[1] == 0
    assert "denied" in statuses(findings).values()


def test_right_withdrawn_in_mid_run(public_tree):
    """A zone that may no longer be read is gone; its neighbours go on."""
    zones = server(public_tree)
    sensor = only(probe(public_tree)[0])
    sensor.read()
    zones["cpu:0"].deny()
    with unprivileged():
        by_id = dict(zip((channel.id for channel in sensor.channels), sensor.read(), strict=True))
    assert by_id.pop("cpu:0").outcome is Outcome.GONE
    assert {reading.outcome for reading in by_id.values()} == {Outcome.OK}


def test_failing_zone_in_mid_run(tree):
    """A reading that fails (EIO) may be tried again; it has a reason and no value; the others go on."""
    zones = server(tree)
    sensor = only(probe(tree)[0])
    sensor.read()
    zones["cpu:1"].fail_reads()
    by_id = dict(zip((channel.id for channel in sensor.channels), sensor.read(), strict=True))
    assert by_id["cpu:1"].outcome is Outcome.AGAIN
    assert by_id["cpu:1"].value is None
    assert "Input/output error" in by_id["cpu:1"].reason
    assert {reading.outcome for key, reading in by_id.items() if key != "cpu:1"} == {Outcome.OK}
    zones["cpu:1"].heal()
    assert {reading.outcome for reading in sensor.read()} == {Outcome.OK}


def test_nonsense_in_mid_run(tree):
    """A counter whose file holds no number gives no value and a reason, and may be tried again."""
    zone = tree.zone("package-0", watts=50)
    sensor = only(probe(tree)[0])
    zone.close()
    zone.energy_file.chmod(0o600)
    zone.energy_file.write_text("nan\n")
    (reading,) = sensor.read()
    assert (reading.outcome, reading.value) == (Outcome.AGAIN, None)
    assert str(zone.energy_file.name) in reading.reason


def test_zone_vanishes_in_mid_run(tree):
    """A zone whose files disappear is gone; its neighbours go on."""
    zones = server(tree)
    sensor = only(probe(tree)[0])
    sensor.read()
    zones["dram:1"].vanish()
    by_id = dict(zip((channel.id for channel in sensor.channels), sensor.read(), strict=True))
    assert by_id["dram:1"].outcome is Outcome.GONE
    assert by_id["dram:1"].reason
    assert by_id["cpu:0"].outcome is Outcome.OK


def test_zone_that_fails_from_the_start(tree):
    """A zone that cannot be read at the probe is left out with its reason; the others are used."""
    zones = server(tree)
    zones["cpu:0"].fail_reads()
    sensors, findings = probe(tree)
    assert [channel.name for channel in only(sensors).channels] == ["package-1", "package-1/dram"]
    assert statuses(findings)["package-0"] == "failed"


def test_dead_zone(tree):
    """A zone that is present but never advances is dead, and is no channel."""
    zones = server(tree)
    zones["cpu:0"].freeze()
    zones["dram:1"].freeze()
    sensors, findings = probe(tree)
    assert [channel.name for channel in only(sensors).channels] == ["package-1"]
    assert statuses(findings)["package-0"] == "dead"
    assert statuses(findings)["package-1/dram"] == "dead"


def test_readings_are_stamped_around_the_value(tree):
    """Each reading lies between its two stamps on the clock it was given."""
    server(tree)
    moments = iter(range(100))
    sensors, _ = powercap.probe(tree.root, clock=lambda: float(next(moments)), sleep=tree.sleep)
    stamps = [(reading.before_s, reading.after_s) for reading in only(sensors).read()]
    assert stamps == [(0.0, 1.0), (2.0, 3.0), (4.0, 5.0), (6.0, 7.0)]


def test_reopen_and_close(tree):
    """A sensor reads on after `reopen`; closing twice is harmless and leaves no file open."""
    server(tree)
    before = descriptors()
    sensor = only(probe(tree)[0])
    assert descriptors() == before
    sensor.read()
    sensor.reopen()
    assert {reading.outcome for reading in sensor.read()} == {Outcome.OK}
    sensor.close()
    sensor.close()
    assert descriptors() == before


def test_forked_child_reads(tree):
    """A child of `fork` reads through the files its parent opened, and through its own."""
    server(tree)
    sensor = only(probe(tree)[0])
    expected = [reading.value for reading in sensor.read()]
    child = os.fork()
    if child == 0:
        same = [reading.value for reading in sensor.read()] == expected
        sensor.reopen()
        os._exit(0 if same and [reading.value for reading in sensor.read()] == expected else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert [reading.value for reading in sensor.read()] == expected


def test_real_time(tmp_path):
    """On the real clock, with the real sleep, joules are never more than the exact integral around them."""
    tree = PowercapTree(tmp_path)
    zone = tree.zone("package-0", watts=100)
    with tree.live():
        sensor = only(powercap.probe(tree.root)[0])
        first = sensor.read()[0]
        while (last := sensor.read()[0]).value < first.value + 2:
            time.sleep(0.001)
    assert last.outcome is Outcome.OK
    assert last.value <= zone.value_uj(last.after_s) * 1e-6
