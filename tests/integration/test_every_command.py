"""What holds for every command, whatever it shows: an error is one sentence, and a traceback is a bug."""

from collections.abc import Iterator

import pytest

from tests.harness.commands import for_each_command
from tests.harness.gdb import Gdb, Reply
from tests.harness.kernel import ROOT
from tests.integration.conftest import OpenGuest

# These resume the guest, some until Ctrl-C: they are only tried where they cannot succeed.
RESUMING = {f"exo-syscall {name}" for name in ("finish", "next", "step", "record", "summary", "trace")}
COMMANDS = [one.name for one in for_each_command() if not one.is_pure_prefix]
LOOKING = [name for name in COMMANDS if name not in RESUMING]


def check_sentence(command: str, reply: Reply) -> None:
    said = reply.out + reply.err
    assert "Traceback" not in said, said
    assert "Python Exception" not in said, said
    assert "Error occurred in Python" not in said, said
    errors = [line for line in reply.err.splitlines() if line and not line.startswith("warning:")]
    assert len(errors) <= 1, f"{command}: {reply.err}"


@pytest.fixture(scope="module")
def idle_gdb() -> Iterator[Gdb]:
    """GDB with the plugin and without any target."""
    with Gdb(["-ex", f"source {ROOT / 'gdbinit.py'}"]) as gdb:
        yield gdb


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_complete(idle_gdb: Gdb, command: str) -> None:
    text = idle_gdb.run(f"help {command}")
    assert f"Usage: {command}" in text
    assert f"Example: {command}" in text


@pytest.mark.parametrize("command", COMMANDS)
def test_without_a_target_it_is_one_sentence(idle_gdb: Gdb, command: str) -> None:
    check_sentence(command, idle_gdb.reply(command))


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unknown_option_is_one_sentence(idle_gdb: Gdb, command: str) -> None:
    reply = idle_gdb.reply(f"{command} --frobnicate")
    assert reply.failed
    check_sentence(command, reply)


def test_a_subcommand_that_does_not_exist_is_named(idle_gdb: Gdb) -> None:
    assert "no subcommand 'brek': did you mean `break`?" in idle_gdb.fails("exo-syscall brek 101")
    assert "needs a subcommand" in idle_gdb.fails("exo-syscall")


@pytest.mark.parametrize("command", COMMANDS)
def test_options_complete(idle_gdb: Gdb, command: str) -> None:
    for line in idle_gdb.run(f"complete {command} --").splitlines():
        assert line.startswith(command)


def test_a_program_that_is_no_guest_is_one_sentence() -> None:
    with Gdb(["-ex", f"source {ROOT / 'gdbinit.py'}", "/bin/true"]) as gdb:
        gdb.run("starti")
        for command in COMMANDS:
            check_sentence(command, gdb.reply(command))


def test_a_kernel_without_symbols_has_no_traceback(guest: OpenGuest) -> None:
    gdb = guest(variant="stripped").gdb
    for command in LOOKING:
        check_sentence(command, gdb.reply(command))


def test_at_reset_there_is_no_traceback(guest: OpenGuest) -> None:
    """Real mode, no descriptor tables, LSTAR 0."""
    gdb = guest(stopped=True).gdb
    for command in LOOKING:
        check_sentence(command, gdb.reply(command))
    for command in ("exo-syscall abi", "exo-syscall frame"):
        assert "LSTAR" in gdb.fails(command)
    assert gdb.json("exo-gs")["cpus"][0]["active"] == "unknown"
    assert len(gdb.run("exo-gdt").splitlines()) < 10


def test_inside_a_system_call_every_command_runs_and_leaves_gdb_usable(guest: OpenGuest) -> None:
    gdb = guest().gdb
    gdb.run("tbreak sys_ipc_send")
    gdb.run("continue")
    before = gdb.integer("$rip")
    for command in LOOKING:
        check_sentence(command, gdb.reply(command))
        assert gdb.integer("$rip") == before, command


@pytest.mark.parametrize("command", COMMANDS)
def test_qemu_gone_is_one_sentence(guest: OpenGuest, command: str) -> None:
    one = guest()
    one.qemu.kill()
    check_sentence(command, one.gdb.reply(command))
    assert one.gdb.run("output 6 * 7") == "42"
