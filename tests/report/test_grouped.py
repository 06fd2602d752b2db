"""The engine and the reader of rows give the same table of the same log."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from aimeter.commands.convert import to_parquet
from aimeter.commands.report import find
from aimeter.logs.encode import CSV_HEADER, csv_line
from aimeter.logs.export import export_log
from aimeter.logs.read import Log, read
from aimeter.record import Record
from aimeter.report import Summary, summarise
from aimeter.report.grouped import grouped
from tests.records import make_record

pytest.importorskip("duckdb")


def engine(log: Path, *asked: Any) -> Summary | None:
    return grouped([Log(path) for path in find([str(log)])], *(asked or ("call",)), large_bytes=0)


def varied(seed: int, count: int = 400) -> list[Record]:
    """Calls inside others, some lost, of several models, measured in several ways, with and without figures.

    An even seed gives so few places that it is noted for each when its energy was used.
    """
    chance, few = random.Random(seed), seed % 2 == 0
    rows: list[Record] = []
    open_calls: list[tuple[str, int]] = []
    began = datetime(2026, 11, 22, tzinfo=UTC)
    for number in range(count):
        call_id = f"5b1f0c9e4a7d4c5e-{number}"
        began += timedelta(seconds=chance.expovariate(1))
        around = chance.choice(open_calls) if open_calls and chance.random() < 0.6 else None
        depth = 0 if around is None else around[1] + 1
        energy_j = None if chance.random() < 0.05 else float(f"{chance.expovariate(0.01):.9g}")
        rows.append(
            make_record(
                call_id=call_id,
                parent_id=around and around[0],
                name=chance.choice(["answer", "answer.prefill", "=draw", "a;=b", 'é, "x"']),
                model=chance.choice([None, "m/one", "m/two"][: 2 if few else 3]),
                status=chance.choice(["ok", "ok", "error", "closed"]),
                start=f"{began:%Y-%m-%dT%H:%M:%S.%fZ}",
                duration_s=chance.choice([0.0, 0.25, 90.5]),
                energy_j=energy_j,
                error_j=None if chance.random() < 0.002 or energy_j is None else energy_j / 8,
                resolution_j=None if energy_j is None else energy_j / 16,
                self_j=None if energy_j is None else energy_j / 2,
                co2e_g=None if chance.random() < 0.1 else 0.25,
                gpu_method=chance.choice(["counter", "power", "other"]),
                dram_method=chance.choice(["none", "none", "estimate"]),
                other_j=1.0 if chance.random() < 0.01 else None,
                coverage=1.0 if chance.random() < 0.95 else 0.5,
                images=None if chance.random() < 0.5 else 2.0,
                tokens_in=None if chance.random() < 0.5 else 17.0,
                tokens_out=None if chance.random() < 0.5 else 5.0,
                meta={"note": 'a "b", c'} if chance.random() < 0.1 else {},
            )
        )
        if depth < (2 if few else 6):
            open_calls = [*open_calls[-5:], (call_id, depth)]
    lost = chance.sample(range(count), 5)
    kept = [row for number, row in enumerate(rows) if number not in lost]
    chance.shuffle(kept)
    return kept


@pytest.mark.parametrize("by", ["call", "name", "model"])
@pytest.mark.parametrize("seed", range(4))
def test_the_engine_gives_the_table_that_rows_give(tmp_path: Path, seed: int, by: Any):
    """To the digit, from CSV and from Parquet: totals, the tree, units, errors, methods, coverage, over time, notes."""
    log, folder = tmp_path / "calls.csv", tmp_path / "parquet"
    export_log(varied(seed), log)
    to_parquet([str(log)], folder)
    expected = summarise(read(log), by)
    for source in (log, folder):
        found = engine(source, by)
        assert found is not None
        assert str(found) == str(expected)
        assert found.total.over_time_j == pytest.approx(expected.total.over_time_j)
        assert found.span_s == pytest.approx(expected.span_s)
        if seed % 2 == 0:
            for one, other in zip(found.rows, expected.rows, strict=True):
                assert one.over_time_j == pytest.approx(other.over_time_j, rel=1e-6)


def test_the_engine_selects_as_rows_do(tmp_path: Path):
    """What is not wanted gives its place to what is inside it."""
    from aimeter.commands.report import Selection

    log = tmp_path / "calls.csv"
    export_log(varied(7), log)
    for chosen in (
        Selection(name="answer*"),
        Selection(model="m/*"),
        Selection(since="2026-11-22T00:02", until="2026-11-22T00:05:00.5"),
    ):
        found = engine(log, "call", *chosen.times(), chosen.name, chosen.model)
        assert found is not None
        assert str(found) == str(summarise(read(log), wanted=chosen.test()))


LINE = csv_line(make_record(call_id="5b1f0c9e4a7d4c5e-900000", name="good"))
ODD = {
    "torn": LINE[:60] + b"\r\n",
    "without an end": LINE[:-3],
    "open quote": LINE.replace(b"good", b'"good'),
    "negative": LINE.replace(b"12.5", b"-12.5"),
    "absurd": LINE.replace(b"12.5", b"1e30"),
    "not a number": LINE.replace(b"12.5", b"nan"),
    "infinite": LINE.replace(b"12.5", b"inf"),
    "broken notes": LINE.replace(b"{}", b"{"),
    "no time": LINE.replace(b"2026-11-22", b"2026-99-22"),
    "twice": LINE + LINE,
    "inside itself": csv_line(make_record(call_id="5b1f0c9e4a7d4c5e-9", parent_id="5b1f0c9e4a7d4c5e-9")),
    "another process at once": csv_line(make_record(call_id="6b1f0c9e4a7d4c5e-1", pid=1)),
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
def test_what_is_odd_is_left_to_the_reader_of_rows(tmp_path: Path, odd: bytes):
    """Which tells it with file and line, or divides."""
    log = tmp_path / "calls.csv"
    usual = [csv_line(make_record(call_id=f"5b1f0c9e4a7d4c5e-1{number}")) for number in range(3)]
    log.write_bytes(CSV_HEADER + b"".join(usual))
    assert engine(log) is not None
    log.write_bytes(CSV_HEADER + b"".join(usual[:2]) + odd + (usual[2] if odd.endswith(b"\n") else b""))
    assert engine(log) is None


def test_few_rows_need_no_engine(tmp_path: Path):
    """It takes longer to load than they do."""
    export_log([make_record()], tmp_path / "calls.csv")
    assert grouped([Log(tmp_path / "calls.csv")], "call") is None
