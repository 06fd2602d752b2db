"""The command line: names and options. What a command does is in `aimeter.commands`, loaded when it runs."""

# ruff: noqa: PLC0415 - commands import what they need, so that --help is quick

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aimeter._version import __version__
from aimeter.errors import AimeterError

if TYPE_CHECKING:
    from rich.console import Console

BAD_SETTINGS = 2
"""Exit status for a bad option, setting or log; a shell's own convention for misuse."""

app = typer.Typer(
    name="aimeter",
    help="Meter the energy of model calls: joules, grams of CO2e and their error.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

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
PueOption = Annotated[
    float | None, typer.Option("--pue", metavar="X", help="Power usage effectiveness to multiply grams by.")
]


def main() -> None:
    """Run the command line; the entry point of ``aimeter`` and ``python -m aimeter``."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # "±" where the terminal's encoding has none
    logging.getLogger("aimeter").addHandler(_Warnings())
    try:
        app(prog_name="aimeter")
    except AimeterError as error:
        _complain(str(error))
        sys.exit(BAD_SETTINGS)
    except OSError as error:
        _complain(f"its output cannot be written: {error.strerror or error}.")
        sys.exit(1)


def _version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it with the flag's value
    if wanted:
        _print(f"aimeter {__version__}")
        raise typer.Exit


@app.callback()
def _aimeter(
    *,
    version: Annotated[
        bool,
        typer.Option("--version", metavar="", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    pass


@app.command()
def doctor(
    *,
    region: RegionOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Say what can be metered here, how well, and what would mend the rest.

    Exit status: 0 if every device found is metered;
    1 if one is only estimated, broken or not accessible;
    2 if nothing is metered or a setting is bad.
    """
    from aimeter.commands.doctor import examine
    from aimeter.commands.show import show

    diagnosis = examine(_given(region=region), _progress)
    if as_json:
        _print_json(asdict(diagnosis))
    else:
        show(diagnosis, _console())
    raise typer.Exit(diagnosis.exit_status)


@app.command()
def calibrate(
    *,
    seconds: Annotated[
        float,
        typer.Option("--seconds", metavar="N", min=5, max=3600, help="Watch the devices for N seconds."),
    ] = 10.0,
    as_json: JsonFlag = False,
) -> None:
    """Measure what the devices draw at rest, and keep it for this machine.

    Let nothing else run meanwhile.

    Exit status: 0 if every meter was calibrated; 1 if only some were;
    2 if none was, a setting is bad or the result cannot be stored.
    """
    from aimeter.commands import calibrate as calibrating

    outcomes = calibrating.calibrate(seconds, {}, _progress)
    if as_json:
        _print_json(asdict(outcomes))
    else:
        calibrating.show(outcomes, _console())
    raise typer.Exit(outcomes.exit_status)


@app.command(context_settings={"allow_interspersed_args": False}, options_metavar="[OPTIONS] --")
def run(
    command: Annotated[list[str], typer.Argument(metavar="COMMAND", help="The command and its arguments.")],
    *,
    log: LogOption = None,
    name: Annotated[
        str | None, typer.Option("--name", metavar="N", help="Name of the call; by default the command's.")
    ] = None,
    region: RegionOption = None,
    pue: PueOption = None,
    instrument: Annotated[
        bool,
        typer.Option("--instrument", metavar="", help="Meter each model call of a Python command instead."),
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", metavar="", help="Print nothing about the run.")
    ] = False,
) -> None:
    """Meter a whole command as one call.

    Its streams and signals pass through.

    Exit status: the command's own; 128 + n if signal n killed it;
    127 if it is not found; 126 if it cannot be executed;
    2 if an option of aimeter is bad, and then nothing was run.
    """
    from aimeter.commands import run as running

    if quiet:
        logging.getLogger("aimeter").setLevel(logging.ERROR)
    try:
        status = running.run(
            command,
            name=name,
            quiet=quiet,
            settings=_given(log=log, region=region, pue=pue),
            instrument=instrument,
        )
    except running.CannotRunError as error:
        _complain(str(error))
        raise typer.Exit(error.status) from None
    running.end_like(status)


@app.command()
def report(
    logs: Annotated[
        list[str] | None,
        typer.Argument(metavar="LOG", help="Logs or patterns; by default the log of the settings."),
    ] = None,
    *,
    as_json: JsonFlag = False,
) -> None:
    """Add up logs by name: calls, errors, joules with their error, grams, seconds, how they were measured."""
    from aimeter.commands import report as reporting

    summary, problems = reporting.add_up(logs or [])
    if as_json:
        _print_json(reporting.as_json(summary, problems))
        return
    console = _console()
    if console.is_terminal:
        console.print(summary)
    else:
        _print(str(summary))  # at its natural width
    for problem in problems:
        _complain(f"skipped {problem}", style="yellow")


@app.command()
def demo(
    *,
    log: Annotated[Path, typer.Option("--log", metavar="FILE", help="Append the rows to FILE.")] = Path(
        "calls.csv"
    ),
    region: RegionOption = None,
) -> None:
    """Run two small real models, metered call by call, and show what each call took."""
    from aimeter import demo as demonstration

    raise typer.Exit(demonstration.run(log, region=region, console=_console()))


class _Warnings(logging.Handler):
    """Prints the library's warnings, except where a grid is assumed: every command shows the one it uses."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.addFilter(lambda record: record.module != "offline")

    def emit(self, record: logging.LogRecord) -> None:
        _complain(record.getMessage(), style="yellow")


def _complain(message: str, style: str = "red") -> None:
    if sys.stderr is None:
        return
    from rich.text import Text

    _console(stderr=True).print(Text(f"aimeter: {message}", style=style), soft_wrap=True)


def _console(*, stderr: bool = False) -> Console:
    from rich.console import Console

    return Console(stderr=stderr, highlight=False)


def _given(**options: object) -> dict[str, object]:
    """Return the options that were given, as settings."""
    return {key: value for key, value in options.items() if value is not None}


def _print_json(value: dict[str, Any]) -> None:
    _print(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def _print(text: str) -> None:
    # Flushed here, because what fails at the interpreter's exit cannot be told in one line.
    print(text, flush=True)  # noqa: T201 - the command line's own output


def _progress(steps: Sequence[int]) -> Iterable[int]:
    from rich.progress import track

    console = _console(stderr=True)
    return track(
        steps, "Reading the meters", console=console, transient=True, disable=not console.is_terminal
    )
