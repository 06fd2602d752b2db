"""What was learned of a channel, or calibrated: when it is updated, how late it is, over which time it is the mean."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from aimeter._curve.response import Published, Response
from aimeter._curve.response_fit import Estimate, Ramp
from aimeter._curve.update_probe import UpdateProbe
from aimeter._curve.update_times import Interval, UpdateTimes

if TYPE_CHECKING:
    from aimeter._curve.calibration import Calibration
    from aimeter.sensors.base import Channel

_WHOLE = 0.9
"""A sensor whose averaging window is at least this part of its period sees all of the time."""

_ADOPTIONS = 4
"""What is learned of latency and window is put to use so many times at most: a curve is not to waver."""

STEPPED_S = 0.005
"""Counters renewed less often than this are staircases, whose steps are worth finding."""


class Learned:
    """What is known of how one channel's sensor publishes.

    Attributes:
        continuous: Its power is published all the time: each reading is a value of its own, and there are no updates.
        latency: How late the published value is, as it is used; documented values have no error.
        window: Time over which a published power is the mean, as it is used.
        sampled: Whether a published power sees a part of the time only.
        response: What was learned of latency and window; None where nothing can be.
        updates: When the value is renewed; None where that is not worth finding.
        probe: Listens to a power that is only read now and then; None where nothing can be learned by that.
        adoptions: How often something that was learned has been put to use.
        published_s: When the newest value is taken to have been published; NaN if there is none to count from.
        published_half_s: How far off that may be.
    """

    def __init__(
        self, channel: Channel, calibration: Calibration | None, *, continuous: bool = False
    ) -> None:
        self._channel, self.continuous = channel, continuous
        self.latency = Estimate(channel.latency_s, channel.latency_error_s)
        self.window = Estimate(channel.window_s, 0.0)
        self.sampled = self._is_sampled()
        self.adoptions = 0
        stepped = channel.method == "counter" or channel.quantity == "power"
        stepped = stepped and channel.period_s > STEPPED_S and not continuous
        # An average over many periods is level too seldom, and a counter of a millisecond is never late enough.
        self.response = Response() if stepped and channel.window_s < 2 * channel.period_s else None
        if calibration is not None and self.response is not None:
            self.adopt(calibration.latency, calibration.window)
            self.response.sated = calibration.latency is not None
        period_s = (calibration and calibration.period_s) or channel.period_s
        self.updates = UpdateTimes(period_s, silent=channel.quantity == "power") if stepped else None
        self.probe: UpdateProbe | None = None
        if self.updates is not None and self.response is not None and channel.quantity == "power":
            self.probe = UpdateProbe(self.updates, self.response, channel.period_s)
        self.published_s = math.nan
        self.published_half_s = 0.0

    def _is_sampled(self) -> bool:
        channel = self._channel
        whole = not self.continuous and self.window.value_s >= _WHOLE * channel.period_s
        return channel.quantity == "power" and not whole

    def adopt(self, latency: Estimate | None, window: Estimate | None) -> bool:
        """Use what is learned in place of what is used, if that is not a possible value or much less certain.

        Returns:
            Whether anything has changed.
        """
        better = [
            found if found and found.replaces(used) else None
            for found, used in ((latency, self.latency), (window, self.window))
        ]
        if self._channel.quantity == "energy":
            better[1] = None
        if better == [None, None] or self.adoptions == _ADOPTIONS:
            return False
        self.adoptions += 1
        self.latency, self.window = better[0] or self.latency, better[1] or self.window
        self.sampled = self._is_sampled()
        return True

    @property
    def period_s(self) -> float:
        """Time between updates of the published value, as far as it is known."""
        return self._channel.period_s if self.updates is None or self.sampled else self.updates.period_s

    @property
    def period(self) -> Interval | None:
        """Between which times the period lies, by the updates seen; None where they are not foretold."""
        return None if self.updates is None else self.updates.learned_period

    def forget_updates(self) -> None:
        """Find the updates anew: it is not known when the next one comes."""
        if self.updates is not None:
            self.updates.forget()

    def resume(self) -> None:
        """Start anew after a time without readings."""
        self.forget_updates()
        if self.probe is not None:
            self.probe.forget()

    def note_published(self, published: Interval, watts: float, span_s: float = math.nan) -> None:
        """Keep a published mean power for learning."""
        if self.response is not None:
            half = math.hypot(published.half_s, 0.0 if math.isnan(span_s) else self.published_half_s)
            self.response.publish(Published(published.middle_s, half, watts, span_s))
        self.published_s, self.published_half_s = published.middle_s, published.half_s

    def rest(self, since_s: float, until_s: float) -> Ramp | None:
        """Learn latency and window from what was published after a call; return them if something new is known."""
        response = self.response
        if response is None or not response.rest(since_s, until_s, **self._known()):
            return None
        return response.ramp

    def conclude(self) -> Ramp | None:
        """Return latency and window by all ends of calls so far; None where neither can be learned."""
        if self.response is None:
            return None
        self.response.conclude(**self._known())
        return self.response.ramp

    def _known(self) -> dict[str, float]:
        return {
            "latency_s": self.latency.value_s,
            "window_s": self.window.value_s,
            "period_s": self.period_s,
        }
