"""The option, the fixtures and the table at the end of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmarks.rig import Hardware
from benchmarks.verdict import FAR_OFF, Finding, table

_FINDINGS: pytest.StashKey[list[Finding]] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--strict-targets", action="store_true", help="fail where a figure is far off what is wanted"
    )
    parser.addoption("--full", action="store_true", help="measure longer: a million calls, more pairs")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_FINDINGS] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    findings = config.stash[_FINDINGS]
    if findings:
        terminalreporter.section(f"measured and wanted (far off: by more than a factor of {FAR_OFF:g})")
        for line in table(findings):
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def full(request: pytest.FixtureRequest) -> bool:
    """Tell whether there is time to measure at length."""
    return bool(request.config.getoption("--full"))


@pytest.fixture
def note(request: pytest.FixtureRequest) -> Callable[[Finding], None]:
    """Give a function that puts a finding on the table, and with --strict-targets fails if it is far off."""

    def put(finding: Finding) -> None:
        request.config.stash[_FINDINGS].append(finding)
        if not request.config.getoption("--strict-targets"):
            return
        assert finding.verdict != "far off", f"{finding.what}: {finding.figure:g}, wanted {finding.wanted}"

    return put


@pytest.fixture
def hardware(tmp_path: Path) -> Iterator[Hardware]:
    """Give emulated hardware, and take it away again."""
    made = Hardware(tmp_path)
    yield made
    made.remove()
