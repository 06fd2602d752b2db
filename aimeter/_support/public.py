"""What is exported says `aimeter` as its module: where users import it from, whichever file it is written in."""

from __future__ import annotations

from typing import Any, TypeVar, get_type_hints

T = TypeVar("T")


def public(thing: T) -> T:
    """Return an exported function or class with `aimeter` for its module.

    The types of a dataclass's or a named tuple's fields are evaluated before that, as `typing.get_type_hints` looks
    their names up in the class's module. Other classes may as well set ``__module__`` in their body.
    """
    exported: Any = thing
    if hasattr(exported, "__match_args__"):  # which tells by name what its fields are
        exported.__annotations__ = get_type_hints(exported)
    exported.__module__ = "aimeter"
    return thing
