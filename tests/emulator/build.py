"""Compile the emulated NVML once per machine, with whatever C compiler there is."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

SONAME = "libnvidia-ml.so.1"
SOURCES = tuple(Path(__file__).with_name(name) for name in ("nvml.c", "gpu.h"))


def compiler() -> list[str]:
    """Return the command that compiles C: the system's, else the one from the package ``ziglang``."""
    for name in ("cc", "gcc", "clang"):
        if path := shutil.which(name):
            return [path]
    if importlib.util.find_spec("ziglang"):
        return [sys.executable, "-m", "ziglang", "cc"]
    message = "The emulated NVML needs a C compiler: install gcc, or `pip install ziglang`."
    raise RuntimeError(message)


@cache
def library(omit: tuple[str, ...] = ()) -> Path:
    """Return the path of the compiled library, building it at the first call.

    The file is named ``libnvidia-ml.so.1`` and its folder after the sources, so the folder serves as
    ``LD_LIBRARY_PATH``, and several test processes may build at once: the last rename wins.

    Args:
        omit: Functions that this variant must not export, as an older driver would not.
    """
    command = compiler()
    digest = hashlib.sha256(repr((omit, command)).encode())
    for source in SOURCES:
        digest.update(source.read_bytes())
    folder = Path(tempfile.gettempdir()) / f"aimeter-emulated-nvml-{os.getuid()}" / digest.hexdigest()[:16]
    target = folder / SONAME
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        descriptor, unfinished = tempfile.mkstemp(dir=folder)
        os.close(descriptor)
        # A function is left out by giving its definition another name.
        hidden = [f"-D{name}=hidden_{name}" for name in omit]
        flags = ["-O1", "-shared", "-fPIC", f"-Wl,-soname,{SONAME}"]
        subprocess.run(
            [*command, *flags, *hidden, "-o", unfinished, str(SOURCES[0]), "-lm", "-lpthread"],
            check=True,
            capture_output=True,
            text=True,
        )
        Path(unfinished).replace(target)
    return target
