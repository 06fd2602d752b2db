"""Finding the sensors: those that are always read once, and the GPUs when a call may use them, as the program selects them then."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from aimeter._sampling.source import Question
from aimeter._support.files import none_can_be_opened
from aimeter._support.log import logger
from aimeter._support.notes import raised

if TYPE_CHECKING:
    from collections.abc import Callable

    from aimeter._sampling.intake import Intake
    from aimeter._sampling.protocols import Driver, Selection
    from aimeter._sampling.readers import Readers
    from aimeter._sampling.source import Source
    from aimeter.sensors.base import Clock, Finding, Sensor

OPEN_TIMEOUT_S = 10.0
"""How long the first call waits for the sensors to be found. Drivers that must load take seconds."""


class Search:
    """See the module's description.

    Args:
        discover: Returns the sensors and what was found while looking for them; called once.
        gpus: The GPUs' sensors, if they are not among those.
        now: Monotonic seconds.
        intake: Where calls are that may use GPUs.
        readers: Takes the sensors.
        driver: Lets one thread at a time look for them.
        warn_once: Logs a warning, once for each key.

    Attributes:
        patience_s: How long to wait for that.
        found: Those that are always read have been looked for.
        opened: They have been read once, or were waited for in vain.
        opened_s: When they were.
    """

    def __init__(
        self,
        discover: Callable[[], tuple[list[Sensor], list[Finding]]],
        gpus: Selection | None,
        *,
        now: Clock,
        intake: Intake,
        readers: Readers,
        driver: Driver,
        warn_once: Callable[[str, str], None],
    ) -> None:
        self._findings: list[Finding] = []
        self.found = False
        self.patience_s = OPEN_TIMEOUT_S
        self._discover, self._gpus = discover, gpus
        self._now, self._intake, self._readers, self._driver = now, intake, readers, driver
        self._warn_once = warn_once
        self._gpus_wanted = False
        self._gpus_state: object = None
        """What the GPUs in use were selected by; None until they were."""
        self._gpus_unsought = False
        """Whether they were wanted at the limit of open files, where no driver can be asked."""
        self._gpu_sources: list[Source] = []
        self.begin()

    def begin(self) -> None:
        """Set up what belongs to this process and not to one that it may have been forked from."""
        self._question = Question()
        self.opened = False
        self.opened_s = -math.inf

    @property
    def findings(self) -> list[Finding]:
        """What was found while looking for sensors; what is said to be used of a source that others cover is not."""
        covered = self._readers.covered
        sources = {one.source for one in covered}
        kept = [one for one in self._findings if one.status != "used" or one.source not in sources]
        return [*kept, *covered]

    @property
    def is_open(self) -> bool:
        """Whether the sensors are found, those that are wanted by what selects them now."""
        return self.opened and not self._is_to_select()

    @property
    def is_undecided(self) -> bool:
        """Whether no call has told yet which devices it uses."""
        return self._gpus is not None and self._gpus_state is None

    def open(self) -> None:
        """Find the sensors and read them, once; GPUs again when others are selected."""
        if self.is_open:
            return
        self._find()
        if self._is_to_select():
            self._select()
        if self.opened:
            return
        self._readers.read_all()
        self.opened_s = self._now()
        self.opened = True
        self._driver.tell_waiters()

    def refresh(self) -> None:
        """Read every sensor, once they are found."""
        self.open()
        self._readers.read_all()

    def _find(self) -> None:
        with self._driver.asking(self._question, self.patience_s) as granted:
            if self.found or not granted:
                return
            sensors, self._findings = self._ask_for(self._discover)
            self._readers.add(sensors)
            self.found = True
        self._tell_findings(self._findings)

    def _ask_for(
        self, discover: Callable[[], tuple[list[Sensor], list[Finding]]]
    ) -> tuple[list[Sensor], list[Finding]]:
        try:
            sensors, findings = discover()
            self._readers.look_up(sensors)
        except BaseException as error:  # noqa: BLE001 - whatever drivers and kernels answer, the program goes on
            self._warn_once("search", f"looking for sensors raised {raised(error)}: nothing is metered.")
            return [], []
        return sensors, findings

    def _tell_findings(self, findings: list[Finding]) -> None:
        for finding in findings:
            if finding.status not in {"used", "unused"}:
                logger.info("%s %s: %s %s", finding.source, finding.subject, finding.detail, finding.remedy)

    # GPUs, which are found when they are wanted

    def note_wants(self, *, newest: bool = False) -> None:
        """Take note of a queued call that may use GPUs, among all or a few of the newest."""
        if self._gpus is not None and not self._gpus_wanted:
            self._gpus_wanted = self._intake.wants_gpus(newest=newest)

    def _is_to_select(self) -> bool:
        """Return whether GPUs are wanted and not found yet, or others are selected than those in use."""
        if self._gpus is None or not self._gpus_wanted:
            return False
        if self._gpus_unsought and not none_can_be_opened():
            return True
        return self._gpus_state is None or self._gpus.state() != self._gpus_state

    def _select(self) -> None:
        """Use the GPUs that are selected now, and those alone."""
        gpus = self._gpus
        with self._driver.asking(self._question, self.patience_s) as granted:
            if gpus is None or not granted:
                return
            self._gpus_state = gpus.state()
            self._gpus_unsought = none_can_be_opened()
            if self._gpus_unsought:
                self._warn_once("files", "no more files can be opened: GPUs are looked for when they can.")
                self._driver.tell_waiters()
                return
            sensors, findings = self._ask_for(gpus.find)
            used = {
                channel.device: source for source in self._gpu_sources for channel in source.sensor.channels
            }
            chosen = {channel.device for sensor in sensors for channel in sensor.channels}
            fresh = [s for s in sensors if not any(channel.device in used for channel in s.channels)]
            for sensor in sensors:
                if sensor not in fresh:
                    sensor.close()
            for device, source in used.items():
                if device not in chosen:
                    self._readers.withdraw(source)
            added = self._readers.add(fresh)
            self._gpu_sources = [one for one in [*self._gpu_sources, *added] if one in self._readers.sources]
            sources = {finding.source for finding in findings}
            self._findings = [*findings, *(one for one in self._findings if one.source not in sources)]
        for source in added:
            self._readers.read(source)
        self._tell_findings(findings)
        self._driver.tell_waiters()
