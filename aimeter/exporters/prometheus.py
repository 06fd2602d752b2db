"""Metrics for Prometheus: what calls and devices used, as counters in the program's own registry.

The names and units follow https://prometheus.io/docs/practices/naming/: base units, counters that only grow. What a
token or an image costs is the quotient of two rates, which a query takes and no metric holds.
"""

from __future__ import annotations

import os
import threading
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary

from aimeter._api import add_sink, default_meter
from aimeter._support.log import logger
from aimeter._support.public import public
from aimeter.errors import ConfigurationError
from aimeter.exporters.owner import Owner
from aimeter.exporters.series import BUCKETS_J, Devices, Names, method_of, parts_j

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from aimeter.meter import Meter
    from aimeter.record import Record

try:
    import prometheus_client
except ImportError as error:
    message = "Prometheus metrics need prometheus_client: install `prometheus-client`."
    raise ConfigurationError(message) from error

PORT = 9464
"""Where OpenTelemetry's exporter for Prometheus listens, too; no other exporter of the usual list has it."""


_CALL = ("name", "model", "status", "method", "nested")
_MADE = ("name", "model", "status", "nested")

_Call = tuple[str, str, str, str, str]
_Made = tuple[str, str, str, str]


class _Metrics(NamedTuple):
    """The metrics of one registry."""

    calls: prometheus_client.Counter
    energy: prometheus_client.Counter
    spread: prometheus_client.Histogram
    grams: prometheus_client.Counter
    tokens: prometheus_client.Counter
    images: prometheus_client.Counter
    device: prometheus_client.Counter
    unattributed: prometheus_client.Counter

    @classmethod
    def made(cls, registry: CollectorRegistry) -> _Metrics:
        """Register all of them."""

        def counter(name: str, text: str, labels: Sequence[str]) -> prometheus_client.Counter:
            return prometheus_client.Counter(f"aimeter_{name}", text, labels, registry=registry)

        return cls(
            counter("calls", "Metered calls that are settled.", _CALL),
            counter(
                "call_energy_joules",
                "Energy of calls, those inside them included; add up nested=no alone. Each part by how it was measured.",
                _CALL,
            ),
            prometheus_client.Histogram(
                "aimeter_energy_per_call_joules",
                "Energy of one call.",
                ("name", "model", "nested"),
                buckets=BUCKETS_J,
                registry=registry,
            ),
            counter("co2e_grams", "CO2 equivalent of calls; add up nested=no alone.", _CALL),
            counter("tokens", "Tokens that calls read (in) and made (out).", (*_MADE, "direction")),
            counter("images", "Images that calls made or read.", _MADE),
            counter(
                "device_energy_joules",
                "All that a metered device drew, up to the last settled call.",
                ("device", "uuid", "method"),
            ),
            counter(
                "unattributed_energy_joules",
                "What a device drew while no call of the process was open.",
                ("device", "uuid", "method"),
            ),
        )


_metrics: WeakKeyDictionary[CollectorRegistry, _Metrics] = WeakKeyDictionary()
_sinks: WeakKeyDictionary[CollectorRegistry, PrometheusSink] = WeakKeyDictionary()
_making = threading.Lock()


