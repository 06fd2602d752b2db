"""A row says in one line or a table what it knows, and what it does not know only where there is something to know."""

from __future__ import annotations

import re

import pytest

from aimeter.record import COLUMNS, SCHEMA
from tests.records import make_record

USUAL = "image-gen: 12.5 ± 1.3 J (GPU by counter, CPU by estimate), 1.65 ± 0.17 mg CO2e, 250 ms, images 4"


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, USUAL),
        ({"coverage": 0.5}, f"{USUAL}, 50% covered"),
        ({"coverage": 0.0}, f"{USUAL}, 0% covered"),
        ({"status": "error", "error_type": "ValueError"}, f"{USUAL}, error ValueError"),
        ({"status": "cancelled"}, f"{USUAL}, cancelled"),
        ({"images": None}, USUAL.removesuffix(", images 4")),
        ({"co2e_g": 1.2e7, "co2e_error_g": None}, USUAL.replace("1.65 ± 0.17 mg", "12000 kg")),
        ({"co2e_g": None, "co2e_error_g": None}, USUAL.replace(" 1.65 ± 0.17 mg CO2e,", "")),
    ],
)
def test_a_row_in_one_line(changes, line):
    """Coverage is told where it is not whole, a status where it is not ok, and nothing of what is unknown."""
    assert repr(make_record(**changes)) == f"<{line}>"


def test_a_row_as_a_table():
    """Grams go up to kilograms, seconds have no prefix above them, and what is unknown has no line."""
    row = make_record(co2e_g=1.2e7, co2e_error_g=None, duration_s=7200.0, coverage=0.5, images=None)
    cells = re.findall(r"<th[^>]*>(.*?)</th><td[^>]*>(.*?)</td>", row._repr_html_())
    assert cells == [
        ("energy", "12.5 ± 1.3 J (GPU by counter, CPU by estimate)"),
        ("of which idle", "2.25 J"),
        ("GPU", "10.0 J (counter)"),
        ("CPU", "2.50 J (estimate)"),
        ("CO2e", "12000 kg"),
        ("intensity", "475 g/kWh (world)"),
        ("time", "7200 s"),
        ("covered", "50%"),
        ("status", "ok"),
    ]


def test_the_layout_has_the_number_that_readers_know():
    """Whoever changes the columns changes the number: logs say it in each row."""
    row = make_record(schema=SCHEMA)
    assert (row.schema, len(row), COLUMNS[-1]) == (3, 54, "machine")
    assert repr(row) == f"<{USUAL}>"
