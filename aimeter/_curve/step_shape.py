"""The shape of a step: how the energy between two knots of a counter lies in it.

The counter gives the amount, something else gives the shape: outside every call the device draws its idle power, and
what a step holds above that belongs to the time in which a call was open.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from aimeter._curve.activity import Activity, Array, IdlePower

LINES = 13
TIME, JOULES, UNCERTAINTY, HALF, ROUND, PHASE, SHIFT, IDLE, DECAY, TAU, SPREAD, COVERED, VARIANCE = range(
    LINES
)
"""The lines of knots in a table: see `aimeter._curve.curve.Curve.append`; the last two are running sums."""

NOTHING_J = 1e-9
"""A step of next to nothing has no shape worth dividing by."""

_INSTANT_S = 1e-12
"""Of a time that is no longer than this there is none."""

UNLIKE = 1.3
"""Two calls, or two parts of one, that meet inside a step draw powers that differ by less than this part of their
mean, in 95 % of cases: the spike that begins one call meets the plateau that ends another. Our judgement, from
published traces of prefill spikes of 385 to 508 W over plateaus of 295 W and below."""

_SIGMAS = 3.0
"""Half-width of the idle power in standard deviations: 1.96, and half as much again because the two ends of a
short call lie in one step and share its deviation."""


class Step(NamedTuple):
    """A stretch between two knots of a counter in which calls met.

    Attributes:
        begin_s: Time of the first knot.
        end_s: Time of the second.
        begin_j: Joules at the first.
        end_j: Joules at the second.
        excess_j: What was drawn above the idle power.
        idle: The idle power.
        mixed: Whether calls began or ended while others were open.
        activity: When calls were open.
    """

    begin_s: float
    end_s: float
    begin_j: float
    end_j: float
    excess_j: float
    idle: IdlePower
    mixed: bool
    activity: Activity

    def bounds(self) -> Array:
        """Return the knots' times and all edges between them."""
        edges = np.concatenate([self.activity.time_s, self.activity.shift_s])
        return np.unique(np.clip([self.begin_s, *edges, self.end_s], self.begin_s, self.end_s))

    def idle_j(self, times_s: Array) -> Array:
        """Return the energy of the idle power up to each time, from some time on."""
        rested_s = times_s - self.activity.open_s(times_s)
        return self.idle.idle_w * rested_s + self.idle.decay_w * self.activity.decay_s(
            times_s, self.idle.tau_s
        )


class StepRefiner(Protocol):
    """What knows more of the inside of a counter's steps."""

    @property
    def compared(self) -> bool:
        """Whether enough was seen to say whether anything speaks against the counter."""
        ...

    @property
    def contradiction(self) -> str:
        """What speaks against the counter; empty if nothing does."""
        ...

    @property
    def disagreement(self) -> float:
        """By which part of the counter's energy the truth may be more or less because of that; 0 if nothing does."""
        ...

    def compare(self, activity: Activity) -> None:
        """Take note of when calls were open, and of the counter's curve."""
        ...

    def rest(self, since_s: float, until_s: float) -> None:
        """Take note that no call was open from one time to another."""
        ...

    def refine(self, times_s: Array, step: Step) -> tuple[Array, Array] | None:
        """Return how much of a step's excess lies before each time, and its 95 % half-width; None if that is open."""
        ...


class Shape(NamedTuple):
    """How the energy of stretches lies in them, up to some times; joules, arrays of one shape.

    Attributes:
        step_j: Energy of the whole stretch.
        idle_j: What of it the idle power drew up to each time; times `scale`, if no call was open.
        scale: Makes the idle power of the whole stretch its energy.
        excess_j: What the whole stretch holds above the idle power.
        worked_j: What of that lies before each time.
        unlike_j: 95 % half-width of that.
        other_j: 95 % half-width of everything else.
        phase_j: 95 % half-width of what an error of the knots' times makes of it that neighbours have in common.
        shift_j: 95 % half-width of what one makes of it that all have in common.
        fits: Calls were open, and the stretch holds more than the idle power.
        busy: Calls were open.
        known: The idle power is known.
        mixed: Calls began or ended while others were open.
    """

    step_j: Array
    idle_j: Array
    scale: Array
    excess_j: Array
    worked_j: Array
    unlike_j: Array
    other_j: Array
    phase_j: Array
    shift_j: Array
    fits: npt.NDArray[np.bool_]
    busy: npt.NDArray[np.bool_]
    known: npt.NDArray[np.bool_]
    mixed: npt.NDArray[np.bool_]

    def read(self, begin_j: Array, part: Array) -> tuple[Array, Array, Array, Array]:
        """Return the energy at each time, its 95 % half-width, and those of what shifts neighbours and all alike."""
        shaped = np.where(self.fits, self.idle_j + self.worked_j, self.idle_j * self.scale)
        usable = self.known & (self.fits | (self.scale > 0))
        shaped = np.where(usable, np.clip(shaped, 0.0, self.step_j), part * self.step_j)
        well = self.known & (self.fits | ~self.busy)
        likely = np.where(well, np.hypot(self.unlike_j, self.other_j), np.inf)
        return begin_j + shaped, likely, np.where(well, self.phase_j, 0.0), np.where(well, self.shift_j, 0.0)


