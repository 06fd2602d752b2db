"""Carbon intensity as a value that says what it is, and the arithmetic from joules to grams.

Two texts travel with every number, so that a row can be judged and recomputed years later:

`Intensity.source` is ``data set version; file; key in the file; year``, for instance
``codecarbon 3.3.2; private_infra/2023/usa_emissions.json; virginia; 2023; for aws:us-east-1``. The last part
is there only when the user named another place than the zone of the number. It is ``given by the user`` for
the user's own number, and starts with ``none:`` when there is no number.

`Intensity.method` is ``average;location-based;BASIS;FLOW;estimated=yes|no``, with

- BASIS ``lifecycle`` (fuel chain and construction included), ``direct`` (what the power stations emit, CO2e)
  or ``direct-co2`` (the same, CO2 alone);
- FLOW ``production`` (what the zone generates), ``consumption`` (imports and exports accounted for) or
  ``unstated``;
- ``estimated=yes`` when the number is computed from shares of fuels with general factors;
- ``;world-average`` behind it when it is not of the zone at all, and ``;assumed`` when nobody asked for that.

It is ``given`` for the user's own number and ``none`` when there is no number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Basis = Literal["lifecycle", "direct", "direct-co2"]
Flow = Literal["production", "consumption", "unstated"]

GIVEN = "given"
NONE = "none"

J_PER_KWH = 3.6e6
KG_PER_LB = 0.45359237
"""Exact by definition of the international avoirdupois pound (NIST SP 811, appendix B)."""
MAX_G_PER_KWH = 2000.0
"""Above this a number is taken for a mistake: burning nothing but lignite stays below 1,500 g/kWh."""


@dataclass(frozen=True, slots=True)
class Intensity:
    """Grams of CO2 equivalent for each kilowatt-hour, and what the figure is.

    Attributes:
        g_per_kwh: The intensity, or None when there is none to be had; `source` then says why.
        source: Data set with version, file, key and year; the module's text gives the form.
        method: What kind of intensity it is; the module's text gives the form.
        zone: The zone the number belongs to: ``FR``, ``US-VA``, ``SE-SE3``, ``gcp:us-central1``, ``WORLD``;
            None for a number that the user gave without a region.
        year: Year of the data, or None if its source does not state one.
    """

    g_per_kwh: float | None
    source: str
    method: str
    zone: str | None
    year: int | None


def describe_method(basis: Basis, flow: Flow, *, estimated: bool) -> str:
    """Return the method of an average, location-based intensity in the module's form."""
    return f"average;location-based;{basis};{flow};estimated={'yes' if estimated else 'no'}"


def co2e_g(energy_j: float, g_per_kwh: float, pue: float = 1.0) -> float:
    """Return grams of CO2 equivalent: ``energy_j / 3.6e6 * g_per_kwh * pue``.

    One kilowatt-hour is 3.6e6 joules. `pue` is the power usage effectiveness of ISO/IEC 30134-2, facility
    energy over IT energy; 1.0 leaves the figure at the IT boundary.
    """
    return energy_j / J_PER_KWH * g_per_kwh * pue


def g_per_kwh_from_lb_per_mwh(lb_per_mwh: float) -> float:
    """Return g/kWh for pounds per megawatt-hour, the unit of the US EPA's eGRID: times 0.45359237."""
    return lb_per_mwh * KG_PER_LB
