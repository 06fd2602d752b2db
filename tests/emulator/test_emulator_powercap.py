"""The emulated powercap tree shows exactly what the driver would show for a known power."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.emulator.powercap import (
    AMD_UNIT_J,
    INTEL_UNIT_J,
    SERVER_DRAM_UNIT_J,
    SERVER_PSYS_UNIT_J,
    PowercapTree,
    PowerCurve,
    public_folder,
    unprivileged,
)


def shown_uj(zone) -> int:
    return int(zone.energy_file.read_text())


@pytest.mark.parametrize(
    ("unit_j", "range_uj"),
    [(INTEL_UNIT_J, 262_143_328_850), (AMD_UNIT_J, 65_532_610_987), (SERVER_DRAM_UNIT_J, 65_712_999_613)],
)
def test_range_is_the_drivers(tmp_path, unit_j, range_uj):
    """The range is that of a 32-bit register in units cut to whole nanojoules, as the driver prints it."""
    zone = PowercapTree(tmp_path).zone("package-0", unit_j=unit_j)
    assert (zone.folder / "max_energy_range_uj").read_text() == f"{range_uj}\n"


def test_psys_of_servers_counts_whole_joules(tmp_path):
    """A zone whose unit is 1 J moves in steps of 1 J."""
    tree = PowercapTree(tmp_path)
    psys = tree.zone("psys", watts=0.5, unit_j=SERVER_PSYS_UNIT_J, start_j=10.0)
    tree.time = 1.0
    assert shown_uj(psys) == 10_000_000
    tree.time = 2.0
    assert shown_uj(psys) == 11_000_000


def test_staircase(tmp_path):
    """Between renewals of the register the file does not change; at each it moves by power times period."""
    tree = PowercapTree(tmp_path)
    zone = tree.zone("package-0", watts=100, start_j=0.0)
    tree.time = 0.0100
    first = shown_uj(zone)
    tree.time = 0.0109
    assert shown_uj(zone) == first
    tree.time = 0.0110
    assert shown_uj(zone) - first == pytest.approx(100_000, abs=62)


def test_wrap(tmp_path):
    """The register starts again from 0 after 2**32 counts."""
    tree = PowercapTree(tmp_path)
    zone = tree.zone("package-0", watts=100, start_j=2**18 - 50)
    tree.time = 0.4
    before = shown_uj(zone)
    tree.time = 0.6
    after = shown_uj(zone)
    assert after < before
    assert after + zone.max_energy_range_uj - before == pytest.approx(20e6, abs=200)


@given(
    steps=st.lists(st.tuples(st.floats(0.001, 5), st.floats(0, 500)), max_size=8),
    bounds=st.tuples(st.floats(0, 40), st.floats(0, 40)),
)
def test_integral_is_exact(steps, bounds):
    """The closed form equals the sum of watts times seconds, piece by piece."""
    curve = PowerCurve(0.0, 7.0)
    edges, watts, now = [0.0], [7.0], 0.0
    for seconds, power in steps:
        now += seconds
        curve.set(now, power)
        edges.append(now)
        watts.append(power)
    low, high = sorted(bounds)
    ends = [*edges[1:], float("inf")]
    expected = sum(
        power * max(min(end, high) - max(begin, low), 0.0)
        for begin, end, power in zip(edges, ends, watts, strict=True)
    )
    assert curve.energy_j(high) - curve.energy_j(low) == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_layout(tmp_path):
    """Zones are links to nested folders, numbered in hexadecimal from ten on; names may repeat."""
    tree = PowercapTree(tmp_path)
    packages = [tree.zone(f"package-{number}") for number in range(11)]
    for package in packages[:2]:
        tree.zone("dram", parent=package)
    assert (tree.root / "intel-rapl:a").is_symlink()
    assert (tree.root / "intel-rapl:a" / "name").read_text() == "package-10\n"
    assert (tree.root / "intel-rapl" / "intel-rapl:1" / "intel-rapl:1:0" / "name").read_text() == "dram\n"
    assert (tree.root / "intel-rapl:0:0" / "name").read_text() == "dram\n"
    assert packages[0].energy_file.stat().st_mode & 0o777 == 0o400


@pytest.fixture
def public_path():
    with public_folder() as folder:
        yield folder


def test_faults(public_path):
    """Each fault is the kernel's: EACCES, EIO, no such zone, dangling links, a counter that stands still."""
    tree = PowercapTree(public_path)
    zone = tree.zone("package-0", watts=50)
    entry = tree.root / "intel-rapl:0" / "energy_uj"
    held = os.open(entry, os.O_RDONLY)
    zone.deny()
    assert os.pread(held, 64, 0) == b""
    os.close(held)
    assert os.access(entry.parent / "name", os.R_OK)
    with unprivileged(), pytest.raises(PermissionError):
        entry.open("rb")
    zone.fail_reads()
    with entry.open("rb", buffering=0) as file, pytest.raises(OSError, match="Input/output error"):
        file.read(64)
    zone.heal()
    still = shown_uj(zone)
    tree.time = 1.0
    assert shown_uj(zone) > still
    zone.freeze()
    still = shown_uj(zone)
    tree.time = 2.0
    assert shown_uj(zone) == still
    zone.vanish()
    assert not entry.exists()
    tree.zone("package-1")
    tree.mask()
    assert (tree.root / "intel-rapl:1").is_symlink()
    assert not (tree.root / "intel-rapl:1").exists()


def test_live_thread(tmp_path):
    """In real time the counter advances by itself and is never ahead of the exact integral."""
    tree = PowercapTree(tmp_path)
    zone = tree.zone("package-0", watts=100)
    with tree.live():
        first = shown_uj(zone)
        assert first <= zone.value_uj(time.perf_counter())
        changed = zone.set_power(50)
        while (last := shown_uj(zone)) < first + 1_000_000:
            time.sleep(0.001)
        after = time.perf_counter()
    assert last <= zone.value_uj(after)
    assert zone.true_energy_j(changed, after) == pytest.approx(50 * (after - changed))


def test_live_process(tmp_path):
    """A tree in another process advances by its stated power on the clock that processes share."""
    command = [sys.executable, "-m", "tests.emulator.powercap", str(tmp_path)]
    command += ["--zone", "package-0=100@0,10@3600", "--zone", "package-0/dram=5", "--seconds", "20"]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as process:
        try:
            word, origin = process.stdout.readline().split()
            energy = tmp_path / "class" / "powercap" / "intel-rapl:0" / "energy_uj"
            while time.perf_counter() < float(origin) + 0.2:
                time.sleep(0.01)
            shown_j = int(energy.read_text()) * 1e-6 - 12_345.678
            elapsed_s = time.perf_counter() - float(origin)
        finally:
            process.terminate()
    assert word == "ready"
    assert (tmp_path / "class/powercap/intel-rapl:0:0/name").read_text() == "dram\n"
    assert 0 < shown_j <= 100 * elapsed_s
