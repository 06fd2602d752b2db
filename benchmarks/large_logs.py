"""What reports on large logs take: millions of rows as CSV and as Parquet, in seconds and in resident memory at its peak.

    python -m benchmarks.large_logs --millions 10 --write

The rows are made up, with a seed: texts answered in two parts, pictures drawn in three, embeddings, by five models, on two
machines with two GPUs each, for some days. `--write` puts the figures into the documentation. Needs the extra ``report``.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

from aimeter._version import __version__
from aimeter.commands.convert import copy_whole
from aimeter.logs.encode import CSV_HEADER, csv_lines
from aimeter.record import SCHEMA, Record

PAGE = Path(__file__).parent.parent / "docs" / "how-to" / "report.md"
_BLOCK_ROWS = 2000
_KINDS = (
    ("answer", ("prefill", "decode"), ("Qwen/Qwen2.5-7B-Instruct", "meta-llama/Llama-3.1-8B-Instruct")),
    ("draw", ("encode", "denoise", "decode"), ("stabilityai/sdxl-turbo", "black-forest-labs/FLUX.1-schnell")),
    ("embed", (), ("BAAI/bge-m3",)),
)


class Taken(NamedTuple):
    """What a command took."""

    what: str
    seconds: float
    peak_mb: float
    size_mb: float


def records(count: int, seed: int = 0) -> Iterator[Record]:
    """Yield so many rows as programs write them: parts before the call that they are parts of."""
    chance = random.Random(seed)
    machines = [_Machine(chance, number, max(count, 1)) for number in range(2)]
    return islice(_endless(chance, machines), count)


class _Machine:
    def __init__(self, chance: random.Random, number: int, rows: int) -> None:
        self.id = f"m{chance.getrandbits(64):016x}"
        self.process = f"{chance.getrandbits(64):016x}"
        self.pid = 4000 + number
        self.now = datetime(2026, 11, 1, tzinfo=UTC)
        self.gap_s = 4 * 86_400 / rows
        self.calls = 0
        self.devices = f"gpu:0:GPU-{number}a gpu:1:GPU-{number}b cpu:0"

    def identifier(self) -> str:
        self.calls += 1
        return f"{self.process}-{self.calls}"


def _endless(chance: random.Random, machines: Sequence[_Machine]) -> Iterator[Record]:
    while True:
        machine = chance.choice(machines)
        kind, parts, models = chance.choices(_KINDS, (5, 2, 3))[0]
        model = chance.choice(models)
        around = machine.identifier()
        begin = machine.now
        whole_s = whole_j = 0.0
        tokens_in, tokens_out = float(chance.randrange(20, 2000)), float(chance.randrange(1, 800))
        for part in parts:
            row = _row(chance, machine, machine.identifier(), around, f"{kind}.{part}", model, whole_s)
            if kind == "answer":
                row = row._replace(
                    tokens_in=tokens_in if part == "prefill" else None,
                    tokens_out=tokens_out if part == "decode" else None,
                )
            whole_s += row.duration_s
            whole_j += row.energy_j or 0.0
            yield row
        row = _row(chance, machine, around, None, kind, model, 0.0)
        energy_j = row.energy_j and row.energy_j + whole_j
        yield row._replace(
            duration_s=row.duration_s + whole_s,
            energy_j=energy_j,
            error_j=energy_j and 0.06 * energy_j,
            co2e_g=energy_j and energy_j * 56.0 / 3.6e6,
            items=8.0 if kind == "embed" else None,
            images=1.0 if kind == "draw" else None,
            tokens_in=tokens_in if kind == "answer" else None,
            tokens_out=tokens_out if kind == "answer" else None,
        )
        machine.now = begin + timedelta(
            seconds=whole_s + row.duration_s + chance.expovariate(1 / machine.gap_s)
        )


def _row(
    chance: random.Random,
    machine: _Machine,
    call_id: str,
    around: str | None,
    name: str,
    model: str,
    after_s: float,
) -> Record:
    duration_s = chance.uniform(0.01, 0.1)
    energy_j = None if chance.random() < 0.001 else duration_s * chance.uniform(80, 600)
    failed = chance.random() < 0.002
    parts = () if energy_j is None else (0.55 * energy_j, 0.3 * energy_j, 0.15 * energy_j)
    return Record(
        schema=SCHEMA,
        call_id=call_id,
        parent_id=around,
        name=name,
        status="error" if failed else "ok",
        error_type="TimeoutError" if failed else None,
        start=f"{machine.now + timedelta(seconds=after_s):%Y-%m-%dT%H:%M:%S.%fZ}",
        duration_s=duration_s,
        pid=machine.pid,
        thread="MainThread",
        energy_j=energy_j,
        error_j=energy_j and 0.06 * energy_j,
        resolution_j=energy_j and 0.03 * energy_j,
        self_j=energy_j,
        window_j=energy_j,
        idle_j=energy_j and 0.3 * energy_j,
        gpu_j=energy_j and 0.85 * energy_j,
        cpu_j=energy_j and 0.15 * energy_j,
        dram_j=None,
        other_j=None,
        gpu_method="counter",
        cpu_method="estimate",
        dram_method="none",
        devices=machine.devices,
        coverage=1.0,
        concurrency=1.0,
        items=None,
        images=None,
        tokens_in=None,
        tokens_out=None,
        steps=4.0 if name.endswith("denoise") else None,
        audio_s=None,
        model=model,
        pue=1.0,
        intensity_g_per_kwh=56.0,
        intensity_source="ember 2025 FR",
        intensity_method="average, life-cycle",
        zone="FR",
        co2e_g=energy_j and energy_j * 56.0 / 3.6e6,
        embodied_g=None,
        meta={},
        aimeter_version=__version__,
        co2e_error_g=energy_j and 0.1 * energy_j * 56.0 / 3.6e6,
        intensity_lower_g_per_kwh=None,
        intensity_upper_g_per_kwh=None,
        market_g_per_kwh=None,
        market_co2e_g=None,
        embodied_lower_g=None,
        embodied_upper_g=None,
        water_site_l=None,
        water_grid_l=None,
        pue_source="at the IT boundary",
        devices_j=parts,
        machine=machine.id,
    )


def write(path: Path, count: int) -> None:
    """Write so many rows as CSV."""
    rows = records(count)
    with path.open("wb") as file:
        file.write(CSV_HEADER)
        while block := list(islice(rows, _BLOCK_ROWS)):
            file.writelines(csv_lines(block))


def taken(what: str, log: Path, *options: str) -> Taken:
    """Run ``aimeter report`` and return what it took."""
    began_s = time.monotonic()
    done = subprocess.Popen(
        [sys.executable, "-m", "aimeter", "report", str(log), *options], stdout=subprocess.DEVNULL
    )
    _, status, used = os.wait4(done.pid, 0)
    seconds = time.monotonic() - began_s
    if status:
        message = f"aimeter report {log} failed"
        raise RuntimeError(message)
    files = [log] if log.is_file() else log.rglob("*.parquet")
    size = sum(file.stat().st_size for file in files)
    return Taken(what, seconds, used.ru_maxrss / 1024, size / 1e6)


def _apart(make: Callable[..., object], *arguments: object) -> None:
    """Make a log in a process of its own, as a command's peak counts what the process held that started it."""
    process = get_context("spawn").Process(target=make, args=arguments)
    process.start()
    process.join()
    if process.exitcode:
        message = f"{make.__name__} failed"
        raise RuntimeError(message)


