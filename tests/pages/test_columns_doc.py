"""The reference of the columns describes the columns there are."""

from __future__ import annotations

import re
from pathlib import Path

from aimeter.record import COLUMNS, SCHEMA

REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "columns.md"


def test_each_column_is_described_once_and_in_order():
    """Every column of the schema has its row in the reference, in the order of the file, and no other has."""
    described = re.findall(r"^\| `(\w+)` \| \S.* \| \S.* \|$", REFERENCE.read_text("utf-8"), re.MULTILINE)
    assert tuple(described) == COLUMNS


def test_the_layout_has_the_number_that_is_written():
    """The page says which."""
    assert f"Version of this layout: {SCHEMA}." in REFERENCE.read_text("utf-8")
