"""Where the machine is, and what lies beyond the plug: PUE, water, embodied carbon, equivalents."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import aimeter
from aimeter._wiring import accounting
from aimeter.carbon import overheads
from aimeter.carbon.around import neighbours, published
from aimeter.carbon.equivalents import of_co2e, of_energy, table
from aimeter.carbon.location import resolve
from aimeter.carbon.offline import lookup
from aimeter.carbon.place import locate
from aimeter.carbon.providers import KEYS, NAMES
from aimeter.carbon.providers.file_or_url import _UNITS
from aimeter.carbon.providers.mix import factors
from aimeter.errors import ConfigurationError
from aimeter.settings import Settings
from tests.carbon_server import Answer, CarbonServer

DATA = Path(overheads.__file__).with_name("data")
ROOT = Path(aimeter.__file__).parents[1]


@pytest.fixture
def server():
    made = CarbonServer()
    yield made
    made.close()


def machine(root, vendor="", tag=""):
    """A root folder whose DMI names a vendor."""
    folder = root / "sys" / "class" / "dmi" / "id"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sys_vendor").write_text(f"{vendor}\n")
    (folder / "chassis_asset_tag").write_text(f"{tag}\n")
    return root


# Where am I


def test_the_setting_ends_the_search(tmp_path):
    """With region nothing else is looked at."""
    place = locate("FR", environ={"AWS_REGION": "us-east-1"}, root=machine(tmp_path, "Amazon EC2"))
    assert (place.region, place.step) == ("FR", "setting")
    assert len(place.steps) == 1


@pytest.mark.parametrize(
    ("environ", "vendor", "region"),
    [
        ({"AWS_REGION": "us-east-1"}, "Amazon EC2", "aws:us-east-1"),
        ({"AWS_DEFAULT_REGION": "eu-west-3", "AWS_LAMBDA_FUNCTION_NAME": "f"}, "", "aws:eu-west-3"),
        ({"GOOGLE_CLOUD_REGION": "europe-west1"}, "Google", "gcp:europe-west1"),
        ({"FUNCTION_REGION": "us-central1", "K_SERVICE": "f"}, "", "gcp:us-central1"),
        ({"REGION_NAME": "West Europe", "WEBSITE_SITE_NAME": "s"}, "", "azure:westeurope"),
        ({"AWS_REGION": "us-east-1"}, "LENOVO", None),
        ({"AWS_REGION": "us-east-1"}, "Google", None),
        ({"AWS_REGION": "atlantis-1"}, "Amazon EC2", None),
        ({"AWS_REGION": "x" * 5000}, "Amazon EC2", None),
        ({}, "Amazon EC2", None),
        ({}, "", None),
    ],
)
def test_a_clouds_variable_counts_only_in_that_cloud(tmp_path, environ, vendor, region):
    """A laptop's AWS_REGION says where commands go, not where the laptop is: a second sign is needed."""
    place = locate(None, environ=environ, root=machine(tmp_path, vendor))
    assert place.region == region
    assert [step.step for step in place.steps] == ["setting", "environment", "machine", "metadata"]
    assert all(step.detail for step in place.steps)


def test_hyper_v_is_not_azure(tmp_path):
    """Microsoft's name alone is on any of its virtual machines; Azure's have a tag."""
    environ = {"REGION_NAME": "westeurope"}
    assert locate(None, environ=environ, root=machine(tmp_path, "Microsoft Corporation")).region is None
    tagged = machine(tmp_path, "Microsoft Corporation", "7783-7084-3265-9085-8269-3286-77")
    assert locate(None, environ=environ, root=tagged).region == "azure:westeurope"


def patient(monkeypatch):
    """Give a service that answers the time it takes on a busy machine."""
    monkeypatch.setattr("aimeter.carbon.place.METADATA_S", 60)


def play_metadata(seen):
    """The three clouds' metadata services, as documented."""
    headers = {name.lower(): text for name, text in seen.headers.items()}
    if seen.path == "/latest/api/token":
        return Answer("TOKEN" if headers.get("x-aws-ec2-metadata-token-ttl-seconds") else b"", 200)
    if seen.path == "/latest/meta-data/placement/region":
        return Answer("eu-west-3" if headers.get("x-aws-ec2-metadata-token") == "TOKEN" else b"", 200)
    if seen.path == "/metadata/instance/compute/location" and headers.get("metadata") == "true":
        return Answer("francecentral")
    if seen.path == "/computeMetadata/v1/instance/zone" and headers.get("metadata-flavor") == "Google":
        return Answer("projects/123/zones/europe-west9-b")
    return Answer(b"", 404)


