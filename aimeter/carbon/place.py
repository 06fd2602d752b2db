"""Where this machine is, as far as it can say itself. No address is ever looked up.

In this order: the setting `region`; variables that a cloud's own runtime sets; the machine's identity in DMI, which
names the provider and not the region; and, if the setting `cloud_metadata` asks for it, the cloud's metadata service,
of which the region's name is asked and nothing else.

``AWS_REGION`` on a developer's laptop says which region commands go to, not where the laptop is. So a variable counts
only where a second sign (DMI, or a variable that only that runtime sets) says that the machine is in that cloud.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from aimeter._support.system import read_text
from aimeter.carbon.location import resolve
from aimeter.errors import UnknownRegionError

METADATA_S = 0.3
"""The longest silence of a metadata service that is waited for: it is one hop away, or there is none."""

LINK_LOCAL = "http://169.254.169.254"
"""The address that AWS, Azure and Google document for it; Google's name for it would need a name server."""

_LONGEST_NAME = 256
_NAME = re.compile(r"[A-Za-z0-9-]{2,64}")


class _Cloud(NamedTuple):
    """A provider: how DMI names it, variables with the region, and variables that only its runtimes set."""

    name: str
    vendor: str
    regions: tuple[str, ...]
    runtimes: tuple[str, ...]


CLOUDS = (
    _Cloud(
        "aws",
        "Amazon EC2",
        ("AWS_REGION", "AWS_DEFAULT_REGION"),
        ("AWS_EXECUTION_ENV", "AWS_LAMBDA_FUNCTION_NAME", "ECS_CONTAINER_METADATA_URI_V4"),
    ),
    _Cloud(
        "gcp",
        "Google",
        ("GOOGLE_CLOUD_REGION", "FUNCTION_REGION"),
        ("K_SERVICE", "FUNCTION_TARGET", "CLOUD_RUN_JOB"),
    ),
    _Cloud("azure", "Microsoft Corporation", ("REGION_NAME",), ("WEBSITE_SITE_NAME", "WEBSITE_INSTANCE_ID")),
)
_AZURE_TAG = "7783-7084-3265-9085-8269-3286-77"
"""Chassis asset tag of every Azure machine; Microsoft's name alone is on Hyper-V machines and laptops as well."""


@dataclass(frozen=True, slots=True)
class Step:
    """One place that was looked at.

    Attributes:
        step: ``setting``, ``environment``, ``machine`` or ``metadata``.
        found: The region; None if this step gave none.
        detail: What was seen, in words.
    """

    step: str
    found: str | None
    detail: str


@dataclass(frozen=True, slots=True)
class Place:
    """Where the machine is.

    Attributes:
        region: For `aimeter.carbon.location.resolve`; None if it is not known.
        step: The step that found it; empty if none did.
        steps: Every step that was taken.
    """

    region: str | None
    step: str
    steps: tuple[Step, ...]


def locate(
    region: str | None,
    *,
    metadata: bool = False,
    environ: Mapping[str, str] = os.environ,
    root: Path = Path("/"),
    link_local: str = LINK_LOCAL,
) -> Place:
    """Return where the machine is, and how that is known.

    Args:
        region: The setting; if it is given nothing else is looked at.
        metadata: Whether the cloud's metadata service may be asked.
        environ: The environment.
        root: Folder of ``sys``.
        link_local: Address of the metadata service.
    """
    if region is not None:
        return Place(region, "setting", (Step("setting", region, "given"),))
    cloud, seen = _identity(root)
    steps = [Step("setting", None, "region is not set")]
    steps.append(_from_environment(environ, cloud))
    steps.append(Step("machine", None, seen))
    if metadata and steps[1].found is None:
        steps.append(_from_metadata(cloud, link_local))
    else:
        steps.append(Step("metadata", None, "not needed" if metadata else "not asked: cloud_metadata is off"))
    found = next((step for step in steps if step.found is not None), None)
    return Place(None if found is None else found.found, "" if found is None else found.step, tuple(steps))


