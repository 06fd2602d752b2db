"""Logs in the form of other tools: Parquet, traces for profilers, and CodeCarbon's logs as ours."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from aimeter._support.files import replacing
from aimeter.commands.report import find
from aimeter.errors import ConfigurationError
from aimeter.logs.codecarbon import Imported
from aimeter.logs.export import checked_target, export_log
from aimeter.logs.read import read

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
    """

    rows: int
    problems: list[str]
    zoneless: bool = False


def to_parquet(logs: Sequence[str], folder: Path) -> Converted:
    """Write logs as Parquet into a folder, a folder for each day inside it, with the columns' types.

    Raises:
        ConfigurationError: DuckDB is not installed, or a log or the folder is unusable.
    """
    try:
        import duckdb  # noqa: PLC0415 - an extra
    except ImportError:
        message = "Parquet needs the extra: pip install 'aimeter-energy[report]'"
        raise ConfigurationError(message) from None
    rows = read(find(logs))
    schema = json.loads((files("aimeter") / "log.schema.json").read_text("utf-8"))
    types = {one["name"]: _DUCKDB_TYPES.get(one["type"], "VARCHAR") for one in schema["fields"]}
    with tempfile.TemporaryDirectory(prefix="aimeter-") as place:
        # Through a log of whole rows, as what is torn or foreign in a log is for our own reader to tell.
        whole = Path(place) / "calls.csv"
        export_log(rows, whole)
        columns = ", ".join(f"'{name}': '{kind}'" for name, kind in types.items())
        try:
            duckdb.connect(config={"temp_directory": place}).execute(
                # A target cannot be a parameter; the columns are our own.
                f"""COPY (SELECT *, CAST(start AS DATE) AS day FROM read_csv(?, columns={{{columns}}}, header=true,
                    quote='"', escape='"', strict_mode=true, max_line_size=20000000))
                TO '{str(folder).replace("'", "''")}' (FORMAT parquet, COMPRESSION zstd, PARTITION_BY (day), APPEND)""",  # noqa: S608
                [str(whole)],
            )
        except duckdb.Error as error:
            message = f"{folder} cannot be written: {str(error).splitlines()[0]}"
            raise ConfigurationError(message) from error
    return Converted(rows.rows, rows.problems)


def to_perfetto(logs: Sequence[str], file: Path) -> Converted:
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
            for record in rows:
                for event in _events(record):
                    out.write(comma + json.dumps(event, separators=(",", ":"), allow_nan=False).encode())
                    comma = b",\n"
            out.write(b"\n]}\n")
    except OSError as error:
        message = f"{file} cannot be written: {error.strerror or error}."
        raise ConfigurationError(message) from error
    return Converted(rows.rows, rows.problems)


def _events(record: Record) -> Iterator[dict[str, object]]:
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
        "pid": record.pid,
        "tid": record.thread or "0",
        "args": told,
    }
    if record.parent_id is None and record.duration_s > 0:
        for device, joules in zip(record.devices.split(), record.devices_j, strict=False):
            for at_us, watts in ((begin_us, joules / record.duration_s), (begin_us + length_us, 0.0)):
                name = f"power {device}"
                yield {"name": name, "ph": "C", "ts": at_us, "pid": record.pid, "args": {"W": watts}}


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
