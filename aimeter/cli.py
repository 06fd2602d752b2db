"""The command line: names and options. What a command does is in `aimeter.commands`, loaded when it runs."""

# ruff: noqa: PLC0415 - commands import what they need, so that --help is quick

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from aimeter._support.log import assumptions, logger
from aimeter._version import __version__
from aimeter.errors import AimeterError, ConfigurationError
from aimeter.record import COUNTS

if TYPE_CHECKING:
    from rich.console import Console

    from aimeter.commands.best import Best
    from aimeter.commands.compare import WhatIf
    from aimeter.commands.refill import Refill
    from aimeter.commands.region import Shown
    from aimeter.commands.sci import Score

BAD_SETTINGS = 2
"""Exit status for a bad option, setting or log; a shell's own convention for misuse."""


def _without_types(params: list[Any]) -> list[Any]:
    """Leave Python's names of types out of the help: a flag takes nothing, and an argument's own name says what it is."""
    for param in params:
        if getattr(param, "is_flag", False) and not param.metavar:
            param.metavar = ""
        elif param.param_type_name == "argument":
            param.display_type_rich = lambda ctx: None  # noqa: ARG005 - as the library calls it
    return params


class _Command(TyperCommand):
    def get_params(self, ctx: Any) -> list[Any]:  # noqa: ANN401 - of another module in each version of typer
        return _without_types(super().get_params(ctx))


class _Group(TyperGroup):
    def get_params(self, ctx: Any) -> list[Any]:  # noqa: ANN401 - of another module in each version of typer
        return _without_types(super().get_params(ctx))


