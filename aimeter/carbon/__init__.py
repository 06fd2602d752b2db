"""From joules to grams: where the call ran, and what its electricity emits."""

from __future__ import annotations

from aimeter.carbon.intensity import Intensity, co2e_g
from aimeter.carbon.location import Zone, resolve
from aimeter.carbon.offline import lookup

__all__ = ["Intensity", "Zone", "co2e_g", "lookup", "resolve"]
