"""Logs in the form of other tools: Parquet, traces for profilers, and CodeCarbon's logs as ours."""

from __future__ import annotations

import glob
import json
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from aimeter._support.files import replacing
from aimeter.commands.report import find
from aimeter.errors import ConfigurationError
from aimeter.logs.codecarbon import Imported
from aimeter.logs.engine import connected, duckdb, quoted
from aimeter.logs.engine import file as file_of
from aimeter.logs.export import checked_target, export_log
from aimeter.logs.read import Log, ReadResult, read, readable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aimeter.record import Record

_DUCKDB_TYPES = {
    "integer": "BIGINT",
    "number": "DOUBLE",
    "datetime": "TIMESTAMPTZ",
    "array": "DOUBLE[]",
    "object": "JSON",
}


class Converted(NamedTuple):
    """What was written.

    Attributes:
        rows: How many rows.
        problems: Lines that were none.
        zoneless: Whether times had no zone and were taken for UTC.
        known: Rows that were there already, and were left out.
    """

    rows: int
    problems: list[str]
    zoneless: bool = False
    known: int = 0


def to_parquet(logs: Sequence[str | Log], folder: Path) -> Converted:
    """Write logs as Parquet into a folder, a folder for each day inside it, with the columns' types.

    Raises:
        ConfigurationError: DuckDB is not installed, or a log or the folder is unusable.
    """
    duckdb()
    rows = _Storable(readable(find(logs)))
    with tempfile.TemporaryDirectory(prefix="aimeter-") as place:
        # Through a log of whole rows, as what is torn or foreign in a log is for our own reader to tell.
        whole = Path(place) / "calls.csv"
        export_log(rows, whole)
        known = rows.rows - copy_whole(whole, folder)
    return Converted(rows.rows - known, rows.problems, known=known)


def copy_whole(log: Path, folder: Path) -> int:
    """Write a CSV log in which nothing is torn or foreign, and return how many rows were not there yet.

    Raises:
        ConfigurationError: DuckDB is not installed, or the folder is unusable.
    """
    schema = json.loads((files("aimeter") / "log.schema.json").read_text("utf-8"))
    types = {one["name"]: _DUCKDB_TYPES.get(one["type"], "VARCHAR") for one in schema["fields"]}
    columns = ", ".join(f"'{name}': '{kind}'" for name, kind in types.items())
    with connected(memory=None) as engine:  # a folder for each day is written at the same time
        try:
            # What a view reads cannot be a parameter; path and columns are our own.
            engine.execute(
                f"""CREATE VIEW calls AS SELECT *, CAST(start AS DATE) AS day FROM read_csv({file_of(log)},
                    columns={{{columns}}}, header=true, quote='"', escape='"', strict_mode=true, max_line_size=20000000, buffer_size=40000000)"""  # noqa: S608
            )
            fresh = "calls"
            if next(folder.rglob("*.parquet"), None) is not None:
                there = quoted(f"{glob.escape(str(folder))}/**/*.parquet")
                engine.execute(
                    f"CREATE VIEW there AS SELECT call_id, start FROM read_parquet({there})"  # noqa: S608
                )
                engine.execute(
                    """CREATE VIEW fresh AS SELECT * FROM calls ANTI JOIN there
                        ON calls.call_id = there.call_id AND calls.start = there.start"""
                )
                fresh = "fresh"
            ((count,),) = engine.execute(f"SELECT count(*) FROM {fresh}").fetchall()  # noqa: S608 - one of two names
            engine.execute(
                f"""COPY (FROM {fresh}) TO {quoted(str(folder))}
                    (FORMAT parquet, COMPRESSION zstd, PARTITION_BY (day), APPEND)"""
            )
        except duckdb().Error as error:
            message = f"{folder} cannot be written: name a folder for Parquet, a new one or one that this made, and see that the disk has room."
            raise ConfigurationError(message) from error
    return int(count)


