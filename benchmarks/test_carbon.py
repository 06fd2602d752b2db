"""What grams cost: finding an intensity, loading the tables, recomputing a log."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from aimeter._wiring import accounting
from aimeter.carbon import lookup
from aimeter.carbon.accounting import Calls
from aimeter.carbon.cache import Cache
from aimeter.carbon.feed import Feed
from aimeter.carbon.providers.user import UserProvider
from aimeter.carbon.series import Kind, Point, Series
from aimeter.commands.compare import compare
from aimeter.logs.export import export_csv
from aimeter.logs.recompute import again
from aimeter.report import read
from aimeter.settings import Settings
from benchmarks.verdict import Finding, slowness
from tests.records import make_record

ROWS = 100_000


def seconds(act: Callable[[], object], times: int = 1, rounds: int = 5) -> float:
    """Return the least time of one act over some rounds."""
    best = float("inf")
    for _ in range(rounds):
        began = time.perf_counter()
        for _ in range(times):
            act()
        best = min(best, (time.perf_counter() - began) / times)
    return best


def test_lookup(note: Callable[[Finding], None]) -> None:
    """An offline intensity once loaded, and all its tables in a fresh process."""
    lookup("aws:us-east-1")
    found_us = 1e6 * seconds(lambda: lookup("aws:us-east-1"), 10_000)
    note(Finding("an offline intensity, once loaded", found_us, "µs", at_most=5))
    code = (
        "import sys, time, aimeter.carbon, aimeter.carbon.offline as offline\n"
        "began = time.perf_counter()\n"
        "for region in ('FR', 'US-VA', 'SE3', 'gcp:us-central1', 'WORLD'): offline.lookup(region)\n"
        "print(time.perf_counter() - began, 'pandas' in sys.modules or 'codecarbon' in sys.modules)"
    )
    loads = []
    for _ in range(9):
        ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
        taken, heavy = ran.stdout.split()
        assert heavy == "False"
        loads.append(1e3 * float(taken))
    slow = slowness()
    note(Finding("loading five tables and the map of places, here", statistics.median(loads), "ms"))
    note(
        Finding(
            "the same at an ordinary machine's speed",
            statistics.median(loads) / slow,
            "ms",
            at_most=20,
            note=f"this one: 1/{slow:.1f}",
        )
    )


def test_accounting(note: Callable[[Finding], None]) -> None:
    """What a settled call's grams cost: with the tables, and with a provider's values."""
    times = [1e6 + k for k in range(1000)]
    calls = Calls(times, [t + 0.5 for t in times], [10.0] * 1000, [0.5] * 1000, [0.5] * 1000)
    offline = accounting(Settings(region="FR"))
    took_us = 1e3 * seconds(
        lambda: {
            key: list(zip(range(1000), column, strict=False))
            for key, column in offline.of(calls).columns.items()
        }
    )
    note(Finding("grams and their error of a call, from the tables", took_us, "µs"))
    points = tuple(Point(1e6 - 1e5 + 300 * k, 1e6 - 1e5 + 300 * (k + 1), 50 + k % 100) for k in range(2000))
    provider = UserProvider(lambda *_: Series("FR", Kind("direct", "production"), "x", points))
    feed = Feed(provider, "FR", lookup("FR"), cache=Cache(None), max_age_s=0, now=lambda: 1e6)
    feed.refresh()
    took_us = 1e3 * seconds(lambda: [feed.over(t, t + 0.5) for t in times])
    note(Finding("the intensity of a call, from a provider's week", took_us, "µs", note="in the background"))


def test_recompute(note: Callable[[Finding], None], tmp_path: Path) -> None:
    """A log's grams with another intensity: in memory, and from the file."""
    record = make_record(self_j=12.5)
    records = [record] * ROWS
    virginia = lookup("US-VA")
    took_s = seconds(lambda: again(records, virginia))
    note(Finding(f"{ROWS:,} rows recomputed", took_s, "s", at_most=1))
    log = tmp_path / "calls.csv"
    export_csv(records, log)
    read_s = seconds(lambda: sum(1 for _ in read(log)), rounds=1)
    compared_s = seconds(lambda: compare([str(log)], ["FR", "US-VA"]), rounds=1)
    note(Finding(f"reading a log of {ROWS:,} rows", read_s, "s"))
    note(Finding("compared with two regions from the file, here", compared_s, "s"))
    slow = slowness()
    note(
        Finding(
            "the same at an ordinary machine's speed",
            compared_s / slow,
            "s",
            at_most=1,
            note=f"this one: 1/{slow:.1f}",
        )
    )
