"""Meter the energy of model calls: joules, grams of CO2e and their error for every call, in an auditable log.

    with aimeter.track("image-gen", images=4) as call:
        images = pipe(prompt, num_images_per_prompt=4).images
    call.energy_j, call.error_j, call.co2e_g

Importing aimeter loads the standard library only, touches no hardware and starts nothing.
"""

from __future__ import annotations

import importlib
import logging
import os
from typing import TYPE_CHECKING, Any

from ._calls.context import hand_in
from ._standin import stand_in
from ._support import lifetime  # noqa: F401 - early, as it says
from ._version import __version__
from .errors import AimeterError, ConfigurationError, LogSchemaError, UnknownRegionError

if TYPE_CHECKING:
    from aimeter._api import add_sink, configure, default_meter, export_csv, flush, records, summary, track
    from aimeter._calls.call import Call, current_call
    from aimeter._measure import Measurement, measure
    from aimeter._support.statistics import Drift
    from aimeter.adapters.attach import attach, detach
    from aimeter.adapters.instrument import instrument, uninstrument
    from aimeter.exporters.prometheus import push_metrics, serve_metrics

    from .meter import Meter
    from .record import Record

__all__ = [
    "AimeterError",
    "Call",
    "ConfigurationError",
    "Drift",
    "LogSchemaError",
    "Measurement",
    "Meter",
    "Record",
    "UnknownRegionError",
    "__version__",
    "add_sink",
    "attach",
    "configure",
    "current_call",
    "default_meter",
    "detach",
    "export_csv",
    "flush",
    "instrument",
    "measure",
    "push_metrics",
    "records",
    "serve_metrics",
    "summary",
    "track",
    "uninstrument",
]

_HOME = {
    "Call": "_calls.call",
    "Drift": "_support.statistics",
    "Measurement": "_measure",
    "Meter": "meter",
    "Record": "record",
    "add_sink": "_api",
    "attach": "adapters.attach",
    "configure": "_api",
    "current_call": "_calls.call",
    "default_meter": "_api",
    "detach": "adapters.attach",
    "export_csv": "_api",
    "flush": "_api",
    "instrument": "adapters.instrument",
    "measure": "_measure",
    "push_metrics": "exporters.prometheus",
    "records": "_api",
    "serve_metrics": "exporters.prometheus",
    "summary": "_api",
    "track": "_api",
    "uninstrument": "adapters.instrument",
}

logging.getLogger(__name__).addHandler(logging.NullHandler())


def __getattr__(name: str) -> object:
    """Load a public name when it is first used."""
    if name not in _HOME:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    try:
        value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    except OSError as fault:  # as at the limit of open files: the next one to ask tries again
        return stand_in(name, fault)
    globals()[name] = value
    return value


@hand_in
def _default_meter() -> Meter:
    from ._api import default_meter  # noqa: PLC0415 - loaded with the first call

    return default_meter()


def load_ipython_extension(shell: Any) -> None:  # noqa: ANN401 - IPython's
    """Make ``%%aimeter`` and ``%aimeter`` known: ``%load_ext aimeter`` in a notebook calls this."""
    from aimeter.notebook import load  # noqa: PLC0415 - needs IPython

    load(shell)


def __dir__() -> list[str]:
    return sorted(__all__)


if os.environ.get("AIMETER_INSTRUMENT"):
    from aimeter.adapters.instrument import instrument_if_wanted

    instrument_if_wanted()
