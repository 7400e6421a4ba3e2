"""Bringing a guest to a well-known place."""

from tests.harness.gdb import Gdb
from tests.harness.session import Guest

__all__ = ["attach_running", "stop_at"]


def attach_running(guest: Guest) -> None:
    """Attach to a guest whose CPUs are all up and whose programs run; it is stopped wherever it is."""
    guest.qemu.wait_serial("demo: pid")
    # GDB complains on standard error where it has no source file.
    guest.gdb.reply(f"target remote {guest.qemu.gdb_socket}")


def stop_at(gdb: Gdb, symbol: str) -> None:
    """Run to the first instruction of `symbol`, on whatever CPU gets there first."""
    gdb.run(f"tbreak *{gdb.address(symbol):#x}")
    gdb.reply("continue")
