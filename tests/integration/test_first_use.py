"""What `source gdbinit.py` imports, and what happens at the first use of the rest, in GDBs without a past."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from exogdb.launch.qemu import Machine, Qemu
from tests.harness.gdb import Gdb
from tests.harness.kernel import ROOT, build_kernel
from tests.harness.session import DEBUG_EXIT, DEMO_RUNS, private_directory, quick_machine

SOURCE = f"source {ROOT / 'gdbinit.py'}"
# Small, and each of them is there because GDB asks it for something before anybody uses exogdb.
AT_ONCE = {
    "exogdb",
    "exogdb.commands",
    "exogdb.commands.forgotten",
    "exogdb.commands.help_text",
    "exogdb.commands.lazy",
    "exogdb.commands.reset",
    "exogdb.commands.saved_breakpoints",
    "exogdb.commands.shutdown",
    "exogdb.commands.unwind",
    "exogdb.errors",
    "exogdb.interrupts",
    "exogdb.target",
    "exogdb.target.analysed",
    "exogdb.target.call",
    "exogdb.target.call.unwinder",
    "exogdb.target.connection",
    "exogdb.target.hooks",
    "exogdb.target.run",
    "exogdb.target.run.shutdown",
    "exogdb.target.settings",
    "exogdb.target.with_setting",
}
# Of Python's own, and of the libraries: what GDB has not imported by itself.
WITH_IT = {
    "fnmatch",
    "glob",
    "__future__",
    "gdb.unwinder",
    "importlib._abc",
    "importlib.machinery",
    "importlib.util",
    "qemu",
    "signal",
}

# The first stop of a guest learns its system-call path, for `bt`. It is nobody's question yet.
NOT_AT_A_STOP = (
    "exogdb.abi.check",
    "exogdb.commands.functions",
    "exogdb.commands.registry",
    "exogdb.commands.syscall_break",
    "exogdb.target.breakpoint.placement",
    "exogdb.target.msr.rdmsr",
    "exogdb.view",
)


def loaded(gdb: Gdb) -> set[str]:
    return set(gdb.run("python import sys; print(*sys.modules)").split())


def own(gdb: Gdb) -> set[str]:
    return {name for name in loaded(gdb) if name.partition(".")[0] == "exogdb"}


@contextmanager
def running_guest() -> Iterator[tuple[Qemu, Gdb]]:
    """A guest in the middle of `run=demo`, and a GDB that has its symbols and nothing else."""
    kernel = build_kernel()
    machine = Machine(kernel.elf, "run=demo", 1, extra=(*DEBUG_EXIT, *quick_machine()))
    with private_directory() as directory, Qemu(machine, directory) as qemu, Gdb([kernel.elf]) as gdb:
        qemu.wait_serial(DEMO_RUNS)
        yield qemu, gdb


def press_at_import(gdb: Gdb, module: str) -> None:
    """Ctrl-C is pressed while `module` is imported for the first time; the one that is passed on is only noted."""
    gdb.run(
        "python import os, sys, exogdb.interrupts; pressed = []; "
        f"sys.addaudithook(lambda event, words: event == 'import' and words[0] == {module!r} and not pressed "
        "and (pressed.append('once'), os.kill(os.getpid(), 2))); "
        "from exogdb.commands import lazy; "
        "lazy.press_ctrl_c_again = exogdb.interrupts.press_ctrl_c_again = lambda: pressed.append('again')"
    )


def pressed(gdb: Gdb) -> list[str]:
    return gdb.run("python print(*pressed)").split()


def test_source_imports_what_gdb_asks_by_itself_and_no_more() -> None:
    with Gdb() as gdb:
        before = loaded(gdb)
        gdb.run(SOURCE)
        assert own(gdb) == AT_ONCE, "import it where it is first needed: docs/adr/0003"
        assert loaded(gdb) - before - AT_ONCE <= WITH_IT
        gdb.run("help exo-syscall break")
        gdb.run("apropos system call")
        gdb.run("help function")
        gdb.run("show exo")
        assert own(gdb) == AT_ONCE


def test_another_program_costs_nothing_more() -> None:
    with Gdb(["-ex", SOURCE, "/bin/true"]) as gdb:
        gdb.run("starti")
        gdb.run("break *$pc")
        gdb.run("bt")
        gdb.run("stepi")
        assert own(gdb) == AT_ONCE


def test_a_command_imports_its_own_file_and_what_that_needs() -> None:
    with Gdb(["-ex", SOURCE]) as gdb:
        gdb.fails("exo-gs")
        commands = {name for name in own(gdb) - AT_ONCE if name.startswith("exogdb.commands.")}
        assert commands == {"exogdb.commands.gs", "exogdb.commands.registry", "exogdb.commands.completion"}


def test_the_first_backtrace_and_the_first_condition_work() -> None:
    with running_guest() as (qemu, gdb):
        gdb.run(SOURCE)
        gdb.run(f"target remote {qemu.gdb_socket}")
        assert not [name for name in own(gdb) if name.startswith(NOT_AT_A_STOP)]
        gdb.run("break sys_ipc_send if $exo_cpl() == 0")
        assert "Breakpoint 1, " in gdb.run("continue")
        assert "<system call 101 ipc_send>" in gdb.run("bt")


def test_a_guest_that_was_attached_before_is_seen_at_its_next_stop() -> None:
    with running_guest() as (qemu, gdb):
        gdb.run(f"target remote {qemu.gdb_socket}")
        gdb.run(SOURCE)
        gdb.run("tbreak sys_ipc_send")
        gdb.run("continue")
        assert "<system call 101 ipc_send>" in gdb.run("bt")


def save_breakpoints(path: Path) -> None:
    with Gdb([build_kernel().elf, "-ex", SOURCE]) as gdb:
        gdb.run("exo-syscall break ipc_send --if $arg3<100")
        gdb.run(f"save breakpoints {path}")


def test_the_first_breakpoint_may_be_a_saved_one(tmp_path: Path) -> None:
    save_breakpoints(tmp_path / "saved")
    with running_guest() as (qemu, gdb):
        gdb.run(SOURCE)
        gdb.run("set breakpoint pending on")
        press_at_import(gdb, "exogdb.target.breakpoint.placement")
        gdb.reply(f"source {tmp_path / 'saved'}")  # says that it is pending
        assert pressed(gdb) == ["once", "again"]
        gdb.run(f"target remote {qemu.gdb_socket}")
        assert "System call 101 ipc_send(" in gdb.run("continue")


@pytest.mark.parametrize("module", ["commands.registry", "view.gs"])
def test_ctrl_c_while_a_command_is_imported_waits_and_is_quit(module: str) -> None:
    with Gdb(["-ex", SOURCE]) as gdb:
        press_at_import(gdb, f"exogdb.{module}")
        assert gdb.fails("exo-gs") == "Quit"
        assert f"exogdb.{module}" in own(gdb), "whole or not at all"
        assert gdb.fails("exo-gs").startswith("no guest is connected")


def test_ctrl_c_while_a_completion_is_imported_strikes_behind_it() -> None:
    with Gdb(["-ex", SOURCE]) as gdb:
        press_at_import(gdb, "exogdb.view.idt")
        gdb.run("complete exo-idt #P")
        assert pressed(gdb) == ["once", "again"]
        assert gdb.run("complete exo-idt #P") == "exo-idt #PF\n"


def test_ctrl_c_at_the_first_stop_and_in_the_first_condition() -> None:
    with running_guest() as (qemu, gdb):
        gdb.run(SOURCE)
        press_at_import(gdb, "exogdb.target.path")
        gdb.run(f"target remote {qemu.gdb_socket}")
        assert pressed(gdb) == ["once", "again"]
        assert "exogdb.target.path" in own(gdb)
        press_at_import(gdb, "exogdb.target.gs")
        gdb.run("break sys_ipc_send if $exo_cpl() == 0")
        assert "Breakpoint 1, " in gdb.reply("continue").out  # says `Quit`, too, or stops at the next hit
        assert pressed(gdb) == ["once"]
        assert gdb.integer("$exo_cpl()") == 0
        assert "<system call 101 ipc_send>" in gdb.run("bt")


def test_files_that_have_changed_since_are_one_sentence() -> None:
    with Gdb(["-ex", SOURCE]) as gdb:
        gdb.run("python import sys; sys.modules['exogdb.view.idt'] = None")  # as if it were gone
        said = gdb.fails("exo-idt")
        assert said.startswith("exogdb's files have changed since GDB loaded them (")
        assert said.endswith("): start GDB again")
        assert gdb.run("complete exo-idt #P") == ""
        assert gdb.fails("exo-gs").startswith("no guest is connected")
