"""Large logs added up by DuckDB: calls are grouped by their place among others, and the groups' sums go on as all sums do.

It takes only logs in which each row is whole and usual, each call is there once, and no processes used a device of one
machine at the same time. Whatever else there may be is for the reader that looks at every row, which tells what is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from aimeter._support.machine import UNKNOWN
from aimeter.errors import AimeterError
from aimeter.logs import engine
from aimeter.logs.decode import AMOUNTS, LEAST_CONCURRENCY, LONGEST_S, MOST, ROUNDING
from aimeter.logs.encode import unguarded
from aimeter.logs.read import Log, columns
from aimeter.record import COUNTS, MeasuredBy
from aimeter.report.bins import LAST_S
from aimeter.report.processes import overlap
from aimeter.report.sums import JOULES, Sums
from aimeter.report.tally import MOST_NAMES, summed
from aimeter.report.tree import DEEPEST, MOST_TIMED, Branch, Branches

if TYPE_CHECKING:
    from aimeter.report.summary import By, Summary

LARGE_BYTES = 50_000_000
"""Below this, rows one by one take hardly longer than it takes to load the engine."""

_METHODS = get_args(MeasuredBy)
_FIGURES = ("self_j", "idle_j", "intensity_g_per_kwh", "embodied_g")
_KNOWN = ("duration_s", "coverage", "concurrency", "pue")
_NUMBERS = frozenset({*AMOUNTS, *_FIGURES, *_KNOWN})
_CODES = {method: 1 << place for place, method in enumerate((*_METHODS, UNKNOWN))}


class _OddError(Exception):
    """A log is not for the engine."""


def grouped(
    logs: Sequence[Log],
    by: By,
    since: str = "",
    until: str = "~",
    name: str | None = None,
    model: str | None = None,
    *,
    large_bytes: int = LARGE_BYTES,
) -> Summary | None:
    """Return the summary of large logs, or None if they are not for the engine, or it is not installed.

    Args:
        logs: The logs.
        by: See `Tally`.
        since: Calls that began then or later are wanted, in the form of rows; "" for all.
        until: Those that began before that; "~" for all.
        name: Those whose name matches.
        model: Those whose model matches.
        large_bytes: What is large. Parquet always is.
    """
    try:
        parquet = any(log.is_parquet() for log in logs)
        if not parquet and sum(log.path.stat().st_size for log in logs) < large_bytes:
            return None
    except OSError:
        return None
    duckdb = engine.available()
    if duckdb is None:
        return None
    try:
        sources = [_source(log) for log in logs]
        with engine.connected() as connection:
            return _Groups(connection, sources, (since, until), (name, model)).summary(by)
    except (_OddError, AimeterError, OSError, EOFError, duckdb.Error):
        return None


def _source(log: Log) -> str:
    """Return the rows of a log in SQL, each with the columns that are needed.

    Raises:
        _OddError: It is not for the engine.
    """
    if log.is_parquet():
        from aimeter.logs import parquet  # noqa: PLC0415 - few logs are

        types = parquet.types(log.path)
        return _select(types, parquet.source(log.path), typed=True)
    names = _csv_columns(log)
    kinds = {name: _kind(name) for name in names}
    if len(kinds) < len(names):
        raise _OddError
    listed = ", ".join(f"{engine.quoted(name)}: '{kind}'" for name, kind in kinds.items())
    rows = (
        f"read_csv({engine.file(log)}, columns={{{listed}}}, auto_detect=false, header=true, delim=',', quote='\"', "
        "escape='\"', strict_mode=true)"
    )
    return _select(kinds, rows, typed=False)


def _csv_columns(log: Log) -> list[str]:
    """Return the columns of a log that is plain CSV and ends with a line's end."""
    if not log.path.is_file() or log.begin:
        raise _OddError
    names = columns(log)
    with log.path.open("rb") as file:
        packed = not file.read(2).removeprefix(b"\xef").isascii()
        file.seek(-1, 2)
        if packed or file.read(1) != b"\n" or names is None:
            raise _OddError
    return names


def _kind(name: str) -> str:
    return "DOUBLE" if name in _NUMBERS else "BIGINT" if name in {"schema", "pid"} else "VARCHAR"


