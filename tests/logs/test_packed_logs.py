"""Logs packed by gzip, and Parquet, are read as plain ones are."""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path

import pytest

from aimeter.commands.convert import to_parquet
from aimeter.commands.report import add_up, find
from aimeter.errors import ConfigurationError, LogSchemaError
from aimeter.logs.brief import read_briefs
from aimeter.logs.encode import CSV_HEADER, csv_line
from aimeter.logs.export import export_log
from aimeter.report import read, summarise
from tests.records import make_record

RECORDS = [
    make_record(
        call_id=f"5b1f0c9e4a7d4c5e-{number}",
        name=("answer", "=1+1", "draw, a lot")[number % 3],
        start=f"2026-11-{20 + number % 5}T10:00:0{number % 10}.250001Z",
        energy_j=None if number == 7 else number / 7,
        thread="" if number % 2 else "MainThread",
        meta={"text": "a,b;=c"} if number == 3 else {},
    )
    for number in range(25)
]
RECORDS = [
    record._replace(energy_j=record.energy_j and float(f"{record.energy_j:.9g}")) for record in RECORDS
]


@pytest.mark.parametrize("ending", [".csv", ".jsonl"])
def test_a_packed_log_is_what_it_was(tmp_path: Path, ending: str):
    """Whatever it is called; also if it was packed in pieces, as who appends to a packed file does."""
    plain, packed = tmp_path / f"calls{ending}", tmp_path / "calls.1"
    export_log(RECORDS, plain)
    text = plain.read_bytes()
    packed.write_bytes(gzip.compress(text[:1000]) + gzip.compress(text[1000:]))
    assert list(read(packed)) == RECORDS
    assert list(read_briefs(packed)) == list(read_briefs(plain))
    assert add_up([str(tmp_path / "*.1")]) == add_up([str(plain)])


def test_a_packed_log_comes_by_a_pipe(tmp_path: Path):
    """As plain ones do."""
    export_log(RECORDS, tmp_path / "calls.csv")
    (tmp_path / "calls.csv.gz").write_bytes(gzip.compress((tmp_path / "calls.csv").read_bytes()))
    shown = [
        subprocess.run(
            f"cat {name} | {sys.executable} -m aimeter report /dev/stdin",
            shell=True,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for name in ("calls.csv", "calls.csv.gz")
    ]
    assert shown[0] == shown[1] != ""


def test_of_a_torn_packed_log_is_used_what_is_whole(tmp_path: Path):
    """What follows is told with its place."""
    packed = tmp_path / "calls.csv.gz"
    lines = [CSV_HEADER, *(csv_line(record) for record in RECORDS)]
    packed.write_bytes(b"".join(map(gzip.compress, lines))[:-9])
    found = read(packed)
    assert len(list(found)) in {len(RECORDS) - 1, len(RECORDS)}
    assert found.skipped == 1
    assert found.problems[0].startswith(f"{packed}:")
    assert "torn" in found.problems[0]


def test_a_damaged_packed_log_is_no_log(tmp_path: Path):
    """In one clear line."""
    (tmp_path / "calls.csv.gz").write_bytes(b"\x1f\x8b" + bytes(100))
    with pytest.raises(ConfigurationError, match="packed by gzip and is torn"):
        read(tmp_path / "calls.csv.gz")
    (tmp_path / "words.gz").write_bytes(gzip.compress(b"no log\n"))
    with pytest.raises(LogSchemaError, match=r"words\.gz is no aimeter log"):
        read(tmp_path / "words.gz")


def test_a_folder_of_parquet_is_the_log_that_it_was_made_of(tmp_path: Path):
    """Each row, with its name, notes and what is unknown; and so the same table."""
    pytest.importorskip("duckdb")
    folder = tmp_path / "it's [1]"
    export_log(RECORDS, tmp_path / "calls.csv")
    to_parquet([str(tmp_path / "calls.csv")], folder)
    found = list(read(find([str(folder)])))
    assert sorted(found, key=lambda one: one.call_id) == sorted(RECORDS, key=lambda one: one.call_id)
    briefs = list(read_briefs(find([str(folder)])))
    assert sorted(briefs) == sorted(read_briefs(tmp_path / "calls.csv"))
    assert str(summarise(found)) == str(summarise(RECORDS))


def test_a_folder_without_parquet_is_no_log(tmp_path: Path):
    """The message says how to name what is in it."""
    with pytest.raises(ConfigurationError, match=r"folder without Parquet: name the logs in it, such as"):
        find([str(tmp_path)])


def test_damaged_and_foreign_parquet_is_told(tmp_path: Path):
    """In our words, not the engine's."""
    duckdb = pytest.importorskip("duckdb")
    (tmp_path / "torn.parquet").write_bytes(b"PAR1" + bytes(100))
    with pytest.raises(
        ConfigurationError, match=r"torn\.parquet cannot be read: it cannot be read as Parquet\.$"
    ):
        read(tmp_path / "torn.parquet")
    duckdb.sql(f"COPY (SELECT 1 AS one) TO '{tmp_path}/other.parquet'")
    with pytest.raises(LogSchemaError, match=r"other\.parquet is no aimeter log"):
        read(tmp_path / "other.parquet")


def test_parquet_without_the_engine_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """In one line."""
    (tmp_path / "calls.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(
        ConfigurationError, match=r"^Parquet needs the extra: pip install 'aimeter-energy\[report\]'$"
    ):
        read(tmp_path / "calls.parquet")
