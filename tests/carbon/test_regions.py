"""Regions: a complete map, no ambiguous answer, and refusals that help."""

from __future__ import annotations

import contextlib
import csv
import json
import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimeter.carbon import location
from aimeter.carbon.location import FORMS, WORLD, Zone, known, resolve
from aimeter.carbon.regions import cloud_regions, countries, subdivisions
from aimeter.carbon.tables import installed
from aimeter.errors import ConfigurationError, UnknownRegionError


def codecarbon(file):
    return json.loads((installed().folder / file).read_text(encoding="utf-8"))


def test_iso_3166():
    """The map has the 249 entries of ISO 3166-1 and Kosovo; alpha-2 and alpha-3 map one to one."""
    table = countries()
    assert len(table) == 249 + 1
    assert len({country.alpha_2 for country in table}) == len(table)
    assert len({country.alpha_3 for country in table}) == len(table)
    assert len({country.name for country in table}) == len(table)
    for country in table:
        assert re.fullmatch(r"[A-Z]{2}", country.alpha_2)
        assert re.fullmatch(r"[A-Z]{3}", country.alpha_3)
        assert resolve(country.alpha_2) is resolve(country.alpha_3)
        assert resolve(country.alpha_2).country == country.alpha_3


def test_countries_of_codecarbon():
    """Each of codecarbon's countries is known by code and by name, except Georgia: that is a state too."""
    for alpha_3, row in codecarbon("private_infra/global_energy_mix.json").items():
        zone = resolve(alpha_3)
        assert zone.country == alpha_3
        if alpha_3 != "GEO":
            assert resolve(row["country_name"]) is zone


def test_states_and_provinces_of_codecarbon():
    """The map's states, DC included, and provinces are those of codecarbon's files, code by name."""
    (states,) = installed().folder.glob("private_infra/*/usa_emissions.json")
    (provinces,) = installed().folder.glob("private_infra/*/canada_energy_mix.json")
    table = json.loads(states.read_text(encoding="utf-8"))
    want = {
        f"US-{row['regionCode']}": name for name, row in table.items() if name[0] != "_" and name != "usa"
    }
    have = {place.code: place.name.lower() for place in subdivisions() if place.code.startswith("US-")}
    assert have == want
    assert len(have) == 51
    have = {place.name.lower() for place in subdivisions() if place.code.startswith("CA-")}
    assert have == set(json.loads(provinces.read_text(encoding="utf-8")))
    assert len(have) == 13


def test_zones_of_codecarbon():
    """Each Nordic bidding zone and Chinese province of codecarbon's files is known by its key there."""
    keys = set(codecarbon("private_infra/nordic_emissions.json")["data"]) - {"FI"}
    for file in installed().folder.glob("private_infra/*/china_provincial_emissions.json"):
        keys |= set(json.loads(file.read_text(encoding="utf-8"))["data"])
    codes = {resolve(key).code for key in keys}
    countries_of_codes = {code[:2] for code in codes}  # codecarbon before 3.3.2 has no Chinese provinces
    parts = {place.code for place in subdivisions() if place.code[:2] in countries_of_codes}
    assert parts - {"CN-XZ"} == codes


def test_cloud_map_is_consistent():
    """Each cloud region has a known country, and those in the USA and Canada a known part of it."""
    alpha_2 = {country.alpha_3: country.alpha_2 for country in countries()}
    parts = {place.code for place in subdivisions()}
    for place in cloud_regions():
        assert place.country in alpha_2
        assert (place.subdivision is not None) == (place.country in ("USA", "CAN"))
        if place.subdivision:
            assert place.subdivision in parts
            assert place.subdivision[:2] == alpha_2[place.country]
        assert place.place
        assert place.region == place.region.lower().strip()


def test_cloud_map_is_complete():
    """The map has all public regions of the three clouds, none twice."""
    names = Counter((place.provider, place.region) for place in cloud_regions())
    assert set(names.values()) == {1}
    assert Counter(provider for provider, _ in names) == {"aws": 41, "azure": 72, "gcp": 44}