app = typer.Typer(
    name="aimeter",
    cls=_Group,
    help="Meter the energy of model calls: joules, grams of CO2e and their error.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

carbon = typer.Typer(
    cls=_Group,
    help="Grams for the same joules: elsewhere, at another hour, and what they are like.",
    no_args_is_help=True,
)
app.add_typer(carbon, name="carbon")

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


def _beginning(*words: str) -> Callable[[str], list[str]]:
    """Return what completes a word in a shell."""
    return lambda incomplete: [word for word in words if word.startswith(incomplete)]


def main() -> None:
    """Run the command line; the entry point of ``aimeter`` and ``python -m aimeter``."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # "±" where the terminal's encoding has none
    logger.addHandler(_Warnings())
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


@app.command(cls=_Command)
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


@app.command(cls=_Command)
def calibrate(
    *,
    seconds: Annotated[
        float,
        typer.Option("--seconds", metavar="N", min=5, max=3600, help="Watch the devices for N seconds."),
    ] = 10.0,
    load: Annotated[
        str | None,
        typer.Option(
            "--load",
            metavar="MODULE:FUNCTION",
            help="Then load the devices with this for about 40 s, at most 2 minutes, to learn how late the sensors are "
            "and how far back they look; auto: matrices, with PyTorch on CUDA.",
        ),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Measure what the devices draw at rest, and keep it for this machine.

    Let nothing else run meanwhile.

    Exit status: 0 if every meter was calibrated; 1 if only some were;
    2 if none was, a setting is bad or the result cannot be stored.
    """
    from aimeter.calibration import measure as calibrating

    with redirect_stdout(sys.stderr):  # what the load prints is no part of the result
        outcomes = calibrating.calibrate(seconds, {}, _progress, load=load)
    if as_json:
        _print_json(asdict(outcomes))
    else:
        calibrating.show(outcomes, _console())
    raise typer.Exit(outcomes.exit_status)


@app.command(
    cls=_Command, context_settings={"allow_interspersed_args": False}, options_metavar="[OPTIONS] --"
)
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
        logger.setLevel(logging.ERROR)
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


@app.command(cls=_Command)
def report(
    logs: Annotated[
        list[str] | None,
        typer.Argument(metavar="LOG", help="Logs or patterns; by default the log of the settings."),
    ] = None,
    *,
    by: Annotated[
        str,
        typer.Option(
            "--by",
            metavar="B",
            help="Tell calls apart by name, or by name and model.",
            autocompletion=_beginning("name", "model"),
        ),
    ] = "name",
    as_json: JsonFlag = False,
) -> None:
    """Add up logs by name: calls, errors, joules with their error, grams, seconds, how they were measured."""
    from aimeter.commands import report as reporting

    summary, problems = reporting.add_up(logs or [], by)
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


@app.command(cls=_Command)
def sci(
    logs: LogsArgument = None,
    *,
    per: Annotated[
        str,
        typer.Option(
            "--per",
            metavar="COUNT",
            help="The functional unit: images, items …",
            autocompletion=_beginning(*COUNTS),
        ),
    ],
    name: Annotated[
        str | None, typer.Option("--name", metavar="N", help="Only calls of this name and those inside.")
    ] = None,
    embodied: Annotated[
        str | None,
        typer.Option("--embodied", metavar="H", help="Hardware whose making counts: '8 h100 + gpu-server'."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Give the Software Carbon Intensity (ISO/IEC 21031), (E * I + M) / R, with every term."""
    from aimeter.commands.sci import score

    _show(score(logs or [], per, name=name, hardware=embodied), as_json=as_json)


@carbon.command(cls=_Command)
def compare(
    logs: LogsArgument = None,
    *,
    regions: Annotated[
        str,
        typer.Option("--regions", metavar="R,R", help="Regions, joined by commas: FR,US-VA,aws:eu-north-1."),
    ] = "",
    shift: Annotated[
        float | None,
        typer.Option("--shift", metavar="H", help="The same calls H hours later, by the provider's values."),
    ] = None,
    provider: ProviderOption = None,
    zone: ZoneOption = None,
    region: RegionOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Compare the log's joules with the same elsewhere or at another hour."""
    from aimeter.commands.compare import compare as comparing

    wanted = [region.strip() for region in regions.split(",") if region.strip()]
    given = _given(carbon_provider=provider, carbon_zone=zone, region=region)
    _show(comparing(logs or [], wanted, shift_h=shift, **given), as_json=as_json)


@carbon.command(cls=_Command)
def show(
    region: Annotated[str, typer.Argument(metavar="REGION", help="FR, US-VA, aws:us-east-1 …")],
    *,
    as_json: JsonFlag = False,
) -> None:
    """Show a region's number, its source and year, its neighbours, and what else is published."""
    from aimeter.commands.region import show as showing

    _show(showing(region), as_json=as_json)


@carbon.command(cls=_Command)
def best(
    *,
    hours: Annotated[
        float, typer.Option("--hours", metavar="H", min=1, max=96, help="Look H hours ahead.")
    ] = 24,
    length: Annotated[
        float, typer.Option("--length", metavar="H", min=0.1, max=48, help="For a job of H hours.")
    ] = 1,
    provider: ProviderOption = None,
    zone: ZoneOption = None,
    region: RegionOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Find the lowest hours ahead in a provider's forecast."""
    from aimeter.commands.best import best as finding

    given = _given(carbon_provider=provider, carbon_zone=zone, region=region)
    _show(finding(hours, length, **given), as_json=as_json)  # type: ignore[arg-type]  # settings by name


@carbon.command(cls=_Command)
def refill(
    log: Annotated[str, typer.Argument(metavar="LOG", help="The log to complete.")],
    *,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="NEW", help="The file to write; it must not exist.")
    ],
    provider: ProviderOption = None,
    zone: ZoneOption = None,
    region: RegionOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Complete rows that wait for their provider's value, into a new file.

    Exit status: 0 if every such row is complete; 1 if some are not; 2 if a setting or the log is bad.
    """
    from aimeter.commands.refill import refill as refilling

    result = refilling(log, output, carbon_provider=provider, carbon_zone=zone, region=region)
    _show(result, as_json=as_json)
    raise typer.Exit(int(result.filled < result.waiting))


@carbon.command(cls=_Command)
def equivalents(
    *,
    kwh: Annotated[float | None, typer.Option("--kwh", metavar="X", min=0, help="Energy in kWh.")] = None,
    grams: Annotated[float | None, typer.Option("--grams", metavar="X", min=0, help="CO2e in g.")] = None,
    year: Annotated[
        int | None, typer.Option("--year", metavar="Y", help="With the constants in force in that year.")
    ] = None,
) -> None:
    """Say what some energy or some grams are like; never one in terms of the other."""
    from aimeter.carbon.equivalents import of_co2e, of_energy
    from aimeter.commands.carbon_text import compared

    if kwh is None and grams is None:
        message = "Give --kwh, --grams or both."
        raise ConfigurationError(message)
    energy = [] if kwh is None else of_energy(kwh * 3.6e6, year=year)
    for line in compared(energy, [] if grams is None else of_co2e(grams, year=year)):
        _print(line)


@app.command(cls=_Command)
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
        self.addFilter(lambda record: record.name != assumptions.name)

    def emit(self, record: logging.LogRecord) -> None:
        _complain(record.getMessage(), style="yellow")


def _complain(message: str, style: str = "red") -> None:
    if sys.stderr is None:
        return
    from rich.text import Text

    from aimeter._support.units import printable

    _console(stderr=True).print(Text(printable(f"aimeter: {message}"), style=style), soft_wrap=True)


def _console(*, stderr: bool = False) -> Console:
    from rich.console import Console

    return Console(stderr=stderr, highlight=False)


def _show(result: WhatIf | Shown | Best | Refill | Score, *, as_json: bool) -> None:
    from aimeter._support.units import printable
    from aimeter.commands.carbon_text import lines

    if as_json:
        _print_json(asdict(result))
        return
    for line in lines(result):
        _print(printable(line))


def _given(**options: object) -> dict[str, object]:
    """Return the options that were given, as settings."""
    return {key: value for key, value in options.items() if value is not None}


def _print_json(value: dict[str, Any]) -> None:
    from aimeter._support.units import finite

    # ASCII, as any other character may steer a terminal; and so may DEL, which is in it.
    text = json.dumps(finite(value), indent=2, allow_nan=False, default=str)
    _print(text.replace("\x7f", "\\u007f"))


def _print(text: str) -> None:
    # Flushed here, because what fails at the interpreter's exit cannot be told in one line.
    print(text, flush=True)  # noqa: T201 - the command line's own output


def _progress(steps: Sequence[int]) -> Iterable[int]:
    from rich.progress import track

    console = _console(stderr=True)
    return track(
        steps, "Reading the meters", console=console, transient=True, disable=not console.is_terminal
    )
