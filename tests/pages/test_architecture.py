"""The page on the architecture shows the code as it is; ``python docs/architecture.py`` renews it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
SPEC = importlib.util.spec_from_file_location("architecture", DOCS / "architecture.py")
architecture = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(architecture)


def test_the_picture_is_what_the_code_gives():
    """Drawing it anew from the imports changes nothing."""
    assert architecture.PICTURE.read_text("utf-8") == architecture.drawn()


def test_the_table_is_what_the_code_gives():
    """Every package and module of the root has a line, and says itself what it is."""
    text = architecture.PAGE.read_text("utf-8")
    assert architecture.filled(text) == text
    names = [name for layer in architecture.layers() for name in layer]
    root = architecture.ROOT / "aimeter"
    there = {path.stem for path in root.glob("*.py")} | {
        path.parent.name for path in root.glob("*/__init__.py")
    }
    assert there - {"__init__"} == set(names)
    assert all(architecture.about(name).strip() for name in names)


def test_arrows_that_follow_from_others_are_left_out():
    """Of three that import each other in a row, the first has no arrow to the last."""
    found = {"a": {"b": {"x"}, "c": {"y"}}, "b": {"c": {"y"}}, "c": {}, "errors": {}}
    assert architecture.reduced(found) == {"a": ["b"], "b": ["c"], "c": []}


def test_a_step_that_no_code_takes_is_refused(monkeypatch):
    """Data that goes nowhere in the code is not drawn."""
    monkeypatch.setattr(architecture, "JOINING", (architecture.Step("carbon", "sensors", "Reading"),))
    with pytest.raises(ValueError, match="no Reading goes from carbon to sensors"):
        architecture.drawn()
