"""Which machine a row is from: an identifier that tells machines apart and says nothing of them."""

from __future__ import annotations

import hashlib
import re
import sys
import uuid
from functools import lru_cache
from pathlib import Path

UNKNOWN = "unknown"
"""Stands for the machine of rows that were written before it was."""

WHOLE = re.compile("m[0-9a-f]{16}|" + UNKNOWN)
"""An identifier; of fixed length, so that one that was cut short is recognised, and never to be taken for a number."""

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@lru_cache(maxsize=1)
def machine() -> str:
    """Return the identifier of this machine, since it was started."""
    return identifier(_own() or uuid.uuid4().hex)


def identifier(secret: str) -> str:
    """Return the identifier made of what only this machine has; there is no way back."""
    return "m" + hashlib.sha256(f"aimeter machine {secret}".encode()).hexdigest()[:16]


def _own(boot_id: Path = _BOOT_ID) -> str | None:
    """Return what the processes of this machine have in common, and no other machine has; None if that is not known.

    On Linux the kernel's boot id (random(4)): all containers of a machine see it, whereas ``/etc/machine-id`` is an
    image's, so that containers of one machine differ in it and those of one image on many machines do not. A
    process that knows of nothing is a machine of its own: its energy is then divided with nobody.
    """
    try:
        if sys.platform == "win32":
            import winreg  # noqa: PLC0415 - exists on Windows only

            with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, r"SOFTWARE\Microsoft\Cryptography") as key:
                return str(winreg.QueryValueEx(key, "MachineGuid")[0])
        if sys.platform == "darwin":  # gethostuuid(2)
            import ctypes  # noqa: PLC0415 - takes as long to load as the rest

            host, no_wait = (ctypes.c_ubyte * 16)(), (ctypes.c_long * 2)(1, 0)
            return bytes(host).hex() if not ctypes.CDLL(None).gethostuuid(host, no_wait) else None
        return boot_id.read_text("ascii").strip() or None
    except (OSError, AttributeError, ImportError, UnicodeDecodeError):
        return None
