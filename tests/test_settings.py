"""Settings: layers, conversion, and errors that say where a value came from."""

from __future__ import annotations

import logging
import math
import os
import re
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimeter import settings
from aimeter._support.secret import Secret
from aimeter.errors import ConfigurationError
from aimeter.settings import KEYS, Settings, load

REFERENCE = Path(__file__).parents[1] / "docs" / "reference" / "settings.md"

USABLE = {
    "log": ["calls.csv", Path("calls.jsonl"), None],
    "log_conflict": ["error", "new_file", " NEW_FILE "],
    "region": ["FR", " aws:us-east-1 ", None],
    "intensity_g_per_kwh": [0, 56.04, "2000", None],
    "pue": [1, 1.0, "1.58", "aws:2024"],
    "carbon_provider": ["gb", "https://example.org/grid.csv", lambda *_: 1.0, None],
    "carbon_zone": ["US-CAL-CISO", None],
    "carbon_key": ["my-key", Secret("my-key"), None],
    "carbon_basis": ["lifecycle", "DIRECT", None],
    "carbon_signal": ["average", "marginal", None],
    "carbon_max_age_s": [0, "600"],
    "carbon_cache": ["auto", "off", Path("/x")],
    "market_g_per_kwh": [0, "12.5", None],
    "cloud_metadata": [True, "no"],
    "wue_l_per_kwh": [0, 0.2, "aws:2024", None],
    "grid_water_l_per_kwh": [1.5, "FR", None],
    "embodied": ["h100", "8 h100 + gpu-server", None],
    "interval_s": [0.001, 60, "0.5"],
    "sync": ["auto", "off", True, False, "false", "1"],
    "memory_rows": [0, 10, "10_000"],
    "powercap": ["/host/sys/class/powercap", Path("/x")],
    "calibration": ["auto", "OFF", True, False, "0", Path("/x/calibration.json"), "my.json"],
    "enabled": [True, False, "yes", "ON", "0", 1],
    "run_id": ["nightly", " 7f3a ", None],
    "summary": [True, False, "1", "off"],
}
UNUSABLE = {
    "log": ["", "  ", 3, True, b"calls.csv", "a\0b"],
    "log_conflict": ["append", "", None, 1],
    "region": ["", 3, True, ["FR"]],
    "intensity_g_per_kwh": [-1, 2000.1, math.nan, math.inf, "many", True, [], 10**400],
    "pue": [0.99, 0, -1, math.inf, math.nan, "one", "0.5", "nan", "aws:1999", None, True],
    "carbon_provider": ["", 3, True, ["gb"]],
    "carbon_zone": ["", 3],
    "carbon_key": ["  ", 31415926, b"my-key"],
    "carbon_basis": ["both", 1],
    "carbon_signal": ["mean", 1],
    "carbon_max_age_s": [-1, "long", None],
    "carbon_cache": ["", None, 7],
    "market_g_per_kwh": [-1, 2001, "green"],
    "cloud_metadata": ["perhaps", None],
    "wue_l_per_kwh": [-0.1, "aws:1999", "inf", True],
    "grid_water_l_per_kwh": [-1, "Atlantis"],
    "embodied": ["", "h1000", "0 h100", 3],
    "interval_s": [0, 0.0009, 60.1, "fast", math.nan, None],
    "sync": ["sometimes", "", None, 2],
    "memory_rows": [-1, 10**20, 1.5, "1.5", True, None, math.inf],
    "powercap": ["", None, 7],
    "calibration": ["", None, 7, b"x", "a\0b"],
    "enabled": ["maybe", 2, None, "", 1.0],
    "run_id": ["", "  ", 7, True],
    "summary": ["table", None, 3],
}


@pytest.fixture
def folder(tmp_path):
    """A folder whose own pyproject.toml stops the search from leaving it."""
    (tmp_path / "pyproject.toml").write_text("")
    return tmp_path


def project(folder, text):
    (folder / "pyproject.toml").write_text(text)


def test_defaults(folder):
    """With no layer, every setting has its documented default."""
    assert load({}, environ={}, folder=folder) == Settings()


