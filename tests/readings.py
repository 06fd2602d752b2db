"""Readings handed to a trace one by one, and what it makes of a stretch."""

from __future__ import annotations

from aimeter._curve.activity import NO_ACTIVITY
from aimeter.sensors.base import Channel, Outcome, Reading
from tests.energies import energy_between


def channel(**changes):
    """Return a counter of 0.1 s, with changes."""
    fields = {
        "id": "gpu:0", "kind": "gpu", "method": "counter", "quantity": "energy", "name": "GPU",
        "device": "GPU-1", "source": "fake", "period_s": 0.1, **changes,
    }  # fmt: skip
    return Channel(**fields)


def read(trace, time, value, *, outcome=Outcome.OK, took_s=0.0, reason=""):
    """Hand over one reading."""
    trace.take(Reading(time, time + took_s, outcome, value if outcome is Outcome.OK else None, reason))


def bar(trace, begin_s, end_s, activity=NO_ACTIVITY):
    """Return the half-width of the energy between two times."""
    _, half_j = energy_between(trace.curve, [begin_s], [end_s], activity)
    return float(half_j[0])
