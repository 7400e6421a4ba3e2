"""What every file of the project looks like."""

import ast

from tests.harness.kernel import ROOT
from tests.harness.source import Module, for_each_module

LONGEST_FILE = 400
LONGEST_FUNCTION = 60
PACKAGE = list(for_each_module("exogdb"))
EVERYTHING = [*PACKAGE, *for_each_module("tests", "bench")]


def test_a_module_says_what_it_is() -> None:
    assert not [module.name for module in EVERYTHING if not ast.get_docstring(module.tree)]


def test_a_module_says_what_it_exports_and_has_it() -> None:
    assert not {
        module.name: exported(module) - defined(module) for module in PACKAGE if exported(module) - defined(module)
    }
    assert not [
        module.name for module in PACKAGE if not any(assigns(node, "__all__") for node in module.tree.body)
    ]


def test_what_is_exported_is_documented() -> None:
    silent = [
        f"{module.name}.{node.name}"
        for module in PACKAGE
        for node in module.tree.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name in exported(module)
        if not ast.get_docstring(node)
    ]
    assert not silent


def test_files_are_short() -> None:
    lines = {module.name: len(module.text.splitlines()) for module in EVERYTHING}
    assert not {name: count for name, count in lines.items() if count > LONGEST_FILE}


def test_functions_are_short() -> None:
    functions = [
        (f"{module.name}.{node.name}", length(node)) for module in EVERYTHING for node in module.functions
    ]
    assert not [(name, lines) for name, lines in functions if lines > LONGEST_FUNCTION]


def test_every_decision_is_in_the_list_by_its_title() -> None:
    folder = ROOT / "docs" / "adr"
    rows = (folder / "README.md").read_text().splitlines()
    for page in sorted(folder.glob("0*.md")):
        number, title = page.read_text().splitlines()[0].removeprefix("# ").split(". ", 1)
        assert int(number) == int(page.name[:4]), page.name
        assert f"| [{number}]({page.name}) | {title} |" in rows, "a row for it belongs into docs/adr/README.md"


def exported(module: Module) -> set[str]:
    """The names in the module's `__all__`."""
    return {name for node in module.tree.body if assigns(node, "__all__") for name in literal(node)}


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
