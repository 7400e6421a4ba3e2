"""Imports point downwards, and only two layers know GDB. See docs/architecture.md."""

import pytest

from tests.harness.source import Module, for_each_module

# From the top. A module may import from its own layer and from those below it.
LAYERS = (
    "__main__",
    "cli",
    "commands",
    "launch",
    "view",
    "target",
    "trace",
    "abi",
    "x86",
    "reading",
    "interrupts",
    "errors",
)
KNOW_GDB = {"commands", "target"}
HEAVY = {"capstone", "pygments", "qemu", "tabulate", "unicorn"}
MODULES = [module for module in for_each_module("exogdb") if module.name != "exogdb"]


def layer(name: str) -> str:
    return name.split(".")[1]


def top(name: str) -> str:
    return name.split(".")[0]


def each(module: Module) -> str:
    return module.name


@pytest.mark.parametrize("module", MODULES, ids=each)
def test_imports_point_down(module: Module) -> None:
    own = LAYERS.index(layer(module.name))
    upward = [
        f"{module.path.name}:{one.line} imports {one.module}"
        for one in module.imports
        if top(one.module) == "exogdb" and LAYERS.index(layer(one.module)) < own
    ]
    assert not upward


@pytest.mark.parametrize("module", MODULES, ids=each)
def test_only_commands_and_target_import_gdb(module: Module) -> None:
    if layer(module.name) not in KNOW_GDB:
        assert "gdb" not in {top(one.module) for one in module.imports}


@pytest.mark.parametrize("module", MODULES, ids=each)
def test_pure_layers_reach_no_module_that_imports_gdb(module: Module) -> None:
    """A view may use a pure module of `target`; importing one that needs GDB would end its unit tests."""
    if layer(module.name) not in KNOW_GDB:
        assert not {name for name in reachable(module) if imports_gdb(name)}


@pytest.mark.parametrize("module", MODULES, ids=each)
def test_heavy_libraries_are_imported_where_they_are_used(module: Module) -> None:
    """`source gdbinit.py` must not pay for what the session does not use."""
    assert not [one.module for one in module.imports if top(one.module) in HEAVY and not one.lazy]


BY_NAME = {module.name: module for module in MODULES}


def reachable(module: Module) -> set[str]:
    found: set[str] = set()
    waiting = [module.name]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += [known for one in BY_NAME[name].imports for known in targets(one.module)]
    return found


def targets(imported: str) -> list[str]:
    """The modules of exogdb that importing `imported` runs: itself, or the one it is a name of."""
    return [name for name in (imported, imported.rpartition(".")[0]) if name in BY_NAME]


def imports_gdb(name: str) -> bool:
    return "gdb" in {top(one.module) for one in BY_NAME[name].imports}
