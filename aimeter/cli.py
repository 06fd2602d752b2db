"""The command line: names and options. What a command does is in `aimeter.commands`, loaded when it runs."""

# ruff: noqa: PLC0415 - commands import what they need, so that --help is quick

from __future__ import annotations

import logging
import sys
from contextlib import redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aimeter._support.log import logger
from aimeter._support.signs import SIGNS, in_signs_of, register
from aimeter._support.units import printable
from aimeter._version import __version__
from aimeter.commands import carbon, imports
from aimeter.commands.shell import (
    Command,
    Group,
    JsonFlag,
    LogOption,
    LogsArgument,
    PueOption,
    RegionOption,
    Warnings,
    beginning,
    complain,
    console,
    given,
    print_json,
    progress,
    say,
    show_result,
)
from aimeter.errors import AimeterError, ConfigurationError
from aimeter.record import COUNTS

if TYPE_CHECKING:
    from aimeter.report import Summary

BAD_SETTINGS = 2
"""Exit status for a bad option, setting or log; a shell's own convention for misuse."""


app = typer.Typer(
    name="aimeter",
    cls=Group,
    help="Meter the energy of model calls: joules, grams of CO2e and their error.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(carbon.group, name="carbon")
app.add_typer(imports.group, name="import")


def main() -> None:
    """Run the command line; the entry point of ``aimeter`` and ``python -m aimeter``."""
    register()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=SIGNS)  # "±" where the terminal's encoding has none
    logger.addHandler(Warnings())
    try:
        app(prog_name="aimeter")
    except AimeterError as error:
        complain(str(error))
        sys.exit(BAD_SETTINGS)
    except OSError as error:
        complain(f"its output cannot be written: {error.strerror or error}.")
        sys.exit(1)


def _version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it with the flag's value
    if wanted:
        say(f"aimeter {__version__}")
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


@app.command(cls=Command)
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

    diagnosis = examine(given(region=region), progress)
    if as_json:
        print_json(asdict(diagnosis))
    else:
        show(diagnosis, console())
    raise typer.Exit(diagnosis.exit_status)


@app.command(cls=Command)
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
        outcomes = calibrating.calibrate(seconds, {}, progress, load=load)
    if as_json:
        print_json(asdict(outcomes))
    else:
        calibrating.show(outcomes, console())
    raise typer.Exit(outcomes.exit_status)


@app.command(cls=Command, context_settings={"allow_interspersed_args": False}, options_metavar="[OPTIONS] --")
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
            settings=given(log=log, region=region, pue=pue),
            instrument=instrument,
        )
    except running.CannotRunError as error:
        complain(str(error))
        raise typer.Exit(error.status) from None
    running.end_like(status)


@app.command(cls=Command, context_settings={"allow_interspersed_args": False}, options_metavar="[OPTIONS] --")
def watch(
    command: Annotated[
        list[str] | None,
        typer.Argument(metavar="COMMAND", help="A Python command to run and watch, and its arguments."),
    ] = None,
    *,
    log: LogOption = None,
    region: RegionOption = None,
    seconds: Annotated[
        float | None, typer.Option("--seconds", metavar="N", min=0.1, help="Stop after N seconds.")
    ] = None,
) -> None:
    """Show live what this machine draws, and the calls of a log as it grows or of a Python command.

    Ends with Ctrl-C or with the command.

    Exit status: 0, or the command's own; 127 if it is not found; 126 if it cannot be executed.
    """
    from aimeter.commands import live
    from aimeter.settings import load

    options = given(region=region)
    path = load(given(log=log, **options)).log
    if path is not None and path.is_dir():
        message = f"{path} is a folder: name the log in it."
        raise ConfigurationError(message)
    if not command:
        live.watch(console(), log=path, seconds=seconds, settings=options)
        return
    try:
        status = live.watch_command(console(), command, log=path, settings=options)
    except OSError as error:
        complain(f"{command[0]}: {error.strerror or error}")
        raise typer.Exit(127 if isinstance(error, FileNotFoundError) else 126) from None
    raise typer.Exit(status if status >= 0 else 128 - status)