class PrometheusSink:
    """A sink that counts settled rows in a registry of prometheus_client.

    With `PROMETHEUS_MULTIPROC_DIR` set, as for the workers of a web server, the counts of all processes add up; of the
    devices, which all of them see, one process alone gives the figures.

    Args:
        registry: Where the metrics are registered; by default the global one of prometheus_client. Several sinks may
            share one.
        meter: Whose devices are told of; by default the default meter.
        most_names: So many pairs of name and model have series of their own; calls of further ones are counted under
            ``other names``.

    Attributes:
        lost_rows: 0: a row is counted or, if it has no energy, counted without.
        last_fault: Empty.
    """

    def __init__(
        self,
        registry: CollectorRegistry | None = None,
        *,
        meter: Meter | None = None,
        most_names: int = 200,
    ) -> None:
        self.lost_rows, self.last_fault = 0, ""
        registry = prometheus_client.REGISTRY if registry is None else registry
        with _making:
            if registry not in _metrics:
                _metrics[registry] = _Metrics.made(registry)
            if meter is None:
                _sinks.setdefault(registry, self)
        self._metrics = _metrics[registry]
        self._names = Names(most_names)
        self._devices = Devices(default_meter if meter is None else meter.source)
        self._owner = _owner()

    def write(self, records: Sequence[Record]) -> None:
        """Count rows: sums are made of a batch first, as each step of a counter takes a lock."""
        if records:
            self._count(records)
            self._count_devices(records)

    def reopen(self) -> None:
        """Begin anew in a forked child, whose devices have drawn nothing since its beginning."""
        self._devices.reopen()
        self._owner = _owner()

    def close(self) -> None:
        """Do nothing: what was counted stays in the registry."""

    def _count(self, records: Sequence[Record]) -> None:
        calls: defaultdict[_Call, int] = defaultdict(int)
        energy: defaultdict[_Call, float] = defaultdict(float)
        grams: defaultdict[_Call, float] = defaultdict(float)
        made: defaultdict[_Made, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
        spread: defaultdict[tuple[str, str, str], list[Record]] = defaultdict(list)
        for row in records:
            name, model = self._names.of(row)
            nested = "no" if row.parent_id is None else "yes"
            whole = (name, model, row.status, method_of(row), nested)
            calls[whole] += 1
            if row.energy_j is not None:
                spread[name, model, nested].append(row)
                for part_j, its_method in parts_j(row):
                    if part_j:
                        energy[name, model, row.status, its_method, nested] += part_j
            if row.co2e_g is not None:
                grams[whole] += row.co2e_g
            if row.tokens_in or row.tokens_out or row.images:
                counts = made[name, model, row.status, nested]
                counts[0] += row.tokens_in or 0.0
                counts[1] += row.tokens_out or 0.0
                counts[2] += row.images or 0.0
        metrics = self._metrics
        for labels, number in calls.items():
            metrics.calls.labels(*labels).inc(number)
        _add(metrics.energy, energy.items())
        _add(metrics.grams, grams.items())
        for of, (tokens_in, tokens_out, images) in made.items():
            _add(metrics.tokens, [((*of, "in"), tokens_in), ((*of, "out"), tokens_out)])
            _add(metrics.images, [(of, images)])
        for which, rows in spread.items():
            histogram = metrics.spread.labels(*which)
            # An exemplar takes longer than all else; the last of each class in a batch would be the one to stay anyhow.
            newest = {bisect_left(BUCKETS_J, row.energy_j or 0.0): row for row in rows}
            told = {id(row) for row in newest.values()}
            for row in rows:
                exemplar = {"call_id": row.call_id} if id(row) in told else None
                histogram.observe(row.energy_j or 0.0, exemplar)

    def _count_devices(self, records: Iterable[Record]) -> None:
        # Asked by all, so that what another process has told of is over when this one takes its place.
        drawn = [*self._devices.since(records)]
        for one in drawn if self._owner.is_mine() else ():
            labels = (one.device, one.uuid, one.method)
            _add(self._metrics.device, [(labels, one.energy_j)])
            if self._owner.is_alone:
                _add(self._metrics.unattributed, [(labels, one.unattributed_j)])


def _add(counter: prometheus_client.Counter, amounts: Iterable[tuple[Sequence[str], float]]) -> None:
    for labels, amount in amounts:
        if amount > 0:
            counter.labels(*labels).inc(amount)


def _owner() -> Owner:
    folder = _folder()
    owner = Owner(None if folder is None else folder / "aimeter-devices.lock")
    owner.is_mine()  # the first to come is the one
    return owner


def _folder() -> Path | None:
    """Return the folder that the processes of a server count in together; None for a process by itself."""
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    return Path(folder) if folder else None


def _sink(registry: CollectorRegistry | None) -> CollectorRegistry:
    """Have the default meter's calls counted in a registry, once, and return it."""
    registry = prometheus_client.REGISTRY if registry is None else registry
    add_sink(_sinks.get(registry) or PrometheusSink(registry))
    return registry


@public
def serve_metrics(
    port: int = PORT, addr: str = "127.0.0.1", *, registry: CollectorRegistry | None = None
) -> int:
    """Count the default meter's calls for Prometheus, and serve them at ``http://addr:port/metrics``.

    The server is a daemon thread. With `PROMETHEUS_MULTIPROC_DIR` set, it serves the sums of all processes that count
    in that folder, and the first of them to come here does so for all.

    Args:
        port: Where to listen; 0 for any that is free.
        addr: On which address; ``0.0.0.0`` for all, so that another machine can scrape.
        registry: Where the metrics are registered; by default the global one of prometheus_client, which a program that
            serves metrics already shows without this: there, `aimeter.add_sink(PrometheusSink())` is enough.

    Returns:
        The port.

    Raises:
        ConfigurationError: The port is taken by something else.

    """
    registry = _sink(registry)
    shared = _folder()
    if shared is not None:
        from prometheus_client.multiprocess import MultiProcessCollector  # noqa: PLC0415 - for workers only

        try:
            shown = prometheus_client.CollectorRegistry()
            MultiProcessCollector(shown)  # type: ignore[no-untyped-call]
        except ValueError as error:
            message = (
                f"PROMETHEUS_MULTIPROC_DIR={shared}: make that folder, empty, before the program starts."
            )
            raise ConfigurationError(message) from error
        if not Owner(shared / "aimeter-serving.lock").is_mine():
            return port
    else:
        shown = registry
    try:
        server, _ = prometheus_client.start_http_server(port, addr, registry=shown)
    except OSError as error:
        message = f"No metrics are served at {addr}:{port}: {error}. Choose another port, or 0 for any that is free."
        raise ConfigurationError(message) from error
    return int(server.server_port)


@public
def push_metrics(
    gateway: str, job: str, *, timeout_s: float = 5.0, registry: CollectorRegistry | None = None
) -> bool:
    """Push what the default meter has counted to a Pushgateway: for batch jobs, which end before anybody scrapes them.

    The job begins with `aimeter.add_sink(PrometheusSink())`, and ends with this.

    Args:
        gateway: Address of the gateway, such as ``localhost:9091``.
        job: The label `job`.
        timeout_s: How long the gateway may take.
        registry: As given to the sink.

    Returns:
        Whether it was taken; if not, the reason is logged.
    """
    default_meter().flush()
    registry = prometheus_client.REGISTRY if registry is None else registry
    try:
        prometheus_client.push_to_gateway(gateway, job=job, registry=registry, timeout=timeout_s)
    except Exception as error:  # noqa: BLE001 - a gateway may answer anything, and the job's work is done
        logger.warning("No metrics were pushed to %s: %s.", gateway, error)
        return False
    return True
