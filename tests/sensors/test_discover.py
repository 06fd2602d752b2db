"""The choice among the meters of one machine: each GPU once, the CPU once."""

from __future__ import annotations

import pytest

from aimeter.sensors.discover import discover
from tests.emulator.perf import PowerPmu
from tests.emulator.powercap import INTEL_UNIT_J, PowercapTree

SAPPHIRE_RAPIDS = "vendor_id : GenuineIntel\ncpu family : 6\nmodel : 143\nstepping : 8\n"


class Machine:
    """A server with any of its views of the CPU, all on one clock moved by hand; it has no GPU."""

    def __init__(self, folder, *, powercap=True, perf=True):
        self.folder = folder
        self.now = 0.0
        self.tree = PowercapTree(folder / "sys")
        events = {"energy-pkg": {0: 100}, "energy-ram": {0: 10}} if perf else {"energy-psys": {0: 0}}
        self.pmu = PowerPmu(folder / "events", events)
        (folder / "proc").mkdir()
        (folder / "proc" / "cpuinfo").write_text(SAPPHIRE_RAPIDS)
        if powercap:
            package = self.tree.zone("package-0", watts=100)
            self.tree.zone("dram", watts=10, parent=package, unit_j=INTEL_UNIT_J)

    def clock(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds
        self.tree.time = self.pmu.time = self.now

    def discover(self, **options):
        paths = {
            "powercap": self.tree.root,
            "perf": self.pmu.root,
            "topology": self.pmu.topology,
            "cgroup": self.folder / "no-cgroup",
            "proc": self.folder / "proc",
            "environ": {"CUDA_VISIBLE_DEVICES": ""},
            "open_event": self.pmu.open_event,
        }
        return discover(clock=self.clock, sleep=self.sleep, **{**paths, **options})


@pytest.fixture
def make(tmp_path):
    made = []

    def build(**options):
        made.append(Machine(tmp_path / str(len(made)), **options))
        return made[-1]

    yield build
    for machine in made:
        machine.pmu.close()


def channels(found):
    return [(channel.id, channel.source) for sensor in found.sensors for channel in sensor.channels]


def statuses(found):
    """Map each source to the set of statuses that its findings have."""
    result = {}
    for finding in found.findings:
        result.setdefault(finding.source, set()).add(finding.status)
    return result


def test_powercap_first(make):
    """Where all three views work, powercap alone is used, and the others are said to be unused."""
    found = make().discover()
    assert channels(found) == [("cpu:0", "powercap"), ("dram:0", "powercap")]
    assert statuses(found)["powercap"] == {"used"}
    assert statuses(found)["perf"] == {"unused"}
    assert statuses(found)["estimate"] == {"unused"}


def test_what_the_other_view_lacks_is_kept(make):
    """Only a view that works is called unused; a fault of it stays what it is."""
    machine = make()
    machine.pmu.denied = True
    found = machine.discover()
    assert statuses(found)["powercap"] == {"used"}
    assert statuses(found)["perf"] == {"denied"}


def test_memory_is_counted_once(make):
    """Server memory is metered once, by the view that meters the CPU; nothing is estimated beside it."""
    machine = make()
    found = machine.discover()
    before = [reading.value for sensor in found.sensors for reading in sensor.read()]
    machine.sleep(10)
    after = [reading.value for sensor in found.sensors for reading in sensor.read()]
    assert sum(after) - sum(before) == pytest.approx(1100, rel=1e-3)


def test_perf_where_powercap_is_closed(make):
    """A masked powercap tree leads to perf, and its finding keeps the remedy."""
    machine = make()
    machine.tree.mask()
    found = machine.discover()
    assert channels(found) == [("cpu:0", "perf"), ("dram:0", "perf")]
    assert statuses(found)["powercap"] == {"denied"}
    assert statuses(found)["estimate"] == {"unused"}
    assert any("-v /sys/devices/virtual/powercap" in finding.remedy for finding in found.findings)


def test_virtual_machine(make):
    """Where nothing but a dead psys is found the CPU is estimated, and flagged so; nothing reads 0."""
    machine = make(powercap=False, perf=False)
    found = machine.discover()
    (sensor,) = found.sensors
    (channel,) = sensor.channels
    assert (channel.id, channel.method) == ("cpu:0", "estimate")
    assert "Sapphire Rapids" in channel.name
    assert (statuses(found)["perf"], statuses(found)["estimate"]) == ({"dead"}, {"used"})
    machine.sleep(10)
    (reading,) = sensor.read()
    machine.sleep(10)
    assert sensor.read()[0].value - reading.value >= 10 * 0.90


def test_dead_meters(make):
    """Counters that are there but never move, in both views, lead to the estimate; both are called dead."""
    machine = make()
    for zone in machine.tree.zones:
        zone.freeze()
    for curve in machine.pmu.curves.values():
        curve.set(0.0, 0.0)
    found = machine.discover()
    assert [source for _, source in channels(found)] == ["psutil"]
    assert statuses(found)["powercap"] == {"dead"}
    assert statuses(found)["perf"] == {"dead"}


def test_estimate_has_no_memory_beside_it(make):
    """An estimated guest has one CPU channel and none for memory, nor a guess by its size."""
    found = make(powercap=False, perf=False).discover()
    assert [channel.kind for sensor in found.sensors for channel in sensor.channels] == ["cpu"]


def test_no_sys_at_all(tmp_path):
    """Where there is no /sys and no /proc (Windows, macOS) the CPU is estimated."""
    nowhere = tmp_path / "nowhere"
    found = discover(
        environ={}, powercap=nowhere, perf=nowhere, topology=nowhere, cgroup=nowhere, proc=nowhere
    )
    assert ("cpu:0", "psutil") in channels(found)
    assert statuses(found)["powercap"] == statuses(found)["perf"] == {"missing"}


def test_a_probe_that_raises(make):
    """A probe that raises what nobody expects becomes a finding; the other meters are found all the same."""
    machine = make(powercap=False)

    def explode(pmu, config, cpu):
        raise RuntimeError(pmu)

    found = machine.discover(open_event=explode)
    assert [source for _, source in channels(found)] == ["psutil"]
    (finding,) = [finding for finding in found.findings if finding.source == "perf"]
    assert finding.status == "failed"
    assert "RuntimeError: 24" in finding.detail


def test_a_malformed_tree(make):
    """Files that hold nonsense are a finding, not an exception."""
    machine = make(powercap=False)
    (machine.pmu.root / "cpumask").write_text("many\n")
    found = machine.discover()
    assert [source for _, source in channels(found)] == ["psutil"]
    assert statuses(found)["perf"] == {"failed"}


def test_this_machine():
    """On the machine of the test, whatever it has, the CPU is metered exactly once per package."""
    found = discover()
    ids = [channel.id for sensor in found.sensors for channel in sensor.channels]
    assert "cpu:0" in ids
    assert len(ids) == len(set(ids))
    for sensor in found.sensors:
        assert len(sensor.read()) == len(sensor.channels)
        sensor.close()
