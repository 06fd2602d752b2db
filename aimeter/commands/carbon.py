"""`aimeter carbon`: names and options of its commands."""

# ruff: noqa: PLC0415 - commands import what they need, so that --help is quick

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from aimeter.commands.shell import (
    Command,
    Group,
    JsonFlag,
    LogsArgument,
    ProviderOption,
    RegionOption,
    ZoneOption,
    given,
    say,
    show_result,
)
from aimeter.errors import ConfigurationError

group = typer.Typer(
    cls=Group,
    help="Grams for the same joules: elsewhere, at another hour, and what they are like.",
    no_args_is_help=True,
)


@group.command(cls=Command)
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
    settings = given(carbon_provider=provider, carbon_zone=zone, region=region)
    show_result(comparing(logs or [], wanted, shift_h=shift, **settings), as_json=as_json)


@group.command(cls=Command)
def show(
    region: Annotated[str, typer.Argument(metavar="REGION", help="FR, US-VA, aws:us-east-1 …")],
    *,
    as_json: JsonFlag = False,
) -> None:
    """Show a region's number, its source and year, its neighbours, and what else is published."""
    from aimeter.commands.region import show as showing

    show_result(showing(region), as_json=as_json)


@group.command(cls=Command)
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

    settings = given(carbon_provider=provider, carbon_zone=zone, region=region)
    show_result(finding(hours, length, **settings), as_json=as_json)  # type: ignore[arg-type]  # settings by name


@group.command(cls=Command)
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
    show_result(result, as_json=as_json)
    raise typer.Exit(int(result.filled < result.waiting))


@group.command(cls=Command)
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
        say(line)