@pytest.mark.parametrize(
    ("vendor", "tag", "region", "requests"),
    [
        ("Amazon EC2", "", "aws:eu-west-3", 2),
        ("Microsoft Corporation", "7783-7084-3265-9085-8269-3286-77", "azure:francecentral", 1),
        ("Google", "", "gcp:europe-west9", 1),
        ("LENOVO", "", None, 0),
    ],
)
def test_the_metadata_service_on_request(server, tmp_path, monkeypatch, vendor, tag, region, requests):
    """Only if asked for, only of the cloud that DMI names, and only for the region."""
    patient(monkeypatch)
    server.answer = play_metadata
    root = machine(tmp_path, vendor, tag)
    assert locate(None, environ={}, root=root, link_local=server.url).region is None
    assert server.seen == []
    place = locate(None, metadata=True, environ={}, root=root, link_local=server.url)
    assert place.region == region
    assert len(server.seen) == requests


@pytest.mark.parametrize(
    ("answer", "detail"),
    [
        (Answer(way="hang"), "no answer within 0.3 s (TimeoutError)"),
        (Answer(way="reset"), "no answer within 0.3 s (RemoteDisconnected)"),
        (Answer(b"", 401), "no answer within 0.3 s (HTTPError)"),
        (Answer("<html>"), "gcp names no region known here"),
        (Answer(b"\xff\xfe"), "no answer within 0.3 s (UnicodeDecodeError)"),
        (Answer("a\nb"), "gcp names no region known here"),
    ],
)
def test_a_metadata_service_that_fails_is_soon_given_up(server, tmp_path, monkeypatch, answer, detail):
    """Whatever it does, the place is not known before a service that hangs has come to an end, and the step says so."""
    if answer.way != "hang":
        patient(monkeypatch)
        detail = detail.replace("0.3", "60")
    server.answer = lambda seen: answer
    place = locate(None, metadata=True, environ={}, root=machine(tmp_path, "Google"), link_local=server.url)
    assert place.region is None
    assert server.hanging == (answer.way == "hang")
    assert (place.steps[-1].step, place.steps[-1].detail) == ("metadata", detail)


def test_a_detected_place_is_marked(tmp_path):
    """A region nobody named carries `detected` in its method; one without a number is no error."""
    root = machine(tmp_path, "Amazon EC2")
    found = accounting(Settings(), environ={"AWS_REGION": "eu-west-3"}, root=root)
    assert found.intensity.g_per_kwh == lookup("FR").g_per_kwh
    assert found.intensity.method.endswith(";detected")
    assert accounting(Settings(), environ={}, root=root).intensity.method.endswith(";assumed")
    assert (
        accounting(Settings(region="FR"), environ={"AWS_REGION": "us-east-1"}, root=root).intensity.zone
        == "FR"
    )


@pytest.mark.parametrize(
    ("named", "found"), [({}, True), ({"region": "FR"}, False), ({"carbon_zone": "FR"}, False)]
)
def test_a_detected_place_is_marked_on_live_rows(tmp_path, named, found):
    """With a provider as well: its values and those held say that nobody named the place."""
    now = time.time()
    own = lambda zone, start, end: [(datetime.fromtimestamp(now - 900, UTC), 80.0)]  # noqa: E731 - in a line
    settings = Settings(carbon_provider=own, carbon_cache="off", carbon_max_age_s=1e6, **named)
    root = machine(tmp_path, "Amazon EC2")
    feed = accounting(settings, environ={"AWS_REGION": "eu-west-3"}, root=root).feed
    feed._busy.acquire()  # so that no thread is started
    feed.refresh()
    assert feed.over(now - 9, now).intensity.method.endswith(";detected") == found
    assert feed.over(now, now + 9e4).intensity.method.endswith(";detected;held") == found


# Beyond the plug


@pytest.mark.parametrize(
    ("name", "value"),
    [("aws:2023", 1.15), ("aws", 1.14), ("AWS:2024", 1.15), ("google", 1.09), ("microsoft:2023", 1.18),
     ("survey:2023", 1.58), ("survey", 1.54), ("aws-us-west-2", 1.12), (1.3, 1.3)],
)  # fmt: skip
def test_pue_by_provider_and_year(name, value):
    """A name with a year, or the newest without one; a number stands for itself."""
    found = overheads.pue(name)
    assert found.value == value
    assert found.source


