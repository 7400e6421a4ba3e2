"""GDB's commands where one that fails would do harm.

A command that fails while GDB decides about a stop has `continue` come back with the guest running. So whatever
may run there asks with `target.gdb_command.ask_gdb`, and every other use of `gdb.execute` in `target/` is in this
table, with why it is not run there, or cannot fail.
"""

import ast

from tests.harness.source import Module, for_each_module

AT_THE_PROMPT = "run by a command that the user typed"
CANNOT_FAIL = "takes nothing that could be wrong"
KNOWN = {
    ("gdb_command", ""): "the one that swallows failures",
    ("qemu.monitor", "monitor "): "only to a target that said that it is QEMU",
    ("run.ctrl_c", "interrupt"): CANNOT_FAIL,
    ("run.resume", "interrupt"): CANNOT_FAIL,
    ("run.resume", "continue"): AT_THE_PROMPT,
    ("run.waypoint", "continue"): AT_THE_PROMPT,
    ("hooks", ""): "defines a hook when the module that wants it is imported",
    ("breakpoint.loaded_probes", "python import "): AT_THE_PROMPT,
    ("msr.guest_step", "frame level "): AT_THE_PROMPT,
    ("msr.guest_step", "maintenance packet "): AT_THE_PROMPT,
    ("cpus", "maintenance flush register-cache"): CANNOT_FAIL,
    ("cpus", "maintenance flush dcache"): CANNOT_FAIL,
    ("trace.stub_run", "maintenance flush register-cache"): CANNOT_FAIL,
    ("call.frame_tables", "maint info sections -all-objects"): CANNOT_FAIL,
    ("trace.outlet", "info win"): CANNOT_FAIL,
    ("symbol_match", "maint info sections -all-objects"): AT_THE_PROMPT,
}


def test_commands_that_may_fail_are_not_run_where_gdb_decides_about_a_stop() -> None:
    modules = for_each_module("exogdb")
    found = {
        (module.name.removeprefix("exogdb.target."), beginning(call.args[0]))
        for module in modules
        if module.name.startswith("exogdb.target.")
        for call in executions(module)
    }
    assert found == KNOWN.keys(), "use `ask_gdb`, or say in KNOWN why no failure of it can do harm"


def executions(module: Module) -> list[ast.Call]:
    calls = [node for node in ast.walk(module.tree) if isinstance(node, ast.Call)]
    return [call for call in calls if ast.unparse(call.func) == "gdb.execute"]


def beginning(command: ast.expr) -> str:
    """What a command begins with, as far as the source says it."""
    if isinstance(command, ast.JoinedStr):
        command = command.values[0]
    return str(command.value) if isinstance(command, ast.Constant) else ""
