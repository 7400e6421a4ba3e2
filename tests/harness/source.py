"""The project's own source, parsed: what convention tests look at."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import NamedTuple

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
        return self._found.functions

    @cached_property
    def imports(self) -> tuple[Import, ...]:
        return self._found.imports

    @cached_property
    def _found(self) -> "_Found":
        functions: list[ast.FunctionDef | ast.AsyncFunctionDef] = []
        imports: list[Import] = []
        waiting: list[tuple[ast.AST, bool]] = [(self.tree, False)]
        while waiting:
            node, lazy = waiting.pop()
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                functions.append(node)
            elif isinstance(node, ast.Import | ast.ImportFrom):
                imports += [Import(module, node.lineno, lazy) for module in _imported(node)]
            if isinstance(node, ast.expr):
                continue  # no function and no import is inside an expression
            lazy = lazy or _runs_later(node)
            waiting += [(child, lazy) for child in ast.iter_child_nodes(node)]
        return _Found(tuple(functions), tuple(imports))


class _Found(NamedTuple):
    functions: tuple[ast.FunctionDef | ast.AsyncFunctionDef, ...]
    imports: tuple[Import, ...]


@cache
def _module(path: Path) -> Module:
    return Module(path)


def for_each_module(*folders: str) -> Iterator[Module]:
    """Every Python file below `folders` (relative to the top directory), in order of its path."""
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield _module(path)


def _runs_later(node: ast.AST) -> bool:
    """Whether loading the module does not execute what is inside `node`."""
    if isinstance(node, ast.If):
        return "TYPE_CHECKING" in ast.dump(node.test)
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)


def _imported(node: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    # `from exogdb.x86 import msr` imports exogdb.x86.msr as far as layers go.
    return [f"{node.module}.{alias.name}" for alias in node.names]
