"""The system-call path of the running kernel: LSTAR's target, analysed once and kept as long as its code stays.

The analysis is remembered together with every byte that it looked at. Before it is used again those bytes are read
again, so that a kernel that patched its stub, or another kernel, is analysed anew.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from exogdb.abi.entry import find_entry_path
from exogdb.abi.entry_path import EntryPath
from exogdb.abi.profile import apply_profile, parse_profile
from exogdb.errors import AnalysisError, FormatError, MemoryFault, UnavailableError, UsageError
from exogdb.reading import Reading
from exogdb.target import settings
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
class _ProfileFile:
    """What `set exo profile` names, as it was at `modified_ns`."""

    path: Path
    modified_ns: int


def _find_profile() -> _ProfileFile | None:
    named = settings.profile_file()
    if not named:
        return None
    path = Path(named).expanduser()
    try:
        return _ProfileFile(path, path.stat().st_mtime_ns)
    except OSError as error:
        raise UsageError(f"`set exo profile {named}`: {error.strerror}") from error


@dataclass(frozen=True)
class _Remembered:
    path: EntryPath
    blocks: dict[int, bytes]
    profile: _ProfileFile | None

    def is_current(self, memory: ReadableMemory) -> bool:
        try:
            return self.profile == _find_profile() and all(
                memory.read(number * _BLOCK, _BLOCK) == data for number, data in self.blocks.items()
            )
        except MemoryFault:
            return False


_remembered: dict[int, _Remembered] = {}


def read_entry_path(cpu: Cpu) -> EntryPath:
    """What `cpu` will do at SYSCALL. The guest must be stopped; nothing in it changes.

    :raise AnalysisError: LSTAR is 0, or there is no code at its target.
    :raise UnavailableError: LSTAR cannot be read, and no symbol with a usual name can stand in for it.
    """
    entry, doubt = _find_entry(cpu)
    if not entry:
        raise AnalysisError(f"IA32_LSTAR of CPU {cpu.index} is 0: the kernel has not set a system-call entry yet")
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
        return _analyse(entry, memory) if entry else None
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
    profile = _find_profile()
    try:
        path = _analyse_by(profile, remembering, entry)
    except MemoryFault as error:
        raise AnalysisError(f"the entry stub at {entry:#x} cannot be read: {error}", entry) from error
    _remembered.pop(entry, None)  # the latest one goes to the end
    _remembered[entry] = _Remembered(path, remembering.blocks, profile)
    return path


def _analyse_by(profile: _ProfileFile | None, memory: ReadableMemory, entry: int) -> EntryPath:
    if profile is None:
        return find_entry_path(memory, entry)
    try:
        content = parse_profile(profile.path.read_text(encoding="utf-8"))
        return apply_profile(content, str(profile.path), memory, entry)
    except (OSError, UnicodeDecodeError, FormatError) as error:
        raise UsageError(f"`set exo profile {profile.path}`: {error}") from error
