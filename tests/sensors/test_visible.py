"""The GPUs that a process may use follow CUDA's rules for its two environment variables."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimeter.sensors.visible import Gpu, MigInstance, enumerated_by_torch, visible

A = Gpu(0, "GPU-11111111-aaaa", "NVIDIA A100", (8, 0), 400.0)
B = Gpu(1, "GPU-22222222-bbbb", "NVIDIA A100", (8, 0), 400.0)
C = Gpu(2, "GPU-22222222-cccc", "NVIDIA A100", (8, 0), 400.0)
EQUAL = (A, B, C)

OLD = Gpu(0, "GPU-0ld", "Tesla V100", (7, 0), 300.0)
SLOW = Gpu(1, "GPU-510w", "NVIDIA L4", (8, 9), 72.0)
FAST = Gpu(2, "GPU-fa57", "NVIDIA RTX 4090", (8, 9), 450.0)
MIXED = (OLD, SLOW, FAST)

PARENT = Gpu(
    0,
    "GPU-33333333",
    "NVIDIA H100",
    (9, 0),
    700.0,
    mig_enabled=True,
    mig=(MigInstance("MIG-aaaa1111", 3, 0), MigInstance("MIG-bbbb2222", 5, 1)),
)
WHOLE = Gpu(1, "GPU-44444444", "NVIDIA H100", (9, 0), 700.0)
PARTED = (PARENT, WHOLE)


def indices(gpus, devices, order=None, enumerated=None):
    selection = visible(gpus, visible_devices=devices, device_order=order, enumerated=enumerated)
    return [gpu.index for gpu in selection.gpus]


def problems(gpus, devices, order=None):
    return [problem for problem, _ in visible(gpus, visible_devices=devices, device_order=order).warnings]


@pytest.mark.parametrize(
    ("devices", "expected"),
    [
        (None, [0, 1, 2]),
        ("0", [0]),
        ("1", [1]),
        ("2,0", [2, 0]),
        (" 1 , 2 ", [1, 2]),
        ("+1", [1]),
    ],
)
def test_unset_and_numbers(devices, expected):
    """Unset is all; numbers are positions in the system's order, and their order is kept."""
    assert indices(EQUAL, devices) == expected
    assert problems(EQUAL, devices) == []


@pytest.mark.parametrize("devices", ["", " ", ","])
def test_empty_is_none(devices):
    """An empty value hides every device, without a word."""
    assert indices(EQUAL, devices) == []
    assert problems(EQUAL, devices) == []


def test_minus_one_is_none():
    """-1 is the usual way to hide every device, and no mistake."""
    assert indices(EQUAL, "-1") == []
    assert problems(EQUAL, "-1") == []


@pytest.mark.parametrize(
    ("devices", "expected", "warned"),
    [
        ("0,2,-1,1", [0, 2], False),
        ("0,7,1", [0], True),
        ("x,0", [], True),
        ("1,GPU-11111111", [1], True),
        ("GPU-11111111,1", [0], True),
        ("GPU-11111111,MIG-aaaa1111", [0], True),
        ("9" * 5000, [], True),
        ("\u0663", [], True),
    ],
)
def test_an_invalid_entry_hides_itself_and_all_after_it(devices, expected, warned):
    """What names no device, or another kind of name, ends the list; the user is told unless it is -1."""
    assert indices(EQUAL, devices) == expected
    assert bool(problems(EQUAL, devices)) == warned


@pytest.mark.parametrize(
    ("devices", "expected"),
    [
        ("GPU-22222222-bbbb", [1]),
        ("GPU-22222222-b", [1]),
        ("GPU-1", [0]),
        ("GPU-22222222-cccc,GPU-1", [2, 0]),
        ("GPU-22222222", []),
        ("GPU-22222222-bbbb-and-more", []),
        ("GPU-9", []),
    ],
)
def test_uuids_and_their_unique_prefixes(devices, expected):
    """A UUID or any prefix that only one device has names it; an ambiguous one is invalid."""
    assert indices(EQUAL, devices) == expected


@pytest.mark.parametrize(
    ("devices", "expected"),
    [
        ("MIG-aaaa1111", [0]),
        ("MIG-b", [0]),
        ("MIG-GPU-33333333/5/1", [0]),
        ("MIG-GPU-33333333/5/0", []),
        ("MIG-GPU-44444444/3/0", []),
        ("MIG-aaaa1111,MIG-bbbb2222", [0]),
        ("MIG-aaaa1111,GPU-44444444", [0]),
        ("MIG-cccc", []),
        ("MIG-", []),
    ],
)
def test_mig_instances_name_their_parent(devices, expected):
    """A MIG instance, by UUID or by the form of drivers before 470, selects its parent, once."""
    assert indices(PARTED, devices) == expected


