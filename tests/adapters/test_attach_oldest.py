"""What pyproject.toml allows is what the tests are run with: the oldest frameworks are those of the second run."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_oldest_frameworks_allowed_are_those_tested():
    """Each floor of the extra demo for a framework is pinned for the run with old ones."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    floors = dict(
        found.groups()
        for line in project["optional-dependencies"]["demo"]
        if (found := re.fullmatch(r"([\w-]+)>=([\d.]+)", line))
    )
    pins = re.findall(r"^([\w-]+)==([\d.]+)$", (ROOT / ".ci" / "oldest.txt").read_text(), re.MULTILINE)
    assert [name for name, _ in pins] == ["diffusers", "sentence-transformers", "transformers"]
    assert [version.removesuffix(".0").removesuffix(".0") for _, version in pins] == [
        floors[name] for name, _ in pins
    ]