def _select(kinds: dict[str, str], rows: str, *, typed: bool) -> str:
    """Return a query of what is needed of rows, and of whether each is whole and usual."""

    def column(name: str) -> str:
        return f'"{name}"' if name in kinds else "NULL"

    def text(name: str) -> str:
        return f"COALESCE(CAST({column(name)} AS VARCHAR), '')"

    usual = [f"({column(name)} IS NULL OR {column(name)} BETWEEN {-ROUNDING} AND {MOST})" for name in AMOUNTS]
    usual += [f"({column(name)} IS NULL OR {column(name)} BETWEEN {-MOST} AND {MOST})" for name in _FIGURES]
    usual += [
        f"({column(name)} IS NOT NULL AND {column(name)} BETWEEN {-MOST} AND {MOST})" for name in _KNOWN
    ]
    usual += [
        f"{column('duration_s')} BETWEEN 0 AND {LONGEST_S}",
        f"{column('concurrency')} >= {LEAST_CONCURRENCY}",
        "schema IS NOT NULL",
        "pid IS NOT NULL",
        "start IS NOT NULL",
        f"{text('call_id')} <> ''",
        f"{text('aimeter_version')} <> ''",
        f"({text('meta')} = '' OR ({text('meta')}[1] = '{{' AND json_valid({text('meta')})))",
    ]
    begin_us = "epoch_us(start)"
    if not typed:
        begin_us = "epoch_us(TRY_CAST(start AS TIMESTAMP))"
        written = ", ".join(f'"{name}"' for name, kind in kinds.items() if kind == "VARCHAR")
        usual += [
            "regexp_full_match(start, '\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\d\\.\\d{6}Z')",
            f"({text('devices_j')} = '' OR TRY_CAST({text('devices_j')} AS DOUBLE[]) IS NOT NULL)",
            f"NOT contains({text('devices_j')}, 'n')",
            f"NOT contains(concat({written}), chr(10))",  # a quote that is open took lines that follow
        ]
    usual.append(f"{begin_us} / 1e6 + duration_s <= {LAST_S}")
    codes = ", ".join(
        f"CASE {text(name)} {' '.join(f'WHEN {engine.quoted(method)} THEN {code}' for method, code in _CODES.items())} "
        f"ELSE {_CODES[UNKNOWN]} END AS {name}"
        for name in ("gpu_method", "cpu_method", "dram_method")
    )
    counts = ", ".join(f"CAST({column(name)} AS DOUBLE) AS {name}" for name in COUNTS)
    figures = ", ".join(
        f"CAST({column(name)} AS DOUBLE) AS {name}"
        for name in ("energy_j", "error_j", "resolution_j", "self_j", "co2e_g")
    )
    return f"""SELECT hash(call_id) AS id, CASE WHEN {text("parent_id")} = '' THEN NULL ELSE hash(parent_id) END AS around,
        {text("name")} AS name, {text("model")} AS model, {text("status")} = 'error' AS failed, {begin_us} AS begin_us,
        duration_s, coverage, {figures}, {counts}, {column("other_j")} IS NOT NULL AS other, {codes},
        CASE WHEN {text("machine")} = '' THEN '{UNKNOWN}' ELSE {text("machine")} END AS machine, pid,
        regexp_extract(call_id, '^([0-9a-f]{{8}})[0-9a-f]{{8}}-[0-9]+$', 1) AS process, {text("devices")} <> '' AS metered,
        COALESCE({" AND ".join(usual)}, false) AS usual FROM {rows}"""  # noqa: S608 - of names that are quoted


_SUMS = ", ".join(
    (
        "count(*)",
        "count(*) FILTER (failed)",
        "count(energy_j)",
        "fsum(energy_j)",
        "fsum(self_j) FILTER (energy_j IS NOT NULL)",
        "fsum(COALESCE(resolution_j, 0) ** 2) FILTER (energy_j IS NOT NULL AND error_j IS NOT NULL)",
        # as `calibration_of` does
        "fsum(sqrt(greatest(error_j ** 2 - COALESCE(resolution_j, 0) ** 2, 0))) FILTER (energy_j IS NOT NULL)",
        "count(*) FILTER (energy_j IS NOT NULL AND error_j IS NULL)",
        "fsum(co2e_g)",
        "fsum(duration_s)",
        "min(coverage)",
        "bit_or(gpu_method)",
        "bit_or(cpu_method)",
        "bit_or(dram_method)",
        "bool_or(other)",
        "min(begin_us / 1e6) FILTER (energy_j IS NOT NULL)",
        "max(begin_us / 1e6 + duration_s) FILTER (energy_j IS NOT NULL)",
        *(f"fsum({unit}) FILTER (energy_j IS NOT NULL)" for unit in COUNTS),
        *(f"fsum(energy_j) FILTER ({unit} IS NOT NULL)" for unit in COUNTS),
    )
)


