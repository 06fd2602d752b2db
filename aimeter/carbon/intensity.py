"""Carbon intensity as a value that says what it is, and the arithmetic from joules to grams.

Two texts travel with every number, so that a row can be judged and recomputed years later:

`Intensity.source` is ``data set version; file; key in the file; year``, for instance
``codecarbon 3.3.2; private_infra/2023/usa_emissions.json; virginia; 2023; for aws:us-east-1``. The last part
is there only when the user named another place than the zone of the number. It is ``given by the user`` for
the user's own number, and starts with ``none:`` when there is no number.

`Intensity.method` is ``SIGNAL;ACCOUNTING;BASIS;FLOW;estimated=yes|no``, with

- SIGNAL ``average``, or ``marginal``: what one more kilowatt-hour would emit;
- ACCOUNTING ``location-based``, or ``market-based``: what contracts say;
- BASIS ``lifecycle`` (fuel chain and construction included), ``direct`` (what the power stations emit, CO2e)
  or ``direct-co2`` (the same, CO2 alone);
- FLOW ``production`` (what the zone generates), ``consumption`` (imports and exports accounted for),
  ``flow-traced`` (the same, traced through every neighbour) or ``unstated``;
- ``estimated=yes`` when the number is a forecast, preliminary, or computed from shares of fuels with general
  factors;
- ``;world-average`` behind it when it is not of the zone at all, and ``;assumed`` when nobody asked for that;
- ``;detected`` when nobody named the place and it was read off the machine or its environment;
- ``;held`` when a provider's newest value was older than the call, and ``;fallback`` when the provider had no
  value yet and this one stands in for it: ``aimeter carbon refill`` replaces both.

It is ``given`` for the user's own number and ``none`` when there is no number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Signal = Literal["average", "marginal"]
Accounting = Literal["location-based", "market-based"]
Basis = Literal["lifecycle", "direct", "direct-co2"]
Flow = Literal["production", "consumption", "flow-traced", "unstated"]

GIVEN = "given"
NONE = "none"
ASSUMED = ";assumed"
DETECTED = ";detected"
HELD = ";held"
FALLBACK = ";fallback"

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
        lower_g_per_kwh: The least that it may be, if the source says so; likewise `upper_g_per_kwh`.
    """

    g_per_kwh: float | None
    source: str
    method: str
    zone: str | None
    year: int | None
    lower_g_per_kwh: float | None = None
    upper_g_per_kwh: float | None = None


def describe_method(
    basis: Basis,
    flow: Flow,
    *,
    estimated: bool,
    signal: Signal = "average",
    accounting: Accounting = "location-based",
) -> str:
    """Return the method of an intensity in the module's form."""
    return f"{signal};{accounting};{basis};{flow};estimated={'yes' if estimated else 'no'}"


def half_width(g_per_kwh: float, lower: float | None, upper: float | None) -> float:
    """Return the greater distance from an intensity to its bounds, in g/kWh; 0 where none are given."""
    below = 0.0 if lower is None else g_per_kwh - lower
    above = 0.0 if upper is None else upper - g_per_kwh
    return max(below, above, 0.0)


def co2e_error_g(
    energy_j: float, error_j: float, g_per_kwh: float, intensity_half_width: float = 0.0, pue: float = 1.0
) -> float:
    """Return the half-width of `co2e_g` that the errors of energy and of intensity leave.

    ``sqrt((error_j * g_per_kwh)**2 + (energy_j * half_width)**2) / 3.6e6 * pue``: the two are independent, and
    a product's relative errors add in quadrature (JCGM 100:2008, 5.1.2). PUE is taken as exact.
    """
    return math.hypot(error_j * g_per_kwh, energy_j * intensity_half_width) / J_PER_KWH * pue


def co2e_g(energy_j: float, g_per_kwh: float, pue: float = 1.0) -> float:
    """Return grams of CO2 equivalent: ``energy_j / 3.6e6 * g_per_kwh * pue``.

    One kilowatt-hour is 3.6e6 joules. `pue` is the power usage effectiveness of ISO/IEC 30134-2, facility
    energy over IT energy; 1.0 leaves the figure at the IT boundary.
    """
    return energy_j / J_PER_KWH * g_per_kwh * pue


def g_per_kwh_from_lb_per_mwh(lb_per_mwh: float) -> float:
    """Return g/kWh for pounds per megawatt-hour, the unit of the US EPA's eGRID: times 0.45359237."""
    return lb_per_mwh * KG_PER_LB
