"""`exo-msr write` at a terminal: it asks, as GDB's own commands do, and only `y` writes."""

from tests.harness.kernel import ROOT
from tests.harness.session import open_guest
from tests.harness.terminal import Terminal
from tests.integration.stops import attach_running, stop_at

QUESTION = "(y or n)"
CTRL_D = "\x04"


def answer(gdb: Terminal, line: str, until: str = "(gdb) ") -> str:
    """What the screen shows from typing `line` to `until`."""
    gdb.type(line)
    return gdb.wait_for(until)


def test_the_question_and_both_answers() -> None:
    with open_guest(attach=False) as guest:
        guest.qemu.wait_serial("demo: pid")
        dispatch = guest.gdb.address("syscall_dispatch")
        arguments = ["-iex", "set pagination off", "-ex", f"source {ROOT / 'gdbinit.py'}", str(guest.kernel.elf)]
        attach = ["-ex", f"target remote {guest.qemu.gdb_socket}", "-ex", f"tbreak *{dispatch:#x}"]
        with Terminal(["gdb", "-nx", "-q", *arguments, *attach, "-ex", "echo ready"], ROOT) as gdb:
            gdb.wait_for("ready(gdb) ")
            answer(gdb, "continue")
            asked = answer(gdb, "exo-msr write fmask 0x47700", until=QUESTION)
            assert "Write 0x47700 to IA32_FMASK of CPU 0" in asked
            assert "IA32_FMASK was not written" in answer(gdb, "n")
            assert "0x0000000000000200" in answer(gdb, "exo-msr --via qmp fmask")
            answer(gdb, "exo-msr write fmask 0x47700", until=QUESTION)
            gdb.press(CTRL_D)
            assert "IA32_FMASK was not written" in gdb.wait_for("(gdb) ")
            answer(gdb, "exo-msr write fmask 0x47700", until=QUESTION)
            assert "after   0x0000000000047700" in answer(gdb, "y")
            answer(gdb, "set confirm off")
            assert QUESTION not in answer(gdb, "exo-msr write fmask 0x200")


def test_nobody_at_a_terminal_is_not_asked() -> None:
    with open_guest(attach=False) as guest:
        attach_running(guest)
        stop_at(guest.gdb, "syscall_dispatch")
        guest.gdb.run("set confirm on")
        assert guest.gdb.json("exo-msr write fmask 0x300")["after"]["value"] == "0x300"
