"""Run the suite; see the package's docstring."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from . import page
from .accept import COMPARISON_LOAD, CONDITIONS, faults, uncovered
from .loads import LOADS
from .machines import PROFILES, START_S
from .score import Cell, Judged, Run, cells, run

QUICK_PROFILES = (
    "H100",
    "H100, no counter",
    "RTX 3090, no counter",
    "RAPL of Intel",
    "H100 and RAPL of Intel with memory",
)
CALLS = 300
MACHINES = 5
"""So many machines of a kind, each with phases and habits of its own, where figures were promised."""
QUICK_LOADS = ("serving", "diffusion", "neighbour")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print, and write if asked to; return 1 if truths lie outside that should not."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.validation", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few profiles and loads")
    parser.add_argument(
        "--write", action="store_true", help="write the tables into the docs, and all numbers beside"
    )
    parser.add_argument(
        "--only",
        nargs=2,
        metavar=("PROFILE", "LOAD"),
        help="one combination, or all that contain these words",
    )
    parser.add_argument("--calls", type=int, help="calls of each combination")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--worst", type=int, default=0, metavar="N", help="show the N worst calls of each combination"
    )
    parser.add_argument("--json", metavar="FILE", help="where to put all numbers")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    given = parser.parse_args(arguments)
    jobs = [
        (profile, load, given.calls or CALLS, given.seed)
        for profile, load in chosen(given.only, quick=given.quick)
    ]
    if given.worst or len(jobs) == 1:
        return examine(jobs, given.worst)
    started = time.monotonic()
    with ProcessPoolExecutor(given.processes, initializer=logging.disable) as pool:
        results = list(progress(pool.map(work, jobs), len(jobs)))
    found = [cell for some, _ in results for cell in some]
    balance = {(job[0], job[1]): unbalanced for job, (_, unbalanced) in zip(jobs, results, strict=True)}
    print(f"{sum(one.calls for one in found)} calls in {time.monotonic() - started:.0f} s")
    for line in faults(found, balance):
        print(line)
    if given.json:
        Path(given.json).write_text(page.as_json(found, balance), "utf-8")
    if given.write:
        page.write(found, balance)
    return int(bool(uncovered(found)))


def chosen(only: Sequence[str] | None, *, quick: bool) -> list[tuple[str, str]]:
    """Return the combinations to run."""
    profiles, loads = list(QUICK_PROFILES if quick else PROFILES), list(QUICK_LOADS if quick else LOADS)
    if only is not None:
        profiles = [only[0]] if only[0] in PROFILES else [p for p in PROFILES if only[0].lower() in p.lower()]
        loads = [only[1]] if only[1] in LOADS else [name for name in LOADS if only[1].lower() in name.lower()]
    return [(profile, load) for profile in profiles for load in loads]


def work(job: tuple[str, str, int, int]) -> tuple[list[Cell], float]:
    """Run one combination, in a process of the pool."""
    done = pooled(*job)
    return cells(job[0], job[1], done.calls), done.unbalanced


def pooled(profile: str, load: str, calls: int = CALLS, seed: int = 0) -> Run:
    """Run one combination on one machine, or on several where figures were promised."""
    promised = profile in CONDITIONS.values() and load == COMPARISON_LOAD
    runs = [run(profile, load, calls, seed + 1000 * k) for k in range(MACHINES if promised else 1)]
    return Run([one for some in runs for one in some.calls], max((one.unbalanced for one in runs), key=abs))


def progress(results, number: int):
    for count, result in enumerate(results, 1):
        print(f"\r{count} of {number}", end="", file=sys.stderr, flush=True)
        yield result
    print(file=sys.stderr)


def examine(jobs: list[tuple[str, str, int, int]], worst: int) -> int:
    """Print what a few combinations give, and the calls whose truth lies furthest outside `resolution_j`."""
    for job in jobs:
        done = pooled(*job)
        print(
            f"{job[0]}, {job[1]}, {len(done.calls)} calls, seed {job[3]}; unbalanced by {100 * done.unbalanced:.3f} %"
        )
        for one in cells(job[0], job[1], done.calls):
            print(describe(one))
        for call in sorted(done.calls, key=outside, reverse=True)[:worst]:
            print(
                f"  {call.start_s - START_S:9.4f} s + {1e3 * call.length_s:8.2f} ms: {call.energy_j:9.3f} J, true "
                f"{call.truth_j:9.3f}, as sensed {call.sensed_j:9.3f}; resolution {call.resolution_j:8.3f}, "
                f"error {call.error_j:8.3f}, coverage {call.coverage:.3f}"
            )
    return 0


def outside(call: Judged) -> float:
    """Return how many times its resolution a call is off."""
    return abs(call.energy_j - call.sensed_j) / max(call.resolution_j, 1e-9)


def describe(one: Cell) -> str:
    """Return a cell in one line."""
    return (
        f"  {one.length:13s} {one.calls:5d} calls ({one.unmetered} unmetered): {100 * one.median:6.2f} / "
        f"{100 * one.p95:6.2f} %, bias {100 * one.bias:+6.2f} ± {100 * one.bias_pm:.2f} %, inside error "
        f"{100 * one.within_error:5.1f} %, resolution {100 * one.within_resolution:5.1f} %, half-width "
        f"{100 * one.half_width:6.2f} %, tightness {one.tightness:.1f}, "
        f"needed {one.needed:.2f}"
    )


if __name__ == "__main__":
    sys.exit(main())
