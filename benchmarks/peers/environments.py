"""A virtual environment for each tool, made once and kept in a cache folder outside the repository."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]

REQUIREMENTS: Mapping[str, tuple[str, ...]] = {
    "aimeter": ("-e", str(ROOT)),
    "zeus": ("zeus==0.16.0",),
    "pyjoules": ("pyJoules[nvidia]==0.5.1",),
    "codecarbon": ("codecarbon==3.3.2",),
    "joules": ("landauer-gap==0.8.0",),
    "codegreen": ("codegreen==0.4.9",),
}
"""What each environment is made of; extras that would pull in a framework such as torch are left out."""


def default_folder() -> Path:
    """Return the user's cache folder, or the one for temporary files if there is none."""
    cache = os.environ.get("XDG_CACHE_HOME") or (
        Path.home() / ".cache" if os.environ.get("HOME") else tempfile.gettempdir()
    )
    return Path(cache) / "aimeter-peers"


def python_of(tool: str, folder: Path) -> Path:
    """Return the interpreter of a tool's environment, setting it up at the first use.

    Raises:
        subprocess.CalledProcessError: pip could not install the tool; its output has been shown.
    """
    name = tool.partition("-")[0]
    requirement = REQUIREMENTS[name]
    key = hashlib.sha256(repr((requirement, sys.version)).encode()).hexdigest()[:12]
    home = folder / f"{name}-{key}"
    python, done = home / "bin" / "python", home / "complete"
    if not done.exists():
        print(f"setting up {name} in {home}", flush=True)
        shutil.rmtree(home, ignore_errors=True)
        venv.create(home, with_pip=True)
        command = [
            str(python),
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            *requirement,
        ]
        subprocess.run(command, check=True, cwd=home)
        done.touch()
    return python
