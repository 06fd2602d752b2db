"""Rows: what their columns hold of the energy, of the water it took, and of the making of the hardware."""

from __future__ import annotations

import contextvars
from dataclasses import replace

import pytest

import aimeter
from aimeter.sensors.base import Outcome
from aimeter.testing import FakeSensor

KWH_J = 3.6e6
YEAR_S = 365.25 * 86400.0
H100_KG, LIFE_YEARS, IN_USE = (164.0, 575.0), (3.0, 6.0), (0.3, 1.0)
"""As data/embodied.csv has them, from the least to the most."""


def meter_of(clock, *sensors, **options):
    return aimeter.Meter(sensors=list(sensors), clock=clock, region="FR", calibration="off", **options)


def near(joules):
    return pytest.approx(joules, rel=1e-3)


def made_g(seconds):
    """Return the bounds of what making an H100 emitted for so long a use."""
    lower = 1e3 * H100_KG[0] * seconds / (LIFE_YEARS[1] * YEAR_S * IN_USE[1])
    upper = 1e3 * H100_KG[1] * seconds / (LIFE_YEARS[0] * YEAR_S * IN_USE[0])
    return pytest.approx(lower), pytest.approx(upper)


# Water and making, beside a PUE that is a number


@pytest.mark.parametrize("pue", [1.0, 1.25])
@pytest.mark.parametrize(
    ("chosen", "litres"),
    [
        ({"wue_l_per_kwh": 0.5}, (0.5, None)),
        ({"grid_water_l_per_kwh": 4.0}, (None, 4.0)),
        ({"wue_l_per_kwh": 0.5, "grid_water_l_per_kwh": 4.0}, (0.5, 4.0)),
        ({}, (None, None)),
    ],
)
def test_water_of_a_kilowatt_hour(clock, pue, chosen, litres):
    """On site it is by the IT's energy, in the grid by all that the building takes; what was not chosen is empty."""
    meter = meter_of(clock, FakeSensor(clock, 3600.0), pue=pue, intensity_g_per_kwh=80.0, **chosen)
    with meter.track("x") as call:
        clock.sleep(1000.0)
    row = call.record
    site_l, grid_l = litres
    assert row.energy_j == pytest.approx(KWH_J)
    assert row.water_site_l == (None if site_l is None else pytest.approx(site_l))
    assert row.water_grid_l == (None if grid_l is None else pytest.approx(grid_l * pue))
    assert (row.pue, row.co2e_g) == (pue, pytest.approx(80.0 * pue))
    assert row.embodied_g is None
    names = {"pue"} if pue != 1.0 and chosen else set()
    names |= {"water_site"} if site_l is not None else set()
    names |= {"water_grid"} if grid_l is not None else set()
    assert set(row.meta["aimeter"].get("factors", {})) == names


@pytest.mark.parametrize("pue", [1.0, 1.25])
def test_making_is_by_time_whatever_the_building_takes(clock, pue):
    """Embodied carbon is of the hardware: neither the joules nor the PUE change it."""
    meter = meter_of(clock, FakeSensor(clock, 3600.0), pue=pue, embodied="h100")
    with meter.track("x") as call:
        clock.sleep(1000.0)
    row = call.record
    lower, upper = made_g(1000.0)
    assert (row.embodied_lower_g, row.embodied_upper_g) == (lower, upper)
    assert row.embodied_g == pytest.approx((row.embodied_lower_g * row.embodied_upper_g) ** 0.5)
    assert (row.water_site_l, row.water_grid_l) == (None, None)


def test_making_is_shared_as_the_time_is(clock):
    """Two calls at once have half of the hardware each; one that waits for its consumer has none of it meanwhile; parts of seconds count."""
    meter = meter_of(clock, FakeSensor(clock, 100.0), pue=1.25, embodied="h100")
    first, second = meter.track("first"), meter.track("second")
    with first:
        second.__enter__()
        second._parent = None
        clock.sleep(10.5)
        second.finish("ok", None)
        clock.sleep(20.0)

    @meter.track("held")
    def numbers():
        clock.sleep(5.25)
        yield 1
        clock.sleep(2.0)
        yield 2

    for _ in numbers():
        clock.sleep(100.0)
    rows = {row.name: row for row in meter.records()}
    for name, seconds in (("first", 25.25), ("second", 5.25), ("held", 7.25)):
        lower, upper = made_g(seconds)
        assert (rows[name].embodied_lower_g, rows[name].embodied_upper_g) == (lower, upper)


