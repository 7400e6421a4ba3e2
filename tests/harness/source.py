"""The project's own source, parsed: what convention tests look at."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tests.harness.kernel import ROOT

__all__ = ["Import", "Module", "for_each_module"]


@dataclass(frozen=True)
class Import:
    """One imported module. `lazy` is true inside a function, and where only a type checker looks: loading
    the plugin does not pay for it.
    """

    module: str
    line: int
    lazy: bool


@dataclass(frozen=True)
class Module:
    """A Python file of the project; `name` is dotted, without `.__init__`."""

    path: Path

    @cached_property
    def name(self) -> str:
        return ".".join(self.path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")

    @cached_property
    def text(self) -> str:
        return self.path.read_text()

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @cached_property
    def functions(self) -> tuple[ast.FunctionDef | ast.AsyncFunctionDef, ...]:
        nodes = ast.walk(self.tree)
        return tuple(node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))

    @cached_property
    def imports(self) -> tuple[Import, ...]:
        checks = [
            node for node in self.tree.body if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        ]
        inside = {id(node) for outer in (*self.functions, *checks) for node in ast.walk(outer)}
        return tuple(
            Import(module, node.lineno, id(node) in inside)
            for node in ast.walk(self.tree)
            if isinstance(node, ast.Import | ast.ImportFrom)
            for module in _imported(node)
        )


def for_each_module(*folders: str) -> Iterator[Module]:
    """Every Python file below `folders` (relative to the top directory), in order of its path."""
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield Module(path)


def _imported(node: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    # `from exogdb.x86 import msr` imports exogdb.x86.msr as far as layers go.
    return [f"{node.module}.{alias.name}" for alias in node.names]
