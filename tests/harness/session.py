"""A guest and a GDB attached to it, as one thing that a test opens and closes."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from exogdb.launch.qemu import Machine, Qemu
from tests.harness.gdb import Gdb
from tests.harness.kernel import ROOT, Kernel, build_kernel

__all__ = ["DEBUG_EXIT", "DEMO_RUNS", "Guest", "open_guest", "private_directory", "quick_machine"]

# What the first program of `run=demo` prints, just before it starts the others.
DEMO_RUNS = "demo: pid"
DEBUG_EXIT = ("-device", "isa-debug-exit,iobase=0xf4,iosize=0x04")


def quick_machine() -> tuple[str, ...]:
    """QEMU's options for a machine that boots in a third of the time: small firmware, no network card, no screen.

    That firmware leaves the pin by which NMIs come masked. None with `EXOGDB_COLD=1`. docs/adr/0055 says why.
    """
    return () if os.environ.get("EXOGDB_COLD") else ("-nodefaults", "-bios", "qboot.rom")


class Guest:
    """A QEMU running `kernel`, and the GDB attached to it.

    `gdb` is the GDB; `qemu` the process with `serial()`, `wait_serial()` and `kill()`.
    """

    def __init__(self, kernel: Kernel, qemu: Qemu, gdb: Gdb) -> None:
        self.kernel = kernel
        self.qemu = qemu
        self.gdb = gdb

    def open_files(self) -> list[str]:
        """What QEMU has open; what it closes meanwhile is left out."""
        found = []
        for link in Path(f"/proc/{self.qemu.process.pid}/fd").iterdir():
            with suppress(FileNotFoundError):
                found.append(str(link.readlink()))
        return found

    def report(self) -> str:
        """Everything that helps to understand a failure."""
        return (
            f"--- QEMU ---\n{' '.join(self.qemu.command)}\n{self.qemu.log()}\n"
            f"--- serial ---\n{self.qemu.serial()}\n--- GDB ---\n{''.join(self.gdb.transcript)}"
        )


@contextmanager
def private_directory() -> Iterator[Path]:
    """A new directory that only this user can enter, with a path short enough for a unix socket."""
    directory = Path(tempfile.mkdtemp(prefix="exogdb-"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


@contextmanager
def open_guest(
    append: str = "run=demo",
    smp: int = 1,
    variant: str = "",
    *,
    elf: Path | None = None,
    programs: tuple[Path, ...] | None = None,
    accel: str = "tcg",
    stopped: bool = False,
    attach: bool = True,
    plugin: bool = True,
    quick: bool = True,
    qemu: tuple[str, ...] = (),
) -> Iterator[Guest]:
    """Boot the kernel of `variant` (or `elf`) and attach a GDB that has its symbols and the plugin.

    `stopped` holds every CPU at reset until GDB continues; otherwise attaching waits until `run=demo` starts its
    programs, and stops the guest wherever it is. `attach=False` leaves GDB with the symbols and without a target.
    `quick` takes the machine of `quick_machine`. `qemu` is added to QEMU's command line.
    """
    kernel = Kernel(elf, programs or ()) if elf else build_kernel(variant)
    extra = (*DEBUG_EXIT, *(quick_machine() if quick else ()), *qemu)
    machine = Machine(kernel.elf, append, smp, accel=accel, stopped=stopped, extra=extra)
    with ExitStack() as stack:
        directory = stack.enter_context(private_directory())
        process = stack.enter_context(Qemu(machine, directory))
        gdb = stack.enter_context(Gdb(_gdb_arguments(kernel, plugin), warm=True))
        guest = Guest(kernel, process, gdb)
        if attach:
            if not stopped and append.startswith("run=demo"):
                process.wait_serial(DEMO_RUNS)
            gdb.run(f"target remote {process.gdb_socket}")
        yield guest


def _gdb_arguments(kernel: Kernel, plugin: bool) -> list[str | Path]:
    arguments: list[str | Path] = [kernel.elf]
    for program in kernel.programs:
        arguments += ["-ex", f"add-symbol-file {program}"]
    if plugin:
        arguments += ["-ex", f"source {ROOT / 'gdbinit.py'}"]
    return arguments
