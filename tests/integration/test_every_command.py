"""What holds for every command, whatever it shows: a mistake is one sentence, and a traceback is a bug."""

import re
import subprocess
from collections.abc import Iterator
from functools import partial

import pytest

from exogdb.launch.deadline import wait_until
from exogdb.launch.sockets import is_listening
from tests.harness.commands import for_each_command
from tests.harness.gdb import Gdb, Reply
from tests.harness.kernel import ROOT, build_kernel
from tests.harness.session import private_directory
from tests.integration.conftest import OpenGuest
from tests.integration.stops import stop_in_ring_3

# These resume the guest, some until Ctrl-C: they are only tried where they cannot succeed.
RESUMING = {f"exo-syscall {name}" for name in ("finish", "next", "step", "record", "summary", "trace")}
COMMANDS = [one.name for one in for_each_command() if not one.is_pure_prefix]
LOOKING = [name for name in COMMANDS if name not in RESUMING]
# What a command cannot be called without.
NEEDED = {
    "exo-msr read": " lstar",
    "exo-msr write": " lstar 1",
    "exo-syscall break": " getpid",
    "exo-syscall frame set": " rip 0x1000",
    "exo-syscall record": " /nowhere/trace",
}
# These answer without a guest, from the kernel's sources.
WITHOUT_A_GUEST = {"exo-syscall break", "exo-syscall list"}
CHOOSING = ("break", "list", "next", "trace", "summary", "record /nowhere/trace")

NO_TARGET = "no guest is connected: start QEMU with `-gdb unix:PATH,server=on` and `target remote PATH`"
NATIVE = "this is a native target, not a guest in QEMU: connect with `target remote`"
ARCHITECTURE = "the guest's architecture is i386: exogdb knows x86-64 in long mode only"
NO_NUMBERS = re.compile(
    r"no system call is called 'getpid': no number table was found, so use numbers or `set exo syscalls FILE`"
    r"|no table of system-call numbers was found: name it with `set exo syscalls FILE`"
)


def check_sentence(command: str, reply: Reply) -> None:
    said = reply.out + reply.err
    assert "Traceback" not in said, said
    assert "Python Exception" not in said, said
    assert "Error occurred in Python" not in said, said
    errors = [line for line in reply.err.splitlines() if line and not line.startswith("warning:")]
    assert len(errors) <= 1, f"{command}: {reply.err}"


def refused(gdb: Gdb, command: str) -> str:
    """The one sentence that `command` is refused with; nothing is on standard output then."""
    reply = gdb.reply(command)
    assert reply.failed, f"{command} was expected to fail"
    assert reply.out == "", command
    check_sentence(command, reply)
    return reply.err.strip()


def typed(command: str) -> list[str]:
    """`command` with what it needs: as a person types it, and as a script does if it can."""
    plain = command + NEEDED.get(command, "")
    return [plain] if command == "exo-syscall record" else [plain, f"{plain} --json"]


@pytest.fixture(scope="module")
def idle_gdb() -> Iterator[Gdb]:
    """GDB with the plugin and without any target."""
    with Gdb(["-ex", f"source {ROOT / 'gdbinit.py'}"]) as gdb:
        yield gdb


@pytest.fixture(scope="module")
def named_gdb() -> Iterator[Gdb]:
    """The same with the kernel's symbols, and so its number table."""
    with Gdb([build_kernel().elf, "-ex", f"source {ROOT / 'gdbinit.py'}"]) as gdb:
        yield gdb


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_complete(idle_gdb: Gdb, command: str) -> None:
    text = idle_gdb.run(f"help {command}")
    assert f"Usage: {command}" in text
    assert f"Example: {command}" in text


@pytest.mark.parametrize("command", COMMANDS)
def test_without_a_target_it_says_how_to_get_one(idle_gdb: Gdb, command: str) -> None:
    for line in typed(command):
        said = refused(idle_gdb, line)
        assert NO_NUMBERS.fullmatch(said) if command in WITHOUT_A_GUEST else said == NO_TARGET, said


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unknown_option_is_one_sentence(idle_gdb: Gdb, command: str) -> None:
    for line in typed(command):
        said = refused(idle_gdb, f"{line} --frobnicate")
        assert said.startswith(f"{command}: ")
        assert said.endswith(f"--frobnicate; `help {command}` shows the usage")


@pytest.mark.parametrize("command", sorted(NEEDED))
def test_a_missing_argument_is_one_sentence(idle_gdb: Gdb, command: str) -> None:
    said = refused(idle_gdb, f"{command} --json")
    assert said.startswith(f"{command}: the following arguments are required: ")
    assert said.endswith(f"; `help {command}` shows the usage")