def test_water_of_nothing_metered_is_unknown(clock):
    """Without joules there are no litres and no grams, and none are made up; the hardware was there all the same."""
    sensor = FakeSensor(clock, 100.0)
    sensor.fault = Outcome.GONE
    meter = meter_of(
        clock, sensor, pue=1.25, wue_l_per_kwh=0.5, grid_water_l_per_kwh=4.0, market_g_per_kwh=9.0, embodied="h100"
    )  # fmt: skip
    with meter.track("x") as call:
        clock.sleep(10.0)
    row = call.record
    assert (row.energy_j, row.co2e_g, row.market_co2e_g, row.water_site_l, row.water_grid_l) == (None,) * 5
    assert row.embodied_lower_g == made_g(10.0)[0]


# The idle part


def rest(meter, clock):
    """Let devices be seen at rest."""
    with meter.track("warm-up"):
        clock.sleep(0.1)
    clock.sleep(3.0)


def test_the_idle_part_is_of_the_devices_that_metered_the_call(clock):
    """A device that was gone when the call began adds nothing to its idle part, and does not empty it either."""
    gpu, cpu = FakeSensor(clock, 40.0), FakeSensor(clock, 10.0, id="cpu:0")
    meter = meter_of(clock, gpu, cpu)
    rest(meter, clock)
    with meter.track("both") as both:
        clock.sleep(1.0)
    assert both.idle_j == pytest.approx(50.0, rel=1e-3)
    cpu.fault = Outcome.GONE
    clock.sleep(1.0)
    with meter.track("one") as one:
        clock.sleep(2.0)
    assert (one.cpu_j, one.idle_j) == (None, pytest.approx(80.0, rel=1e-3))


def test_the_idle_part_is_known_beside_a_device_that_never_answered(clock):
    """A device of which nothing was ever seen has no idle power, and none is missed where it metered nothing."""
    gpu, cpu = FakeSensor(clock, 40.0), FakeSensor(clock, 10.0, id="cpu:0")
    cpu.fault = Outcome.AGAIN
    meter = meter_of(clock, gpu, cpu)
    rest(meter, clock)
    with meter.track("x") as call:
        clock.sleep(2.0)
    assert (call.cpu_j, call.idle_j) == (None, pytest.approx(80.0, rel=1e-3))


def test_the_idle_part_is_unknown_where_that_of_one_device_is(clock):
    """A device that metered the call and was never seen at rest leaves the sum unknown, not small."""
    cpu = FakeSensor(clock, 10.0, id="cpu:0")
    cpu.fault = Outcome.AGAIN
    meter = meter_of(clock, FakeSensor(clock, 40.0), cpu)
    rest(meter, clock)
    with meter.track("around") as around:
        clock.sleep(0.1)
        cpu.fault = None
        clock.sleep(60.0)
    assert around.cpu_j == pytest.approx(600.0, rel=0.02)  # it is asked again after a second
    assert around.idle_j is None


def test_the_idle_part_is_shared_and_no_more_than_the_call_has(clock):
    """Half of the idle power where two are open, by weight; and where the device draws less than at rest, all that it draws."""
    power = {"w": 40.0}
    sensor = FakeSensor(clock, lambda _: power["w"])
    meter = meter_of(clock, sensor)
    rest(meter, clock)
    power["w"] = 100.0
    heavy, light = meter.track("heavy", weight=3.0), meter.track("light")
    with heavy:
        light.__enter__()
        light._parent = None
        clock.sleep(2.0)
        light.finish("ok", None)
    power["w"] = 40.0
    clock.sleep(3.0)
    assert heavy.idle_j == pytest.approx(2.0 * 40.0 * 3 / 4, rel=1e-3)
    assert light.idle_j == pytest.approx(2.0 * 40.0 * 1 / 4, rel=1e-3)
    power["w"] = 30.0
    with meter.track("less") as less:
        clock.sleep(1.0)
    assert less.idle_j == pytest.approx(30.0, rel=1e-3)
    assert less.idle_j <= less.energy_j