def test_a_partitioned_gpu_is_marked():
    """However a partitioned GPU is named, it is known that the process has only a part of it."""
    for devices in (None, "0", "GPU-3", "MIG-a"):
        selected = visible(PARTED, visible_devices=devices, device_order=None).gpus
        assert selected[0].mig_enabled
    assert not visible(PARTED, visible_devices="1", device_order=None).gpus[0].mig_enabled


def test_only_the_selected():
    """One of four means one."""
    gpus = tuple(Gpu(i, f"GPU-{i}", "NVIDIA A100") for i in range(4))
    assert indices(gpus, "1") == [1]


@pytest.mark.parametrize("devices", ["0,0", "0,1,1", "GPU-1,GPU-11111111-aaaa", "MIG-a,MIG-aaaa1111"])
def test_a_repeated_device_leaves_none(devices):
    """Naming one device twice makes CUDA show no device at all, and the user is told."""
    gpus = PARTED if devices.startswith("MIG") else EQUAL
    assert indices(gpus, devices) == []
    assert "twice" in problems(gpus, devices)[0]


def test_a_number_ends_where_its_digits_end():
    """CUDA reads numbers as strtoul does."""
    assert indices(EQUAL, "1x,0-2") == [1, 0]


def test_pci_order_is_nvmls():
    """With CUDA_DEVICE_ORDER=PCI_BUS_ID CUDA's numbers are NVML's."""
    assert indices(MIXED, "0,1", "PCI_BUS_ID") == [0, 1]
    assert problems(MIXED, "0,1", "PCI_BUS_ID") == []


@pytest.mark.parametrize("order", [None, "FASTEST_FIRST"])
def test_fastest_first_is_a_guess_with_a_remedy(order):
    """Unequal GPUs by number are guessed by capability, then power, and the remedy is named."""
    assert indices(MIXED, "0", order) == [2]
    assert indices(MIXED, "1,2", order) == [1, 0]
    ((_, remedy),) = visible(MIXED, visible_devices="0", device_order=order).warnings
    assert "CUDA_DEVICE_ORDER=PCI_BUS_ID" in remedy
    assert "UUID" in remedy


@pytest.mark.parametrize("devices", [None, "", "-1", "0,1,2", "GPU-fa57"])
def test_no_warning_where_the_order_cannot_matter(devices):
    """All, none and names are certain in any order."""
    assert problems(MIXED, devices) == []


def test_what_cuda_enumerated_is_the_best_evidence():
    """If the runtime says which devices it has, no rule is needed; unknown UUIDs make it no evidence."""
    assert indices(MIXED, "0", None, ["510w"]) == [1]
    assert visible(MIXED, visible_devices="0", device_order=None, enumerated=["510W"]).warnings == ()
    assert indices(MIXED, "0", None, ["510w", "unheard-of"]) == [2]
    assert indices(PARTED, "1", None, ["bbbb2222"]) == [0]
    assert indices(MIXED, None, None, []) == []


def fake_torch(monkeypatch, uuids, *, initialised=True):
    def initialise():
        pytest.fail("CUDA was initialised")

    cuda = SimpleNamespace(
        is_initialized=lambda: initialised,
        device_count=lambda: len(uuids),
        get_device_properties=lambda i: SimpleNamespace(uuid=uuids[i]),
        init=initialise,
    )
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))


def test_torch_is_asked_only_when_it_has_initialised_cuda(monkeypatch):
    """torch is neither imported nor made to initialise CUDA, and none of its faults comes through."""
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert enumerated_by_torch() is None
    assert "torch" not in sys.modules
    fake_torch(monkeypatch, ["22222222-bbbb"], initialised=False)
    assert enumerated_by_torch() is None
    fake_torch(monkeypatch, ["22222222-bbbb", "11111111-aaaa"])
    assert enumerated_by_torch() == ("22222222-bbbb", "11111111-aaaa")
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace())
    assert enumerated_by_torch() is None


@given(
    st.text(alphabet="0123,-+ xGPUMI", max_size=20), st.sampled_from([None, "PCI_BUS_ID", "FASTEST_FIRST"])
)
def test_any_value_selects_each_gpu_at_most_once(devices, order):
    """No value of the variable raises, repeats a GPU or invents one."""
    for gpus in (EQUAL, MIXED, PARTED, ()):
        found = indices(gpus, devices, order)
        assert len(set(found)) == len(found)
        assert set(found) <= {gpu.index for gpu in gpus}


@given(st.permutations(range(3)), st.integers(0, 3))
def test_numbers_in_pci_order_are_taken_literally(order, count):
    """In PCI order any list of different valid numbers selects exactly those, in that order."""
    chosen = list(order)[:count]
    assert indices(MIXED, ",".join(map(str, chosen)), "PCI_BUS_ID") == chosen
