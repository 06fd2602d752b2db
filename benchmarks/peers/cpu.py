"""The emulated CPU: a powercap tree kept by a process of its own, whose power follows the calls.

The process that makes the calls tells it through a socket, and asks it for the true energy::

    cpu = Cpu(folder / "control")
    cpu.set_power(80)
    cpu.true_energy_j(start_s, end_s)       # times of time.perf_counter(), which processes share on Linux
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path

IDLE_W = 25.0
CONTROL = "control"


class Cpu:
    """The end at which the calls are."""

    def __init__(self, control: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.connect(str(control))
        self._answers = self._socket.makefile("r")

    def set_power(self, watts: float) -> None:
        """Draw `watts` from the moment at which this arrives; nobody waits for it."""
        self._socket.sendall(f"power {watts!r}\n".encode())

    def true_energy_j(self, start_s: float, end_s: float) -> float:
        """Return the exact joules drawn between two times."""
        self._socket.sendall(f"energy {start_s!r} {end_s!r}\n".encode())
        return float(self._answers.readline())


def keep(folder: Path) -> None:
    """Keep a tree with one package in `folder`, for one client, until it goes."""
    from tests.emulator.powercap import PowercapTree

    tree = PowercapTree(folder)
    package = tree.zone("package-0", watts=IDLE_W)
    # What the kernel gives every device, and CodeCarbon starts from.
    for device in (tree.control("intel-rapl"), package.folder):
        up = "../" * (len(device.relative_to(folder).parts))
        (device / "subsystem").symlink_to(f"{up}class/powercap")
    with tree.live(), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(folder / CONTROL))
        server.listen(1)
        print("ready", flush=True)
        client = server.accept()[0]
        with client, client.makefile("rw") as lines:
            for line in lines:
                verb, *numbers = line.split()
                if verb == "power":
                    package.set_power(float(numbers[0]))
                else:
                    print(package.true_energy_j(*map(float, numbers)), file=lines, flush=True)


if __name__ == "__main__":
    keep(Path(sys.argv[1]))
