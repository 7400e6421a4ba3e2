"""What every file of the project looks like."""

import ast

import pytest

from tests.harness.source import Module, for_each_module

LONGEST_FILE = 400
LONGEST_FUNCTION = 60
PACKAGE = list(for_each_module("exogdb"))
EVERYTHING = [*PACKAGE, *for_each_module("tests", "bench")]


def each(module: Module) -> str:
    return module.name


@pytest.mark.parametrize("module", EVERYTHING, ids=each)
def test_a_module_says_what_it_is(module: Module) -> None:
    assert ast.get_docstring(module.tree)


@pytest.mark.parametrize("module", PACKAGE, ids=each)
def test_a_module_says_what_it_exports_and_has_it(module: Module) -> None:
    exported = next((literal(node) for node in module.tree.body if assigns(node, "__all__")), None)
    assert exported is not None, "no __all__"
    assert set(exported) <= defined(module)


@pytest.mark.parametrize("module", PACKAGE, ids=each)
def test_what_is_exported_is_documented(module: Module) -> None:
    exported = next((literal(node) for node in module.tree.body if assigns(node, "__all__")), [])
    silent = [
        node.name
        for node in module.tree.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name in exported
        if not ast.get_docstring(node)
    ]
    assert not silent


@pytest.mark.parametrize("module", EVERYTHING, ids=each)
def test_files_and_functions_are_short(module: Module) -> None:
    assert len(module.text.splitlines()) <= LONGEST_FILE
    long = {node.name: length(node) for node in module.functions if length(node) > LONGEST_FUNCTION}
    assert not long


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (function.end_lineno or 0) - function.lineno + 1


def assigns(node: ast.stmt, name: str) -> bool:
    targets = (
        node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    )
    return any(isinstance(target, ast.Name) and target.id == name for target in targets)


def literal(node: ast.stmt) -> list[str]:
    assert isinstance(node, ast.Assign | ast.AnnAssign)
    assert node.value is not None
    value = ast.literal_eval(node.value)
    assert isinstance(value, list | tuple)
    return [str(name) for name in value]


def defined(module: Module) -> set[str]:
    """Every name that the module's top level binds."""
    names = {node.id for node in ast.walk(module.tree) if isinstance(node, ast.Name)}
    names |= {node.name for node in module.tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    names |= {
        alias.asname or alias.name
        for node in module.tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    return names
