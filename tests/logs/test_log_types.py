"""Other tools read a log: each column has one type, and the types are published."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, get_type_hints

import duckdb
import pandas as pd
import polars as pl
import pytest

from aimeter._support.machine import WHOLE, identifier, machine
from aimeter.record import COLUMNS, COUNTS, SCHEMA, Record
from aimeter.report import export_csv
from tests.records import make_record

NUMBERS = tuple(name for name, kind in get_type_hints(Record).items() if kind in {float, float | None})

PUBLISHED: list[dict[str, Any]] = json.loads(files("aimeter").joinpath("log.schema.json").read_text("utf-8"))[
    "fields"
]
TYPES = {field["name"]: field["type"] for field in PUBLISHED}


def a_log(path: Path, whole: int, **last: Any) -> Path:
    """Write a log that begins with rows of whole numbers, and ends with a row of fractions."""
    numbers: dict[str, Any] = dict.fromkeys(NUMBERS, 1.0)
    records = [make_record(**numbers, call_id=f"a-{number}") for number in range(whole)]
    fractions: dict[str, Any] = dict.fromkeys(NUMBERS, 0.25)
    export_csv([*records, make_record(**{**fractions, "call_id": "b-1", **last})], path)
    return path


def test_the_published_types_are_the_records():
    """Every column in order, with the type that the record has and with words on it."""
    kinds: Mapping[object, str] = {
        int: "integer",
        float: "number",
        float | None: "number",
        Mapping[str, object]: "object",
        tuple[float, ...]: "array",
    }
    hints = get_type_hints(Record)
    expected = {name: kinds.get(hints[name], "string") for name in COLUMNS} | {"start": "datetime"}
    assert expected == TYPES
    assert list(TYPES) == list(COLUMNS)
    assert all(field["description"] for field in PUBLISHED)


def test_each_schema_has_its_columns():
    """A number stands for a layout for ever: what is appended makes another one."""
    last = {1: "aimeter_version", 2: "pue_source", 3: "machine"}
    assert (SCHEMA, COLUMNS[-1]) == (max(last), last[max(last)])
    assert [COLUMNS.index(name) + 1 for name in last.values()] == [42, 52, 54]


def test_polars_reads_fractions_after_whole_numbers(tmp_path: Path):
    """However many rows of whole numbers it infers the types from."""
    frame = pl.read_csv(a_log(tmp_path / "calls.csv", 150))
    assert frame.height == 151
    assert {name for name, kind in frame.schema.items() if kind == pl.Float64} == set(NUMBERS)
    assert {name for name, kind in frame.schema.items() if kind == pl.Int64} == {"schema", "pid"}


def test_polars_concatenates_logs(tmp_path: Path):
    """Logs of whole numbers and of fractions are of one type; the published ones serve where a column is empty."""
    first, second = a_log(tmp_path / "1.csv", 3), a_log(tmp_path / "2.csv", 0)
    assert pl.concat([pl.read_csv(first), pl.read_csv(second)]).height == 5
    assert pl.scan_csv(tmp_path / "*.csv").collect().height == 5
    empty = a_log(tmp_path / "3.csv", 0, **dict.fromkeys(COUNTS))
    schema = {
        name: {"integer": pl.Int64, "number": pl.Float64}.get(kind, pl.String) for name, kind in TYPES.items()
    }
    frame = pl.concat([pl.read_csv(log, schema_overrides=schema) for log in (first, empty)])
    assert frame["images"].to_list() == [1.0, 1.0, 1.0, 0.25, None]


def test_pandas_concatenates_logs(tmp_path: Path):
    """A column of numbers is float64 in every log, empty ones included."""
    empty: dict[str, Any] = dict.fromkeys(COUNTS)
    logs = [a_log(tmp_path / "1.csv", 3), a_log(tmp_path / "2.csv", 0, **empty)]
    frame = pd.concat([pd.read_csv(log) for log in logs])
    assert {str(frame[name].dtype) for name in NUMBERS} == {"float64"}


def test_duckdb_adds_up_logs(tmp_path: Path):
    """By a pattern, with types of its own finding."""
    a_log(tmp_path / "1.csv", 150)
    a_log(tmp_path / "2.csv", 0, **dict.fromkeys(COUNTS))
    found = duckdb.sql(f"SELECT count(*), sum(energy_j), sum(images) FROM read_csv('{tmp_path}/*.csv')")
    assert found.fetchall() == [(152, 150.5, 150.25)]


def test_the_machine_is_an_opaque_identifier_and_no_number():
    """It is the same all through a process, and the same for who knows the same secret."""
    assert machine() == machine()
    assert WHOLE.fullmatch(machine())
    assert identifier("a boot") == identifier("a boot") != identifier("another boot")


@pytest.mark.parametrize("name", COLUMNS)
def test_every_column_has_its_type_in_a_real_log(tmp_path: Path, name: str):
    """What polars finds in a log whose numbers are known is what is published."""
    kinds = {"integer": pl.Int64, "number": pl.Float64}
    assert pl.read_csv(a_log(tmp_path / "calls.csv", 1))[name].dtype in {
        kinds.get(TYPES[name], pl.String),
        pl.String if make_record()._asdict()[name] is None and name not in NUMBERS else None,
    }
