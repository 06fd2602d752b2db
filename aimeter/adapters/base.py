"""What an adapter is: what it can attach, and which methods of its framework it meters.

An adapter is data. It names classes and methods of a framework by text, so that describing them imports nothing,
and for each of them a handler, which is what runs in place of the method.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

Original = Callable[..., Any]
"""A method as it was before it was hooked. It takes the object first, as a function of the class."""

Args = tuple[Any, ...]
"""What a method was given by position, without the object."""

Kwargs = dict[str, Any]
"""What a method was given by name."""

Handler = Callable[[Original, Any, Args, Kwargs], Any]
"""What runs in a method's place as ``handler(original, self, args, kwargs)``.

It calls ``original(self, *args, **kwargs)`` and returns what that returns.

It runs for every object of the class, metered or not; `aimeter.adapters.scope.begin` tells which. It must let the
caller's arguments, result and exceptions through untouched, and keep no reference to any of them.
"""


class Hook(NamedTuple):
    """One method that an adapter meters, or listens to.

    Attributes:
        module: Module that defines the class; it is never imported for the hook's sake.
        owner: Name of the class.
        method: Name of the method; a plain function of the class.
        handler: What runs in its place.
        family: Also hook each subclass, present or defined later, that defines the method anew.
        attachable: Objects of the class can be given to `aimeter.attach`.
        narrow: Hook only the very class of an attached object, and nothing for `aimeter.instrument`: the class is
            the base of so much that a hook on it would slow down everything.
    """

    module: str
    owner: str
    method: str
    handler: Handler
    family: bool = False
    attachable: bool = True
    narrow: bool = False


class Adapter(NamedTuple):
    """All that aimeter has to know of one framework.

    Attributes:
        what: What can be attached, in the words of an error message: ``diffusers pipelines``.
        hooks: The methods that it meters.
    """

    what: str
    hooks: tuple[Hook, ...]