def test_names_that_are_not_known_say_what_is():
    """An unknown name or year is an error with what there is."""
    for wrong in ("awz", "aws:1999"):
        with pytest.raises(ConfigurationError, match="aws"):
            overheads.pue(wrong)
        with pytest.raises(ConfigurationError, match="aws"):
            Settings(pue=wrong)
    with pytest.raises(ConfigurationError, match="h100"):
        overheads.embodied("h1000")
    for wrong in ("0 h100", "h100/0", "", "h100 +", "8 8 h100"):
        with pytest.raises(ConfigurationError):
            overheads.embodied(wrong)


def test_water():
    """AWS used 0.15 L/kWh on site in 2024; the grid's water is by country; 2 kWh at 3.67 L/kWh are 7.34 L."""
    assert overheads.site_water("aws:2024").value == 0.15
    assert overheads.grid_water("FR").value == 3.67
    assert overheads.litres(7.2e6, 3.67) == pytest.approx(7.34)
    assert overheads.site_water(0.5).value == 0.5


def test_embodied_of_one_h100():
    """164 to 575 kg: over 4 years of full use 4.7 to 16.4 g in an hour (the oracle), wider with our assumptions."""
    made = overheads.embodied("h100")
    assert (made.kg.low, made.kg.high) == (164, 575)
    hours = 4 * 365.25 * 24
    assert 164e3 / hours == pytest.approx(4.7, abs=0.05)
    assert 575e3 / hours == pytest.approx(16.4, abs=0.05)
    middle, lower, upper = made.grams(3600)
    assert lower < 4.7 < middle < 16.4 < upper


@given(st.floats(1e-3, 1e7), st.floats(1, 10))
def test_embodied_is_monotone_and_proportional(used_s, factor):
    """Twice the time is twice the grams; more hardware is never less; bounds keep their order."""
    made, more = overheads.embodied("a100"), overheads.embodied("2 a100 + gpu-server/4")
    base = made.grams(used_s)
    assert base[1] <= base[0] * (1 + 1e-9)
    assert base[0] <= base[2] * (1 + 1e-9)
    assert made.grams(used_s * factor) == pytest.approx([one * factor for one in base])
    assert all(one >= other for one, other in zip(more.grams(used_s), base, strict=True))


def test_every_row_of_the_data_has_its_year_and_source():
    """No number without a year and a source, and each can be used by its name."""
    for name, years in overheads.pues().items():
        for year, factor in years:
            assert overheads.pue(f"{name}:{year}") == factor
            assert re.search(r"\d{4}; \S", factor.source)
    assert all(source for _, source in overheads.hardware().values())
    lines = (DATA / "embodied.csv").read_text().splitlines()
    assert len(overheads.hardware()) == len(lines) - 1


def test_a_malformed_row_loses_that_row_only(tmp_path):
    """Rows without a number, a name, a year or a source are left out; the others stay."""
    path = tmp_path / "pue.csv"
    path.write_text(
        "name,year,pue,source\naws,2024,1.15,s\naws,then,1.1,s\ngcp,2024,0.9,s\nx,2024,nan,s\n,2024,2,s\ny,2024\nz,2024,2,\n"
    )
    assert list(overheads.pues(path)) == ["aws"]
    path = tmp_path / "embodied.csv"
    path.write_text(
        "name,low,high,unit,year,source\nh100,164,575,kg,2025,s\nx,5,1,kg,2025,s\ny\nz,a,b,kg,2025,s\n"
    )
    assert list(overheads.hardware(path)) == ["h100"]
    path = tmp_path / "eq.csv"
    path.write_text(
        "id,kind,amount,unit,what,year,source,current\na,energy,1,kWh,x,2024,s,yes\nb,energy,1,g,x,2024,s,yes\n"
        "c,energy,1,miles,x,2024,s,yes\nd,co2e,0,g,x,2024,s,yes\ne\n"
    )
    assert [one.id for one in table(path)] == ["a"]


# Equivalents


def by_id(found):
    return {one.equivalent.id: one for one in found}


def test_the_right_figures_where_the_press_was_wrong():
    """The study's worst 1,000 SDXL images: 11.49 kWh are 522 charges at 0.022 kWh, and 1,594 g are 4.1 miles."""
    charges = by_id(of_energy(11.49 * 3.6e6, year=2024))["phone-charge"]
    assert charges.times == pytest.approx(522, abs=0.5)
    assert by_id(of_energy(11.49 * 3.6e6))["phone-charge"].times == pytest.approx(605, abs=0.5)
    assert by_id(of_energy(11.49e-3 * 3.6e6, year=2023))["phone-charge"].times == pytest.approx(
        0.96, abs=0.005
    )
    assert by_id(of_energy(2.907e-3 * 3.6e6, year=2024))["phone-charge"].times == pytest.approx(
        0.13, abs=0.005
    )
    assert by_id(of_co2e(1594))["car-mile"].times == pytest.approx(4.06, abs=0.01)
    assert by_id(of_co2e(1594, year=2024))["car-mile"].times == pytest.approx(4.09, abs=0.01)
    assert by_id(of_co2e(1.594))["car-km"].times * 1000 == pytest.approx(6.53, abs=0.01)


