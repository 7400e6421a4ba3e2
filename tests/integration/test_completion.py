"""The TAB key: options, the values of every option, and arguments, as `complete` lists them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.commands import ask_options, for_each_command
from tests.harness.gdb import Gdb
from tests.harness.kernel import ROOT
from tests.harness.session import open_guest

COMMANDS = [one.name for one in for_each_command() if not one.is_pure_prefix]
# Some of the values that TAB must offer; none for a number that only the user knows.
VALUES = {
    "--cpu": {"0", "1"},
    "--engine": {"auto", "log", "stops"},
    "--clock": {"host", "guest"},
    "--fail-on": {"error", "warning", "note", "never"},
    "--if": {"$nr", "$arg1", "$arg6", "$ret"},
    "--output": {"README.md", "docs"},
    "--process": {"1"},
    "--rule": {"EXO001", "EXO069"},
    "--save": {"README.md", "docs"},
    "--via": {"best", "quiet", "gdb", "qmp", "rdmsr"},
}
ONLY_THE_USER_KNOWS = {"--count", "--for", "--stack"}
EXCEPTIONS = {
    ("exo-syscall check", "--ignore"): {"EXO001", "EXO069"},
    ("exo-syscall break", "--ignore"): set[str](),
}


@pytest.fixture(scope="module")
def gdb() -> Iterator[Gdb]:
    with open_guest(smp=2) as guest:
        guest.gdb.run(f"cd {ROOT}")
        yield guest.gdb


def complete(gdb: Gdb, text: str) -> set[str]:
    """What the last word of `text` can become."""
    given = text.rpartition(" ")[0]
    lines = gdb.run(f"complete {text}").splitlines()
    assert all(line.startswith(f"{given} ") for line in lines), lines
    return {line.removeprefix(f"{given} ") for line in lines}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_offered(gdb: Gdb, command: str) -> None:
    offered = complete(gdb, f"{command} --")
    usage = gdb.run(f"help {command}").partition("Usage: ")[2].partition("\n\n")[0]
    named = {word.strip("[],|") for word in usage.split() if word.strip("[],|").startswith("--")}
    assert named <= offered


def test_every_option_offers_its_values_and_nothing_else(gdb: Gdb) -> None:
    every = ask_options(gdb).items()
    options = [(command, option) for command, known in every for option, takes in known.items() if takes]
    assert len(options) > 15
    for command, option in options:
        wanted = EXCEPTIONS.get((command, option), VALUES.get(option, set()))
        offered = complete(gdb, f"{command} {option} ")
        assert wanted <= offered, (command, option, offered)
        assert bool(offered) == (option not in ONLY_THE_USER_KNOWS and bool(wanted)), (command, option, offered)
        assert option in VALUES or option in ONLY_THE_USER_KNOWS or (command, option) in EXCEPTIONS


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("exo-msr ef", {"efer"}),
        ("exo-msr EF", {"EFER"}),
        ("exo-msr IA32_LS", {"IA32_LSTAR"}),
        ("exo-msr star ls", {"lstar"}),
        ("exo-msr star --v", {"--via"}),
        ("exo-msr lstar --co", {"--count"}),
        ("exo-msr read --all-cpus tsc_a", {"tsc_adjust", "tsc_aux"}),
        ("exo-msr write fmask ", set()),
        ("exo-msr --via=q", {"--via=qmp", "--via=quiet"}),
        ("exo-idt #P", {"#PF"}),
        ("exo-syscall break getpid,ipc_s", {"getpid,ipc_send"}),
        ("exo-syscall break %ip", {"%ipc"}),
        ("exo-syscall break --cpu 1 !ipc_r", {"!ipc_recv"}),
        ("exo-syscall frame set rf", {"rflags"}),
        ("exo-syscall frame set rip ", set()),
        ("exo-syscall record docs/adr/0052", {"docs/adr/0052-bring-in-what-is-missing.md"}),
        ("exo-syscall record boot.trace SYS_IPC_S", {"SYS_IPC_SEND"}),
        ("exo-syscall next getpid, ipc_s", {"ipc_send"}),
        ("exo-syscall trace --count 3 !getpid,ipc_s", {"!getpid,ipc_send"}),
        ("exo-syscall check --rule EXO001,EXO06", {f"EXO001,EXO06{number}" for number in range(10)}),
    ],
)
def test_arguments(gdb: Gdb, text: str, words: set[str]) -> None:
    assert complete(gdb, text) == words


def test_files_named_by_settings_complete_too(gdb: Gdb, tmp_path: Path) -> None:
    (tmp_path / "kernel.toml").touch()
    for name in ("profile", "syscalls", "qmp-socket"):
        assert complete(gdb, f"set exo {name} {tmp_path}/ker") == {f"{tmp_path}/kernel.toml"}