class _Groups:
    """The rows of some logs, each with its place: the hash of the place around it and of its name and model; 0 is none."""

    def __init__(
        self,
        connection: Any,  # noqa: ANN401 - the engine has no types
        sources: Sequence[str],
        times: tuple[str, str],
        patterns: tuple[str | None, str | None],
    ) -> None:
        self._engine = connection
        place = connection.execute("SELECT current_setting('temp_directory')").fetchall()[0][0]
        connection.execute("SET preserve_insertion_order = false")
        # In a file the engine packs columns, to a tenth of what they take in memory.
        connection.execute(f"ATTACH {engine.quoted(str(Path(place) / 'rows.db'))} AS kept")
        connection.execute(f"CREATE TABLE kept.rows AS {' UNION ALL '.join(sources)}")
        self._check()
        self._name(times, patterns)
        self._place()

    def _one(self, query: str) -> Any:  # noqa: ANN401 - likewise
        return self._engine.execute(query).fetchall()[0]

    def _check(self) -> None:
        """Look whether rows one by one are needed.

        Raises:
            _OddError: They are.
        """
        rows, calls, usual = self._one(
            "SELECT count(*), count(DISTINCT id), COALESCE(bool_and(usual), true) FROM kept.rows"
        )
        ranges = self._engine.execute(
            """SELECT machine, pid, process, min(begin_us / 1e6), max(begin_us / 1e6 + duration_s)
                FROM kept.rows WHERE metered GROUP BY ALL"""
        ).fetchall()
        divided, self._undivided = overlap({tuple(key): (begin, end) for *key, begin, end in ranges})
        if rows != calls or not usual or divided:
            raise _OddError

    def _name(self, times: tuple[str, str], patterns: tuple[str | None, str | None]) -> None:
        """Give names and models numbers, and note which are wanted."""
        found = self._engine.execute("SELECT DISTINCT name, model FROM kept.rows").fetchmany(MOST_NAMES + 1)
        if len(found) > MOST_NAMES:
            raise _OddError
        self._keys = [(unguarded(name), unguarded(model)) for name, model in found]
        self._engine.execute("CREATE TABLE keys (key BIGINT, name VARCHAR, model VARCHAR, asked BOOLEAN)")
        asked = [
            all(
                wanted is None or fnmatchcase(text, wanted)
                for text, wanted in zip(key, patterns, strict=True)
            )
            for key in self._keys
        ]
        for number, (written, its) in enumerate(zip(found, asked, strict=True)):
            self._engine.execute("INSERT INTO keys VALUES (?, ?, ?, ?)", [number, *written, its])
        since, until = times
        conditions = ["asked"]
        if since:
            conditions.append(f"begin_us >= {_us(since)}")
        if until != "~":
            conditions.append(f"begin_us < {_us(until)}")
        self._engine.execute(
            f"CREATE VIEW calls AS SELECT rows.*, key, {' AND '.join(conditions)} AS wanted "  # noqa: S608 - of numbers
            "FROM kept.rows JOIN keys USING (name, model)"
        )

    def _place(self) -> None:
        """Find the place of each call that has others inside."""
        # With a text of its own, as the hash of zeros is zero, which is the place of what nothing encloses.
        self._engine.execute("CREATE MACRO within(place, key) AS hash(place, key, 'place')")
        self._engine.execute(
            """CREATE TABLE outer_calls AS SELECT id, around, key, wanted FROM calls
                WHERE id IN (SELECT DISTINCT around FROM kept.rows WHERE around IS NOT NULL)"""
        )
        self._engine.execute(
            f"""CREATE TABLE placed AS WITH RECURSIVE found(id, place, level) AS (
                SELECT id, CASE WHEN wanted THEN within(0::UBIGINT, key) ELSE 0::UBIGINT END, 1 FROM outer_calls
                    WHERE around IS NULL OR around NOT IN (SELECT id FROM outer_calls)
                UNION ALL
                SELECT one.id, CASE WHEN wanted THEN within(place, key) ELSE place END, level + 1
                    FROM outer_calls AS one JOIN found ON one.around = found.id WHERE level < {DEEPEST}
                ) SELECT id, place FROM found"""  # noqa: S608 - a number
        )
        if self._one("SELECT (SELECT count(*) FROM placed) <> (SELECT count(*) FROM outer_calls)")[0]:
            raise _OddError  # too deep, or one says that it is inside itself
        self._engine.execute(
            """CREATE VIEW wanted AS SELECT calls.*, COALESCE(place, 0::UBIGINT) AS home
                FROM calls LEFT JOIN placed ON calls.around = placed.id WHERE wanted"""
        )

    def summary(self, by: By) -> Summary:
        """Return the summary."""
        found = self._engine.execute(
            f"SELECT home, key, within(home, key), {_SUMS} FROM wanted GROUP BY home, key"  # noqa: S608 - constants
        ).fetchall()
        if len(found) > MOST_NAMES:
            raise _OddError
        found.sort(key=lambda group: group[:2])  # what nothing encloses first: it is what the total is of
        sums = {
            (home, key): _sums(figures, timed=number < MOST_TIMED)
            for number, (home, key, _, *figures) in enumerate(found)
        }
        self._over_time(sums)
        roots: Branches = {}
        homes: dict[int, tuple[Branches, int]] = {0: (roots, 0)}
        left = [(home, key, place) for home, key, place, *_ in found]
        while left:
            later = []
            for home, key, place in left:
                if home not in homes:
                    later.append((home, key, place))
                    continue
                branches, level = homes[home]
                branch = branches.get(self._keys[key])
                if branch is None:
                    branch = branches[self._keys[key]] = Branch(level, sums[home, key])
                else:
                    branch.sums.merge(sums[home, key])
                homes[place] = branch.parts, level + 1
            if len(later) == len(left):
                raise _OddError
            left = later
        return replace(summed(roots, {}, by, over_time=True), undivided=self._undivided)

    def _over_time(self, sums: dict[tuple[int, int], Sums]) -> None:
        """Note when the energy was used."""
        self._engine.execute("CREATE TABLE widths (home UBIGINT, key BIGINT, width DOUBLE)")
        for place, one in sums.items():
            if one.over_time is not None:
                self._engine.execute("INSERT INTO widths VALUES (?, ?, ?)", [*place, one.over_time.width_s])
        found = self._engine.execute(
            """WITH used AS (
                SELECT home, key, width, energy_j, begin_us / 1e6 AS begin_s, begin_us / 1e6 + duration_s AS end_s
                FROM wanted JOIN widths USING (home, key) WHERE energy_j IS NOT NULL
            ), each_bin AS (
                SELECT *, unnest(range(CAST(floor(begin_s / width) AS BIGINT), CAST(floor(end_s / width) AS BIGINT) + 1)) AS bin
                FROM used
            )
            SELECT home, key, bin, fsum(energy_j * CASE WHEN end_s > begin_s
                THEN greatest(least(end_s, (bin + 1) * width) - greatest(begin_s, bin * width), 0) / (end_s - begin_s)
                ELSE 1 END) FROM each_bin GROUP BY home, key, bin"""
        ).fetchall()
        for home, key, number, joules in found:
            bins = sums[home, key].over_time
            if bins is not None:
                bins.put(number, {JOULES: joules})


