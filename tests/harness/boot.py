"""The reference kernel in QEMU without a GDB, for what it tells by its serial port and its exit status."""

from collections.abc import Iterator
from contextlib import contextmanager

from exogdb.launch.qemu import Machine, Qemu
from tests.harness.kernel import build_kernel
from tests.harness.session import DEBUG_EXIT, private_directory, quick_machine

__all__ = ["boot"]


@contextmanager
def boot(append: str, smp: int = 1, variant: str = "", qemu: tuple[str, ...] = ()) -> Iterator[Qemu]:
    """Boot the kernel of `variant` on the machine of `quick_machine`; `qemu` is added to QEMU's command line."""
    machine = Machine(build_kernel(variant).elf, append, smp, extra=(*DEBUG_EXIT, *quick_machine(), *qemu))
    with private_directory() as directory, Qemu(machine, directory) as process:
        yield process