def test_a_subcommand_that_does_not_exist_is_named(idle_gdb: Gdb) -> None:
    assert "no subcommand 'brek': did you mean `break`?" in idle_gdb.fails("exo-syscall brek 101")
    assert "needs a subcommand" in idle_gdb.fails("exo-syscall")


def test_a_program_that_is_no_guest_is_called_by_its_kind() -> None:
    with Gdb(["-ex", f"source {ROOT / 'gdbinit.py'}", "/bin/true"]) as gdb:
        gdb.run("starti")
        for command in COMMANDS:
            for line in typed(command):
                said = refused(gdb, line)
                assert NO_NUMBERS.fullmatch(said) if command in WITHOUT_A_GUEST else said == NATIVE, said


def test_a_guest_of_another_architecture_is_called_by_it() -> None:
    with private_directory() as directory, Gdb(["-ex", f"source {ROOT / 'gdbinit.py'}"]) as gdb:
        socket = directory / "gdb"
        stub = f"unix:{socket},server=on,wait=off"
        qemu = ["qemu-system-i386", "-S", "-gdb", stub, "-display", "none", "-monitor", "none", "-serial", "none"]
        with subprocess.Popen(qemu) as process:
            try:
                wait_until(partial(is_listening, socket), 20, "qemu-system-i386")
                reply = gdb.reply(f"target remote {socket}")  # warns that it has no program
                assert reply.out.startswith("Remote debugging using"), reply
                for command in COMMANDS:
                    for line in typed(command):
                        said = refused(gdb, line)
                        assert (
                            NO_NUMBERS.fullmatch(said) if command in WITHOUT_A_GUEST else said == ARCHITECTURE
                        ), said
            finally:
                process.kill()


def test_a_kernel_without_symbols_still_answers(guest: OpenGuest) -> None:
    gdb = guest(variant="stripped").gdb
    for command in sorted({*LOOKING} - {*NEEDED, "exo-syscall list"}):
        for line in typed(command):
            reply = gdb.reply(line)
            check_sentence(line, reply)
            assert not reply.failed, f"{line}: {reply.err}"
    for line in (*typed("exo-syscall list"), *typed("exo-syscall break")):
        assert NO_NUMBERS.fullmatch(refused(gdb, line))
    said = refused(gdb, "exo-syscall frame --process 1 --json")
    assert said == "the per-CPU block names no current process in debug info; `--stack ADDRESS` needs none"
    gdb.run("exo-syscall break 101")


def test_before_the_kernel_has_an_entry_the_sentence_names_lstar(guest: OpenGuest) -> None:
    """Real mode, no descriptor tables, LSTAR 0."""
    gdb = guest(stopped=True).gdb
    for command in LOOKING:
        check_sentence(command, gdb.reply(command))
    for command in ("exo-syscall abi", "exo-syscall frame", "exo-syscall frame set rip 1", "exo-syscall finish"):
        for line in (command, f"{command} --json"):
            said = refused(gdb, line)
            assert said == "IA32_LSTAR of CPU 0 is 0: the kernel has not set a system-call entry yet"
    assert gdb.json("exo-gs")["cpus"][0]["active"] == "unknown"
    assert "not in long mode" in refused(gdb, "exo-gdt")


@pytest.mark.parametrize("command", CHOOSING)
def test_an_unknown_number_or_name_is_named_with_the_way_out(
    named_gdb: Gdb, guest: OpenGuest, command: str
) -> None:
    # Some ask the guest first, and say so.
    gdb = named_gdb if f"exo-syscall {command}" in WITHOUT_A_GUEST else guest().gdb
    for json in ("", " --json")[: 1 if command.startswith("record") else 2]:
        number = refused(gdb, f"exo-syscall {command} 9999{json}")
        assert re.match(r"no system call has number 9999 in \S+numbers\.rs; `unknown` chooses ", number)
        name = refused(gdb, f"exo-syscall {command} ipc_sent{json}")
        assert re.match(r"no system call is called 'ipc_sent' in \S+numbers\.rs; did you mean ipc_send", name)


def test_outside_a_system_call_it_says_so(guest: OpenGuest) -> None:
    gdb = guest().gdb
    stop_in_ring_3(gdb)
    for json in ("", " --json"):
        said = refused(gdb, f"exo-syscall finish{json}")
        assert said == "CPU 0 is not inside a system call: `exo-syscall next` goes to the next one"
        assert (
            refused(gdb, f"exo-syscall frame set ret 1{json}") == "ret was not set: no system call is in progress"
        )
    # The frame of the last call is still there and is called that, unless a timer interrupt came upon the stack.
    number = gdb.json("exo-syscall frame")["number"]
    assert number["unavailable"].startswith("no system call is in progress")


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
    said = refused(one.gdb, typed(command)[-1])
    assert said == f"{command}: the connection to QEMU broke; start it again and use `target remote`"
    assert one.gdb.run("output 6 * 7") == "42"