def _identity(root: Path) -> tuple[str, str]:
    """Return the cloud that DMI names, empty if none, and what was seen."""
    folder = root / "sys" / "class" / "dmi" / "id"
    vendor = (read_text(folder / "sys_vendor") or "").strip()
    if not vendor:
        return "", "DMI names no vendor"
    for cloud in CLOUDS:
        if vendor == cloud.vendor:
            tag = (read_text(folder / "chassis_asset_tag") or "").strip()
            if cloud.name != "azure" or tag.startswith(_AZURE_TAG):
                return cloud.name, f"DMI names {cloud.name} ({vendor}), and no region"
    return "", f"DMI names no cloud ({vendor[:40]})"


def _from_environment(environ: Mapping[str, str], seen: str) -> Step:
    doubtful = []
    for cloud in CLOUDS:
        for variable in cloud.regions:
            text = environ.get(variable, "").strip()
            if not text:
                continue
            if cloud.name != seen and not any(environ.get(runtime) for runtime in cloud.runtimes):
                doubtful.append(f"{variable} is set, but nothing says that this machine is in {cloud.name}")
                continue
            region = _known(cloud.name, text)
            if region is not None:
                return Step("environment", region, f"{variable}={text}")
            doubtful.append(f"{variable} names no region known here")
    return Step("environment", None, "; ".join(doubtful) or "no cloud's variable is set")


def _known(cloud: str, name: str) -> str | None:
    """Return a region in aimeter's form, None if there is none of that name."""
    if not _NAME.fullmatch(name.replace(" ", "")):
        return None
    try:
        return resolve(f"{cloud}:{name}").code
    except UnknownRegionError:
        return None


def _from_metadata(cloud: str, link_local: str) -> Step:
    if not cloud:
        return Step("metadata", None, "not asked: this machine is in no cloud known here")
    try:
        text = _ask(cloud, link_local)
    except (OSError, ValueError) as error:
        return Step("metadata", None, f"no answer within {METADATA_S:g} s ({type(error).__name__})")
    # Google names the zone, projects/N/zones/europe-west1-b; its region is that without the last part.
    name = text.strip().rpartition("/")[2]
    if cloud == "gcp":
        name = name.rpartition("-")[0]
    region = _known(cloud, name)
    detail = f"{cloud} says {name[:40]!r}" if region else f"{cloud} names no region known here"
    return Step("metadata", region, detail)


def _ask(cloud: str, link_local: str) -> str:
    """Ask for the region alone: identity documents hold accounts and addresses.

    AWS: IMDSv2, a session token first. Azure: Instance Metadata Service. Google: metadata server. Each as the
    provider documents it. No proxy is used: these addresses mean this machine.

    Raises:
        OSError, ValueError: There was no answer in time, or none of text.
    """
    if cloud == "aws":
        token = _fetch(
            f"{link_local}/latest/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": "60"}, "PUT"
        )
        return _fetch(f"{link_local}/latest/meta-data/placement/region", {"X-aws-ec2-metadata-token": token})
    if cloud == "azure":
        where = "metadata/instance/compute/location?api-version=2021-02-01&format=text"
        return _fetch(f"{link_local}/{where}", {"Metadata": "true"})
    return _fetch(f"{link_local}/computeMetadata/v1/instance/zone", {"Metadata-Flavor": "Google"})


def _fetch(url: str, headers: Mapping[str, str], method: str = "GET") -> str:
    from urllib import request  # noqa: PLC0415 - only who asks for it

    opener = request.build_opener(request.ProxyHandler({}))
    asked = request.Request(url, headers=dict(headers), method=method)  # noqa: S310 - our own http addresses
    with opener.open(asked, timeout=METADATA_S) as answer:
        text: str = answer.read(_LONGEST_NAME).decode("ascii")
    return text