def shape_of(
    time: Array, part: Array, before: Array, after: Array, activity: Activity, limit_w: Array
) -> Shape | None:
    """Return how the energy of stretches lies in them, and how wrong that may be; None if no idle power is known.

    Outside calls the device draws its idle power; the rest of the stretch is spread evenly over the time in
    which a call was open. If nothing is left for that, or no call was open, the stretch has the shape of the
    idle power. If that is unknown it is spread evenly, and only the knots bound the error.

    The 95 % half-width has independent terms, for a time before which lie a part f of the stretch's open
    time and t of its idle time T, with an excess X above the idle power q:

    * the idle power is off by d: the error is d * (t - f T), because the knots hold the sum;
    * the open time before and after differs in power by a part u of its mean: u f (1 - f) X, or, if calls began or
      ended inside it while others were open, as children do, by all of it: max(f, 1 - f) X, as far as the device
      can draw so much in the open time before or after, which is nothing where there is none;
    * the knots are off in time by h and h', each by itself, together with its neighbours, or together with all: with p
      and p' drawn around them, (1 - f) p h and f p' h';
    * a knot is off in energy by what its sensor rounds.
    """
    begin, end, step = before[TIME], after[TIME], after[JOULES] - before[JOULES]
    known = np.isfinite(after[IDLE]) & (step > NOTHING_J)
    if not activity.time_s.size or not known.any():
        return None
    moments = np.concatenate([begin, time, end])
    open_before, open_now, open_all = activity.open_s(moments).reshape(3, -1)
    open_now, open_all = open_now - open_before, open_all - open_before
    rest_now, rest_all = time - begin - open_now, end - begin - open_all
    idle_now, idle_all = after[IDLE] * rest_now, after[IDLE] * rest_all
    for tau in np.unique(after[TAU][known]):
        decay = np.where(after[TAU] == tau, after[DECAY], 0.0)
        if not decay.any():
            continue
        decay_before, decay_now, decay_all = activity.decay_s(moments, tau).reshape(3, -1)
        idle_now += decay * (decay_now - decay_before)
        idle_all += decay * (decay_all - decay_before)
    busy = open_all > 0
    fits = busy & (idle_all <= step)
    scale = np.divide(step, idle_all, out=np.zeros_like(step), where=idle_all > NOTHING_J)
    open_part = np.divide(open_now, open_all, out=np.zeros_like(step), where=busy)
    excess = np.maximum(step - idle_all, 0.0)
    held = np.where(busy, open_part, part)
    deviation = _SIGMAS * after[SPREAD] * np.abs(rest_now - held * rest_all)
    # Without open time the deviation is not of the whole stretch, which the knots hold, but within it.
    deviation = np.where(busy, deviation, _SIGMAS * after[SPREAD] * (end - begin) * part * (1 - part))
    unlike = np.where(busy, UNLIKE * excess * held * (1 - held), 0.0)
    # Where calls began or ended beside or inside others, the rest of a step may be any one's.
    shifts = activity.shift_s
    mixed = shifts.searchsorted(end) > shifts.searchsorted(begin, side="right")
    if mixed.any():
        worked, most_w = excess * held, np.maximum(limit_w, excess / np.maximum(open_all, _INSTANT_S))
        most_before, most_after = (
            np.minimum(most_w * np.maximum(lapse, _INSTANT_S), excess)
            for lapse in (open_now, open_all - open_now)
        )
        unlike = np.where(
            busy & mixed, np.maximum(most_before - worked, most_after - (excess - worked)), unlike
        )
    # A knot that is off in time moves the power around it, as far as the other knot does not hold it back.
    working = np.divide(excess, open_all, out=np.zeros_like(step), where=busy)
    resting = np.divide(idle_all, rest_all, out=working.copy(), where=rest_all > 0)
    working = np.where(busy, working, resting)
    knots, lever = np.concatenate([begin, end]), np.concatenate([1 - held, held])
    half, phase, common = (np.concatenate([before[line], after[line]]) for line in (HALF, PHASE, SHIFT))
    open_then = activity.is_open(knots)
    moved = lever * np.where(open_then, np.tile(working, 2), np.tile(resting, 2))
    together = half + phase + common
    # Whether a call that begins or ends at a knot had done so by then is not known.
    unclear = activity.changes_near(knots, together)
    # Its time and the step's energy may make the call seem to draw less than the device at rest: neither is then surer.
    powers = np.where(open_then, np.tile(working, 2), np.tile(resting, 2))
    power = np.where(unclear, np.maximum(np.tile(working, 2), np.tile(resting, 2)), powers)
    timing = np.hypot(*(lever * power * np.where(unclear, together, half)).reshape(2, -1))
    phase, shift = ((moved * one).reshape(2, -1).sum(axis=0) for one in (phase, common))
    rounding = np.maximum(before[ROUND], after[ROUND])
    other = np.sqrt(deviation**2 + timing**2 + rounding**2)
    worked = excess * open_part
    return Shape(step, idle_now, scale, excess, worked, unlike, other, phase, shift, fits, busy, known, mixed)
