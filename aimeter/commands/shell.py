"""How commands take options and print: what `aimeter.cli` and its groups have in common."""

# ruff: noqa: PLC0415 - commands import what they need, so that --help is quick

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from typer.core import TyperCommand, TyperGroup

from aimeter._support.log import assumptions
from aimeter.errors import ConfigurationError

if TYPE_CHECKING:
    from rich.console import Console

    from aimeter.commands.best import Best
    from aimeter.commands.compare import WhatIf
    from aimeter.commands.refill import Refill
    from aimeter.commands.region import Shown
    from aimeter.commands.sci import Score


def _without_types(params: list[Any]) -> list[Any]:
    """Leave Python's names of types out of the help: a flag takes nothing, and an argument's own name says what it is."""
    for param in params:
        if getattr(param, "is_flag", False) and not param.metavar:
            param.metavar = ""
        elif param.param_type_name == "argument":
            param.display_type_rich = lambda ctx: None  # noqa: ARG005 - as the library calls it
    return params


class Command(TyperCommand):
    """A command whose help speaks of what is given, not of types."""

    def get_params(self, ctx: Any) -> list[Any]:  # noqa: ANN401 - of another module in each version of typer
        """Return its options and arguments."""
        return _without_types(super().get_params(ctx))


_UsageError = cast("type[Exception]", typer.BadParameter.__mro__[1])
"""Of a module that differs between versions of typer."""


@contextmanager
def _in_one_line() -> Iterator[None]:
    """Have what is wrong with options told as all else is that is wrong: in a line that says what to do."""
    try:
        yield
    except _UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            raise
        told: Any = error  # its class is known by its name only
        where = told.ctx.command_path if told.ctx else "aimeter"
        message = " ".join(f"{told.format_message().rstrip('.')}. See {where} --help.".split())
        raise ConfigurationError(message.replace("?.", "?")) from error


class Group(TyperGroup):
    """Commands, likewise."""

    def make_context(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - of another module in each version of typer
        """Take its own options."""
        with _in_one_line():
            return super().make_context(*args, **options)

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401 - likewise
        """Take a command's options, and run it."""
        with _in_one_line():
            return super().invoke(ctx)

    def get_params(self, ctx: Any) -> list[Any]:  # noqa: ANN401 - of another module in each version of typer
        """Return its options and arguments."""
        return _without_types(super().get_params(ctx))


LogOption = Annotated[
    Path | None, typer.Option("--log", metavar="FILE", help="Append the rows to FILE, CSV or .jsonl.")
]
RegionOption = Annotated[
    str | None,
    typer.Option(
        "--region", metavar="R", help="Where the electricity comes from: FR, US-VA, aws:us-east-1 …"
    ),
]
JsonFlag = Annotated[bool, typer.Option("--json", metavar="", help="Print one JSON document instead.")]
ProviderOption = Annotated[
    str | None,
    typer.Option("--provider", metavar="P", help="Whom to ask: gb, rte, electricitymaps …, or a CSV file."),
]
ZoneOption = Annotated[
    str | None, typer.Option("--zone", metavar="Z", help="The zone as the provider names it.")
]
LogsArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="LOG", help="Logs or patterns; by default the log of the settings."),
]
PueOption = Annotated[
    float | None, typer.Option("--pue", metavar="X", help="Power usage effectiveness to multiply grams by.")
]


def beginning(*words: str) -> Callable[[str], list[str]]:
    """Return what completes a word in a shell."""
    return lambda incomplete: [word for word in words if word.startswith(incomplete)]


def given(**options: object) -> dict[str, object]:
    """Return the options that were given, as settings."""
    return {key: value for key, value in options.items() if value is not None}


class Warnings(logging.Handler):
    """Prints the library's warnings, except where a grid is assumed: every command shows the one it uses."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.addFilter(lambda record: record.name != assumptions.name)

    def emit(self, record: logging.LogRecord) -> None:
        """Print it."""
        complain(record.getMessage(), style="yellow")


def complain(message: str, style: str = "red") -> None:
    """Print a line on standard error, in colour on a terminal."""
    if sys.stderr is None:
        return
    from rich.text import Text

    from aimeter._support.units import printable

    console(stderr=True).print(Text(printable(f"aimeter: {message}"), style=style), soft_wrap=True)


def console(*, stderr: bool = False) -> Console:
    """Return rich's view of the terminal."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False)


def show_result(result: WhatIf | Shown | Best | Refill | Score, *, as_json: bool) -> None:
    """Print what a command found, in words or as one JSON document."""
    from aimeter._support.units import printable
    from aimeter.commands.carbon_text import lines

    if as_json:
        print_json(asdict(result))
        return
    for line in lines(result):
        say(printable(line))


def print_json(value: dict[str, Any]) -> None:
    """Print one JSON document."""
    from aimeter._support.units import finite

    # ASCII, as any other character may steer a terminal; and so may DEL, which is in it.
    text = json.dumps(finite(value), indent=2, allow_nan=False, default=str)
    say(text.replace("\x7f", "\\u007f"))


def say(text: str) -> None:
    """Print a line of the command's own output."""
    # Flushed here, because what fails at the interpreter's exit cannot be told in one line.
    print(text, flush=True)  # noqa: T201 - the command line's own output


def progress(steps: Sequence[int]) -> Iterable[int]:
    """Yield steps, showing how far they are if somebody watches."""
    from rich.progress import track

    terminal = console(stderr=True)
    return track(
        steps, "Reading the meters", console=terminal, transient=True, disable=not terminal.is_terminal
    )