def test_the_idle_part_is_learned_from_short_gaps_by_themselves(clock):
    """Gaps of 0.2 s between calls say what the device draws in them, whatever it drew in the calls around."""
    power = {"w": 40.0}
    meter = meter_of(clock, FakeSensor(clock, lambda _: power["w"]))
    for _ in range(4):
        power["w"] = 300.0
        with meter.track("x") as call:
            clock.sleep(1.0)
        power["w"] = 40.0
        clock.sleep(0.2)
    assert call.idle_j == near(40.0)


def test_a_gap_in_which_another_device_is_used_teaches_nothing(clock):
    """A CPU that works for a call on the GPU alone is not at rest, though no call has a part in it just then."""
    power = {"cpu": 60.0}
    cpu = FakeSensor(clock, lambda _: power["cpu"], id="cpu:0")
    meter = meter_of(clock, FakeSensor(clock, 100.0), cpu)
    for _ in range(2):
        with meter.track("cpu", devices="cpu") as call:
            clock.sleep(1.0)
        power["cpu"] = 200.0
        with meter.track("gpu", devices="gpu"):
            clock.sleep(1.0)
        power["cpu"] = 60.0
    assert call.idle_j is None


# Devices, by name


def test_each_device_has_its_joules_under_its_name(clock):
    """GPUs by the head of their UUID, what is shared by a tilde, a control group by its number; joules in that order."""
    sensors = [
        FakeSensor(clock, 100.0, id="gpu:0", device="GPU-1a2b3c4d-5e6f-7a8b-9c0d-1e2f3a4b5c6d"),
        FakeSensor(clock, 50.0, id="gpu:1", device="GPU-99887766-5544-3322-1100-ffeeddccbbaa", shared=True),
        FakeSensor(clock, 20.0, id="cpu:0", device="package-0"),
        FakeSensor(clock, 5.0, id="cpu:1", device="77-group", source="cgroup", method="estimate"),
    ]
    meter = meter_of(clock, *sensors)
    with meter.track("x") as call:
        clock.sleep(2.0)
    row = call.record
    assert row.devices == "gpu:0:GPU-1a2b3c4d gpu:1:GPU-99887766~ cpu:0 cpu:1:77-group"
    assert row.devices_j == (near(200.0), near(100.0), near(40.0), near(10.0))
    assert (row.gpu_j, row.cpu_j, row.dram_j, row.energy_j) == (near(300.0), near(50.0), None, near(350.0))
    assert (row.gpu_method, row.cpu_method, row.dram_method) == ("counter", "estimate", "none")


def test_a_call_of_one_device_has_that_one_alone_under_its_name(clock):
    """Whichever of several it is, and whatever goes on beside it on the others."""
    sensors = [FakeSensor(clock, 100.0 * (k + 1), id=f"gpu:{k}", device=f"GPU-{k}-x") for k in range(3)]
    meter = meter_of(clock, *sensors)
    other = meter.track("other", devices="gpu:0")
    contextvars.Context().run(other.__enter__)  # beside the others, and not around them
    for k in (1, 2):
        with meter.track("x", devices=f"gpu:{k}") as call:
            clock.sleep(2.0)
        assert (call.record.devices, call.record.devices_j) == (f"gpu:{k}:GPU-{k}", (near(200.0 * (k + 1)),))
        assert call.energy_j == near(200.0 * (k + 1))
    other.finish("ok", None)
    assert (other.record.devices, other.record.devices_j) == (
        "gpu:0:GPU-0",
        (near(100.0 * other.duration_s),),
    )


