"""Try changes; see the package's docstring."""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice

from . import page
from .mutants import Mutant, equivalents, sample
from .parts import PARTS, ROOT, modules
from .reach import Reach, copied
from .trial import Trial, enter

Work = tuple[str, Mutant]


def main(arguments: Sequence[str] | None = None) -> int:
    """Try, print what was not noticed and the table, and write it if asked to."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mutation", description=__doc__)
    parser.add_argument("--seed", type=int, default=16)
    parser.add_argument("--per-part", type=int, default=20, metavar="N", help="so many changes of each part")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART")
    parser.add_argument(
        "--changed", metavar="REF", help="instead of the parts, lines that differ from a commit"
    )
    parser.add_argument("--minutes", type=float, default=10_000, help="begin no further change after these")
    parser.add_argument("--seconds-each", type=float, default=60, help="of tests for one change")
    parser.add_argument("--near", action="store_true", help="ask the tests of a module's own folder alone")
    parser.add_argument("--write", action="store_true", help="write the table into the docs")
    given = parser.parse_args(arguments)
    if given.write and (given.changed or given.parts != list(PARTS)):
        parser.error(
            "the table in the docs is one of all parts: --write goes with neither --changed nor --parts"
        )
    end_s = time.monotonic() + 60 * given.minutes
    if given.changed:
        chosen = of_lines(changed_lines(given.changed), given.seed, given.per_part)
    else:
        chosen = of_parts(given.parts, given.seed, given.per_part)
    if not chosen:
        print("Nothing to try.")
        return 0
    folder = copied()
    try:
        scores, all_tried = put_to_the_tests(
            chosen, Trial(folder, Reach(), given.seconds_each, near_only=given.near), end_s
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(page.table(scores))
    stopped = "" if all_tried else f", stopped after {given.minutes:g} minutes"
    if stopped:
        print(f"Not all were tried{stopped}.")
    if given.write:
        commit = git("rev-parse", "--short", "HEAD").strip()
        command = f"python -m benchmarks.mutation --seed {given.seed} --per-part {given.per_part}"
        page.write(scores, f"`{command} --seconds-each {given.seconds_each:g}` at {commit}{stopped}.")
    return 0


def of_parts(parts: Sequence[str], seed: int, number: int) -> list[Work]:
    """Return changes of each part, in turn, so that a run that is stopped has tried as many of each."""
    rows = [[(part, one) for one in islice(mixed(modules(part), seed), number)] for part in parts]
    return in_turn(rows)


def of_lines(lines: dict[str, set[int]], seed: int, number: int) -> list[Work]:
    """Return changes of these lines, module by module in turn."""
    return in_turn(
        [
            [(module, one) for one in islice(sample(module, seed, some), number)]
            for module, some in lines.items()
        ]
    )


def in_turn(rows: Sequence[Sequence[Work]]) -> list[Work]:
    """Return the first of each row, then the second ones, and so on."""
    return [row[k] for k in range(max(map(len, rows), default=0)) for row in rows if k < len(row)]


def mixed(names: Sequence[str], seed: int) -> Iterator[Mutant]:
    """Yield changes of several modules, of each as many as it has lines for."""
    lengths = {name: (ROOT / name).read_text("utf-8").count("\n") for name in names}
    samples = {name: sample(name, seed) for name in names}
    taken: Counter[str] = Counter()
    while samples:
        name = min(samples, key=lambda name: (taken[name] + 0.5) / lengths[name])
        taken[name] += 1
        if (one := next(samples[name], None)) is None:
            del samples[name]
        else:
            yield one


def changed_lines(commit: str) -> dict[str, set[int]]:
    """Return the lines of the package that differ from a commit."""
    found: dict[str, set[int]] = {}
    try:
        differences = git("diff", "--unified=0", "--diff-filter=d", commit, "--", "aimeter/*.py")
    except subprocess.CalledProcessError as error:
        # A clone without history knows no commit before its own, which is no fault of the tests.
        print(error.stderr.strip().partition("\n")[0])
        return found
    module = ""
    for line in differences.splitlines():
        if line.startswith("+++ b/"):
            module = line.removeprefix("+++ b/")
        elif hunk := re.match(r"@@ -\S+ \+(\d+)(?:,(\d+))? @@", line):
            first, number = int(hunk[1]), int(hunk[2] or 1)
            found.setdefault(module, set()).update(range(first, first + number))
    return found


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=True, text=True).stdout


def put_to_the_tests(chosen: Sequence[Work], trial: Trial, end_s: float) -> tuple[list[page.Score], bool]:
    """Try the changes, print those that nobody notices, and return the scores and whether all were tried."""
    enter(trial.folder)
    same = equivalents()
    tried, equivalent, noticed = Counter(), Counter(), Counter()
    for number, (part, mutant) in enumerate(chosen, 1):
        if time.monotonic() > end_s or not trial.is_ready(mutant, end_s):
            break
        tried[part] += 1
        if (mutant.module, mutant.before, mutant.after) in same:
            equivalent[part] += 1
            continue
        test = trial.noticed_by(mutant)
        noticed[part] += test is not None
        place = f"{mutant.module}:{mutant.line}"
        print(f"{number} of {len(chosen)}: {place}: {test or 'NOT NOTICED'}", file=sys.stderr, flush=True)
        if test is None:
            print(
                f"{place} in {mutant.function or 'the module'} ({part})\n{difference(mutant)}\n", flush=True
            )
    return [page.Score(part, tried[part], equivalent[part], noticed[part]) for part in tried], len(
        chosen
    ) == sum(tried.values())


def difference(mutant: Mutant) -> str:
    """Return a change as lines before and after."""
    before = "\n".join(f"- {line}" for line in mutant.before.split("\n"))
    return before + "\n" + "\n".join(f"+ {line}" for line in mutant.after.split("\n"))


if __name__ == "__main__":
    sys.exit(main())