def test_cloud_map_agrees_with_codecarbon():
    """Google's regions stand where codecarbon's file says, but for Hong Kong, which is there under China."""
    where = {place.region: place.country for place in cloud_regions() if place.provider == "gcp"}
    with (installed().folder / "cloud" / "impact.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = {row["region"]: row["countryIsoCode"] for row in csv.DictReader(file)}
    rows["me-central1"] = rows.pop("me-cenrtal1", "QAT")
    rows["asia-east2"] = "HKG"
    assert {region: where[region] for region in rows} == rows


@pytest.mark.parametrize(
    ("region", "code", "grid", "country"),
    [
        ("FR", "FR", "FR", "FRA"),
        ("fra", "FR", "FR", "FRA"),
        ("  fRaNcE ", "FR", "FR", "FRA"),
        ("UK", "GB", "GB", "GBR"),
        ("UAE", "AE", "AE", "ARE"),
        ("Turkey", "TR", "TR", "TUR"),
        ("cote d'ivoire", "CI", "CI", "CIV"),
        ("Réunion", "RE", "RE", "REU"),
        ("united  states", "US", "US", "USA"),
        ("US-PR", "PR", "PR", "PRI"),
        ("US-VI ", "VI", "VI", "VIR"),
        ("CN-HK", "HK", "HK", "HKG"),
        ("US-VA", "US-VA", "US-VA", "USA"),
        ("us-dc", "US-DC", "US-DC", "USA"),
        ("California", "US-CA", "US-CA", "USA"),
        ("CA-QC", "CA-QC", "CA-QC", "CAN"),
        ("Québec", "CA-QC", "CA-QC", "CAN"),
        ("SE3", "SE-SE3", "SE-SE3", "SWE"),
        ("se-se3", "SE-SE3", "SE-SE3", "SWE"),
        ("NO1", "NO-NO1", "NO-NO1", "NOR"),
        ("CN-GD", "CN-GD", "CN-GD", "CHN"),
        ("aws:us-east-1", "aws:us-east-1", "US-VA", "USA"),
        ("AWS: us-east-1", "aws:us-east-1", "US-VA", "USA"),
        ("us-east-1", "aws:us-east-1", "US-VA", "USA"),
        ("us-east1", "gcp:us-east1", "US-SC", "USA"),
        ("azure:westeurope", "azure:westeurope", "NL", "NLD"),
        ("azure:West Europe", "azure:westeurope", "NL", "NLD"),
        ("gcp:europe-west9", "gcp:europe-west9", "FR", "FRA"),
        ("aws:eu-west-1", "aws:eu-west-1", "IE", "IRL"),
        ("world", "WORLD", "WORLD", ""),
    ],
)
def test_forms(region, code, grid, country):
    """Every documented form is understood, whatever its case, accents and spaces."""
    zone = resolve(region)
    assert (zone.code, zone.grid, zone.country) == (code, grid, country)


@pytest.mark.parametrize(
    ("code", "name"),
    [("CA", "Canada"), ("US-CA", "California"), ("DE", "Germany"), ("US-DE", "Delaware"), ("AL", "Albania"),
     ("GA", "Gabon"), ("US-GA", "Georgia"), ("GE", "Georgia"), ("MD", "Moldova"), ("IN", "India"),
     ("NO", "Norway"), ("AE", "United Arab Emirates"), ("VA", "Vatican City"),
     ("CA-NL", "Newfoundland and Labrador"),
     ("COL", "Colombia"), ("CO", "Colombia"), ("CN-SX", "Shanxi"), ("CN-SN", "Shaanxi"), ("CG", "Congo"),
     ("CD", "Democratic Republic of the Congo")],
)  # fmt: skip
def test_two_letter_traps(code, name):
    """Two letters alone are always a country, never a US state or a province."""
    assert resolve(code).name == name
    assert resolve(code).code in (code, "CO")


@pytest.mark.parametrize(
    ("name", "codes"),
    [("Georgia", ("GE", "US-GA")), ("korea", ("KP", "KR")), ("Virgin Islands", ("VG", "VI"))],
)
def test_name_of_two_places(name, codes):
    """A name of two places is refused with the codes of both."""
    with pytest.raises(UnknownRegionError, match="give the code") as caught:
        resolve(name)
    for code in codes:
        assert f"{code} (" in str(caught.value)


@pytest.mark.parametrize(
    ("region", "offer"),
    [
        ("Germny", "'Germany'"),
        ("FRR", "'FR'"),
        ("us-east-9", "'us-east-1'"),
        ("aws:us-east1", "'aws:us-east-1'"),
        ("gcp:us-east-1", "'gcp:us-east1'"),
        ("azure:westeurop", "'azure:westeurope'"),
        ("google:us-east1", "'gcp:us-east1'"),
        ("Calfornia", "'California'"),
        ("SE9", "'SE"),
        ("CA-QB", "'CA-QC'"),
    ],
)
def test_near_matches(region, offer):
    """An unknown name is refused with what may have been meant and the forms that are understood."""
    with pytest.raises(UnknownRegionError) as caught:
        resolve(region)
    assert offer in str(caught.value)
    assert FORMS in str(caught.value)


def test_near_matches_keep_to_the_provider_named():
    """What is offered for a region of one cloud is of that cloud."""
    with pytest.raises(UnknownRegionError) as caught:
        resolve("azure:us-east-1")
    offered = re.findall(r"'(\S+)'", str(caught.value).partition("Did you mean")[2].partition("?")[0])
    assert offered
    assert all(name.startswith("azure:") for name in offered)


@pytest.mark.parametrize("region", ["", " ", "Atlantis 7", "12345", ":", "aws:", "世界", "=1+1"])
def test_hopeless_names(region):
    """A name that resembles nothing is refused with the forms that are understood."""
    with pytest.raises(UnknownRegionError) as caught:
        resolve(region)
    assert FORMS in str(caught.value)
    assert isinstance(caught.value, ConfigurationError)


def test_every_zone_goes_by_its_code():
    """Each zone is found by its code, in capitals and in small letters."""
    codes = [zone.code for zone in known()]
    assert len(set(codes)) == len(codes)
    for zone in known():
        assert resolve(zone.code) == resolve(zone.code.lower()) == resolve(zone.code.upper()) == zone


def test_grid_is_a_zone_of_its_own():
    """The grid that a cloud region draws from is a known state, province or country of the same country."""
    for zone in known():
        if zone is not WORLD:
            assert resolve(zone.grid).country == zone.country


def test_no_two_clouds_share_a_name():
    """A bare cloud region means one cloud; the reference page relies on it."""
    bare = Counter(place.region for place in cloud_regions())
    assert set(bare.values()) == {1}
    for place in cloud_regions():
        assert resolve(place.region).code == f"{place.provider}:{place.region}"


def test_aliases_are_not_codes():
    """No other name of a country hides behind somebody's code."""
    codes = {zone.code.casefold() for zone in known()} | {
        country.alpha_3.casefold() for country in countries()
    }
    for country in countries():
        assert not {name.casefold() for name in (country.name, *country.aliases)} & codes


@given(st.text(max_size=40))
def test_any_text(text):
    """Any text is a zone or is refused with UnknownRegionError."""
    with contextlib.suppress(UnknownRegionError):
        assert isinstance(resolve(text), Zone)


@given(st.data())
def test_case_does_not_matter(data):
    """A name means the same in any letter case."""
    zone = data.draw(st.sampled_from(known()))
    text = "".join(data.draw(st.sampled_from((sign.lower(), sign.upper()))) for sign in zone.code)
    assert resolve(text) == zone


def test_a_malformed_row_loses_that_row_only(tmp_path, monkeypatch):
    """Rows cut short or without a code are left out, and so is what lies in their country; the rest stays."""
    (tmp_path / "countries.csv").write_text(
        "alpha_2,alpha_3,name,aliases\nFR,FRA,France,\nDE,DEU\n,XXX,Nowhere,\n"
    )
    (tmp_path / "subdivisions.csv").write_text("code,name\nUS-VA,Virginia\nUS-XX\n")
    (tmp_path / "cloud_regions.csv").write_text(
        "provider,region,country,subdivision,place\naws,eu-west-3,FRA,,Paris\naws,x,DEU,,Frankfurt\naws\n"
    )
    tables = {
        name: getattr(location, name)(tmp_path) for name in ("countries", "subdivisions", "cloud_regions")
    }
    assert [len(table) for table in tables.values()] == [1, 1, 2]
    for name, table in tables.items():
        monkeypatch.setattr(location, name, lambda table=table: table)
    assert [zone.code for zone in known.__wrapped__()] == ["WORLD", "FR", "aws:eu-west-3"]
