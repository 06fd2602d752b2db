"""Which tests run through which function, and how long they take: measured once, and kept beside the other caches."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from coverage import CoverageData

from .mutants import functions_by_line
from .parts import NEVER, ROOT

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "aimeter-mutation"

LONGEST_S = 600
"""So long may the tests of one file take; what they have not reached by then is not known of them."""

STARTS = re.compile(
    r"\bimport (?:subprocess|multiprocessing)|\btests(?:\.| import )(?:programs|children)\b|\bos\.fork\b"
)

PYTEST = (
    "-m",
    "pytest",
    "-q",
    "-p",
    "no:cacheprovider",
    "-p",
    "no:randomly",
    "-p",
    "benchmarks.mutation.plugin",
)


def copied() -> Path:
    """Return a copy of the working tree in a temporary folder, to be changed at will."""
    folder = Path(tempfile.mkdtemp(prefix="aimeter-mutation-"))
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout.decode()
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


def environment(folder: Path) -> dict[str, str]:
    """Return an environment in which this Python and its children find the copy, with the same examples every time."""
    return {**os.environ, "PYTHONPATH": str(folder), "CI": "1", "AIMETER_TEST_EXAMPLES": "50"}


class Reach:
    """Which tests reach a function, file by file of the tests; a file is run again when it or the names of functions have changed."""

    def __init__(self) -> None:
        self._files: dict[str, dict] = {}

    def measure(self, tests: Iterable[str], folder: Path, end_s: float = math.inf) -> bool:
        """Run the tests of these files and folders, if they are not known as they stand; say whether there was time."""
        for test in files(tests):
            if test in self._files:
                continue
            if time.monotonic() > end_s:
                return False
            kept = CACHE / f"{test.replace('/', '.')}.json"
            digest = hashlib.sha256((ROOT / test).read_bytes() + _places()).hexdigest()
            known = json.loads(kept.read_text("utf-8")) if kept.exists() else {}
            if known.get("digest") != digest:
                print(f"running {test} to see what it reaches", file=sys.stderr, flush=True)
                known = {"digest": digest, **_run(test, folder)}
                CACHE.mkdir(parents=True, exist_ok=True)
                kept.write_text(json.dumps(known), "utf-8")
            self._files[test] = known
        return True

    def seconds(self, tests: Iterable[str]) -> dict[str, float]:
        """Return all tests of these files and folders that pass on their own, and how long each takes."""
        found: dict[str, float] = {}
        for test in files(tests):
            found |= self._files[test]["seconds"] if test in self._files else {}
        return found

    def through(self, module: str, function: str) -> set[str]:
        """Return the tests that run through a function; for what stands outside of all, through any of its module."""
        found: set[str] = set()
        for known in self._files.values():
            for name, tests in known["reached"].get(module, {}).items():
                if name == function or (name and not function):
                    found |= set(tests)
        return found

    def in_processes(self, tests: Iterable[str]) -> set[str]:
        """Return the tests of these that may reach more than is seen: those in files that start processes."""
        starting = {test for test in self._files if STARTS.search((ROOT / test).read_text("utf-8"))}
        return {test for test in tests if test.partition("::")[0] in starting}


def files(tests: Iterable[str]) -> list[str]:
    """Return the files of tests in these folders."""
    found: list[str] = []
    for test in tests:
        path = ROOT / test
        inside = sorted(path.rglob("test_*.py")) if path.is_dir() else [path] if path.exists() else []
        found += [one.relative_to(ROOT).as_posix() for one in inside]
    return [test for test in dict.fromkeys(found) if test not in NEVER]


@cache
def _places() -> bytes:
    """Return the names of all functions of the package: what a test reached is known until one is moved or renamed."""
    names = {
        f"{path.relative_to(ROOT).as_posix()} {function}"
        for path in (ROOT / "aimeter").rglob("*.py")
        for function in functions_by_line(path.read_text("utf-8")).values()
    }
    return "\n".join(sorted(names)).encode()


def _run(test: str, folder: Path) -> dict:
    """Run a file of tests and return what each reached."""
    with tempfile.TemporaryDirectory() as scratch:
        data_file, times = Path(scratch) / "coverage", Path(scratch) / "times"
        env = environment(folder) | {"COVERAGE_FILE": str(data_file), "MUTATION_TIMES": str(times)}
        process = subprocess.Popen(
            # In a worker, as pytest-cov names no tests without one.
            [sys.executable, *PYTEST, "-n", "1", "--cov-context=test", "--cov-report=", test],
            cwd=folder,
            env=env,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            process.wait(LONGEST_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if not times.exists():
            return {"seconds": {}, "reached": {}}
        seconds = json.loads(times.read_text("utf-8"))
        data = CoverageData(str(data_file))
        data.read()
        reached: dict[str, dict[str, list[str]]] = {}
        for path in data.measured_files():
            functions = functions_by_line(Path(path).read_text("utf-8"))
            by_function: dict[str, set[str]] = {}
            for line, contexts in data.contexts_by_lineno(path).items():
                # What runs when a module is loaded is run by whoever comes first.
                ran = {context.rpartition("|")[0] for context in contexts}
                by_function.setdefault(functions.get(line, ""), set()).update(ran & seconds.keys())
            name = Path(path).relative_to(folder).as_posix()
            reached[name] = {function: sorted(ran) for function, ran in by_function.items() if ran}
        return {"seconds": seconds, "reached": reached}
