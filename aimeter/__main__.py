"""``python -m aimeter``."""

from __future__ import annotations

from aimeter.cli import main

main()
