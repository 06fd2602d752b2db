"""The tools that are compared, a module each.

A tool is imported only in the environment in which it is installed. What each is configured to do is told in words by
`benchmarks.peers.tables.LABELS`.
"""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.peers.tools.face import Tool
from benchmarks.peers.tools.of_aimeter import Aimeter
from benchmarks.peers.tools.of_codecarbon import CodeCarbonDecorator, CodeCarbonTask
from benchmarks.peers.tools.of_codegreen import CodeGreen
from benchmarks.peers.tools.of_joules import Joules
from benchmarks.peers.tools.of_pyjoules import PyJoulesContext, PyJoulesDecorator
from benchmarks.peers.tools.of_zeus import Zeus, ZeusApproximate

TOOLS: Mapping[str, type[Tool]] = {
    "aimeter": Aimeter,
    "zeus": Zeus,
    "zeus-approximate": ZeusApproximate,
    "pyjoules-decorator": PyJoulesDecorator,
    "pyjoules-context": PyJoulesContext,
    "codecarbon-task": CodeCarbonTask,
    "codecarbon-decorator": CodeCarbonDecorator,
    "joules": Joules,
    "codegreen": CodeGreen,
}
