"""What commands run on in these tests: emulated hardware, and an environment without the settings of this machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.emulator.nvml import LIBRARY_NOT_FOUND
from tests.emulator.powercap import SERVER_DRAM_UNIT_J, PowercapTree

ROOT = Path(__file__).parents[2]


@pytest.fixture
def environ(nvml, tmp_path, monkeypatch):
    """An environment without NVIDIA driver, RAPL and settings; a test adds what it needs."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").write_text("")
    nvml.init_error(LIBRARY_NOT_FOUND)
    clean = {key: text for key, text in os.environ.items() if not key.startswith("AIMETER_")}
    clean |= {"PYTHONPATH": str(ROOT), "AIMETER_POWERCAP": str(tmp_path / "none"), "COLUMNS": "100"}
    clean |= {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    return nvml.environ(tmp_path, base=clean)


@pytest.fixture
def tree(tmp_path):
    """A server with one package and its memory, in real time."""
    tree = PowercapTree(tmp_path / "sys")
    package = tree.zone("package-0", watts=20)
    tree.zone("dram", parent=package, watts=3, unit_j=SERVER_DRAM_UNIT_J)
    with tree.live():
        yield tree
