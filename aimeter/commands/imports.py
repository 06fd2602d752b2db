"""Names and options of ``aimeter import``."""

# ruff: noqa: PLC0415 - commands import what they need, so that --help is quick

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aimeter.commands.shell import Command, Group, complain, say

if TYPE_CHECKING:
    from aimeter.commands.convert import Converted

group = typer.Typer(cls=Group, help="Take over the logs of other meters.", no_args_is_help=True)


@group.callback()
def _imports() -> None:
    pass


@group.command(cls=Command)
def codecarbon(
    sources: Annotated[list[Path], typer.Argument(metavar="FILE", help="emissions.csv, or a file of tasks.")],
    *,
    log: Annotated[Path, typer.Option("--log", metavar="FILE", help="The log to write, a new one.")],
) -> None:
    """Write CodeCarbon's files as a log, and say what they lack."""
    from aimeter.commands import convert
    from aimeter.logs.codecarbon import LACKS

    done = convert.from_codecarbon(sources, log)
    written(log, done)
    say(f"These rows lack {'; '.join(LACKS)}.")
    if done.zoneless:
        say(
            "Their times have no zone and are taken for UTC: where the machine kept another, they are off by its offset."
        )


def written(path: Path, done: Converted) -> None:
    """Say what was written where, and which lines were no rows."""
    say(f"{done.rows:,} row{'' if done.rows == 1 else 's'} in {path}")
    if done.known:
        say(
            f"{done.known:,} more {'is' if done.known == 1 else 'are'} there already and {'was' if done.known == 1 else 'were'} not written again."
        )
    for problem in done.problems:
        complain(f"skipped {problem}", style="yellow")
