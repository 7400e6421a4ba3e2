"""The page tables that a CPU has loaded, walked through physical memory."""

from exogdb.target.cpus import Cpu
from exogdb.target.memory import PhysicalMemory
from exogdb.target.registers import read_register
from exogdb.x86.paging import PageWalk, walk_page_tables

__all__ = ["walk_address"]


def walk_address(cpu: Cpu, address: int) -> PageWalk:
    """What the virtual `address` maps to on `cpu`, level by level. No accessed bit is set; nothing changes.

    :raise UnavailableError: physical memory cannot be read.
    """
    cr0, cr3, cr4, efer = (read_register(cpu, name) for name in ("cr0", "cr3", "cr4", "efer"))
    return walk_page_tables(PhysicalMemory(), address, cr0, cr3, cr4, efer)
