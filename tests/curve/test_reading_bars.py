"""What readings of every kind make of bars, from both sides: when they were made is known, so bars are reckoned by hand."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from aimeter._curve.activity import NO_ACTIVITY, Activity
from aimeter._curve.idle_fit import fit_idle
from aimeter._curve.moving_average import ROUNDING_W, MovingAverage
from aimeter._curve.trace import Trace
from aimeter._support.statistics import SIGMAS_95
from aimeter.sensors.base import Channel, Outcome, Reading
from tests.energies import energy_between

IDLE_W, LOAD_W = 60.0, 300.0
PERIOD_S = 0.1


def trace_of(quantity="energy", interval_s=0.05, **changes):
    method = "counter" if quantity == "energy" else "power"
    channel = Channel("gpu:0", "gpu", method, quantity, "GPU", "GPU-1", "fake", PERIOD_S)
    return Trace(
        channel.__replace__(**changes) if hasattr(channel, "__replace__") else replaced(channel, changes),
        interval_s,
    )


def read(trace, time_s, value, *, took_s=0.0):
    trace.take(Reading(time_s, time_s + took_s, Outcome.OK, value))


def bar(trace, begin_s, end_s, activity=NO_ACTIVITY):
    return float(energy_between(trace.curve, [begin_s], [end_s], activity)[1][0])
