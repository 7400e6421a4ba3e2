"""The kernel's GS base, and memory as the kernel sees it while a program's page tables are loaded as well.

Isolation leaves little of the kernel in those. Nothing in the guest changes.
"""

from functools import cached_property

from exogdb.abi.stub.entry_path import EntryPath
from exogdb.abi.stub.stub_state import StubState
from exogdb.abi.stub.symbolic import Gs
from exogdb.errors import MemoryFault
from exogdb.reading import Reading, Unavailable
from exogdb.target.cpus import Cpu
from exogdb.target.isolation import find_page_tables
from exogdb.target.memory import PhysicalMemory, VirtualMemory
from exogdb.target.page_tables import AddressSpace, PageTableMemory
from exogdb.target.registers import read_register
from exogdb.x86.address import is_upper_half

__all__ = ["KernelMemory", "find_kernel_gs_base"]


def find_kernel_gs_base(cpu: Cpu, state: StubState | None, cpl: int) -> int:
    """By the stub's own `swapgs` if `rip` is there, in ring 3 the waiting one, else the one in the upper half."""
    active, waiting = read_register(cpu, "gs_base"), read_register(cpu, "k_gs_base")
    if state is not None and state.gs is not Gs.UNKNOWN:
        return active if state.gs is Gs.KERNEL else waiting
    if cpl == 3:
        return waiting
    return active if is_upper_half(active) or not is_upper_half(waiting) else waiting


class KernelMemory:
    """What `cpu` has loaded, and what that lacks through the page tables that the stub of `path` loads going in.

    `gs_base` is the kernel's. Implements `exogdb.x86.memory.ReadableMemory`. For one look at a stopped guest.
    """

    def __init__(self, cpu: Cpu, path: EntryPath, gs_base: int) -> None:
        self._cpu = cpu
        self._path = path
        self._gs_base = gs_base
        self._loaded = VirtualMemory(cpu)

    def read(self, address: int, size: int) -> bytes:
        """Exactly `size` bytes at virtual `address`.

        :raise exogdb.errors.MemoryFault: neither tables map the range.
        :raise exogdb.errors.UnavailableError: physical memory cannot be read.
        """
        try:
            return self._loaded.read(address, size)
        except MemoryFault:
            if self._kernel is None:
                raise
            return self._kernel.read(address, size)

    @cached_property
    def _kernel(self) -> AddressSpace | None:
        """The kernel's own tables, None where it has no others or they cannot be found."""
        if not self._path.cr3_switches:
            return None
        loaded = AddressSpace.loaded_by(self._cpu, PageTableMemory(PhysicalMemory()))
        tables = find_page_tables(self._cpu, loaded, Reading(self._gs_base, "gdb"), self._path)
        return None if isinstance(tables.kernel, Unavailable) or tables.kernel == loaded else tables.kernel
