"""NVIDIA GPUs: which there are, which this process may use, and what keeps the others from being metered.

NVML, the driver's library ``libnvidia-ml``, is reached through the package ``nvidia-ml-py`` (module
``pynvml``), which is imported here when it is first needed. Return codes: NVIDIA NVML API Reference.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import warnings
from typing import TYPE_CHECKING, Any, TypeVar

from aimeter._support.clocks import time
from aimeter.sensors.base import Finding
from aimeter.sensors.nvml_gpu import NvmlGpu
from aimeter.sensors.visible import Gpu, MigInstance, enumerated_by_torch, visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from aimeter.sensors.base import Clock, Sensor, Status

__all__ = ["NvmlGpu", "driver_version", "probe"]

T = TypeVar("T")

_SOURCE = "nvml"
_NEEDED = ("_nvmlGetFunctionPointer", "nvmlInitWithFlags", "nvmlDeviceGetFieldValues", "NVMLError")
"""What tells NVIDIA's binding from the others that are imported by the same name: ``pynvml`` up to 11 hides
the first (ml-energy/zeus tells it by that), ``nvidia-ml-py3`` of 2017 lacks the next two."""

_INSTALL = (
    "python -m pip uninstall -y pynvml nvidia-ml-py3 && python -m pip install --force-reinstall nvidia-ml-py"
)
_CONTAINER = "docker run --gpus all -e NVIDIA_DRIVER_CAPABILITIES=compute,utility …"
_DEVICE_FILES = (
    "ls -l /dev/nvidia* (this user needs to read and write them; in a container also its device cgroup)"
)
_RELOAD = "sudo rmmod nvidia_uvm nvidia_drm nvidia_modeset nvidia && sudo modprobe nvidia"
_CGROUPFS = '"exec-opts": ["native.cgroupdriver=cgroupfs"]'

_FAULTS: Mapping[int, tuple[Status, str, str]] = {
    4: ("denied", "this user may not use it", _DEVICE_FILES),
    9: ("missing", "the NVIDIA driver is not loaded", "sudo modprobe nvidia"),
    12: (
        "missing",
        "there is no libnvidia-ml.so.1, so no NVIDIA driver",
        f"with an NVIDIA GPU: install its driver; in a container: {_CONTAINER}",
    ),
    13: (
        "failed",
        "the NVIDIA driver is too old for NVML's present functions",
        "install driver 450 or newer",
    ),
    15: ("failed", "the GPU has fallen off the bus", "sudo nvidia-smi --gpu-reset, else sudo reboot"),
    16: ("failed", "the GPU needs a reset", "sudo nvidia-smi --gpu-reset"),
    18: (
        "failed",
        "the driver was updated under the running system, so its library and its kernel module differ",
        f"sudo reboot, or with no GPU process left: {_RELOAD}",
    ),
    # NVIDIA/nvidia-container-toolkit#48: systemd takes the device files out of the cgroup again.
    999: (
        "failed",
        "NVML fails with an unknown error; in a container this follows `systemctl daemon-reload` on the host",
        f"restart the container; to prevent it, put {_CGROUPFS} into /etc/docker/daemon.json",
    ),
}


def probe(
    environ: Mapping[str, str] = os.environ, clock: Clock = time.perf_counter
) -> tuple[list[Sensor], list[Finding]]:
    """Open every NVIDIA GPU that CUDA shows to this process, and say what was found; never raises.

    Args:
        environ: Environment in which CUDA_VISIBLE_DEVICES and CUDA_DEVICE_ORDER are looked up.
        clock: Monotonic clock that will stamp the readings.

    Returns:
        One sensor for each GPU with a working meter, in CUDA's order, and a finding for each GPU or fault.
    """
    nv, fault = _binding()
    if nv is None:
        return [], [fault]
    try:
        nv.nvmlInit()
    except nv.NVMLError as error:
        return [], [_finding(error, "NVIDIA driver")]
    try:
        return _probe(nv, environ, clock)
    except nv.NVMLError as error:
        return [], [_finding(error, "NVIDIA driver")]
    finally:
        # The sensors have initialised NVML for themselves.
        with contextlib.suppress(nv.NVMLError):
            nv.nvmlShutdown()


def driver_version() -> str | None:
    """Return the version of the NVIDIA driver; None if there is none, or no way to ask it."""
    nv, _ = _binding()
    if nv is None:
        return None
    try:
        nv.nvmlInit()
    except nv.NVMLError:
        return None
    try:
        return _text(nv.nvmlSystemGetDriverVersion())
    except nv.NVMLError:
        return None
    finally:
        nv.nvmlShutdown()


def _binding() -> tuple[Any, Finding]:
    subject = "nvidia-ml-py"
    try:
        # The deprecated package pynvml 13 warns when it is imported, which `-W error` makes an exception.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            nv = importlib.import_module("pynvml")
    except ImportError:
        detail = "The package nvidia-ml-py, which reads NVIDIA GPUs, is not installed."
        return None, Finding(_SOURCE, subject, "missing", detail, "python -m pip install nvidia-ml-py")
    except Exception as error:  # noqa: BLE001 - whatever is installed by that name, the CPU is metered
        detail = f"Importing the module pynvml raised {type(error).__name__}: {error}."
        return None, Finding(_SOURCE, subject, "failed", detail, _INSTALL)
    if all(hasattr(nv, name) for name in _NEEDED):
        return nv, Finding(_SOURCE, subject, "used", "NVIDIA's own binding is installed.")
    detail = "The module pynvml belongs to another package than NVIDIA's nvidia-ml-py, or to a very old one."
    return None, Finding(_SOURCE, subject, "failed", detail, _INSTALL)


def _finding(error: Any, subject: str) -> Finding:  # noqa: ANN401  pynvml has no types
    unknown: tuple[Status, str, str] = ("failed", f"NVML fails: {error}", "")
    status, detail, remedy = _FAULTS.get(getattr(error, "value", -1), unknown)
    return Finding(_SOURCE, subject, status, f"{detail[0].upper()}{detail[1:]}.", remedy)


def _probe(nv: Any, environ: Mapping[str, str], clock: Clock) -> tuple[list[Sensor], list[Finding]]:  # noqa: ANN401
    gpus, findings = _inventory(nv)
    if not gpus and not findings:
        detail = "The NVIDIA driver works, but shows no GPU."
        return [], [Finding(_SOURCE, "NVIDIA GPU", "missing", detail, f"in a container: {_CONTAINER}")]
    devices = environ.get("CUDA_VISIBLE_DEVICES")
    selection = visible(
        gpus,
        visible_devices=devices,
        device_order=environ.get("CUDA_DEVICE_ORDER"),
        enumerated=enumerated_by_torch(),
    )
    for problem, remedy in selection.warnings:
        findings.append(Finding(_SOURCE, "CUDA_VISIBLE_DEVICES", "failed", f"{problem}.", remedy))
    sensors: list[Sensor] = []
    for gpu in selection.gpus:
        sensor, finding = _open(nv, gpu, environ, clock)
        findings.append(finding)
        if sensor is not None:
            sensors.append(sensor)
    for gpu in gpus:
        if gpu not in selection.gpus:
            detail = f"Hidden from this process by CUDA_VISIBLE_DEVICES={devices!r}."
            findings.append(Finding(_SOURCE, _subject(gpu), "unused", detail))
    return sensors, findings


def _open(
    nv: Any,  # noqa: ANN401  pynvml has no types
    gpu: Gpu,
    environ: Mapping[str, str],
    clock: Clock,
) -> tuple[NvmlGpu | None, Finding]:
    subject = _subject(gpu)
    try:
        sensor = NvmlGpu(nv, gpu, clock=clock)
    except Exception as error:  # noqa: BLE001 - one device's odd answer costs no other device
        return None, _finding(error, subject)
    if sensor.channels:
        channel = sensor.channels[0]
        parts = [
            f"Read through its {sensor.in_use}",
            *sensor.faults,
            *([channel.note] if channel.note else []),
        ]
        return sensor, Finding(_SOURCE, subject, "used", "; ".join(parts) + ".")
    sensor.close()
    detail = f"Has no meter: {'; '.join(sensor.faults)}."
    remedy = ""
    if environ.get("NVML_MPS_DEVICE_ENUMERATION") == "1":
        # nvml.h 13.5: with it every power and energy query returns NOT_SUPPORTED.
        remedy = "unset NVML_MPS_DEVICE_ENUMERATION"
    return None, Finding(_SOURCE, subject, "missing", detail, remedy)


def _subject(gpu: Gpu) -> str:
    return f"gpu:{gpu.index} {gpu.name}"


def _inventory(nv: Any) -> tuple[list[Gpu], list[Finding]]:  # noqa: ANN401  pynvml has no types
    """Return every GPU that NVML lets this process look at; a finding for each of the others."""
    gpus: list[Gpu] = []
    findings: list[Finding] = []
    for index in range(nv.nvmlDeviceGetCount()):
        try:
            gpus.append(_describe(nv, index, nv.nvmlDeviceGetHandleByIndex(index)))
        except Exception as error:  # noqa: BLE001 - one device's odd answer costs no other device
            findings.append(_finding(error, f"gpu:{index}"))
    return gpus, findings


def _describe(nv: Any, index: int, handle: Any) -> Gpu:  # noqa: ANN401  pynvml has no types
    """Collect what NVML tells of one GPU. Any answer may be refused, and costs no more than itself."""

    def ask(call: Callable[..., T], *arguments: object, default: T) -> T:
        try:
            return call(handle, *arguments)
        except Exception:  # noqa: BLE001 - the binding raises what it likes, as of a name that is not UTF-8
            return default

    limits_mw = ask(nv.nvmlDeviceGetPowerManagementLimitConstraints, default=[0, 0])
    limit_mw = limits_mw[1] or ask(nv.nvmlDeviceGetEnforcedPowerLimit, default=0)
    pci = ask(nv.nvmlDeviceGetPciInfo, default=None)
    capability = ask(nv.nvmlDeviceGetCudaComputeCapability, default=None)
    mig_enabled = ask(nv.nvmlDeviceGetMigMode, default=[0, 0])[0] == 1
    return Gpu(
        index=index,
        uuid=ask(nv.nvmlDeviceGetUUID, default=""),
        name=ask(nv.nvmlDeviceGetName, default="NVIDIA GPU"),
        capability=tuple(capability) if capability else None,
        max_power_w=limit_mw / 1e3 or None,
        pci_bus_id=_text(pci.busId) if pci else "",
        mig_enabled=mig_enabled,
        mig=tuple(_mig_instances(nv, handle)) if mig_enabled else (),
    )


def _mig_instances(nv: Any, handle: Any) -> Iterator[MigInstance]:  # noqa: ANN401  pynvml has no types
    with contextlib.suppress(Exception):
        for number in range(nv.nvmlDeviceGetMaxMigDeviceCount(handle)):
            # Numbers may have gaps, where the call fails with NOT_FOUND.
            with contextlib.suppress(Exception):
                instance = nv.nvmlDeviceGetMigDeviceHandleByIndex(handle, number)
                yield MigInstance(
                    nv.nvmlDeviceGetUUID(instance),
                    nv.nvmlDeviceGetGpuInstanceId(instance),
                    nv.nvmlDeviceGetComputeInstanceId(instance),
                )


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