def test_stronger_layers_win(folder):
    """Arguments beat variables, variables beat pyproject.toml, and each fills what the stronger left open."""
    project(folder, "[tool.aimeter]\npue = 1.1\nregion = 'DE'\nmemory_rows = 7")
    environ = {"AIMETER_PUE": "1.2", "AIMETER_REGION": "FR"}
    got = load({"pue": 1.3}, environ=environ, folder=folder)
    assert (got.pue, got.region, got.memory_rows) == (1.3, "FR", 7)


def test_none_as_argument_is_given(folder):
    """None as an argument overrides the weaker layers; a key that is absent does not."""
    environ = {"AIMETER_LOG": "calls.csv"}
    assert load({"log": None}, environ=environ, folder=folder).log is None
    assert load({}, environ=environ, folder=folder).log == folder / "calls.csv"


def test_empty_variable_is_unset(folder):
    """An empty variable counts as unset, whatever its name."""
    got = load({}, environ={"AIMETER_REGION": "", "AIMETER_PUE": "  ", "AIMETER_NO_SUCH": ""}, folder=folder)
    assert got == Settings()


@pytest.mark.parametrize(("key", "raw"), [(key, raw) for key, raws in USABLE.items() for raw in raws])
def test_usable_values(folder, key, raw):
    """Every usable value is accepted, and a second look at the converted value changes nothing."""
    first = getattr(load({key: raw}, environ={}, folder=folder), key)
    assert getattr(load({key: first}, environ={}, folder=folder), key) == first


@pytest.mark.parametrize(("key", "raw"), [(key, raw) for key, raws in UNUSABLE.items() for raw in raws])
def test_unusable_values(folder, key, raw):
    """An unusable value is refused with key, value, origin and what is expected, by Settings() too."""
    with pytest.raises(ConfigurationError) as caught:
        load({key: raw}, environ={}, folder=folder)
    text = str(caught.value)
    assert key in text
    assert (repr(raw) in text) == (key != "carbon_key")  # which is not to be shown
    assert "argument" in text
    assert KEYS[key].expected in text
    with pytest.raises(ConfigurationError):
        Settings(**{key: raw})


@pytest.mark.parametrize("key", KEYS)
def test_every_key_in_every_layer(folder, key):
    """Each key can be set in each layer, and arrives converted to the same value."""
    text = {
        "log": "/tmp/x.csv", "log_conflict": "new_file", "region": "FR", "intensity_g_per_kwh": "56.5",
        "pue": "1.5", "interval_s": "0.5", "sync": "off", "memory_rows": "5", "powercap": "/host/powercap",
        "calibration": "off", "enabled": "no", "carbon_provider": "gb", "carbon_zone": "13", "carbon_key": "k",
        "carbon_basis": "direct", "carbon_signal": "marginal", "carbon_max_age_s": "60", "carbon_cache": "off",
        "market_g_per_kwh": "10", "cloud_metadata": "yes", "wue_l_per_kwh": "aws:2024",
        "grid_water_l_per_kwh": "FR", "embodied": "h100", "run_id": "nightly", "summary": "1",
    }[key]  # fmt: skip
    by_argument = load({key: text}, environ={}, folder=folder)
    assert getattr(by_argument, key) != getattr(Settings(), key)
    assert load({}, environ={f"AIMETER_{key.upper()}": text}, folder=folder) == by_argument
    project(folder, f'[tool.aimeter]\n{key} = "{text}"')
    assert load({}, environ={}, folder=folder) == by_argument


def test_toml_types(folder):
    """TOML's own booleans and numbers are taken as they are."""
    project(folder, "[tool.aimeter]\nenabled = false\nsync = true\ninterval_s = 1\nmemory_rows = 0")
    got = load({}, environ={}, folder=folder)
    assert (got.enabled, got.sync, got.interval_s, got.memory_rows) == (False, "auto", 1.0, 0)
    assert isinstance(got.interval_s, float)


def test_unknown_argument(folder):
    """An unknown argument is refused, with the nearest known key."""
    with pytest.raises(ConfigurationError, match=r"'regoin' \(argument\)\. Did you mean 'region'\?"):
        load({"regoin": "FR"}, environ={}, folder=folder)


