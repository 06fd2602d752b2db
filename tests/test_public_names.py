"""Every public name says `aimeter` as its module, and stands in `__all__`, the stubs and the reference alike."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import pickle
import re
import typing
from pathlib import Path

import pytest

import aimeter

ROOT = Path(__file__).parents[1]
NAMES = [name for name in aimeter.__all__ if name != "__version__"]
RECORDS = ["Drift", "Measurement", "Record"]
"""Those whose fields have types."""


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_is_of_aimeter(name):
    """Its module is the one that it is imported from, and pickles name that."""
    thing = getattr(aimeter, name)
    assert thing.__module__ == "aimeter"
    assert thing.__qualname__ == name
    assert pickle.loads(pickle.dumps(thing)) is thing
    assert b"aimeter\n" + name.encode() + b"\n" in pickle.dumps(thing, protocol=0)


@pytest.mark.parametrize("name", RECORDS)
def test_the_types_of_fields_can_be_asked_for(name):
    """Fields and arguments of a record have the types that its own module means."""
    record = getattr(aimeter, name)
    fields = getattr(record, "_fields", None) or [field.name for field in dataclasses.fields(record)]
    hints = typing.get_type_hints(record)
    assert list(hints) == list(fields)
    assert not any(isinstance(hint, str | typing.ForwardRef) for hint in hints.values())
    assert list(inspect.signature(record, eval_str=True).parameters) == list(fields)


def test_records_are_pickled_by_their_public_name():
    """What is pickled today can be read after the class has moved to another file."""
    drift = aimeter.Drift(0.1, 0.2)
    measured = aimeter.Measurement(
        "x", 1.0, 0.1, (0.9, 1.1), 0.1, 0.0, None, 1.0, 1, 1, 0.05, True, drift, 1.0, {"gpu": "counter"}
    )
    assert dataclasses.replace(measured, name="y").name == "y"
    for value in (drift, measured, aimeter.UnknownRegionError("XX")):
        text = pickle.dumps(value)
        assert b"aimeter._" not in text
        assert type(pickle.loads(text)) is type(value)
    assert pickle.loads(pickle.dumps(measured)) == measured


def test_the_stubs_are_the_public_names():
    """What type checkers are told is what is there, from where it is."""
    tree = ast.parse((ROOT / "aimeter" / "__init__.py").read_text("utf-8"))
    told, eager = {}, set()
    for node in tree.body:
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            for line in node.body:
                module = "." * line.level + line.module
                told |= {alias.name: importlib.import_module(module, "aimeter") for alias in line.names}
        elif isinstance(node, ast.ImportFrom) and node.module != "__future__":
            eager |= {alias.name for alias in node.names}
    assert set(told) == set(aimeter.__all__) - eager
    for name, module in told.items():
        assert getattr(module, name) is getattr(aimeter, name)


def test_names_are_sorted_and_listed():
    """`__all__` is in order, without doubles, and what `dir()` gives."""
    assert sorted(set(aimeter.__all__)) == aimeter.__all__ == dir(aimeter)


def test_the_reference_has_each_public_name():
    """The reference documents every name once, under the path that it is imported from."""
    text = (ROOT / "docs" / "reference" / "api.md").read_text("utf-8")
    documented = re.findall(r"^\.\. auto\w+:: aimeter\.(\w+)$", text, re.MULTILINE)
    assert sorted(documented) == NAMES


def test_no_page_has_a_private_path():
    """What the docs document can be imported without an underscore."""
    for page in (ROOT / "docs").rglob("*.md"):
        for path in re.findall(r"^\.\. auto\w+:: (\S+)", page.read_text("utf-8"), re.MULTILINE):
            module, _, name = path.rpartition(".")
            assert "._" not in path, f"{page.name} documents {path}"
            assert hasattr(importlib.import_module(module), name), f"{page.name} documents {path}"
