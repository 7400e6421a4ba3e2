"""A witness that sees everything about a stopped guest without the plugin and without GDB.

RAM is a file that QEMU shares with the test; registers are what QEMU's own monitor prints for all CPUs.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.harness.qmp import ask_qmp
from tests.harness.session import Guest, open_guest, private_directory

__all__ = ["Everything", "Witness", "differences", "same_hardware", "watched_guest"]

MEMORY = "16M"


@dataclass(frozen=True)
class Everything:
    """What must not change. `device_state` is QEMU's migration stream, empty where it is not compared."""

    ram: str
    registers: str
    run_state: str
    device_state: bytes


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
    """A guest whose RAM is a file; GDB has its symbols and is not attached yet."""
    with private_directory() as directory:
        backend = f"memory-backend-file,id=ram,size={MEMORY},mem-path={directory / 'ram'},share=on"
        memory = ("-object", backend, "-machine", "memory-backend=ram", "-m", MEMORY)
        # A clock that follows the host's goes on while the guest is stopped, whether anybody looks or not.
        clock = ("-rtc", "clock=vm")
        with open_guest(smp=smp, variant=variant, attach=False, qemu=(*memory, *clock)) as guest:
            yield guest, Witness(guest, directory)


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


def same_hardware(everything: Everything) -> Everything:
    """Without HLT, for a halted CPU has to wake up to execute RDMSR, and without limit bits 19:16 in segment
    flags: QEMU keeps the limit apart and fills those bits only when the descriptor came from a table. A guest that
    was paused is still stopped, and QEMU calls that `debug` after a step.
    """
    registers = everything.registers.replace("HLT=1", "HLT=0")
    registers = re.sub(r"^(\w+ *=\w{4} \w{16} \w{8} \w{3})\w", r"\1-", registers, flags=re.MULTILINE)
    run_state = everything.run_state.replace('"paused"', '"debug"')
    return Everything(everything.ram, registers, run_state, b"")
