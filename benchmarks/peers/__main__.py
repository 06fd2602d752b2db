"""Run aimeter and its peers on the same emulated machine, with the same calls, and write tables and plots.

Everything is set up first: an environment for each tool below the cache folder. A full run takes a quarter of an hour
and renews benchmarks/peers/results.json and the page docs/explanation/peers.md with its plots; a quick one takes a few
minutes and leaves its files in the cache folder.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.peers.environments import ROOT, default_folder, python_of
from benchmarks.peers.load import COUNTERS
from benchmarks.peers.machine import machine, namespaces
from benchmarks.peers.page import render
from benchmarks.peers.shown import CLAIMS
from benchmarks.peers.tables import LABELS

GPUS = ("1", "8")
TOGETHER = (1, 2, 4, 8, 16, 32, 64)
ERRORS = (
    "aimeter",
    "zeus",
    "zeus-approximate",
    "pyjoules-decorator",
    "codecarbon-task",
    "codecarbon-decorator",
    "joules",
    "codegreen",
)
ERRORS_LATE = ("aimeter", "zeus")
"""Where the counter is late, Zeus stands for all tools that take differences."""

OVERLAP = (
    "aimeter",
    "zeus",
    "pyjoules-context",
    "codecarbon-task",
    "codecarbon-decorator",
    "joules",
    "codegreen",
)
ABILITIES = tuple(tool for tool in LABELS if tool != "zeus-approximate")
TIMEOUT_S = 600


class Job(NamedTuple):
    """One experiment with one tool."""

    experiment: str
    tool: str
    counter: str = "100 ms"
    gpus: str = "1"
    options: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.experiment} of {self.tool}, {self.gpus} GPU, counter of {self.counter}"


def jobs(options: argparse.Namespace) -> tuple[list[Job], list[Job]]:
    """Return the experiments that need the machine for themselves, and those that may share it."""
    alone = [Job("sensors", "zeus"), *(Job("shown", tool) for tool in CLAIMS)]
    for number in GPUS[:1] if options.quick else GPUS:
        seconds = 0 if number != GPUS[0] else 2 if options.quick else 8
        alone += [Job("cost", tool, gpus=number, options=("--seconds", str(seconds))) for tool in LABELS]
    calls = ("--calls", str(options.calls))
    beside = [Job("errors", tool, counter="100 ms", options=calls) for tool in ERRORS]
    if not options.quick:
        beside += [Job("errors", tool, counter="20 ms", options=calls) for tool in ERRORS]
        beside += [Job("errors", tool, counter="100 ms, late", options=calls) for tool in ERRORS_LATE]
    together = ("--together", *map(str, options.together))
    beside += [Job("overlap", tool, counter="20 ms", options=together) for tool in OVERLAP]
    beside += [Job("abilities", tool, counter="20 ms") for tool in ABILITIES]
    return alone, beside


def run(job: Job, cache: Path) -> dict[str, Any] | None:
    """Run one experiment in a process on a machine of its own; None if it failed, after saying why."""
    python = python_of(job.tool, cache)
    start = time.perf_counter()
    period_s, late_s = COUNTERS[job.counter]
    with machine(period_s=period_s, late_s=late_s, gpus=int(job.gpus)) as emulated:
        result = Path(emulated.environ["TMPDIR"]) / "result.json"
        command = [
            *emulated.prefix,
            str(python),
            "-m",
            "benchmarks.peers.worker",
            job.experiment,
            job.tool,
            str(result),
        ]
        if emulated.control is not None:
            command += ["--control", str(emulated.control)]
        try:
            subprocess.run(
                [*command, *job.options],
                cwd=ROOT,
                env=emulated.environ,
                check=True,
                capture_output=True,
                text=True,
                timeout=TIMEOUT_S,
            )
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            print(
                f"{job} failed: {type(error).__name__}\n{error.stderr or ''!s}", file=sys.stderr, flush=True
            )
            return None
        print(f"{job}: {time.perf_counter() - start:.0f} s", flush=True)
        found: dict[str, Any] = json.loads(result.read_text())
        return found


def compare(options: argparse.Namespace) -> tuple[dict[str, Any], bool]:
    """Run all experiments; return the results, and whether all of them succeeded."""
    alone, beside = jobs(options)
    for tool in LABELS:
        python_of(tool, options.cache)
    begin, loads = time.perf_counter(), [os.getloadavg()[0]]
    found = {job: run(job, options.cache) for job in alone}
    loads.append(os.getloadavg()[0])
    with ThreadPoolExecutor(options.jobs) as pool:
        found |= dict(zip(beside, pool.map(lambda job: run(job, options.cache), beside), strict=True))

    def part(experiment: str, key: str, **which: str) -> dict[str, Any]:
        return {
            job.tool: result if key == "" else result[key]
            for job, result in found.items()
            if result is not None
            and job.experiment == experiment
            and all(getattr(job, name) == value for name, value in which.items())
        }

    results = {
        "machine": {
            "words": _words(),
            "date": datetime.now(UTC).date().isoformat(),
            "commit": _commit(),
            "minutes": round((time.perf_counter() - begin) / 60, 1),
            "load": [round(load, 1) for load in loads],
            "cpu": namespaces(),
            "calls": options.calls,
            "jobs": options.jobs,
            "together": list(options.together),
            **(found[alone[0]] or {}),
        },
        "versions": part("cost", "version", gpus="1"),
        "cost": {gpus: part("cost", "", gpus=gpus) for gpus in GPUS},
        "errors": {name: part("errors", "calls", counter=name) for name in COUNTERS},
        "overlap": part("overlap", "together"),
        "abilities": part("abilities", "abilities"),
        "shown": part("shown", "shown"),
    }
    return results, None not in found.values()


def _commit() -> str:
    """Return the commit that last changed what is measured, and whether files of it differ from that."""

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", *words, "--", "aimeter"], cwd=ROOT, check=True, capture_output=True, text=True
        ).stdout.strip()

    changed = ", with changes" if git("status", "--porcelain") else ""
    return git("log", "-1", "--format=%h") + changed


def _words() -> str:
    """Say what machine this is, without its name."""
    info = Path("/proc/cpuinfo").read_text()
    models = [line.partition(":")[2].strip() for line in info.splitlines() if line.startswith("model name")]
    kind = "A virtual machine" if "hypervisor" in info else "A machine"
    release = ".".join(platform.release().split(".")[:2])
    cpu = f" ({' '.join(models[0].split())})" if models else ""
    return f"{kind} with {os.cpu_count()} CPUs{cpu}, Linux {release}, Python {platform.python_version()}"


def main() -> None:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="fewer and shorter; leaves the repository as it is"
    )
    parser.add_argument(
        "--cache", type=Path, default=default_folder(), help="folder for the environments (%(default)s)"
    )
    parser.add_argument("--jobs", type=int, default=3, help="tools at a time, except for costs (%(default)s)")
    parser.add_argument("--calls", type=int, help="calls for each tool and counter (120, or 24 if quick)")
    parser.add_argument(
        "--render", action="store_true", help="only renew page and plots from the results there are"
    )
    options = parser.parse_args()
    options.calls = options.calls or (24 if options.quick else 120)
    options.together = TOGETHER[::3] if options.quick else TOGETHER
    folder = options.cache / "quick" if options.quick else Path(__file__).parent
    folder.mkdir(parents=True, exist_ok=True)
    results_file, complete = folder / "results.json", True
    if not options.render:
        results, complete = compare(options)
        results_file.write_text(_json(results))
    page = folder if options.quick else ROOT / "docs" / "explanation"
    render(json.loads(results_file.read_text()), page)
    print(f"{results_file}\n{page / 'peers.md'}")
    sys.exit(not complete)


def _json(results: Any) -> str:
    """Return the results as JSON with a line for each call."""

    def lines(value: Any, indent: str) -> Iterator[str]:
        inner = indent + " "
        if isinstance(value, dict) and value:
            yield "{\n"
            for place, (key, item) in enumerate(value.items()):
                yield f"{inner}{json.dumps(key)}: "
                yield from lines(item, inner)
                yield ",\n" if place < len(value) - 1 else f"\n{indent}}}"
        elif isinstance(value, list) and value and isinstance(value[0], list | dict):
            yield "[\n"
            yield ",\n".join(inner + json.dumps(item) for item in value)
            yield f"\n{indent}]"
        else:
            yield json.dumps(value)

    return "".join(lines(results, "")) + "\n"


if __name__ == "__main__":
    main()