def test_energy_and_grams_are_never_mixed():
    """Joules have no car and grams no phone charge; each constant has its year and source, and one is current."""
    assert {one.equivalent.kind for one in of_energy(1.0)} == {"energy"}
    assert {one.equivalent.kind for one in of_co2e(1.0)} == {"co2e"}
    assert "car-km" not in by_id(of_energy(1.0))
    assert "phone-charge" not in by_id(of_co2e(1.0))
    assert all(one.year >= 2009 and one.source for one in table())
    current = [one.id for one in table() if one.current]
    assert len(current) == len(set(current)) == len({one.id for one in table()})
    assert "2026" in str(of_co2e(1.0)[0])


@given(st.floats(1e-3, 1e12), st.floats(1, 100))
def test_equivalents_are_proportional(energy_j, factor):
    """Twice the energy is twice the charges."""
    for one, more in zip(of_energy(energy_j), of_energy(energy_j * factor), strict=True):
        assert more.times == pytest.approx(one.times * factor)


# Around a region


def test_neighbours():
    """Those next to a zone, the nation of a state, the zones of a Nordic country; lowest first; always both ways."""
    france = neighbours(resolve("FR"))
    assert {"DE", "ES", "CH", "IT", "BE", "LU", "GB"} <= {one.zone.code for one in france}
    assert [one.intensity.g_per_kwh for one in france] == sorted(one.intensity.g_per_kwh for one in france)
    assert "US" in {one.zone.code for one in neighbours(resolve("aws:us-east-1"))}
    assert "SE-SE3" in {one.zone.code for one in neighbours(resolve("SE"))}
    assert "FR" in {one.zone.code for one in neighbours(resolve("DE"))}
    assert neighbours(resolve("WORLD")) == []


def test_every_neighbour_is_a_place():
    """Each code in the table resolves, so none is lost unseen."""
    for line in (DATA / "borders.csv").read_text().splitlines()[1:]:
        code, _, others = line.partition(",")
        assert all(resolve(one).code == one for one in (code, *others.split()))


def test_the_seven_published_numbers_of_one_region():
    """us-west-2: from 68.82 to 476.66 g/kWh, seven times, as the page on intensities says."""
    numbers = [one.g_per_kwh for one in published(resolve("aws:us-west-2"))]
    assert numbers == [68.82, 119.76, 138.75, 165.54, 297.6, 350.861, 476.66]
    page = (ROOT / "docs" / "explanation" / "which-intensity.md").read_text()
    assert all(f"{number:g}" in page for number in numbers)
    assert published(resolve("FR")) == []


# The page


def test_the_page_names_every_provider_factor_and_item():
    """What can be chosen is on the page: providers with their variables, fuels, and the names of the tables."""
    page = (ROOT / "docs" / "how-to" / "carbon.md").read_text()
    for name in NAMES:
        assert f"| `{name}` |" in page
    for variable in (*KEYS.values(), "WATTTIME_USER", "WATTTIME_PASSWORD"):
        assert f"`{variable}`" in page
    words = page.replace("offshore 12", "wind-offshore 12")
    for fuel, factor in factors().items():
        assert re.search(rf"{fuel} {factor.g_per_kwh:g}\b", words) or (
            fuel == "oil" and "650 for oil" in page
        )
    tables = (
        overheads.pues(),
        overheads.waters("on-site"),
        overheads.waters("electricity"),
        overheads.hardware(),
    )
    for name in {name for known in tables for name in known} - {"lifetime", "utilisation"}:
        assert re.search(rf"`{re.escape(name)}(:\d+)?`", page, re.IGNORECASE), name
    for column in ("start", "end", "zone", *_UNITS, "lower", "estimated"):
        assert f"`{column}`" in page


def test_the_wheel_has_every_table():
    """Each data file lies in the package, where the build takes it from, and is read by something."""
    source = "".join(path.read_text() for path in (ROOT / "aimeter").rglob("*.py"))
    for path in DATA.iterdir():
        assert path.name in source
