"""The system-call path of the running kernel: LSTAR's target, analysed once and kept as long as its code stays.

The analysis is remembered together with every byte that it looked at. Before it is used again those bytes are read
again, so that a kernel that patched its stub, or another kernel, is analysed anew.
"""

from dataclasses import dataclass, replace

from exogdb.abi.entry import find_entry_path
from exogdb.abi.entry_path import EntryPath
from exogdb.errors import AnalysisError, MemoryFault, UnavailableError
from exogdb.reading import Reading
from exogdb.target.cpus import Cpu
from exogdb.target.memory import VirtualMemory
from exogdb.target.msrs import Via, read_msr, read_msrs
from exogdb.target.symbols import find_address
from exogdb.x86.memory import ReadableMemory
from exogdb.x86.msr import parse_msr

__all__ = ["analysed_paths", "observe_entry_path", "read_entry_path"]

# Tried in this order when LSTAR itself cannot be read.
_USUAL_NAMES = ("syscall_entry", "syscall_entry_asm", "entry_SYSCALL_64")
# A power of two that divides the page size: a block is mapped as a whole or not at all.
_BLOCK = 256


class _RememberingMemory:
    """Reads whole blocks from `memory` and keeps them."""

    def __init__(self, memory: ReadableMemory) -> None:
        self._memory = memory
        self.blocks: dict[int, bytes] = {}

    def read(self, address: int, size: int) -> bytes:
        first, last = address // _BLOCK, (address + size - 1) // _BLOCK
        data = b"".join(self._block(number) for number in range(first, last + 1))
        start = address - first * _BLOCK
        return data[start : start + size]

    def _block(self, number: int) -> bytes:
        if number not in self.blocks:
            self.blocks[number] = self._memory.read(number * _BLOCK, _BLOCK)
        return self.blocks[number]


@dataclass(frozen=True)
class _Remembered:
    path: EntryPath
    blocks: dict[int, bytes]

    def is_current(self, memory: ReadableMemory) -> bool:
        try:
            return all(memory.read(number * _BLOCK, _BLOCK) == data for number, data in self.blocks.items())
        except MemoryFault:
            return False


_remembered: dict[int, _Remembered] = {}


def read_entry_path(cpu: Cpu) -> EntryPath:
    """What `cpu` will do at SYSCALL. The guest must be stopped; nothing in it changes.

    :raise AnalysisError: there is no code at LSTAR's target.
    :raise UnavailableError: LSTAR cannot be read, and no symbol with a usual name can stand in for it.
    """
    entry, doubt = _find_entry(cpu)
    path = _analyse(entry, VirtualMemory(cpu))
    return replace(path, doubts=(doubt, *path.doubts)) if doubt else path


def analysed_paths() -> list[EntryPath]:
    """Every path that was analysed in this session, the latest one first. Nothing is read."""
    return [known.path for known in reversed(_remembered.values())]


def observe_entry_path(cpu: Cpu) -> EntryPath | None:
    """The same as `read_entry_path`, but never by RDMSR in the guest, and None where there is no answer.

    Quick when the path that was analysed before is still there. The guest must be stopped.
    """
    memory = VirtualMemory(cpu)
    for known in reversed(_remembered.values()):
        if known.is_current(memory):
            return known.path
    lstar = read_msrs([cpu], [parse_msr("IA32_LSTAR")], Via.QMP)[cpu.index]["IA32_LSTAR"]
    usual = (address for name in _USUAL_NAMES if (address := find_address(name)) is not None)
    entry = lstar.value if isinstance(lstar, Reading) else next(usual, 0)
    try:
        return _analyse(entry, memory)
    except (AnalysisError, UnavailableError):
        return None


def _find_entry(cpu: Cpu) -> tuple[int, str]:
    try:
        return read_msr(cpu, "IA32_LSTAR"), ""
    except UnavailableError as error:
        for name in _USUAL_NAMES:
            address = find_address(name)
            if address is not None:
                return address, f"{error.reason}; the entry is taken from the symbol {name}, which is a guess"
        raise


def _analyse(entry: int, memory: VirtualMemory) -> EntryPath:
    known = _remembered.get(entry)
    if known is not None and known.is_current(memory):
        return known.path
    remembering = _RememberingMemory(memory)
    try:
        path = find_entry_path(remembering, entry)
    except MemoryFault as error:
        raise AnalysisError(f"the entry stub at {entry:#x} cannot be read: {error}", entry) from error
    _remembered[entry] = _Remembered(path, remembering.blocks)
    return path
