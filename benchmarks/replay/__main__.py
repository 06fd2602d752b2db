"""Replay recordings and print how far aimeter's figures are from the meter beside the board."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks.replay.play import WAYS, play
from benchmarks.replay.recordings import load


def main(arguments: Sequence[str] | None = None) -> int:
    """Print one line for each way of reading of each recording."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.replay", description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument(
        "--capability", help="compute capability of the board, as 8.6; by default by the name"
    )
    given = parser.parse_args(arguments)
    capability = None
    if given.capability:
        major, _, minor = given.capability.partition(".")
        capability = int(major), int(minor or 0)
    print(
        f"{'recording':24} {'read by':10} {'calls':>5} {'gain':>6} "
        f"{'off, median / p95':>18} {'± error':>8} {'inside':>7}"
    )
    for folder in given.folders:
        try:
            recording = load(folder, capability)
        except (OSError, ValueError) as error:
            parser.error(str(error))
        for way in WAYS:
            scores = play(recording, way)
            if scores is None:
                continue
            print(
                f"{recording.name[:24]:24} {way:10} {scores.calls:5} {scores.gain:6.3f} "
                f"{scores.median:8.1%} / {scores.p95:7.1%} {scores.error:8.1%} {scores.inside:7.1%}"
            )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
