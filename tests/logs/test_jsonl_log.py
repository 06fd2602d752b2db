"""The log as JSON Lines: the same guarantees as CSV, in another layout."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimeter.errors import LogSchemaError
from aimeter.logs import appendfile
from aimeter.logs.encode import json_line
from aimeter.record import COLUMNS, SCHEMA
from aimeter.report import read
from aimeter.sinks import JsonLinesLog
from tests.records import make_record

ANY_TEXT = st.text(st.characters(codec=None), max_size=40)


@given(name=ANY_TEXT, note=ANY_TEXT, energy_j=st.none() | st.floats())
def test_any_row_is_one_line_of_json(name: str, note: str, energy_j: float | None):
    """Every row is one line, has every column in order, and is JSON for any reader."""
    line = json_line(make_record(name=name, meta={"note": note}, energy_j=energy_j))
    assert line.count(b"\n") == 1
    assert line.endswith(b"}\n")
    row = json.loads(line, parse_constant=pytest.fail)
    assert tuple(row) == COLUMNS
    if energy_j is None or not math.isfinite(energy_j):
        assert row["energy_j"] is None
    else:
        assert math.isclose(row["energy_j"], energy_j, rel_tol=1e-8)
    if name.isprintable():
        assert row["name"] == name
    row["name"].encode()


def test_notes_stay_an_object(tmp_path: Path):
    """Notes are nested JSON, not text in text, and every type is read back."""
    path = tmp_path / "calls.jsonl"
    record = make_record(name="=a\r\n\tb", meta={"a": [1, None, {"b": True}]}, model=None)
    JsonLinesLog(path).write([record])
    assert json.loads(path.read_text())["meta"] == {"a": [1, None, {"b": True}]}
    assert list(read(path)) == [record]


def test_a_second_run_appends(tmp_path: Path):
    """A log of our rows is continued."""
    path = tmp_path / "calls.jsonl"
    for name in ("one", "two"):
        JsonLinesLog(path).write([make_record(name=name)])
    assert [record.name for record in read(path)] == ["one", "two"]


WHOLE = json_line(make_record(name="whole"))
NEXT = make_record(name="next")
TORN = json_line(make_record(name="torn"))


@pytest.mark.parametrize("before", [b"", WHOLE])
def test_a_torn_last_line_is_repaired(tmp_path: Path, before: bytes, monkeypatch: pytest.MonkeyPatch):
    """However much a power cut leaves of the last line, whole rows are left; a closed object is one."""
    monkeypatch.setattr(appendfile, "_TORN_PAUSE_S", 0.0)
    path = tmp_path / "calls.jsonl"
    for kept in [*range(1, 30), *range(30, len(TORN), 29), len(TORN) - 1]:
        path.write_bytes(before + TORN[:kept])
        log = JsonLinesLog(path)
        log.write([NEXT])
        log.close()
        whole = TORN if kept == len(TORN) - 1 else b""
        assert path.read_bytes() == before + whole + json_line(NEXT)


@pytest.mark.parametrize(
    "content",
    [
        b'{"a":1}\n',
        f'{{"schema":{SCHEMA},"a":1}}\n'.encode(),
        WHOLE.replace(b'"name"', b'"label"'),
        WHOLE.replace(f'"schema":{SCHEMA}'.encode(), f'"schema":{SCHEMA + 1}'.encode()),
        b"schema,name\r\n",
        b"[" * 70_000,
        b"[" * 60_000 + b"\n",
        b'{"schema":4,',
    ],
)
def test_a_foreign_file_is_refused(tmp_path: Path, content: bytes):
    """A file of other JSON is not appended to, nor changed."""
    path = tmp_path / "calls.jsonl"
    path.write_bytes(content)
    with pytest.raises(LogSchemaError):
        JsonLinesLog(path)
    log = JsonLinesLog(path, conflict="new_file")
    log.write([make_record()])
    assert log.path.name == "calls-2.jsonl"
    assert path.read_bytes() == content
