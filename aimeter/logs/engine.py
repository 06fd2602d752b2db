"""DuckDB, the engine of the extra ``report``: opened with bounded memory, and never speaking to users itself."""

from __future__ import annotations

import glob
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from aimeter.errors import ConfigurationError

if TYPE_CHECKING:
    import os
    from types import ModuleType

_MEMORY = "700MB"
"""What the engine may hold; beyond it, it writes into a temporary folder."""


def available() -> ModuleType | None:
    """Return the engine's module, or None if it is not installed."""
    try:
        import duckdb  # noqa: PLC0415 - an extra, and large
    except ImportError:
        return None
    return duckdb


def duckdb() -> ModuleType:
    """Return the engine's module.

    Raises:
        ConfigurationError: It is not installed.
    """
    module = available()
    if module is None:
        message = "Parquet needs the extra: pip install 'aimeter-energy[report]'"
        raise ConfigurationError(message)
    return module


@contextmanager
def connected(memory: str | None = _MEMORY) -> Iterator[Any]:
    """Open the engine without any tables; times are in UTC, and nothing is loaded from a network.

    Args:
        memory: What it may hold; None leaves that to it.
    """
    with tempfile.TemporaryDirectory(prefix="aimeter-") as place:
        config = {"temp_directory": place, "autoinstall_known_extensions": "false"}
        if memory is not None:
            config["memory_limit"] = memory
        connection = duckdb().connect(config=config)
        try:
            connection.execute("SET TimeZone = 'UTC'")
            yield connection
        finally:
            connection.close()


def quoted(text: str) -> str:
    """Return a text in SQL."""
    return f"""'{text.replace("'", "''")}'"""


def file(path: str | os.PathLike[str]) -> str:
    """Return the path of one file in SQL, whatever signs of patterns are in it."""
    return quoted(glob.escape(str(path)))
