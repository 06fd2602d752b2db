"""The CSV log: what a row looks like, and that it can be read back."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimeter.errors import ConfigurationError, LogSchemaError
from aimeter.logs import appendfile
from aimeter.logs.encode import (
    CSV_HEADER,
    csv_fields,
    csv_line,
    csv_lines,
    csv_text,
    escaped,
    guarded,
    json_text,
    unguarded,
)
from aimeter.record import COLUMNS, SCHEMA, Record
from aimeter.report import read
from aimeter.sinks import CsvLog, JsonLinesLog, MemorySink, Sink, open_log
from tests.records import make_record

ANY_TEXT = st.text(st.characters(codec=None), max_size=40)  # lone surrogates and control characters too
PLAIN_TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=40)
FORMULA_STARTS = "=+-@\t\r\n\uff1d\uff0b\uff0d\uff20"  # as OWASP lists them, the full-width ones too
NUMBERS = st.none() | st.floats(allow_nan=False, allow_infinity=False, width=64)


def parsed(line: bytes) -> list[str]:
    """Read one line as Python's csv module does, which must find exactly one row."""
    rows = list(csv.reader(io.StringIO(line.decode("utf-8"), newline="")))
    assert len(rows) == 1
    return rows[0]


def test_the_header_is_the_schema(tmp_path: Path):
    """A new log begins with the names of the columns, in the schema's order, once."""
    log = CsvLog(tmp_path / "calls.csv")
    log.write([make_record(), make_record()])
    log.write([make_record()])
    lines = (tmp_path / "calls.csv").read_bytes().split(b"\r\n")
    assert lines[0].decode().split(",") == list(Record._fields)
    assert [bool(line) for line in lines] == [True] * 4 + [False]


@given(st.tuples(ANY_TEXT, ANY_TEXT, ANY_TEXT, ANY_TEXT), st.tuples(NUMBERS, NUMBERS, NUMBERS))
def test_any_row_is_one_line_of_csv(texts: tuple[str, ...], numbers: tuple[float | None, ...]):
    """Whatever a caller names and counts, a row is one line, with every column in its place."""
    name, thread, model, note = texts
    record = make_record(
        name=name,
        thread=thread,
        model=model,
        meta={"note": note},
        energy_j=numbers[0],
        items=numbers[1],
        images=numbers[2],
    )
    line = csv_line(record)
    assert line.endswith(b"\r\n")
    assert line.count(b"\n") == line.count(b"\r") == 1
    row = dict(zip(COLUMNS, parsed(line), strict=True))
    assert csv_fields(line) == list(row.values())
    for column, value in zip(("energy_j", "items", "images"), numbers, strict=True):
        assert row[column] == "" if value is None else math.isclose(float(row[column]), value, rel_tol=1e-8)
    assert isinstance(json.loads(row["meta"])["note"], str)


@given(PLAIN_TEXT, st.dictionaries(PLAIN_TEXT, PLAIN_TEXT | st.integers() | st.booleans() | st.none()))
def test_python_reads_text_back_exactly(text: str, notes: dict[str, object]):
    """Text without control characters is read back as it was by Python's csv module, but for the guard."""
    row = dict(zip(COLUMNS, parsed(csv_line(make_record(name=text, meta=notes))), strict=True))
    assert unguarded(row["name"]) == text
    assert json.loads(row["meta"]) == notes


@given(ANY_TEXT)
def test_the_guard_is_undone_exactly(text: str):
    """Guarding against formulas loses nothing, even for text that already begins with apostrophes."""
    assert unguarded(guarded(text)) == text


@given(st.sampled_from(FORMULA_STARTS), ANY_TEXT)
def test_no_text_becomes_a_formula(start: str, rest: str):
    """No field begins with a character that makes a spreadsheet evaluate it."""
    field = parsed(b"x," + csv_text(start + rest).encode("utf-8", "surrogatepass") + b"\r\n")[1]
    assert field[0] not in FORMULA_STARTS


def test_numbers_are_not_guarded():
    """A negative number stays a number."""
    row = dict(zip(COLUMNS, parsed(csv_line(make_record(self_j=-0.25))), strict=True))
    assert row["self_j"] == "-0.25"


