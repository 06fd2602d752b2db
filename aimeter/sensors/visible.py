"""Which GPUs this process may use, by CUDA's own rules.

Sources: CUDA C++ Programming Guide, "CUDA Environment Variables" (CUDA_VISIBLE_DEVICES, CUDA_DEVICE_ORDER);
NVIDIA Multi-Instance GPU User Guide, "CUDA Device Enumeration". Where the guides are silent, PyTorch's
reading of the variable is followed (pytorch/pytorch PR 84879): a number ends where its digits end (``1x`` is
1), and a repeated entry leaves no device visible at all.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

_LEADING_NUMBER = re.compile(r"[+-]?[0-9]{1,9}(?![0-9])")
_LEGACY_MIG = re.compile(r"MIG-(GPU-[0-9a-fA-F-]+)/(\d+)/(\d+)")


class MigInstance(NamedTuple):
    """One compute instance of a GPU that is partitioned by MIG."""

    uuid: str
    gpu_instance: int
    compute_instance: int


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU as NVML lists it.

    Attributes:
        index: NVML's number, which follows the PCI bus.
        uuid: ``GPU-…``; empty if NVML would not tell.
        name: The product's name.
        capability: CUDA compute capability (major, minor), or None if unknown.
        max_power_w: Greatest power limit, in watts, or None if unknown.
        pci_bus_id: ``domain:bus:device.function``; empty if unknown.
        mig_enabled: Whether it is partitioned, so that no process has it to itself.
        mig: Its compute instances.
    """

    index: int
    uuid: str
    name: str = ""
    capability: tuple[int, int] | None = None
    max_power_w: float | None = None
    pci_bus_id: str = ""
    mig_enabled: bool = False
    mig: tuple[MigInstance, ...] = ()


@dataclass(frozen=True, slots=True)
class Visible:
    """The GPUs that are visible, in CUDA's order.

    Attributes:
        gpus: Each GPU once, however many of its MIG instances are visible.
        warnings: What is doubtful about the selection, each with its remedy, as (problem, remedy).
    """

    gpus: tuple[Gpu, ...]
    warnings: tuple[tuple[str, str], ...] = ()


def visible(
    gpus: Sequence[Gpu],
    *,
    visible_devices: str | None,
    device_order: str | None,
    enumerated: Sequence[str] | None = None,
) -> Visible:
    """Return the GPUs that CUDA shows to a process with this environment.

    Args:
        gpus: Every GPU of the machine, in NVML's order.
        visible_devices: Value of CUDA_VISIBLE_DEVICES, None if it is not set.
        device_order: Value of CUDA_DEVICE_ORDER, None if it is not set.
        enumerated: UUIDs of the devices that the CUDA runtime of this process has enumerated, if it has: what
            CUDA did is better evidence than what it should do. Ignored if NVML does not know one of them.
    """
    if enumerated is not None:
        found = [_enumerated(gpus, uuid) for uuid in enumerated]
        known = [gpu for gpu in found if gpu is not None]
        if len(known) == len(found):
            return Visible(_once(known))
    if visible_devices is None:
        return Visible(tuple(gpus))
    entries = [entry.strip() for entry in visible_devices.split(",")]
    if entries[0].startswith("GPU-"):
        return _selected(entries, lambda entry: _by_uuid(gpus, entry))
    if entries[0].startswith("MIG-"):
        return _selected(entries, lambda entry: _by_mig(gpus, entry))
    system_order, doubt = _system_order(gpus, device_order)
    selection = _selected(entries, lambda entry: _by_number(system_order, entry))
    if doubt is None or len(selection.gpus) in {0, len(gpus)}:
        return selection
    return Visible(selection.gpus, (*selection.warnings, doubt))


def enumerated_by_torch() -> tuple[str, ...] | None:
    """Return the UUIDs of the CUDA devices that PyTorch has initialised in this process, in CUDA's order.

    None unless torch is already imported and has initialised CUDA by itself; neither is ever caused here.
    """
    torch = sys.modules.get("torch")
    try:
        if torch is None or not torch.cuda.is_initialized():
            return None
        properties = map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
        return tuple(str(each.uuid) for each in properties)
    except Exception:  # noqa: BLE001  torch may be half imported or too old to give UUIDs: then the variable decides
        return None


