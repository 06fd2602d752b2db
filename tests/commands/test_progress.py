"""Long reads show how far they are, to whoever sits at a terminal and to nobody else."""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import pytest

from aimeter.commands.progress import LEAST_BYTES, Way
from aimeter.logs.encode import CSV_HEADER, csv_line
from aimeter.logs.read import Log, read
from tests import programs
from tests.records import make_record


def written(path: Path, rows: int) -> Path:
    line = csv_line(make_record())
    path.write_bytes(CSV_HEADER + line * rows)
    return path


@pytest.mark.parametrize("packed", [False, True])
def test_it_is_told_how_far_a_file_has_been_read(tmp_path: Path, packed: bool):
    """Up to its very end, packed or not."""
    path = written(tmp_path / "calls.csv", 5000)
    if packed:
        plain, path = path.read_bytes(), tmp_path / "calls.csv.gz"
        path.write_bytes(gzip.compress(plain))
    seen: list[int] = []
    log = Log(path)
    log.seen = seen.append
    assert sum(1 for _ in read([log])) == 5000
    assert max(seen) == path.stat().st_size


def test_logs_that_are_read_again_begin_anew():
    """The bar runs once for each time that logs are read, as the second time takes as long as the first."""
    way = Way(2)
    once = [(0, 50), (0, 100), (1, 30), (1, 60)]
    assert [way.come(*step) for step in (*once, *once)] == [50, 100, 130, 160] * 2


def test_a_terminal_sees_how_long_it_will_take(tmp_path: Path):
    """With a bar, megabytes and the time left; the table follows, and says as much as without."""
    rows = 2 * LEAST_BYTES // len(csv_line(make_record()))
    log = written(tmp_path / "calls.csv", rows)
    line = [sys.executable, "-m", "aimeter", "report", str(log)]
    status, said = programs.in_terminal(line, environ=programs.environment(), columns=100)
    assert status == 0
    assert "Reading" in said
    assert "/" in said[said.index("Reading") :]
    assert f"{rows:,}" in said