def test_unknown_variable(folder):
    """An unknown AIMETER_ variable is refused by its name; those for tests and of others are left alone."""
    with pytest.raises(ConfigurationError, match=r"AIMETER_INTERVAL\b.*'interval_s'"):
        load({}, environ={"AIMETER_INTERVAL": "1"}, folder=folder)
    load({}, environ={"AIMETER_TEST_NVML": "/x.so", "AIMETERS": "1", "PATH": "/bin"}, folder=folder)


def test_unknown_key_in_pyproject(folder):
    """An unknown key in pyproject.toml is refused with the file's path."""
    project(folder, "[tool.aimeter]\nmemory-rows = 5")
    with pytest.raises(ConfigurationError) as caught:
        load({}, environ={}, folder=folder)
    assert str(folder / "pyproject.toml") in str(caught.value)
    assert "'memory_rows'" in str(caught.value)


def test_unusable_value_names_its_layer(folder):
    """A bad value in a weak layer is refused by name although a stronger layer has a good one."""
    with pytest.raises(ConfigurationError, match=r"environment variable AIMETER_PUE"):
        load({"pue": 1.2}, environ={"AIMETER_PUE": "low"}, folder=folder)
    project(folder, "[tool.aimeter]\npue = 0.5")
    with pytest.raises(ConfigurationError, match=r"\[tool\.aimeter\] in .*pyproject\.toml"):
        load({"pue": 1.2}, environ={}, folder=folder)


def test_paths(folder, monkeypatch):
    """A relative path starts at the current folder, in pyproject.toml at the file's; ~ is the home folder."""
    monkeypatch.setenv("HOME", str(folder / "home"))
    monkeypatch.setenv("USERPROFILE", str(folder / "home"))
    project(folder, "[tool.aimeter]\nlog = 'logs/calls.csv'")
    below = folder / "src" / "deep"
    below.mkdir(parents=True)
    assert load({}, environ={}, folder=below).log == folder / "logs" / "calls.csv"
    assert load({"log": "a.csv"}, environ={}, folder=below).log == below / "a.csv"
    assert load({}, environ={"AIMETER_LOG": "b.csv"}, folder=below).log == below / "b.csv"
    assert load({"log": "~/c.csv"}, environ={}, folder=below).log == folder / "home" / "c.csv"


def test_path_stays_after_chdir(folder, monkeypatch):
    """A relative log stays where it was when the process changes folder later."""
    monkeypatch.chdir(folder)
    log = load({"log": "calls.csv"}, environ={}).log
    assert log == Path(os.path.realpath(folder)) / "calls.csv"


def test_nearest_pyproject_only(folder):
    """Only the nearest pyproject.toml is read, even if it has no section for aimeter."""
    project(folder, "[tool.aimeter]\npue = 1.5")
    inner = folder / "inner"
    inner.mkdir()
    assert load({}, environ={}, folder=inner).pue == 1.5
    project(inner, "[project]\nname = 'aimeter-user'")
    assert load({}, environ={}, folder=inner).pue == 1.0


@pytest.mark.parametrize("text", ["[tool", "tool = 3 # aimeter", "# aimeter\n[project"])
def test_foreign_pyproject(folder, text):
    """A malformed or odd pyproject.toml without a section for aimeter is passed over."""
    project(folder, text)
    assert load({}, environ={}, folder=folder) == Settings()


def test_malformed_pyproject_warns_once(folder, caplog):
    """A malformed file that only mentions aimeter gives one warning, however often it is read."""
    project(folder, "dependencies = ['aimeter-energy'")
    with caplog.at_level(logging.WARNING, logger="aimeter"):
        for _ in range(3):
            load({}, environ={}, folder=folder)
    assert len([record for record in caplog.records if record.name == "aimeter"]) == 1


def test_binary_pyproject(folder, caplog):
    """A file that is not UTF-8 gives a warning and no settings."""
    (folder / "pyproject.toml").write_bytes(b"\xff\xfe[tool.aimeter]")
    assert load({}, environ={}, folder=folder) == Settings()
    assert "cannot be read" in caplog.text


