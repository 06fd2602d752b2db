"""The charts of a report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aimeter.report.charts.by_name import devices, distribution, parts, per_call, per_unit
from aimeter.report.charts.over_time import carbon, power, timeline

if TYPE_CHECKING:
    from aimeter.report.charts.base import Chart
    from aimeter.report.digest import Digest


def charts(digest: Digest) -> list[Chart]:
    """Return the charts that have something to show."""
    made = (
        draw(digest) for draw in (per_call, per_unit, power, timeline, distribution, parts, devices, carbon)
    )
    return [chart for chart in made if chart is not None]
