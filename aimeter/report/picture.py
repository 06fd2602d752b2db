"""A report as one picture, PNG or SVG, for papers; drawn without a browser."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aimeter.errors import ConfigurationError
from aimeter.report.charts import charts
from aimeter.report.charts.base import SCHEMA, config, drawn_at

if TYPE_CHECKING:
    from types import ModuleType

    from aimeter.report.charts.base import Spec
    from aimeter.report.digest import Digest

_WIDTH_PX = 720
_INK = "#1a1a1a"
_SCALE = 2.0
"""Of a PNG: for screens and papers that resolve more than a pixel."""


def engine() -> ModuleType:
    """Return what draws.

    Raises:
        ConfigurationError: It is not installed.
    """
    try:
        import vl_convert  # noqa: PLC0415 - an extra, and large
    except ImportError:
        message = "Pages and pictures need the extra: pip install 'aimeter-energy[report]'"
        raise ConfigurationError(message) from None
    return vl_convert


def described(digest: Digest) -> Spec:
    """Return the charts, one under another, as one description."""
    shown = [drawn_at(chart, _WIDTH_PX, ink=_INK, titled=True) for chart in charts(digest)]
    return {
        "$schema": SCHEMA,
        "background": "white",
        "vconcat": [
            {
                key: value
                for key, value in spec.items()
                if key not in {"$schema", "config", "background", "params"}
            }
            for spec in shown
        ],
        "resolve": {"scale": {"color": "independent", "x": "independent", "y": "independent"}},
        "config": config(_INK),
    }


def svg(digest: Digest) -> str:
    """Return the picture as SVG."""
    drawn: str = engine().vegalite_to_svg(described(digest))
    return drawn


def png(digest: Digest) -> bytes:
    """Return the picture as PNG."""
    drawn: bytes = engine().vegalite_to_png(described(digest), scale=_SCALE)
    return drawn
