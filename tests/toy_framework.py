"""A framework of our own making, and the plug-in by which aimeter knows it: nothing needs torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

FRAMEWORK = '''
"""A framework."""

class Model:
    """A model."""

    def run(self, number: int) -> int:
        """Double it."""
        if number < 0:
            raise ValueError("negative")
        return 2 * number

class Special(Model):
    def run(self, number):
        return 1 + super().run(number)
'''

PLUGIN = """
from aimeter.adapters import Adapter, Hook
from aimeter.adapters.scope import begin

def run(original, self, args, kwargs):
    scope = begin(self, f"{type(self).__name__}.run")
    if scope is None:
        return original(self, *args, **kwargs)
    with scope.guard("labels"):
        scope.note(model="toy", batch_size=1)
    with scope:
        result = original(self, *args, **kwargs)
        with scope.guard("counts"):
            scope.call.count(items=args[0])
        return result

ADAPTER = Adapter("toy models", (Hook("toyframework.models", "Model", "run", run, family=True),))
"""


def install(folder: Path) -> None:
    """Put both into a folder that is on the path, as packages that are installed."""
    (folder / "toyframework").mkdir()
    (folder / "toyframework" / "__init__.py").touch()
    (folder / "toyframework" / "models.py").write_text(FRAMEWORK)
    (folder / "toyplugin.py").write_text(PLUGIN)
    info = folder / "toyplugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toyplugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[aimeter.adapters]\ntoyframework = toyplugin:ADAPTER\n")
