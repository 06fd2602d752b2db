"""What a call used: the figures of its row, asked for by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aimeter._calls.labels import Labelled
from aimeter.errors import did_you_mean
from aimeter.record import COUNTS

if TYPE_CHECKING:
    from aimeter.record import Record


class Figured(Labelled):
    """A call as its figures."""

    __slots__ = ()

    if TYPE_CHECKING:  # a call says how it comes by it

        @property
        def record(self) -> Record | None:
            """The row: final after the call, so far while it is open; None before it began."""

    @property
    def energy_j(self) -> float | None:
        """The call's share of the energy of all metered devices, in joules, its children's included."""
        return self._figure("energy_j")

    @property
    def error_j(self) -> float | None:
        """95 % half-width of `energy_j`: resolution and calibration together."""
        return self._figure("error_j")

    @property
    def resolution_j(self) -> float | None:
        """95 % half-width of what sampling and sensor steps leave open."""
        return self._figure("resolution_j")

    @property
    def self_j(self) -> float | None:
        """`energy_j` without what the call's children used."""
        return self._figure("self_j")

    @property
    def window_j(self) -> float | None:
        """All that the metered devices drew while the call was open."""
        return self._figure("window_j")

    @property
    def idle_j(self) -> float | None:
        """The part of `energy_j` that the devices would have drawn anyway."""
        return self._figure("idle_j")

    @property
    def gpu_j(self) -> float | None:
        """Share of the GPUs' energy in joules."""
        return self._figure("gpu_j")

    @property
    def cpu_j(self) -> float | None:
        """Share of the CPUs' energy in joules."""
        return self._figure("cpu_j")

    @property
    def dram_j(self) -> float | None:
        """Share of the memory's energy in joules."""
        return self._figure("dram_j")

    @property
    def other_j(self) -> float | None:
        """Share of the energy of other metered devices in joules."""
        return self._figure("other_j")

    @property
    def co2e_g(self) -> float | None:
        """Grams of CO2 equivalent."""
        return self._figure("co2e_g")

    @property
    def co2e_error_g(self) -> float | None:
        """Half-width of `co2e_g`, from the errors of the energy and of the intensity."""
        return self._figure("co2e_error_g")

    def per(self, unit: str) -> float | None:
        """Return joules per unit of one of the counts, e.g. ``per("images")``; None if either is unknown.

        Raises:
            ValueError: If there is no such count.

        """
        if unit not in COUNTS:
            message = (
                f"unknown count {unit!r}: choose one of {', '.join(COUNTS)}.{did_you_mean(unit, COUNTS)}"
            )
            raise ValueError(message)
        count, energy = self.counts.get(unit), self.energy_j
        return energy / count if count and energy is not None else None

    def _figure(self, name: str) -> float | None:
        record = self.record
        value: float | None = None if record is None else getattr(record, name)
        return value

    def _repr_html_(self) -> str | None:
        record = self.record
        return None if record is None else record._repr_html_()