def _selected(entries: Iterable[str], find: Callable[[str], tuple[Gpu, str] | None]) -> Visible:
    """Apply the rules common to all kinds of entry; `find` gives a GPU and what must not repeat."""
    chosen: list[Gpu] = []
    identities: set[str] = set()
    for entry in entries:
        match = find(entry)
        if match is None:
            # Only "-1" and an empty value are meant to hide devices.
            warnings = () if entry in {"", "-1"} else (_invalid(entry),)
            return Visible(_once(chosen), warnings)
        gpu, identity = match
        if identity in identities:
            problem = f"CUDA_VISIBLE_DEVICES names {entry!r} twice, which leaves no device visible"
            return Visible((), ((problem, "Name each device once in CUDA_VISIBLE_DEVICES."),))
        identities.add(identity)
        chosen.append(gpu)
    return Visible(_once(chosen))


def _invalid(entry: str) -> tuple[str, str]:
    problem = (
        f"CUDA_VISIBLE_DEVICES: {entry!r} is no device of this machine; CUDA ignores it and all after it"
    )
    return problem, "Name devices by number, or by the UUIDs that `nvidia-smi -L` lists."


def _once(gpus: Iterable[Gpu]) -> tuple[Gpu, ...]:
    return tuple({gpu.index: gpu for gpu in gpus}.values())


def _by_uuid(gpus: Sequence[Gpu], entry: str) -> tuple[Gpu, str] | None:
    if not entry.startswith("GPU-"):
        return None  # kinds must not be mixed
    matches = [gpu for gpu in gpus if gpu.uuid.startswith(entry)]
    return (matches[0], matches[0].uuid) if len(matches) == 1 else None


def _by_mig(gpus: Sequence[Gpu], entry: str) -> tuple[Gpu, str] | None:
    if not entry.startswith("MIG-"):
        return None
    legacy = _LEGACY_MIG.fullmatch(entry)
    matches = [
        (gpu, instance.uuid)
        for gpu in gpus
        for instance in gpu.mig
        if instance.uuid.startswith(entry)
        or (
            legacy is not None
            and gpu.uuid == legacy[1]
            and (instance.gpu_instance, instance.compute_instance) == (int(legacy[2]), int(legacy[3]))
        )
    ]
    return matches[0] if len(matches) == 1 else None


def _by_number(system_order: Sequence[Gpu], entry: str) -> tuple[Gpu, str] | None:
    number = _LEADING_NUMBER.match(entry)
    if number is None or not 0 <= int(number[0]) < len(system_order):
        return None
    gpu = system_order[int(number[0])]
    return gpu, str(gpu.index)


def _system_order(gpus: Sequence[Gpu], device_order: str | None) -> tuple[list[Gpu], tuple[str, str] | None]:
    """Return the GPUs in the order that CUDA numbers them, and what is doubtful about it."""
    if device_order == "PCI_BUS_ID" or len({gpu.name for gpu in gpus}) <= 1:
        return list(gpus), None

    # FASTEST_FIRST, CUDA's default, is a heuristic that NVIDIA does not publish.
    def speed(gpu: Gpu) -> tuple[tuple[int, int], float]:
        return gpu.capability or (0, 0), gpu.max_power_w or 0.0

    problem = (
        "the GPUs differ, and CUDA numbers them fastest first by a rule of its own: "
        "the devices of CUDA_VISIBLE_DEVICES are a guess by compute capability and power limit"
    )
    remedy = "export CUDA_DEVICE_ORDER=PCI_BUS_ID, or name the devices by UUID (`nvidia-smi -L` lists them)."
    return sorted(gpus, key=speed, reverse=True), (problem, remedy)


def _enumerated(gpus: Sequence[Gpu], uuid: str) -> Gpu | None:
    wanted = _bare(uuid)
    for gpu in gpus:
        if wanted in {_bare(gpu.uuid), *(_bare(instance.uuid) for instance in gpu.mig)}:
            return gpu
    return None


def _bare(uuid: str) -> str:
    return uuid.lower().removeprefix("gpu-").removeprefix("mig-")
