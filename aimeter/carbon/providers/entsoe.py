"""ENTSO-E's Transparency Platform: generation by type in Europe, times published factors.

``GET /api?documentType=A75&processType=A16&in_Domain=EIC`` with a ``securityToken`` gives the realised generation of
each type of plant as XML (Transparency Platform RESTful API, user guide, 16.1.B&C). What a storage takes in has an
``outBiddingZone_Domain`` and is no generation. In a curve of type A03 a position that is missing repeats the one
before it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import islice
from xml.etree import ElementTree as ET

from aimeter._support.secret import Secret
from aimeter.carbon.location import Zone
from aimeter.carbon.packaged import DATA, rows
from aimeter.carbon.providers import mix
from aimeter.carbon.providers.base import (
    DAY_S,
    HOUR_S,
    NoValuesError,
    ProviderFault,
    answer,
    epoch,
    no_zone,
    utc,
)
from aimeter.carbon.providers.http import Request, get, masked
from aimeter.carbon.series import Series

_LONGEST_S = 30 * DAY_S
_DURATION = re.compile(r"PT(?:(\d+)H)?(?:(\d+)M)?")
_MOST_STEPS = 20_000
"""Of a period; a month of quarter hours has 3,000."""
_MOST_STEPS_OF_ALL = 200_000
"""Of an answer; twenty types of plant have 60,000 of these."""

# AR5 has no row for lignite, peat and oil shale: that of hard coal stands for them, and is low for all three.
_FUELS = {
    "B01": "biomass",
    "B02": "coal",
    "B04": "gas",
    "B05": "coal",
    "B06": "oil",
    "B07": "coal",
    "B08": "coal",
    "B09": "geothermal",
    "B11": "hydro",
    "B12": "hydro",
    "B14": "nuclear",
    "B16": "solar",
    "B18": "wind-offshore",
    "B19": "wind",
}
"""Types of plant (ENTSO-E code list PsrType). Marine, other renewable, waste and other have no factor."""
_STORAGE = "B10"
"""What it gives was generated before, and counted then."""


@cache
def areas() -> dict[str, str]:
    """Return the EIC of the bidding zone of each place."""
    return {row["zone"]: row["eic"] for row in rows(DATA / "entsoe_areas.csv", "eic")}


@dataclass(frozen=True, slots=True)
class Entsoe:
    """ENTSO-E. A zone is the EIC of a bidding zone.

    Args:
        key: The security token.
        base: Address of the service.
    """

    key: Secret
    base: str = field(default="https://web-api.tp.entsoe.eu", repr=False)
    period_s: float = HOUR_S
    name: str = "entsoe"

    @property
    def cache_key(self) -> str:
        """Where it was asked, and by whom: another key is another try."""
        return f"{self.base} {self.key.mark()}"

    def zone_of(self, zone: Zone) -> str:
        """Return the EIC of a country that is one bidding zone, or of a Nordic bidding zone."""
        eic = areas().get(zone.grid)
        if eic is None:
            raise no_zone(self.name, zone, "10YFR-RTE------C, the EIC of a bidding zone")
        return eic

    def series(self, zone: str, start_s: float, end_s: float) -> Series:
        """Return the intensity of the realised generation; what is newest is some hours old."""
        form = "%Y%m%d%H00"
        first_s = max(start_s - 6 * HOUR_S, end_s - _LONGEST_S)
        token = self.key.reveal()
        body = get(
            Request(
                f"{self.base}/api",
                {
                    "documentType": "A75",
                    "processType": "A16",
                    "in_Domain": zone,
                    "periodStart": utc(first_s, form),
                    "periodEnd": utc(end_s + HOUR_S, form),
                    "securityToken": token,
                },
                secrets=(token,),
            )
        )
        reports = _reports(_document(body, token))
        source = f"ENTSO-E A75; {zone}; {mix.FACTOR_SET}"
        return answer(zone, mix.KIND, source, mix.points(reports))


def _document(body: bytes, token: str) -> ET.Element:
    """Return the root of the answer.

    Raises:
        ProviderFault: It is no such document, or one that says why there is none.
        NoValuesError: It says that there are no data.
    """
    root = None
    # A document type can define entities that expand without end; an answer of theirs has none. Told from the text, as
    # in another encoding than UTF-8 the bytes would be others.
    text = body.decode("utf-8", "replace")
    if "<!DOCTYPE" not in text and "<!ENTITY" not in text:
        try:
            root = ET.fromstring(text)  # noqa: S314 - no entities, and of bounded size
        except (ET.ParseError, ValueError):
            root = None
    if root is None or not root.tag.rpartition("}")[2].endswith("MarketDocument"):
        message = "entsoe: the answer is not of the documented form"
        raise ProviderFault(message)
    if "Acknowledgement" in root.tag:
        told = next((element.text or "" for element in root.iter() if _name(element) == "text"), "")
        message = f"entsoe: {masked(' '.join(told.split()), (token,))[:120] or 'no data'}"
        # The code is 999 whatever the reason is, so the words have to tell an empty answer from a refused one.
        raise (NoValuesError if "no matching data" in message.lower() else ProviderFault)(message)
    return root


def _name(element: ET.Element) -> str:
    return element.tag.rpartition("}")[2]


def _child(element: ET.Element, name: str) -> ET.Element | None:
    return next((child for child in element if _name(child) == name), None)


def _text(element: ET.Element, *path: str) -> str:
    found: ET.Element | None = element
    for name in path:
        found = None if found is None else _child(found, name)
    if found is None or found.text is None:
        raise ValueError(path)
    return found.text


def _reports(root: ET.Element) -> dict[mix.Source, mix.Steps]:
    """Return the generation of each type over time."""
    reports: dict[mix.Source, mix.Steps] = {}
    left = _MOST_STEPS_OF_ALL
    for series in (child for child in root if _name(child) == "TimeSeries"):
        if any(_name(child).startswith("outBiddingZone") for child in series):
            continue
        try:
            code = _text(series, "MktPSRType", "psrType")
            if code == _STORAGE:
                continue
            steps = reports.setdefault(mix.Source(_FUELS.get(code, f"other {code}"), code), [])
            for period in (child for child in series if _name(child) == "Period"):
                before = len(steps)
                steps += islice(_steps(period), left + 1)
                left -= len(steps) - before
                if left < 0:  # a few bytes may say that they hold for each minute of a fortnight
                    message = f"entsoe: the answer has more than {_MOST_STEPS_OF_ALL:,} values"
                    raise ProviderFault(message)
        except ValueError:
            continue  # a malformed series loses that type; where it matters, too much has no factor
    return reports


def _steps(period: ET.Element) -> Iterator[tuple[float, float, float]]:
    start_s = epoch(_text(period, "timeInterval", "start"))
    end_s = epoch(_text(period, "timeInterval", "end"))
    match = _DURATION.fullmatch(_text(period, "resolution"))
    step_s = 0.0 if match is None else 3600.0 * int(match[1] or 0) + 60.0 * int(match[2] or 0)
    if step_s <= 0 or not 0 < (end_s - start_s) / step_s <= _MOST_STEPS:
        raise ValueError(period)
    known = {
        int(_text(point, "position")): float(_text(point, "quantity"))
        for point in period
        if _name(point) == "Point"
    }
    value = None
    for position in range(1, round((end_s - start_s) / step_s) + 1):
        value = known.get(position, value)
        if value is not None:
            begin_s = start_s + (position - 1) * step_s
            yield begin_s, begin_s + step_s, value
