"""One change put to the tests, in a copy of the tree."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from cosmic_ray.testing import run_tests
from cosmic_ray.util import restore_contents
from cosmic_ray.work_item import TestOutcome

from .mutants import Mutant
from .parts import ELSEWHERE, near_tests
from .reach import CACHE, PYTEST, Reach, environment

NOTICED = CACHE / "noticed.json"

ENDLESS = "takes for ever"

FAILED = re.compile(r"^(?:FAILED|ERROR) (\S.*?)(?: - .*)?$", re.MULTILINE)


class Trial:
    """Puts changes to the tests.

    Args:
        folder: The copy of the tree.
        reach: Which tests reach what.
        seconds_each: So long may the tests of one kind take, by the time they took unchanged.
        near_only: Ask the tests of a module's own folder alone.
    """

    def __init__(self, folder: Path, reach: Reach, seconds_each: float, *, near_only: bool = False) -> None:
        self.folder = folder
        self._reach = reach
        self._seconds_each = seconds_each
        self._elsewhere = () if near_only else ELSEWHERE
        self._noticed: dict[str, str] = json.loads(NOTICED.read_text("utf-8")) if NOTICED.exists() else {}

    def is_ready(self, mutant: Mutant, end_s: float) -> bool:
        """Learn what the tests near by reach, and return whether there was time for it."""
        return self._reach.measure(near_tests(mutant.module), self.folder, end_s)

    def noticed_by(self, mutant: Mutant) -> str | None:
        """Return the test that fails with this change, or None if all pass that were asked."""
        for tests in self._asked(mutant):
            if tests and (test := self._failing(mutant, tests)):
                self._noticed[mutant.name] = test
                NOTICED.write_text(json.dumps(self._noticed), "utf-8")
                return test
        return None

    def _asked(self, mutant: Mutant) -> Iterator[list[str]]:
        """Yield the tests to ask: what noticed it before, what reaches the function, what may do so in a process."""
        if (before := self._noticed.get(mutant.name)) and self._reach.measure(
            [before.partition("::")[0]], self.folder
        ):
            yield [before] if before in self._reach.seconds([before.partition("::")[0]]) else []
        near = self._reach.seconds(near_tests(mutant.module))
        reaching = self._reach.through(mutant.module, mutant.function)
        yield self._in_order(reaching & near.keys(), near)
        yield self._in_order(self._reach.in_processes(near.keys() - reaching), near)
        self._reach.measure(self._elsewhere, self.folder)
        far = self._reach.seconds(self._elsewhere)
        reaching = self._reach.through(mutant.module, mutant.function)
        yield self._in_order(reaching & far.keys() - near.keys(), far)

    def _in_order(self, tests: Iterable[str], seconds: dict[str, float]) -> list[str]:
        """Return the tests file by file, the short ones first, as many as there is time for."""
        chosen, left_s = [], self._seconds_each
        for test in sorted(tests, key=lambda test: (seconds[test], test)):
            left_s -= seconds[test]
            if left_s < 0:
                break
            chosen.append(test)
        by_file: dict[str, list[str]] = {}
        for test in chosen:
            by_file.setdefault(test.partition("::")[0], []).append(test)
        groups = sorted(by_file.values(), key=lambda group: sum(seconds[test] for test in group))
        return [test for group in groups for test in group]

    def _failing(self, mutant: Mutant, tests: Sequence[str]) -> str | None:
        """Return the first of these tests that fails with a change."""
        known = self._reach.seconds({test.partition("::")[0] for test in tests})
        path = self.folder / mutant.module
        with tempfile.TemporaryDirectory() as scratch, restore_contents(path):
            path.write_text(mutant.text, "utf-8")
            # Names of tests may be longer, all together, than a command line.
            asked = Path(scratch) / "tests"
            asked.write_text("\n".join(tests), "utf-8")
            command = shlex.join(
                [sys.executable, *PYTEST, "-n", "0", "--no-cov", "-x", "-rfE", "--tb=no", f"@{asked}"]
            )
            # A machine that does other things as well is slower, and no change is called endless for that.
            outcome, output = run_tests(command, 60 + 5 * sum(known[test] for test in tests))
        if outcome == TestOutcome.SURVIVED:
            return None
        failed = FAILED.search(output)
        return failed[1] if failed else ENDLESS if output == "timeout" else output[-300:] or "does not start"


def enter(folder: Path) -> None:
    """Make this process one whose children run in the copy, and know no settings of the user's."""
    os.chdir(folder)
    os.environ.update(environment(folder))
