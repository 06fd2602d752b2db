"""The changes: found and made by cosmic-ray, and a seeded sample of them."""

from __future__ import annotations

import ast
import difflib
import hashlib
import tomllib
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Operator
from cosmic_ray.plugins import get_operator, operator_names

from .parts import ROOT

EQUIVALENTS = Path(__file__).with_name("equivalents.toml")

BITS = ("RShift", "LShift", "BitOr", "BitAnd", "BitXor")


@dataclass(frozen=True)
class Mutant:
    """One change of one module."""

    module: str
    line: int
    function: str
    operator: str
    before: str
    after: str
    text: str
    """The whole module, changed."""

    @property
    def name(self) -> str:
        """What stays the same when lines move."""
        return f"{self.module} {self.function}\n- {self.before}\n+ {self.after}"


def sample(
    module: str, seed: int, lines: Collection[int] | None = None, source: str | None = None
) -> Iterator[Mutant]:
    """Yield changes of a module in the order of a seed: at first one of each place, then a second one and so on.

    A change has its place in that order by what it changes and not by its number, so that a larger sample contains the
    smaller one, and an edit elsewhere in the module leaves the rest of the sample as it was.

    Args:
        module: Its path in the repository.
        seed: Another seed gives another sample.
        lines: Only these lines.
        source: The module's text, if it isn't that of the working tree.
    """
    source = (ROOT / module).read_text("utf-8") if source is None else source
    whole, functions = _meaning(source), functions_by_line(source)
    places: dict[tuple[int, int], list[tuple[str, int]]] = {}
    nth: dict[str, int] = Counter()
    for node in ast_nodes(get_ast(source)):
        for name, operator in _operators().items():
            for (line, column), _ in operator.mutation_positions(node):
                occurrence = nth[name]
                nth[name] += 1
                if lines is None or line in lines:
                    places.setdefault((line, column), []).append((name, occurrence))
    written = source.splitlines()
    seen: dict[str, int] = Counter()
    ranked = []
    for (line, column), changes in sorted(places.items()):
        here = f"{module} {functions[line]} {written[line - 1].strip()} {column}"
        seen[here] += 1
        place = f"{here} {seen[here]}"
        within = sorted(changes, key=lambda change: _rank(seed, f"{place} {change[0]}"))
        ranked += [(turn, _rank(seed, place), line, *change) for turn, change in enumerate(within)]
    for _, _, line, name, occurrence in sorted(ranked):
        text = mutate_code(source, _operators()[name], occurrence)
        if text is None or _meaning(text) in {None, whole}:
            continue
        before, after = _changed(source, text)
        yield Mutant(module, line, functions[line], name, before, after, text)


@cache
def _operators() -> dict[str, Operator]:
    """Return the changes to make: those that give another value and not just an operation that a float does not know."""
    return {name: get_operator(name)() for name in operator_names() if _gives_a_value(name)}


def _gives_a_value(name: str) -> bool:
    if get_operator(name).arguments():
        return False
    kind, _, rest = name.partition("/")[2].partition("_")
    before, _, after = rest.partition("_")
    if kind == "ReplaceBinaryOperator":
        return (before in BITS) == (after in BITS)
    if kind == "ReplaceComparisonOperator":
        return before.startswith("Is") == after.startswith("Is")
    return kind != "ReplaceUnaryOperator" or not {"Invert", "Not"} & {after}


def _rank(seed: int, name: str) -> str:
    return hashlib.sha256(f"{seed} {name}".encode()).hexdigest()


class _Bare(ast.NodeTransformer):
    """Without what no test can notice: annotations, `TYPE_CHECKING` and protocols, which nobody evaluates, and slots."""

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        if any(isinstance(base, ast.Name) and base.id == "Protocol" for base in node.bases):
            node.body = [ast.Pass()]
        return self.generic_visit(node)

    def visit_keyword(self, node: ast.keyword) -> ast.AST | None:
        return None if node.arg == "slots" else self.generic_visit(node)

    def visit_If(self, node: ast.If) -> ast.AST | None:
        return None if "TYPE_CHECKING" in ast.unparse(node.test) else self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        node.annotation = ast.Constant(None)
        return self.generic_visit(node)


def _meaning(source: str) -> str | None:
    """Return what a text means to Python, or None if it isn't Python."""
    try:
        return ast.dump(_Bare().visit(ast.parse(source)))
    except SyntaxError:
        return None


def _changed(source: str, text: str) -> tuple[str, str]:
    """Return the lines that differ, before and after."""
    lines = list(difflib.ndiff(source.splitlines(), text.splitlines()))
    before = [line[2:].strip() for line in lines if line.startswith("- ")]
    after = [line[2:].strip() for line in lines if line.startswith("+ ")]
    return "\n".join(before), "\n".join(after)


def functions_by_line(source: str) -> dict[int, str]:
    """Return in which function each line stands; those outside of all are in ``""``."""
    inside = dict.fromkeys(range(1, source.count("\n") + 2), "")

    def visit(node: ast.AST, name: str) -> None:
        for child in ast.iter_child_nodes(node):
            below = name
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                below = f"{name}.{child.name}".lstrip(".")
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                first = min([child.lineno, *(one.lineno for one in child.decorator_list)])
                inside.update(dict.fromkeys(range(first, (child.end_lineno or first) + 1), below))
            visit(child, below)

    visit(ast.parse(source), "")
    return inside


def equivalents() -> dict[tuple[str, str, str], str]:
    """Return the changes that change nothing anybody could notice, as reviewed, and why."""
    named = tomllib.loads(EQUIVALENTS.read_text("utf-8")).get("equivalent", [])
    return {(one["module"], one["before"], one["after"]): one["why"] for one in named}
