"""A row in one line for a plain REPL, and as a small table for a notebook."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from aimeter._support.units import UNKNOWN, printable, quantity
from aimeter.record import COUNTS

if TYPE_CHECKING:
    from aimeter.record import Record


def line(record: Record) -> str:
    """Return what a row says, in one line: name, joules with their error, grams, seconds, how it was measured."""
    told = [f"{record.name}: {_joules(record)}"]
    if record.co2e_g is not None:
        told.append(f"{quantity(record.co2e_g, 'g', record.co2e_error_g, largest=3)} CO2e")
    told.append(quantity(record.duration_s, "s", largest=0))
    counts = _counts(record)
    if counts:
        told.append(counts)
    if record.coverage < 1:
        told.append(f"{record.coverage:.0%} covered")
    if record.status != "ok":
        told.append(record.status if record.error_type is None else f"{record.status} {record.error_type}")
    return printable(", ".join(told))


def html(record: Record) -> str:
    """Return what a row says as a table in HTML."""
    lines = [
        ("energy", _joules(record)),
        ("of which idle", None if record.idle_j is None else quantity(record.idle_j, "J")),
        ("GPU", _part(record.gpu_j, record.gpu_method)),
        ("CPU", _part(record.cpu_j, record.cpu_method)),
        ("memory", _part(record.dram_j, record.dram_method)),
        (
            "CO2e",
            None if record.co2e_g is None else quantity(record.co2e_g, "g", record.co2e_error_g, largest=3),
        ),
        ("intensity", _intensity(record)),
        ("time", quantity(record.duration_s, "s", largest=0)),
        ("counts", _counts(record) or None),
        ("model", record.model),
        ("covered", f"{record.coverage:.0%}"),
        ("status", record.status if record.error_type is None else f"{record.status}: {record.error_type}"),
    ]
    rows = "".join(
        f'<tr><th style="text-align: left">{name}</th><td style="text-align: left">{_shown(value)}</td></tr>'
        for name, value in lines
        if value is not None
    )
    return f"<table><caption>{_shown(record.name)}</caption><tbody>{rows}</tbody></table>"


def _shown(text: str) -> str:
    return escape(printable(text))


def _joules(record: Record) -> str:
    if record.energy_j is None:
        return f"energy {UNKNOWN}"
    kinds = zip(
        ("GPU", "CPU", "memory"), (record.gpu_method, record.cpu_method, record.dram_method), strict=True
    )
    how = ", ".join(f"{kind} by {method}" for kind, method in kinds if method != "none")
    energy = quantity(record.energy_j, "J", record.error_j)
    return f"{energy} ({how})" if how else energy


def _part(joules: float | None, method: str) -> str | None:
    return None if joules is None else f"{quantity(joules, 'J')} ({method})"


def _counts(record: Record) -> str:
    given = ((name, getattr(record, name)) for name in COUNTS)
    return ", ".join(f"{name} {value:g}" for name, value in given if value is not None)


def _intensity(record: Record) -> str | None:
    if record.intensity_g_per_kwh is None:
        return None
    return f"{record.intensity_g_per_kwh:.4g} g/kWh ({record.zone or record.intensity_source})"
