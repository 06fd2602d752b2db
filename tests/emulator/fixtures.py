"""Fixtures of the emulated hardware; a test module or conftest imports the ones it uses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .nvml import FakeNvml

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def nvml() -> Iterator[FakeNvml]:
    """Give an emulated NVML without devices, behind the real pynvml; afterwards there is no driver again."""
    fake = FakeNvml()
    yield fake
    fake.unplug()