def test_unknown_is_empty_and_never_zero():
    """None and what is not finite become an empty field; 0 stays 0."""
    record = make_record(energy_j=None, error_j=math.nan, co2e_g=math.inf, self_j=-math.inf, idle_j=0.0)
    row = dict(zip(COLUMNS, parsed(csv_line(record)), strict=True))
    assert [row[name] for name in ("energy_j", "error_j", "co2e_g", "self_j")] == ["", "", "", ""]
    assert row["idle_j"] == "0.0"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.1, "0.1"),
        (1 / 3, "0.333333333"),
        (12345.678912345, "12345.6789"),
        (4.0, "4.0"),
        (0.0, "0.0"),
        (-3.0, "-3.0"),
        (1e9, "1e+09"),
        (1e-7, "1e-07"),
    ],
)
def test_numbers_are_the_shortest_of_nine_digits(value: float, text: str):
    """At most nine significant digits and no more characters than it needs, yet never those of an integer."""
    assert dict(zip(COLUMNS, parsed(csv_line(make_record(energy_j=value))), strict=True))["energy_j"] == text


def test_any_note_can_be_written():
    """What JSON lacks becomes text, or null if it is not finite; a note that holds itself is cut."""
    endless: list[object] = []
    endless += [endless, endless]

    class Mute:
        def __str__(self) -> str:
            raise RuntimeError

    notes = {
        "path": Path("a"),
        ("a", 1): 1,
        "nan": math.nan,
        "nested": {"inf": [math.inf, 1.5]},
        "scalar": np.float32(1.5),
        "integer": np.int64(7),
        "endless": endless,
        "mute": Mute(),
        "half": "\ud800",
    }
    assert json.loads(json_text(notes)) == {
        "path": "a",
        "('a', 1)": 1,
        "nan": None,
        "nested": {"inf": [None, 1.5]},
        "scalar": 1.5,
        "integer": 7,
        "endless": ["…", "…"],
        "mute": "<Mute>",
        "half": "\\ud800",
    }


def test_a_row_that_cannot_be_written_is_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """One bad row stops no other; it is counted and told once."""
    log = CsvLog(tmp_path / "calls.csv")
    log.write([make_record(items="three"), make_record(name="good"), make_record(items="four")])
    assert log.lost_rows == 2
    assert [record.name for record in read(tmp_path / "calls.csv")] == ["good"]
    assert len(caplog.records) == 1


def test_a_row_is_in_the_file_when_write_returns(tmp_path: Path):
    """Nothing waits for a close or a save: each write is complete at once."""
    log = CsvLog(tmp_path / "calls.csv")
    log.write([make_record(name="first")])
    assert [record.name for record in read(tmp_path / "calls.csv")] == ["first"]


def test_a_second_run_appends(tmp_path: Path):
    """A log that exists and has our columns is continued, without a second header."""
    for name in ("one", "two"):
        log = CsvLog(tmp_path / "calls.csv")
        log.write([make_record(name=name)])
        log.close()
    assert [record.name for record in read(tmp_path / "calls.csv")] == ["one", "two"]
    assert (tmp_path / "calls.csv").read_bytes().count(CSV_HEADER) == 1


def test_what_an_editor_changes_in_the_header_is_forgiven(tmp_path: Path):
    """A log saved by an editor, with a BOM and bare line feeds, is still a log."""
    path = tmp_path / "calls.csv"
    path.write_bytes(
        b"\xef\xbb\xbf" + (CSV_HEADER + csv_line(make_record(name="one"))).replace(b"\r\n", b"\n")
    )
    CsvLog(path).write([make_record(name="two")])
    assert [record.name for record in read(path)] == ["one", "two"]


def test_nothing_is_left_where_nothing_is_written(tmp_path: Path):
    """Proving that the path can be written leaves no file behind."""
    CsvLog(tmp_path / "calls.csv").close()
    assert list(tmp_path.iterdir()) == []


def test_the_log_does_not_move_with_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A relative path means the folder at configuration, not at the first row."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    log = CsvLog("calls.csv")
    monkeypatch.chdir(tmp_path / "elsewhere")
    log.write([make_record()])
    assert (tmp_path / "calls.csv").exists()