@app.command(cls=Command)
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
            help="What to tell apart: each call with those inside it, names, or names and models (call, name, model).",
            autocompletion=beginning("call", "name", "model"),
        ),
    ] = "call",
    since: Annotated[
        str | None,
        typer.Option(
            "--since", metavar="T", help="Only calls from then on: 2026-11-27T14:30 (UTC), or 36h ago."
        ),
    ] = None,
    until: Annotated[
        str | None, typer.Option("--until", metavar="T", help="Only calls that began before that.")
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", metavar="P", help="Only calls of such a name, as 'chat*'.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", metavar="P", help="Only calls of such a model.")
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="Draw a page that opens in any browser, offline."),
    ] = None,
    png: Annotated[Path | None, typer.Option("--png", metavar="FILE", help="Draw a picture.")] = None,
    svg: Annotated[
        Path | None, typer.Option("--svg", metavar="FILE", help="Draw a picture, for papers.")
    ] = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", metavar="", help="Print the table for a pull request.")
    ] = False,
    csv: Annotated[
        bool, typer.Option("--csv", metavar="", help="Print the table for a spreadsheet.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Add up logs by name, each call's parts under it: joules with their error, shares, grams, seconds, how measured.

    With --html, --png or --svg it is drawn into files instead (extra report).
    """
    from aimeter.commands import report as reporting

    selection = reporting.Selection(since, until, name, model)
    files = {kind: path for kind, path in (("html", html), ("png", png), ("svg", svg)) if path is not None}
    printed = [
        option for option, wanted in (("--markdown", markdown), ("--csv", csv), ("--json", as_json)) if wanted
    ]
    if len(printed) + bool(files) > 1:
        asked = " and ".join([*(f"--{kind}" for kind in files), *printed])
        message = f"One form at a time: run {asked} one after another."
        raise ConfigurationError(message)
    if files:
        problems = list(reporting.draw(logs or [], files, selection).problems)
        for path in files.values():
            say(str(path))
    else:
        summary, problems = reporting.add_up(logs or [], by, selection)
        if as_json:
            print_json(reporting.as_json(summary, problems))
            return
        if csv:
            text = reporting.as_csv(summary).rstrip()
            # In a file names are as they are; on a terminal they must not steer it.
            say("\n".join(map(printable, text.splitlines())) if sys.stdout.isatty() else text)
        elif markdown:
            say(summary.markdown())
        else:
            _show(summary)
    for problem in problems:
        complain(f"skipped {problem}", style="yellow")


@app.command(cls=Command)
def export(
    logs: LogsArgument = None,
    *,
    parquet: Annotated[
        Path | None, typer.Option("--parquet", metavar="DIR", help="Write Parquet into a folder, by day.")
    ] = None,
    perfetto: Annotated[
        Path | None, typer.Option("--perfetto", metavar="FILE", help="Write a trace that profilers open.")
    ] = None,
) -> None:
    """Write logs in the form of other tools."""
    from aimeter.commands import convert
    from aimeter.commands import report as reporting

    if parquet is None and perfetto is None:
        message = "Say what to write: --parquet DIR or --perfetto FILE."
        raise ConfigurationError(message)
    sources = reporting.find(logs or [])  # once, as what comes by a pipe can be read once only
    if parquet is not None:
        imports.written(parquet, convert.to_parquet(sources, parquet))
    if perfetto is not None:
        imports.written(perfetto, convert.to_perfetto(sources, perfetto))


def _show(summary: Summary) -> None:
    terminal = console()
    if terminal.is_terminal:
        terminal.print(summary)
    else:
        say(in_signs_of(terminal.encoding, str(summary)))  # at its natural width


@app.command(cls=Command)
def sci(
    logs: LogsArgument = None,
    *,
    per: Annotated[
        str,
        typer.Option(
            "--per",
            metavar="COUNT",
            help="The functional unit: images, items …",
            autocompletion=beginning(*COUNTS),
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

    show_result(score(logs or [], per, name=name, hardware=embodied), as_json=as_json)


@app.command(cls=Command)
def demo(
    *,
    log: Annotated[Path, typer.Option("--log", metavar="FILE", help="Append the rows to FILE.")] = Path(
        "calls.csv"
    ),
    region: RegionOption = None,
) -> None:
    """Run two small real models, metered call by call, and show what each call took."""
    from aimeter import demo as demonstration

    raise typer.Exit(demonstration.run(log, region=region, console=console()))