def test_the_model_is_what_the_call_was_told(clock):
    """As text, whatever it was given as; empty if it was not."""
    meter = meter_of(clock, FakeSensor(clock, 100.0))
    for model in ("tiny", None, 7):
        with meter.track("x", model=None if model == 7 else model) as call:
            clock.sleep(0.1)
            if model == 7:
                call.note(model=7)
    assert [row.model for row in meter.records()] == ["tiny", None, "7"]


class Reserve(FakeSensor):
    """A counter that can be given up for an estimate."""

    def fall_back(self):
        self.fault = None
        self.channels = (replace(self.channels[0], method="estimate"),)
        return True


def test_a_device_that_fell_back_has_one_name_and_all_its_joules(clock):
    """Two ways of reading it, one after the other, are one device: one name, one sum, the worse of the methods."""
    gpu, cpu = Reserve(clock, 100.0), FakeSensor(clock, 10.0, id="cpu:0")
    meter = meter_of(clock, gpu, cpu)
    with meter.track("around") as around:
        clock.sleep(5.0)
        meter.sampler.refresh(0)
        gpu.fault = Outcome.GONE
        meter.sampler.refresh(0)
        clock.sleep(5.0)
    row = around.record
    assert row.devices == "gpu:0:FAKE-gpu:0 cpu:0"
    assert row.devices_j == (pytest.approx(1000.0, rel=0.02), near(100.0))
    assert row.devices_j[0] == pytest.approx(row.gpu_j)
    assert row.gpu_method == "estimate"
    assert row.coverage == pytest.approx(1.0, abs=0.02)
    assert row.coverage <= 1.0


def test_meters_of_one_kind_are_wrong_alike_and_others_apart(clock):
    """Calibrations of one kind add up plainly, and with those of others in quadrature."""
    sensors = [
        FakeSensor(clock, 100.0, id="gpu:0", relative_error=0.1),
        FakeSensor(clock, 50.0, id="gpu:1", relative_error=0.1),
        FakeSensor(clock, 40.0, id="cpu:0", relative_error=0.2),
        FakeSensor(clock, 10.0, id="dram:0", relative_error=0.4),
    ]
    meter = meter_of(clock, *sensors)
    clock.sleep(1.0)
    with meter.track("x") as call:
        clock.sleep(1.0)
    row = call.record
    assert row.resolution_j == pytest.approx(0.0, abs=1e-6)
    assert row.error_j == near((15.0**2 + 8.0**2 + 4.0**2) ** 0.5)


# What cannot be


@pytest.mark.parametrize(
    ("watts", "said"),
    [
        (109.0, None),
        (112.0, "112 W is outside 40 W idle to 100 W limit"),
        (21.0, None),
        (19.0, "19 W is outside 40 W idle to 100 W limit"),
    ],
)
def test_a_power_that_the_device_cannot_draw_is_said(clock, watts, said):
    """A tenth above the limit, or below half of the idle power: either the sensor is wrong or another one is meant."""
    power = {"w": 40.0}
    meter = meter_of(clock, FakeSensor(clock, lambda _: power["w"], max_power_w=100.0))
    rest(meter, clock)
    power["w"] = watts
    with meter.track("x") as call:
        clock.sleep(1.0)
    found = call.record.meta["aimeter"].get("implausible")
    assert found == (None if said is None else {"gpu:0": said})


def test_a_power_that_may_be_within_the_limit_is_not_doubted(clock):
    """A call that is known to 20 % only is not called impossible for being 15 % above."""
    power = {"w": 40.0}
    meter = meter_of(clock, FakeSensor(clock, lambda _: power["w"], max_power_w=100.0, quantum_j=20.0))
    rest(meter, clock)
    power["w"] = 115.0
    with meter.track("x") as call:
        clock.sleep(1.0)
    assert 115.0 - call.resolution_j < 110.0
    assert "implausible" not in call.record.meta["aimeter"]