class _Storable(ReadResult):
    """The records of logs that fit into typed columns; a row that does not is told as lines are that are no rows."""

    def _of_csv(self, fields: Sequence[str], columns: list[str]) -> Record:
        return _storable(super()._of_csv(fields, columns))

    def _of_json(self, document: object) -> Record:
        return _storable(super()._of_json(document))


_MOST_BIGINT = 2**63 - 1


def _storable(record: Record) -> Record:
    """Return a record that fits.

    Raises:
        ValueError: It does not.
    """
    moment = datetime.fromisoformat(record.start)
    if moment.tzinfo is None:
        message = f"start: {record.start} says no zone"
        raise ValueError(message)
    moment.astimezone(UTC)  # a year that no calendar has raises here
    if abs(record.pid) > _MOST_BIGINT:
        message = "pid: too large"
        raise ValueError(message)
    return record


def to_perfetto(logs: Sequence[str | Log], file: Path) -> Converted:
    """Write logs as a trace that profilers open (Perfetto, Chrome): calls as slices, the power of each as counters.

    The form is Chrome's `Trace Event Format
    <https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU>`_.

    Raises:
        ConfigurationError: A log or the file is unusable.
    """
    sources = find(logs)
    file = checked_target(file, sources)
    rows = read(sources)
    try:
        with replacing(file, durable=False) as out:
            out.write(b'{"displayTimeUnit":"ms","traceEvents":[')
            comma = b"\n"
            processes: dict[tuple[str, int], int] = {}
            taken: set[int] = set()
            for record in rows:
                key = record.machine, record.pid
                if key not in processes:
                    processes[key] = number = _free(record.pid, taken)
                    taken.add(number)
                for event in _events(record, processes[key]):
                    out.write(comma + json.dumps(event, separators=(",", ":"), allow_nan=False).encode())
                    comma = b",\n"
            out.write(b"\n]}\n")
    except OSError as error:
        message = f"{file} cannot be written: {error.strerror or error}."
        raise ConfigurationError(message) from error
    return Converted(rows.rows, rows.problems)


def _free(pid: int, taken: set[int]) -> int:
    """Return the number under which a process stands in a trace: its own, unless one of another machine has that."""
    while pid in taken:
        pid += _NEXT_MACHINE
    return pid


_NEXT_MACHINE = 10_000_000
"""Above all process ids of Linux, 4,194,304: the last digits of the number are the process id still."""


def _events(record: Record, process: int) -> Iterator[dict[str, object]]:
    try:
        begin_us = round(datetime.fromisoformat(record.start).timestamp() * 1e6)
    except (ValueError, OverflowError):
        return
    length_us = max(round(record.duration_s * 1e6), 1)
    told = {
        key: value
        for key in ("call_id", "energy_j", "error_j", "co2e_g", "model", "status", "tokens_in", "tokens_out")
        if (value := getattr(record, key)) is not None
    }
    yield {
        "name": record.name,
        "cat": "aimeter",
        "ph": "X",
        "ts": begin_us,
        "dur": length_us,
        "pid": process,
        "tid": record.thread or "0",
        "args": told,
    }
    if record.parent_id is None and record.duration_s > 0:
        for device, joules in zip(record.devices.split(), record.devices_j, strict=False):
            for at_us, watts in ((begin_us, joules / record.duration_s), (begin_us + length_us, 0.0)):
                name = f"power {device}"
                yield {"name": name, "ph": "C", "ts": at_us, "pid": process, "args": {"W": watts}}


def from_codecarbon(sources: Sequence[Path], log: Path) -> Converted:
    """Write CodeCarbon's files as a log.

    Raises:
        ConfigurationError: One of them, or the log, is unusable.
    """
    if log.exists():
        message = f"{log} is there already: name a new log, or remove it first."
        raise ConfigurationError(message)
    imported = [Imported(source) for source in sources]
    rows = export_log((record for one in imported for record in one), log)
    problems = [problem for one in imported for problem in one.problems]
    return Converted(rows, problems, any(one.zoneless for one in imported))
