"""The changes that are put to the tests: seeded, one at a time, never in the tree, and what is set aside is named."""

from __future__ import annotations

import tomllib

import pytest

from benchmarks.mutation.page import Score, table
from benchmarks.mutation.parts import ELSEWHERE, PARTS, ROOT, modules, near_tests

EQUIVALENTS = ROOT / "benchmarks" / "mutation" / "equivalents.toml"

SOURCE = """
from __future__ import annotations
LIMIT_W: float | None = 5.0
def share_w(one_w: float | None, other_w: float) -> float:
    if one_w > LIMIT_W and other_w > 0:
        return one_w - other_w
    return 0.0
"""


def sampled(seed, source=SOURCE, lines=None):
    pytest.importorskip("cosmic_ray")
    from benchmarks.mutation.mutants import sample

    return list(sample("aimeter/made.py", seed, lines, source))


def test_each_part_has_modules_and_tests():
    """What a part names is there, in one part only, and so are the tests that are asked."""
    named = [name for part in PARTS for name in modules(part)]
    assert len(named) == len(set(named))
    for path in [*named, *(test for name in named for test in near_tests(name)), *ELSEWHERE]:
        assert (ROOT / path).exists(), path


def test_equivalents_are_changes_of_lines_that_stand_there():
    """Whoever changes such a line looks at its equivalents anew."""
    for one in tomllib.loads(EQUIVALENTS.read_text("utf-8")).get("equivalent", []):
        lines = [line.strip() for line in (ROOT / one["module"]).read_text("utf-8").splitlines()]
        assert all(line in lines for line in one["before"].split("\n")), one
        assert one["before"] != one["after"]
        assert len(one["why"].split()) > 3, one


def test_a_sample_is_that_of_its_seed():
    assert sampled(1) == sampled(1)
    assert {one.name for one in sampled(1)} == {one.name for one in sampled(2)}
    assert sampled(1) != sampled(2)


def test_a_change_is_one_of_a_value():
    """Each differs from the source in one line, says in which function, and none is of an annotation alone."""
    found = sampled(1)
    assert {one.line for one in found} == {3, 5, 6, 7}
    for one in found:
        lines = zip(SOURCE.splitlines(), one.text.splitlines(), strict=True)
        assert [(before.strip(), after.strip()) for before, after in lines if before != after] == [
            (one.before, one.after)
        ]
        assert one.function == ("" if one.line == 3 else "share_w")
        assert "float | None" in one.after or one.line != 3


def test_a_protocol_is_no_place_for_a_change():
    """What only says how a thing looks does nothing that a test could notice."""
    said = """
class Meter(Protocol):
    most_w: float = 5.0
    @property
    def watts(self) -> float: ...
"""
    assert sampled(1, said) == []
    assert sampled(1, said.replace("(Protocol)", ""))


def test_each_place_comes_once_before_any_comes_twice():
    """The source has a constant, a condition, two comparisons with a number and an `and` in it, a minus, a constant."""
    found = sampled(1)
    assert sorted(one.line for one in found[:8]) == [3, 5, 5, 5, 5, 5, 6, 7]
    assert len({one.name for one in found}) == len(found) > 8


def test_an_edit_elsewhere_leaves_the_sample_as_it_is():
    """A line more at the top moves the others, and the same changes come in the same order."""
    longer = SOURCE.replace("from __future__", "# A comment.\n\nfrom __future__")
    assert [one.name for one in sampled(3, longer)] == [one.name for one in sampled(3)]


def test_lines_can_be_chosen():
    assert {one.line for one in sampled(1, lines={6})} == {6}


def test_the_table_leaves_equivalents_out_of_the_score():
    """9 of 10 that could be noticed are 90 %; the worst part comes first, the sum last."""
    lines = table([Score("good", 12, 2, 9), Score("bad", 10, 0, 5)]).splitlines()
    assert lines[2:] == [
        "| bad | 10 | 0 | 5 | 50 |",
        "| good | 12 | 2 | 9 | 90 |",
        "| all | 22 | 2 | 14 | 70 |",
    ]