def test_a_power_that_may_be_that_of_rest_is_not_doubted(clock):
    """A call that is known to 20 % only is not called impossible for being a little below half of the idle power."""
    power = {"w": 100.0}
    meter = meter_of(clock, FakeSensor(clock, lambda _: power["w"], quantum_j=10.0))
    rest(meter, clock)
    power["w"] = 45.0
    with meter.track("x") as call:
        clock.sleep(1.0)
    assert 45.0 + call.resolution_j > 50.0
    assert "implausible" not in call.record.meta["aimeter"]


# What is missing


def test_a_device_that_died_is_missing_where_it_was_open_or_not_back(clock):
    """Before its death it is not missing, in the call in which it dies it is, nor does it come back by itself."""
    gpu, cpu = FakeSensor(clock, 100.0), FakeSensor(clock, 10.0, id="cpu:0")
    meter = meter_of(clock, gpu, cpu)
    with meter.track("before") as before:
        clock.sleep(1.0)
    with meter.track("during") as during:
        clock.sleep(1.0)
        meter.sampler.refresh(0)
        cpu.fault = Outcome.GONE
        clock.sleep(3.0)
    with meter.track("after") as after:
        clock.sleep(1.0)
    missing = [call.record.meta["aimeter"].get("missing") for call in (before, during, after)]
    assert missing == [None, {"cpu:0": "the test says so"}, {"cpu:0": "the test says so"}]
    assert [call.record.coverage for call in (before, during, after)] == [1.0, pytest.approx(0.25), 1.0]
    assert [call.cpu_j for call in (before, during, after)] == [near(10.0), near(10.0), None]


def test_a_device_that_came_back_is_not_missing(clock):
    """It is in the calls that began after that, and in no other."""
    gpu, cpu = FakeSensor(clock, 100.0), FakeSensor(clock, 10.0, id="cpu:0")
    meter = meter_of(clock, gpu, cpu)
    with meter.track("before"):
        clock.sleep(1.0)
    cpu.fault = Outcome.GONE
    with meter.track("without") as without:
        clock.sleep(1.0)
    cpu.fault = None
    with meter.track("around"):
        clock.sleep(10.0)
    with meter.track("back") as back:
        clock.sleep(1.0)
    assert "missing" in without.record.meta["aimeter"]
    assert "missing" not in back.record.meta["aimeter"]
    assert (back.cpu_j, back.record.coverage) == (near(10.0), pytest.approx(1.0))


def test_a_call_of_no_time_is_metered_by_what_is_alive(clock):
    """It has 0 J of a device that answers, and no figure of one that is gone."""
    gpu, cpu = FakeSensor(clock, 100.0), FakeSensor(clock, 10.0, id="cpu:0")
    meter = meter_of(clock, gpu, cpu)
    with meter.track("before"):
        clock.sleep(1.0)
    cpu.fault = Outcome.GONE
    clock.sleep(1.0)
    with meter.track("instant") as instant:
        pass
    clock.sleep(1.0)
    assert (instant.gpu_j, instant.cpu_j, instant.energy_j) == (0.0, None, 0.0)
    assert instant.record.coverage == 1.0


def test_nothing_metered_is_covered_by_nothing(clock):
    """With no device alive a call has no joules, and its coverage says 0, not 1."""
    sensor = FakeSensor(clock, 100.0)
    sensor.fault = Outcome.GONE
    meter = meter_of(clock, sensor)
    with meter.track("x") as call:
        clock.sleep(1.0)
    row = call.record
    assert (row.energy_j, row.error_j, row.self_j, row.window_j, row.idle_j) == (None,) * 5
    assert (row.coverage, row.devices, row.devices_j) == (0.0, "", ())


def test_an_open_call_is_covered_and_alone_so_far(clock):
    """What only the end of a call tells stands at its plain value until then, the making of hardware by the time so far."""
    meter = meter_of(clock, FakeSensor(clock, 100.0), embodied="h100")
    with meter.track("x") as call:
        clock.sleep(10.0)
        row = call.record
        assert (row.coverage, row.concurrency) == (1.0, 1.0)
        assert row.duration_s == pytest.approx(10.0)
        assert row.embodied_lower_g == made_g(10.0)[0]
        assert row.devices_j == (near(1000.0),)
