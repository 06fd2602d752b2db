"""The device under test, and work of known length for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

_SIDE = 4096
"""Rows and columns of the matrices: a product takes a fifth of a millisecond on an H100, so 1 ms is some of them."""

_CALIBRATION_S = 0.5


class Board(Protocol):
    """A GPU that can be given work."""

    uuid: str

    def enqueue(self, seconds: float) -> None:
        """Start work that takes this long on a device that does nothing else; return at once."""
        ...

    def wait(self) -> None:
        """Wait until this thread's work is done."""
        ...

    def apart(self) -> AbstractContextManager[object]:
        """Give this thread a queue of its own, so that its work may overlap that of others."""
        ...


def work(board: Board, seconds: float) -> tuple[float, float]:
    """Do so much work and wait for it; return when it began and ended, by `time.perf_counter`."""
    began_s = time.perf_counter()
    board.enqueue(seconds)
    board.wait()
    return began_s, time.perf_counter()


class CudaBoard:
    """A GPU under torch: its work is products of random matrices in half precision.

    Args:
        index: Torch's number of the GPU.
    """

    def __init__(self, index: int = 0) -> None:
        import torch

        self._torch = torch
        self._device = torch.device("cuda", index)
        torch.cuda.set_device(self._device)
        properties: Any = torch.cuda.get_device_properties(self._device)
        self.uuid = f"GPU-{properties.uuid}"
        self._a, self._b = (
            torch.randn(_SIDE, _SIDE, device=self._device, dtype=torch.float16) for _ in range(2)
        )
        self._product_s = 1.0
        self._product_s = self._calibrated()

    def _calibrated(self) -> float:
        """Return how long one product takes once the clocks have risen."""
        out = self._torch.empty_like(self._a)
        for _ in range(3):
            number, began_s = 0, time.perf_counter()
            while time.perf_counter() - began_s < _CALIBRATION_S:
                for _ in range(20):
                    self._torch.mm(self._a, self._b, out=out)
                number += 20
                self.wait()
        return (time.perf_counter() - began_s) / number

    @property
    def product_s(self) -> float:
        """Seconds that one product takes."""
        return self._product_s

    def enqueue(self, seconds: float) -> None:
        """Queue as many products as take this long."""
        out = self._torch.empty_like(self._a)
        for _ in range(max(round(seconds / self._product_s), 1)):
            self._torch.mm(self._a, self._b, out=out)

    def wait(self) -> None:
        """Wait for this thread's stream."""
        self._torch.cuda.current_stream(self._device).synchronize()

    def apart(self) -> AbstractContextManager[object]:
        """Use a stream of one's own."""
        return self._torch.cuda.stream(self._torch.cuda.Stream(self._device))


class SwitchedBoard:
    """A GPU whose power a function sets, as the emulated one's: work is the time for which it draws more.

    Args:
        uuid: The GPU's UUID.
        draw: Called with the number of pieces of work that run at once, whenever that changes.
        sleep: Waits.
    """

    def __init__(
        self, uuid: str, draw: Callable[[int], object], sleep: Callable[[float], object] = time.sleep
    ) -> None:
        self.uuid = uuid
        self._draw, self._sleep = draw, sleep
        self._lock = threading.Lock()
        self._running = 0
        self._mine = threading.local()

    def enqueue(self, seconds: float) -> None:
        """Note when the work will be done; it begins here."""
        self._mine.until_s = time.perf_counter() + seconds
        self._change(+1)

    def wait(self) -> None:
        """Sleep until then."""
        if getattr(self._mine, "until_s", None) is None:
            return
        self._sleep(max(self._mine.until_s - time.perf_counter(), 0.0))
        self._mine.until_s = None
        self._change(-1)

    def _change(self, by: int) -> None:
        with self._lock:
            self._running += by
            self._draw(self._running)

    def apart(self) -> AbstractContextManager[object]:
        """Each thread's work is its own already."""
        return nullcontext()
