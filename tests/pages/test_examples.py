"""The worked examples of plug-ins are a package that can be installed, and its own tests pass."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLUGIN = ROOT / "docs" / "examples" / "plugin"
INCLUDED = re.compile(r"^```\{literalinclude\} (\S+)$", re.MULTILINE)


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder that the package has been installed into, with what it says of itself."""
    folder = tmp_path_factory.mktemp("installed")
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
    ]
    subprocess.run(
        [*command, "--disable-pip-version-check", "--target", folder, PLUGIN], check=True, timeout=300
    )
    return folder


def test_the_plugin_passes_its_tests_where_it_is_installed(installed, tmp_path):
    """It needs nothing but aimeter: the adapter is found by its entry point, the rest is handed over."""
    paths = os.pathsep.join([str(installed), str(ROOT)])
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", PLUGIN]
    ran = subprocess.run(
        [*command, f"--rootdir={PLUGIN}", f"--confcutdir={PLUGIN}"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "4 passed" in ran.stdout


def test_every_example_is_shown_on_a_page():
    """Pages include the very files that are run."""
    shown = {
        (page.parent / path).resolve()
        for page in (ROOT / "docs").rglob("*.md")
        for path in INCLUDED.findall(page.read_text("utf-8"))
    }
    code = {*(PLUGIN / "aimeter_example").glob("[!_]*.py"), *(PLUGIN / "tests").glob("*.py")}
    assert code | {PLUGIN / "pyproject.toml", PLUGIN.parent / "grafana" / "server.py"} == shown