FOREIGN = {
    "another table": b"date,loss\n2026,1\n",
    "an earlier schema": b",".join(CSV_HEADER.strip().split(b",")[:-1]) + b"\r\n",
    "a later schema": CSV_HEADER.replace(b"\r\n", b",water_l\r\n"),
    "no table": b"\x00\x01\x02" * 1000,
    "one unended line": b"dear diary",
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
def test_a_foreign_file_is_refused_and_untouched(tmp_path: Path, content: bytes):
    """Rows are never mixed into another file: the error comes at once and says what to do."""
    path = tmp_path / "calls.csv"
    path.write_bytes(content)
    with pytest.raises(LogSchemaError, match=r"new_file.*calls-2\.csv"):
        CsvLog(path)
    assert path.read_bytes() == content


def test_a_new_file_is_begun_beside_a_foreign_one(tmp_path: Path):
    """With conflict="new_file" rows go to the first name with a number that is free or already such a log."""
    (tmp_path / "calls.csv").write_bytes(b"date,loss\n")
    (tmp_path / "calls-2.csv").write_bytes(b"also foreign\n")
    for name in ("one", "two"):
        log = CsvLog(tmp_path / "calls.csv", conflict="new_file")
        log.write([make_record(name=name)])
        assert log.path == tmp_path / "calls-3.csv"
    assert [record.name for record in read(tmp_path / "calls-3.csv")] == ["one", "two"]
    assert (tmp_path / "calls.csv").read_bytes() == b"date,loss\n"


def test_bad_paths_are_refused_with_a_remedy(tmp_path: Path):
    """A path that cannot be a log is an error at configuration that says what to do."""
    (tmp_path / "file").write_text("")
    bad = {
        tmp_path / "missing" / "calls.csv": "mkdir -p",
        tmp_path: "is a folder.*calls.csv",
        tmp_path / "file" / "calls.csv": "not a folder",
        tmp_path / ("x" * 300): "too long",
        "/dev/null": "not a regular file",
        "a\0b": "no path",
        "": "is a folder",
        7: "no path",
    }
    for path, remedy in bad.items():
        with pytest.raises(ConfigurationError, match=remedy):
            CsvLog(path)
    with pytest.raises(ConfigurationError, match="Did you mean 'new_file'"):
        CsvLog(tmp_path / "calls.csv", conflict="newfile")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


WHOLE = csv_line(make_record(name="whole"))
NEXT = make_record(name="next")
TORN = csv_line(make_record(name='torn, with "quotes"', meta={"a": "b,c"}))


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(appendfile, "_TORN_PAUSE_S", 0.0)


def test_a_torn_last_line_is_repaired(tmp_path: Path):
    """Whatever a power cut leaves of the last line, the next open leaves all whole rows and only those."""
    path = tmp_path / "calls.csv"
    for kept in [*range(1, len(TORN) - 20, 7), *range(len(TORN) - 20, len(TORN))]:
        path.write_bytes(CSV_HEADER + WHOLE + TORN[:kept])
        log = CsvLog(path)
        log.write([NEXT])
        log.close()
        whole = kept >= len(TORN) - 2  # its version is as on the line before: known to be complete
        assert path.read_bytes() == CSV_HEADER + WHOLE + TORN * whole + csv_line(NEXT)


@pytest.mark.parametrize("kept", [0, 1, 100, len(CSV_HEADER) - 3, len(CSV_HEADER) - 2, len(CSV_HEADER) - 1])
def test_a_torn_header_is_repaired(tmp_path: Path, kept: int):
    """A log that was cut in its very header is begun anew."""
    path = tmp_path / "calls.csv"
    path.write_bytes(CSV_HEADER[:kept])
    CsvLog(path).write([make_record(name="whole")])
    assert path.read_bytes() == CSV_HEADER + WHOLE


def test_a_long_torn_line_is_repaired(tmp_path: Path):
    """A tail longer than any block, such as the zeros that a crash may leave, is removed as a whole."""
    path = tmp_path / "calls.csv"
    path.write_bytes(CSV_HEADER + WHOLE + bytes(300_000))
    CsvLog(path).close()
    assert path.read_bytes() == CSV_HEADER + WHOLE


def test_a_repair_touches_nothing_else(tmp_path: Path):
    """Odd lines in the middle of a log are not ours to judge."""
    path = tmp_path / "calls.csv"
    before = CSV_HEADER + b"a,comment,by,hand\r\n" + b"\r\n" + WHOLE
    path.write_bytes(before + b"1,torn")
    CsvLog(path).close()
    assert path.read_bytes() == before


def test_a_huge_note_is_one_row(tmp_path: Path):
    """A row may be longer than a block of writing and than what Python's csv module takes for a field."""
    path = tmp_path / "calls.csv"
    note = 'x,"' * 100_000
    CsvLog(path).write([make_record(meta={"note": note}), make_record()])
    CsvLog(path).write([make_record()])
    assert [record.meta.get("note") for record in read(path)] == [note, None, None]


def test_open_log_chooses_by_name(tmp_path: Path):
    """The ending of the name decides: JSON Lines or CSV."""
    assert isinstance(open_log(tmp_path / "a.jsonl"), JsonLinesLog)
    assert isinstance(open_log(str(tmp_path / "a.NDJSON")), JsonLinesLog)
    assert isinstance(open_log(tmp_path / "a.csv"), CsvLog)
    assert isinstance(open_log(tmp_path / "log"), CsvLog)
    for sink in (open_log(tmp_path / "a.csv"), MemorySink()):
        assert isinstance(sink, Sink)


def test_memory_is_bounded():
    """In memory the newest records are kept and the others make room."""
    sink = MemorySink(most=3)
    sink.write([make_record(name=str(number)) for number in range(5)])
    sink.write([make_record(name="5")])
    assert [record.name for record in sink.records] == ["3", "4", "5"]
    sink.close()
    assert len(sink.records) == 3


def test_the_row_says_its_schema():
    """Each row carries the version of its layout."""
    assert csv_fields(csv_line(make_record()))[0] == str(SCHEMA)


def test_a_path_that_leads_in_a_circle_is_refused(tmp_path: Path):
    """Symbolic links that name each other lead to no file: that is said before anything runs."""
    (tmp_path / "a.csv").symlink_to(tmp_path / "b.csv")
    (tmp_path / "b.csv").symlink_to(tmp_path / "a.csv")
    with pytest.raises(ConfigurationError, match="symbolic links"):
        CsvLog(tmp_path / "a.csv")


SKIPPED = [chr(code) for code in range(0x10000) if chr(code).isspace()] + ["\ufeff", '"', "'"]
"""What a spreadsheet may skip before a formula: all that Unicode calls blank, marks of byte order, quotes."""


@pytest.mark.parametrize("start", "=+-@\uff1d\uff0b\uff0d\uff20")
def test_nothing_that_is_skipped_hides_a_formula(start):
    for skipped in ["", *SKIPPED]:
        text = f"{skipped}{start}1"
        [field] = csv_fields(csv_text(text).encode())
        assert field.startswith("'") or field[:1] == "\\", repr(text)  # which begins an escape
        assert unguarded(field) == escaped(text)


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@given(
    st.lists(
        st.text(st.sampled_from("=+-@;|\t ,\"'\u00a0\ufeff\uff1dx1\n\u2003"), max_size=12),
        min_size=4,
        max_size=4,
    )
)
def test_no_cell_is_a_formula_whatever_the_separator(separator, texts):
    """A spreadsheet may open the log with any separator, and honour quotes or not: no text begins a formula."""
    name, model, error, note = texts
    record = make_record(name=name, model=model, error_type=error, meta={"note": note, note: [note]})
    [line] = csv_lines([record])
    text = line.decode().rstrip("\r\n")
    cells = next(csv.reader([text], delimiter=separator), [])
    if separator != ",":  # nobody opens a file of commas without honouring its quotes
        cells += text.split(separator)
    # Quotes that open or close a field, and the blanks that spreadsheets skip.
    begun = [cell.lstrip('"\\ \t\u00a0\ufeff\u2003') for cell in cells]
    assert not [cell for cell in begun if cell[:1] in set("=+-@\uff1d\uff0b\uff0d\uff20")]
    fields = dict(zip(COLUMNS, csv_fields(line), strict=True))
    assert unguarded(fields["name"]) == escaped(name)
    assert unguarded(fields["model"]) == escaped(model)
    assert json.loads(fields["meta"]) == {"note": note, note: [note]}
