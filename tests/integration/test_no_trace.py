"""Proof that looking leaves no trace: all guest RAM and every register of every CPU, before and after.

RAM is a file that QEMU shares with the test, registers are what QEMU's own monitor prints for all CPUs, and
without RDMSR even the whole device state must be the same, byte for byte. None of this goes through the plugin.
"""

import hashlib
import json
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.harness.gdb import Gdb
from tests.harness.session import Guest, open_guest, private_directory
from tests.integration.stops import attach_running, stop_at

# Commands that are meant to change something: the guest, its run state, or GDB's breakpoints.
CHANGING = re.compile(
    r"exo-msr (read|write)|exo-syscall$|exo-syscall (t?break|catch|trace|record|summary|run|finish)"
)
ARGUMENTS = {"exo-msr": "--all-cpus", "exo-gs": "--all-cpus"}
MEMORY = "128M"
MOST_STOPS = 60


@dataclass(frozen=True)
class Everything:
    """What must not change. `device_state` is QEMU's migration stream, empty where it is not compared."""

    ram: str
    registers: str
    run_state: str
    device_state: bytes


def ask_qmp(path: Path, *commands: dict[str, Any]) -> list[Any]:
    """Answers to `commands`, on a connection of our own that is closed again for the plugin to use."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        lines = connection.makefile("r")
        json.loads(lines.readline())
        answers = []
        for command in ({"execute": "qmp_capabilities"}, *commands):
            connection.sendall(json.dumps(command).encode())
            answer = json.loads(lines.readline())
            while "event" in answer:
                answer = json.loads(lines.readline())
            assert "return" in answer, answer
            answers.append(answer["return"])
        return answers[1:]


class Witness:
    """Looks at a stopped guest from outside."""

    def __init__(self, guest: Guest, directory: Path) -> None:
        self.guest = guest
        self.ram = directory / "ram"
        self.state = directory / "state"

    def look(self, *, device_state: bool) -> Everything:
        """Everything that must not change."""
        registers = {"execute": "human-monitor-command", "arguments": {"command-line": "info registers -a"}}
        save = {"execute": "xen-save-devices-state", "arguments": {"filename": str(self.state), "live": False}}
        commands: list[dict[str, Any]] = [
            registers,
            {"execute": "query-status"},
            *([save] if device_state else []),
        ]
        answers = ask_qmp(self.guest.qemu.qmp_socket, *commands)
        with self.ram.open("rb") as file:
            ram = hashlib.file_digest(file, "sha256").hexdigest()
        saved = self.state.read_bytes() if device_state else b""
        return Everything(ram, str(answers[0]), json.dumps(answers[1]), saved)


@contextmanager
def watched_guest(smp: int, variant: str = "") -> Iterator[tuple[Guest, Witness]]:
    """A guest whose RAM is a file, attached and stopped somewhere."""
    with private_directory() as directory:
        backend = f"memory-backend-file,id=ram,size={MEMORY},mem-path={directory / 'ram'},share=on"
        memory = ("-object", backend, "-machine", "memory-backend=ram", "-m", MEMORY)
        # A clock that follows the host's goes on while the guest is stopped, whether anybody looks or not.
        clock = ("-rtc", "clock=vm")
        with open_guest(smp=smp, variant=variant, attach=False, qemu=(*memory, *clock)) as guest:
            attach_running(guest)
            yield guest, Witness(guest, directory)


def at_cpl_0(gdb: Gdb) -> None:
    stop_at(gdb, "syscall_dispatch")


def before_swapgs(gdb: Gdb) -> None:
    stop_at(gdb, "syscall_entry")


def after_swapgs(gdb: Gdb) -> None:
    stop_at(gdb, "syscall_entry")
    gdb.reply("stepi")


def at_cpl_3(gdb: Gdb) -> None:
    stop_at(gdb, "syscall_entry")
    gdb.run(f"tbreak *{gdb.integer('$rcx'):#x}")
    gdb.reply("continue")
    assert gdb.integer("$cs") & 3 == 3


def halted(gdb: Gdb) -> None:
    """Stop when some CPU waits in HLT with interrupts on, and select it."""
    for _ in range(MOST_STOPS):
        text = gdb.reply("monitor info registers -a").err
        for cpu, body in re.findall(r"CPU#(\d+)(.*?)(?=CPU#|\Z)", text, re.DOTALL):
            if "HLT=1" in body:
                gdb.reply(f"thread {int(cpu) + 1}")
                return
        stop_at(gdb, "sys_ipc_send")
    pytest.fail("no CPU was halted at any stop")


PLACES = {place.__name__: place for place in (at_cpl_0, before_swapgs, after_swapgs, at_cpl_3, halted)}


def read_only_commands(gdb: Gdb) -> list[str]:
    """Every command of the registry that only looks."""
    gdb.run("python from exogdb.commands.registry import COMMANDS")
    names: list[str] = json.loads(gdb.run("python import json; print(json.dumps(sorted(COMMANDS)))"))
    chosen = [name for name in names if not CHANGING.match(name)]
    assert {"exo-msr", "exo-gs", "exo-gdt", "exo-idt", "exo-tss", "exo-msr star", "exo-msr lstar"} <= set(chosen)
    return [f"{name} {ARGUMENTS.get(name, '')}".strip() for name in chosen]


def differences(before: Everything, after: Everything) -> list[str]:
    """What changed, in words."""
    old, new = before.registers.splitlines(), after.registers.splitlines()
    lines = [f"{one} -> {two}" for one, two in zip(old, new, strict=True) if one != two]
    found = [f"registers: {line}" for line in lines]
    found += ["RAM"] if before.ram != after.ram else []
    found += [f"run state {before.run_state} -> {after.run_state}"] if before.run_state != after.run_state else []
    if before.device_state != after.device_state:
        found.append("device state")
    return found


@pytest.mark.parametrize("smp", [1, 4])
def test_looking_changes_nothing_at_all(smp: int) -> None:
    with watched_guest(smp) as (guest, witness):
        commands = read_only_commands(guest.gdb)
        for place, go_there in PLACES.items():
            if place == "halted" and smp == 1:
                continue
            go_there(guest.gdb)
            before = witness.look(device_state=True)
            for command in commands:
                guest.gdb.reply(command)
                after = witness.look(device_state=True)
                assert differences(before, after) == [], f"{command} at {place}"


@pytest.mark.parametrize("smp", [1, 4])
def test_rdmsr_in_the_guest_puts_everything_back(smp: int) -> None:
    with watched_guest(smp) as (guest, witness):
        for place, go_there in PLACES.items():
            if place == "halted" and smp == 1:
                continue
            go_there(guest.gdb)
            before = witness.look(device_state=False)
            for command in ("exo-msr --via rdmsr", "exo-msr --via rdmsr --all-cpus", "exo-msr read pat 0x174"):
                reply = guest.gdb.reply(command)
                after = witness.look(device_state=False)
                assert differences(same_hardware(before), same_hardware(after)) == [], f"{command} at {place}"
                assert "rdmsr" in reply.out, f"{command} at {place}: {reply}"


def same_hardware(everything: Everything) -> Everything:
    """Without HLT, for a halted CPU has to wake up to execute RDMSR, and without limit bits 19:16 in segment
    flags: QEMU keeps the limit apart and fills those bits only when the descriptor came from a table.
    """
    registers = everything.registers.replace("HLT=1", "HLT=0")
    registers = re.sub(r"^(\w+ *=\w{4} \w{16} \w{8} \w{3})\w", r"\1-", registers, flags=re.MULTILINE)
    return Everything(everything.ram, registers, everything.run_state, b"")
