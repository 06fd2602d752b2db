"""Generators that their consumer holds suspended: whose joules those are, however the generator ends."""

from __future__ import annotations

import asyncio

import pytest

import aimeter
from aimeter.testing import FakeSensor
from tests.fakes import WATT


def near(seconds):
    return pytest.approx(WATT * seconds, rel=1e-3)


class Bench:
    """A generator that runs for a second at a time, and half of one to clean up, inside a call."""

    def __init__(self, clock, meter):
        self.clock, self.meter = clock, meter

        @meter.track("gen")
        def numbers():
            try:
                while True:
                    clock.sleep(1.0)
                    yield 1
            finally:
                clock.sleep(0.5)

        @meter.track("gen")
        async def anumbers():
            try:
                while True:
                    clock.sleep(1.0)
                    yield 1
            finally:
                clock.sleep(0.5)

        self.numbers, self.anumbers = numbers, anumbers

    def rows(self):
        rows = {row.name: row for row in self.meter.records()}
        return rows["gen"], rows["outer"]


@pytest.fixture
def bench(clock, meter):
    return Bench(clock, meter)


def close(made):
    made.close()


def throw(made):
    with pytest.raises(LookupError):
        made.throw(LookupError())


@pytest.mark.parametrize("end", [close, throw])
def test_a_suspended_generator_that_is_ended_inside_a_call(bench, clock, end):
    """It has the time in which it ran, its clean-up included; the call around it has the rest, before and after."""
    with bench.meter.track("outer"):
        clock.sleep(1.0)
        made = bench.numbers()
        next(made)
        clock.sleep(2.0)
        end(made)
        clock.sleep(4.0)
    gen, outer = bench.rows()
    assert (gen.energy_j, gen.self_j, gen.window_j) == (near(1.5), near(1.5), near(3.5))
    assert (outer.energy_j, outer.self_j, outer.window_j) == (near(8.5), near(7.0), near(8.5))
    assert (gen.concurrency, outer.concurrency) == (pytest.approx(1.0), pytest.approx(1.0))
    assert gen.meta["aimeter"]["suspended_s"] == pytest.approx(2.0)
    assert bench.meter.unattributed_j() == {"gpu:0": pytest.approx(0.0, abs=1e-6)}


def test_a_suspended_async_generator_that_is_closed_inside_a_call(bench, clock):
    """The same for those of asyncio."""

    async def main():
        with bench.meter.track("outer"):
            clock.sleep(1.0)
            made = bench.anumbers()
            await anext(made)
            clock.sleep(2.0)
            await made.aclose()
            clock.sleep(4.0)

    asyncio.run(main())
    gen, outer = bench.rows()
    assert (gen.energy_j, outer.energy_j, outer.self_j) == (near(1.5), near(8.5), near(7.0))


def test_a_suspended_generator_that_nobody_closes(bench, clock):
    """One that is forgotten is closed as it is collected, and the call around it goes on as after any other."""
    with bench.meter.track("outer"):
        next(bench.numbers())
        clock.sleep(4.0)
    gen, outer = bench.rows()
    assert (gen.energy_j, outer.energy_j, outer.self_j) == (near(1.5), near(5.5), near(4.0))


def test_a_call_that_is_ended_while_it_is_suspended(bench, clock):
    """Whoever ends it does not resume it first: from then on it is as if it had never been."""
    with bench.meter.track("outer"):
        clock.sleep(1.0)
        made = bench.numbers()
        next(made)
        clock.sleep(2.0)
        [call] = [call for call in bench.meter.sampler.open_calls() if call.name == "gen"]
        call.finish("closed", None)
        clock.sleep(4.0)
        with bench.meter.track("inner") as inner:
            clock.sleep(1.0)
        clock.sleep(1.0)
    gen, outer = bench.rows()
    assert (gen.energy_j, gen.window_j) == (near(1.0), near(3.0))
    assert inner.energy_j == near(1.0)
    assert (outer.energy_j, outer.self_j) == (near(10.0), near(8.0))
    assert gen.meta["aimeter"]["suspended_s"] == pytest.approx(2.0)
    assert bench.meter.unattributed_j() == {"gpu:0": pytest.approx(0.0, abs=1e-6)}


def test_to_be_told_twice_changes_nothing(bench, clock):
    """A pause in a pause is none, nor is the end of one that has ended."""
    with bench.meter.track("outer") as outer:
        with bench.meter.track("gen") as call:
            clock.sleep(1.0)
            for suspended in (True, True, False, False):
                call.pause(suspended=suspended)
                clock.sleep(1.0)
        clock.sleep(1.0)
    gen, outer = bench.rows()
    assert (gen.energy_j, outer.energy_j, outer.self_j) == (near(3.0), near(6.0), near(3.0))


def test_two_generators_side_by_side(bench, clock):
    """While one is suspended the other one has all, and closing the first leaves the second as it is."""
    with bench.meter.track("outer"):
        first, second = bench.numbers(), bench.numbers()
        for _ in range(3):
            next(first)
            next(second)
        first.close()
        clock.sleep(2.0)
        next(second)
        second.close()
    rows = bench.meter.records()
    gens = sorted(row.energy_j for row in rows if row.name == "gen")
    [outer] = [row for row in rows if row.name == "outer"]
    assert gens == [near(3.5), near(4.5)]
    assert (outer.energy_j, outer.self_j) == (near(10.0), near(2.0))


def test_a_generator_that_nothing_is_open_around(bench, clock):
    """What the device draws while it is suspended is nobody's then."""
    made = bench.numbers()
    next(made)
    clock.sleep(3.0)
    next(made)
    clock.sleep(2.0)
    made.close()
    [gen] = bench.meter.records()
    assert (gen.energy_j, gen.window_j) == (near(2.5), near(7.5))
    assert bench.meter.unattributed_j() == {"gpu:0": near(5.0)}


def test_so_far_of_a_suspended_generator(clock, bench):
    """Asked for while it is suspended, it has what it used until then, and no part of what others use."""
    with bench.meter.track("outer") as outer:
        made = bench.numbers()
        next(made)
        clock.sleep(2.0)
        [call] = [call for call in bench.meter.sampler.open_calls() if call.name == "gen"]
        assert (call.energy_j, call.window_j) == (near(1.0), near(3.0))
        assert (outer.energy_j, outer.self_j) == (near(3.0), near(2.0))
        made.close()


def test_a_child_of_a_suspended_generator_outlives_it(clock):
    """A call that the generator began and left open goes on for itself, and for the call around the generator."""
    meter = aimeter.Meter(sensors=[FakeSensor(clock, WATT)], clock=clock, region="FR")
    started = []

    @meter.track("gen")
    def numbers():
        clock.sleep(1.0)
        task = meter.track("task")
        task.__enter__()
        started.append(task)
        yield 1

    with meter.track("outer") as outer:
        made = numbers()
        next(made)
        made.close()
        clock.sleep(2.0)
        started[0].finish("ok", None)
        clock.sleep(4.0)
    by_name = {row.name: row for row in meter.records()}
    assert by_name["gen"].energy_j == near(1.0)
    assert by_name["task"].energy_j == near(2.0)
    assert (outer.energy_j, outer.self_j) == (near(7.0), near(4.0))
