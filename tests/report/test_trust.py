"""The sentence on what figures are worth."""

from __future__ import annotations

import pytest

from aimeter.record import Record
from aimeter.report import summarise, trust
from tests.records import make_record

NONE = {"gpu_method": "none", "cpu_method": "none", "dram_method": "none"}
UNKNOWN = {**NONE, "energy_j": None, "error_j": None, "resolution_j": None}


def trust_sentence(rows: list[Record]) -> str:
    return trust.trust_sentence(summarise(rows).total)


def test_counters_of_one_device_may_be_reported():
    """A counted energy is said to be counted, with the error of all calls together."""
    row = make_record(**{**NONE, "gpu_method": "counter"}, energy_j=100.0, error_j=5.0, resolution_j=0.0)
    assert trust_sentence([row] * 3) == (
        "The joules are what the GPU drew while each call was open, idle power included, counted by its own "
        "energy meter: over all calls they are right to within ±5 % (95 % confidence), good enough to report "
        "with that error."
    )


def test_counters_of_several_devices_are_named_together():
    """Devices measured alike share a clause."""
    row = make_record(gpu_method="counter", cpu_method="counter", dram_method="counter")
    sentence = trust_sentence([row])
    assert "what the GPU, the CPU and the memory drew" in sentence
    assert "counted by their own energy meters:" in sentence


def test_power_is_not_called_a_counter():
    """An integrated power is told apart from a counter."""
    sentence = trust_sentence([make_record(**{**NONE, "gpu_method": "power"})])
    assert "added up from the power that it reports" in sentence
    assert "counted" not in sentence


def test_estimate_is_not_to_be_reported_as_a_measurement():
    """An estimate says so, says why, and says what it is good for."""
    sentence = trust_sentence([make_record(**{**NONE, "cpu_method": "estimate"}, energy_j=10.0, error_j=5.0)])
    assert "what the CPU with its share of the server around it drew" in sentence
    assert "estimated from how busy it was because no energy meter of it could be read" in sentence
    assert "±50 %" in sentence
    assert sentence.endswith(
        "good enough to compare calls on this machine but not to report as a measurement."
    )


def test_mixed_methods_are_told_apart_and_the_worst_decides():
    """Each device goes with its own method; the advice follows the weakest."""
    sentence = trust_sentence(
        [make_record(gpu_method="counter", cpu_method="estimate", dram_method="estimate")]
    )
    assert "the CPU's and the memory's estimated from how busy they were" in sentence
    assert "the GPU's counted by its own energy meter" in sentence
    assert "not to report as a measurement" in sentence


def test_of_several_methods_for_one_device_the_worst_counts():
    """A GPU that was counted in one call and integrated in another is not called counted."""
    rows = [make_record(**{**NONE, "gpu_method": method}) for method in ("counter", "power", "none")]
    assert "added up from the power" in trust_sentence(rows)


@pytest.mark.parametrize("rows", [[], [make_record(**UNKNOWN)] * 2])
def test_without_any_energy_the_joules_are_unknown(rows):
    """Unknown is said to be unknown, with the command that says what is missing."""
    sentence = trust_sentence(rows)
    assert "joules are unknown" in sentence
    assert "`aimeter doctor`" in sentence
    assert "±" not in sentence


def test_calls_without_energy_are_said_to_be_left_out():
    """A figure over part of the calls says over how many."""
    sentence = trust_sentence([make_record(), make_record(**UNKNOWN), make_record()])
    assert "(1 of 3 calls, without any figure, are left out)" in sentence


def test_an_unknown_error_is_not_invented():
    """An energy whose error nobody knows gets no percentage."""
    sentence = trust_sentence([make_record(error_j=None)])
    assert "their error is unknown" in sentence
    assert "%" not in sentence


def test_a_small_error_is_not_rounded_to_nothing():
    """An error below one per cent keeps a digit."""
    assert "±0.4 %" in trust_sentence([make_record(energy_j=1000.0, error_j=4.0)])


def test_it_is_one_sentence():
    """Whatever is measured, the text is a single sentence."""
    for gpu in ("counter", "power", "estimate", "none"):
        for cpu in ("counter", "power", "estimate", "none"):
            sentence = trust_sentence([make_record(**{**NONE, "gpu_method": gpu, "cpu_method": cpu})])
            assert sentence.endswith(".")
            assert ". " not in sentence