ENDLESS = "f" * 5000


@pytest.mark.parametrize(
    "text",
    [
        "[tool.aimeter]\npue = ",
        "[tool]\naimeter = 3",
        f"[tool.aimeter]\nmemory_rows = {'9' * 5000}",
        f"[tool.aimeter]\nmemory_rows = 0x{ENDLESS}",
        f"[tool.aimeter]\npue = [0x{ENDLESS}]",
        f"[tool]\naimeter = 0x{ENDLESS}",
    ],
    ids=["cut", "no table", "decimal", "hexadecimal", "in a list", "no table, hexadecimal"],
)
def test_unusable_section(folder, text):
    """A section that is ours and unusable is an error with the file's path."""
    project(folder, text)
    with pytest.raises(ConfigurationError, match=re.escape(str(folder / "pyproject.toml"))):
        load({}, environ={}, folder=folder)


def test_deleted_folder(tmp_path, monkeypatch):
    """Settings load in a process whose current folder was deleted."""

    def gone():
        raise FileNotFoundError

    monkeypatch.setattr(settings.Path, "cwd", gone)
    monkeypatch.chdir(tmp_path)
    assert load({}, environ={}) == Settings()


def test_no_home_folder(folder, monkeypatch):
    """A path with ~ where no home folder is known is refused as a bad value."""

    def homeless(_):
        raise RuntimeError

    monkeypatch.setattr(settings.Path, "expanduser", homeless)
    with pytest.raises(ConfigurationError, match="log"):
        load({"log": "~/calls.csv"}, environ={}, folder=folder)


def test_immutable():
    """Settings cannot be changed after they were checked."""
    with pytest.raises(FrozenInstanceError):
        Settings().pue = 2.0


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_number_through_text(value):
    """A number is accepted, as number or as text, exactly where its range says, and unchanged."""
    for key, low, high in (
        ("pue", 1.0, math.inf),
        ("intensity_g_per_kwh", 0.0, 2000.0),
        ("interval_s", 0.001, 60.0),
    ):
        for raw in (value, repr(value)):
            if low <= value <= high and math.isfinite(value):
                assert getattr(Settings(**{key: raw}), key) == value
            else:
                with pytest.raises(ConfigurationError):
                    Settings(**{key: raw})


@given(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(), st.lists(st.integers())
    )
)
def test_any_value_is_settled_at_once(raw):
    """Whatever the value, a setting is either accepted or refused with ConfigurationError, nothing else."""
    for key in KEYS:
        try:
            Settings(**{key: raw})
        except ConfigurationError as error:
            assert key in str(error)  # noqa: PT017 - accepting the value is right too


def test_the_docstring_has_every_setting():
    """Each setting is described once, in order."""
    described = re.findall(
        r"^ {4,8}(\w+): ", Settings.__doc__.partition("Attributes:")[2].partition("Raises:")[0], re.MULTILINE
    )
    assert described == list(KEYS)


def test_reference_page():
    """The reference page lists every setting once, in order, with its true default."""
    rows = re.findall(
        r"^\| `(\w+)` \|.*\| (\S+) \|$", REFERENCE.read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    defaults = Settings()
    want = []
    for key in KEYS:
        value = getattr(defaults, key)
        shown = "none" if value is None else f"`{str(value).lower() if isinstance(value, bool) else value}`"
        want.append((key, shown))
    assert rows == want


def test_origins_name_the_layer_that_wins(folder):
    """Each setting given anywhere has the place it is taken from; the others are absent."""
    project(folder, '[tool.aimeter]\nregion = "FR"\npue = 1.1\nlog = "calls.csv"\n')
    environ = {"AIMETER_PUE": "1.2", "AIMETER_LOG": "other.csv", "AIMETER_SYNC": ""}
    assert settings.origins({"log": None}, environ=environ, folder=folder) == {
        "region": f"[tool.aimeter] in {folder / 'pyproject.toml'}",
        "pue": "environment variable AIMETER_PUE",
        "log": "argument",
    }