def measure(millions: float, place: Path, *, pages: bool) -> list[Taken]:
    """Make the logs and report on them."""
    few, csv, parquet = place / "few.csv", place / "calls.csv", place / "parquet"
    rows = round(millions * 1e6)
    _apart(write, few, 1000)
    if not csv.exists():
        _apart(write, csv, rows)
    if not parquet.exists():
        _apart(copy_whole, csv, parquet)
    page = place / "page.html"
    found = [taken("1,000 rows, table", few)]
    found += [
        taken(f"{rows:,} rows, {kind}, table", log) for kind, log in (("CSV", csv), ("Parquet", parquet))
    ]
    if pages:
        found.append(taken(f"{rows:,} rows, CSV, page", csv, "--html", str(page)))
        print(f"the page has {page.stat().st_size / 1e6:.1f} MB")
    return found


def told(found: Sequence[Taken]) -> str:
    """Return the figures as a table in Markdown."""
    lines = ["| `aimeter report` of | log | time | memory at its peak |", "|---|--:|--:|--:|"]
    lines += [
        f"| {one.what} | {one.size_mb:,.0f} MB | {one.seconds:.1f} s | {one.peak_mb:,.0f} MB |"
        for one in found
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and perhaps write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.large_logs", description=__doc__)
    parser.add_argument("--millions", type=float, default=1.0)
    parser.add_argument("--folder", type=Path, help="Keep the logs here, and take those that are here.")
    parser.add_argument("--pages", action="store_true", help="Draw the page, too.")
    parser.add_argument("--write", action="store_true", help="Put the figures into the documentation.")
    given = parser.parse_args(arguments)
    place = given.folder or Path(tempfile.mkdtemp(prefix="aimeter-large-"))
    try:
        found = measure(given.millions, place, pages=given.pages)
    finally:
        if given.folder is None:
            shutil.rmtree(place)
    print(told(found))
    if given.write:
        words = f"On {os.cpu_count()} cores ({platform.machine()}), shared with other work, as measured:"
        block = f"<!-- large logs -->\n\n{words}\n\n{told(found)}\n\n<!-- end of large logs -->"
        text, times = re.subn(
            r"<!-- large logs -->.*<!-- end of large logs -->",
            lambda _: block,
            PAGE.read_text(),
            flags=re.DOTALL,
        )
        if times != 1:
            message = f"{PAGE} has no place for the figures"
            raise RuntimeError(message)
        PAGE.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
