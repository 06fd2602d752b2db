"""A row says in one line what it knows, and what it does not know only where there is something to know."""

from __future__ import annotations

import pytest

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
        ({"co2e_g": None, "co2e_error_g": None}, USUAL.replace(" 1.65 ± 0.17 mg CO2e,", "")),
    ],
)
def test_a_row_in_one_line(changes, line):
    """Coverage is told where it is not whole, a status where it is not ok, and nothing of what is unknown."""
    assert repr(make_record(**changes)) == f"<{line}>"
