"""Loaded into the pytest that tries a change: how long each test takes, and no search for the smallest failing example."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from pathlib import Path

import hypothesis
import pytest

# tests/conftest.py builds its profile on the one in force.
hypothesis.settings.register_profile(
    "unshrunk", phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate)
)
hypothesis.settings.load_profile("unshrunk")

PASSED: dict[str, float] = defaultdict(float)
OTHERS: set[str] = set()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note how long a test took that passes."""
    PASSED[report.nodeid] += report.duration
    if report.outcome != "passed":
        OTHERS.add(report.nodeid)


def pytest_sessionfinish() -> None:
    """Write it down where asked to."""
    if path := os.environ.get("MUTATION_TIMES"):
        times = {test: round(took, 3) for test, took in PASSED.items() if test not in OTHERS}
        Path(path).write_text(json.dumps(times), "utf-8")