def _us(moment: str) -> int:
    """Return a time in the form of rows in microseconds since 1970."""
    since = datetime.fromisoformat(moment) - datetime.fromisoformat("1970-01-01T00:00:00Z")
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def _sums(figures: Sequence[Any], *, timed: bool) -> Sums:
    """Return the sums of a group."""
    calls, errors, known, energy_j, self_j, resolution_j2, calibration_j, unbounded, *others = figures
    co2e_g, duration_s, coverage, gpu, cpu, dram, other, begin_s, end_s, *counts = others
    found = Sums.timed() if timed else Sums()
    found.calls, found.errors, found.known = calls, errors, known
    found.energy_j, found.self_j = energy_j or 0.0, self_j or 0.0
    found.resolution_j2, found.calibration_j = resolution_j2 or 0.0, calibration_j or 0.0
    found.all_bounded = not unbounded
    found.co2e_g, found.duration_s, found.coverage = co2e_g, duration_s, min(1.0, coverage)
    found.gpu, found.cpu, found.dram = (frozenset(_methods(code)) for code in (gpu, cpu, dram))
    found.other = other
    for unit, count, joules in zip(COUNTS, counts[: len(COUNTS)], counts[len(COUNTS) :], strict=True):
        if count is not None:
            found.units[unit], found.unit_energy_j[unit] = count, joules
    if found.over_time is not None and begin_s is not None:
        found.over_time.reach(begin_s, end_s)
    return found


def _methods(code: int) -> Iterator[str]:
    return (method for method, bit in _CODES.items() if code & bit)
