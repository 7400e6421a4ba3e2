"""Imports point downwards, and only two layers know GDB. See docs/architecture.md."""

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
    "home",
    "errors",
    "__version__",
)
KNOW_GDB = {"commands", "target"}
HEAVY = {"capstone", "pygments", "qemu", "tabulate", "unicorn"}


def layer(name: str) -> str:
    return name.split(".")[1]


def top(name: str) -> str:
    return name.split(".")[0]


MODULES = [module for module in for_each_module("exogdb") if module.name != "exogdb"]
PURE = [module for module in MODULES if layer(module.name) not in KNOW_GDB]
BY_NAME = {module.name: module for module in MODULES}


def test_imports_point_down() -> None:
    upward = [
        f"{module.path.name}:{one.line} imports {one.module}"
        for module in MODULES
        for one in module.imports
        if top(one.module) == "exogdb" and LAYERS.index(layer(one.module)) < LAYERS.index(layer(module.name))
    ]
    assert not upward


def test_only_commands_and_target_import_gdb() -> None:
    assert not [module.name for module in PURE if imports_gdb(module.name)]


def test_pure_layers_reach_no_module_that_imports_gdb() -> None:
    """A view may use a pure module of `target`; importing one that needs GDB would end its unit tests."""
    found = {module.name: {name for name in reachable(module) if imports_gdb(name)} for module in PURE}
    assert not {name: reached for name, reached in found.items() if reached}


def test_any_module_can_be_the_first_that_is_imported() -> None:
    """Commands are imported in the order in which they are used. A cycle would only work in some orders."""
    waiting = {module.name: needed_first(module) for module in MODULES}
    while ready := {name for name, needed in waiting.items() if not needed & waiting.keys()}:
        waiting = {name: needed for name, needed in waiting.items() if name not in ready}
    assert not waiting, "these import each other"


def test_heavy_libraries_are_imported_where_they_are_used() -> None:
    """`source gdbinit.py` must not pay for what the session does not use."""
    heavy = [
        f"{module.path.name}:{one.line} imports {one.module}"
        for module in MODULES
        for one in module.imports
        if top(one.module) in HEAVY and not one.lazy
    ]
    assert not heavy


def reachable(module: Module) -> set[str]:
    found: set[str] = set()
    waiting = [module.name]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += [known for one in BY_NAME[name].imports for known in targets(one.module)]
    return found


def needed_first(module: Module) -> set[str]:
    """The modules of exogdb that importing `module` runs before it is done."""
    return {name for one in module.imports if not one.lazy for name in targets(one.module)}


def targets(imported: str) -> list[str]:
    """The modules of exogdb that importing `imported` runs: itself, or the one it is a name of."""
    return [name for name in (imported, imported.rpartition(".")[0]) if name in BY_NAME]


def imports_gdb(name: str) -> bool:
    return "gdb" in {top(one.module) for one in BY_NAME[name].imports}
