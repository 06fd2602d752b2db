"""What is checked, and how: `nox` runs all of it, `nox -s lint` one session, `nox -l` lists them.

The sessions work in the environment that nox itself is installed in, as CONTRIBUTING.md sets it up. Only those of other
Pythons and of the oldest frameworks make one of their own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nox

PROJECT = nox.project.load_toml("pyproject.toml")

PYTHONS = ("3.12", "3.13", "3.14")
"""Tried beside the one that nox runs in, where the machine has them; so says pyproject.toml."""

ELSEWHERE = (
    "tests/calls",
    "tests/sampling/test_worker.py",
    "tests/test_asgi.py",
    "tests/test_footprint.py",
    "tests/test_fork.py",
    "tests/test_lifecycle.py",
)
"""The tests that are run there: whatever rests on the interpreter. `nox -s pythons -- tests` runs them all."""

EVERYWHERE = [
    requirement
    for requirement in PROJECT["project"]["optional-dependencies"]["test"]
    if not requirement.startswith("peft")
]
"""What they need: all of the extra `test` but what would bring torch, of which not every Python has a small build."""

COVERED_PERCENT = 91
"""What the tests reach, lines and branches; a gate for all of them, so it is no setting of each run of pytest."""

nox.options.default_venv_backend = "none"
nox.options.error_on_missing_interpreters = False


def _interpreter(version: str) -> str:
    """Return the path of a Python of this machine, on the path or pyenv's; or its version, where there is none."""
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    of_pyenv = [str(path / "bin" / "python") for path in sorted(versions.glob(f"{version}.*"))]
    for path in filter(None, (shutil.which(f"python{version}"), *of_pyenv)):
        # pyenv puts a program of every name on the path, that fails where the version is not chosen.
        if subprocess.run([path, "-c", ""], capture_output=True, check=False).returncode == 0:  # noqa: S603
            return path
    return version


def _python(session: nox.Session, *arguments: str) -> None:
    session.run(sys.executable, *arguments)


def _tool(session: nox.Session, name: str, *arguments: str) -> None:
    """Run a program that is installed beside this Python."""
    session.run(str(Path(sys.executable).with_name(name)), *arguments)


def _needs(session: nox.Session, group: str) -> None:
    """Install a group of dependencies into this Python's environment, by any pip."""
    _python(session, "-m", "pip", "install", "--quiet", *nox.project.dependency_groups(PROJECT, group))


@nox.session
def tests(session: nox.Session) -> None:
    """Run all tests, real models among them."""
    _python(session, "-m", "pytest", *session.posargs)


@nox.session
def again(session: nox.Session) -> None:
    """Run the tests time and again in random order beside a load on every core: `-- 20`, then what to give to pytest."""
    times, *given = session.posargs or ("20",)
    load = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    try:
        for _ in range(int(times)):
            _python(session, "-m", "pytest", "--no-cov", "-q", *given)
    finally:
        for process in load:
            process.kill()


@nox.session
def coverage(session: nox.Session) -> None:
    """Judge what the tests that were run last have reached."""
    _tool(session, "coverage", "report", f"--fail-under={COVERED_PERCENT}", "--format=total")


@nox.session(venv_backend="venv")
def oldest(session: nox.Session) -> None:
    """Test the adapters once more, with the oldest frameworks that pyproject.toml allows."""
    session.install("--quiet", "torch==2.13.0", "-c", ".ci/oldest.txt", "-e", ".[demo,test]")
    session.run("python", "-m", "pytest", "--no-cov", "tests/adapters")


@nox.session
def lint(session: nox.Session) -> None:
    """Check the style."""
    _tool(session, "ruff", "check", ".")
    _tool(session, "ruff", "format", "--check", "aimeter", "tests", "benchmarks", "docs", "noxfile.py")


@nox.session
def types(session: nox.Session) -> None:
    """Check the types for each platform, and the typing tests by a second type checker."""
    _tool(session, "mypy")
    _tool(session, "mypy", "--platform", "win32")
    _tool(session, "mypy", "--platform", "darwin")
    _needs(session, "types")
    _tool(session, "basedpyright", "--pythonpath", sys.executable)


@nox.session
def layers(session: nox.Session) -> None:
    """Check that no module imports one that stands above it."""
    _tool(session, "lint-imports", "--no-cache")


@nox.session(venv_backend="virtualenv")
@nox.parametrize("python", [nox.param(_interpreter(version), id=version) for version in PYTHONS])
def pythons(session: nox.Session) -> None:
    """Test what rests on the interpreter on another Python, if it is there; without torch and real models."""
    session.install("--quiet", "-e", ".", *EVERYWHERE)
    session.run(
        "python", "-m", "pytest", "--no-cov", "-q", "-m", "not models", *(session.posargs or ELSEWHERE)
    )


@nox.session
def docs(session: nox.Session) -> None:
    """Make the pages, without a warning."""
    _python(session, "-m", "pip", "install", "--quiet", ".[docs]")
    _python(session, "-m", "sphinx", "-W", "--keep-going", "-q", "docs", "docs/_build/html")


@nox.session
def benchmark(session: nox.Session) -> None:
    """Measure what metering costs, in a minute."""
    _python(session, "-m", "pytest", "benchmarks", "-q", "-p", "no:cacheprovider", "-n", "0", "--no-cov")


@nox.session
def mutation(session: nox.Session) -> None:
    """Change the lines of the last commit and see which changes no test notices; fails for none."""
    _needs(session, "mutation")
    # No change is begun after seven minutes, so that the last one's tests end within ten.
    given = session.posargs or ("--changed", "HEAD~1", "--near", "--minutes", "7", "--seconds-each", "30")
    _python(session, "-m", "benchmarks.mutation", *given)
