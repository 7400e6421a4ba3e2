"""Bringing a guest to a well-known place."""

from tests.harness.gdb import Gdb
from tests.harness.session import Guest

__all__ = ["attach_running", "stop_at"]


def attach_running(guest: Guest, after: str = "demo: pid") -> None:
    """Attach once the guest has printed `after`, by default that its programs run."""
    guest.qemu.wait_serial(after)
    # GDB complains on standard error where it has no source file.
    guest.gdb.reply(f"target remote {guest.qemu.gdb_socket}")


def stop_at(gdb: Gdb, symbol: str) -> None:
    """Run to the first instruction of `symbol`, on whatever CPU gets there first."""
    gdb.run(f"tbreak *{gdb.address(symbol):#x}")
    gdb.reply("continue")
