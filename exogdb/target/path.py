"""The system-call path of the running kernel: LSTAR's target, analysed once and kept as long as its code stays.

The analysis is remembered together with every byte that it looked at. Before it is used again those bytes are read
again, so that a kernel that patched its stub, or another kernel, is analysed anew.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from exogdb.abi.profile import apply_profile
from exogdb.abi.stub.entry import find_entry_path
from exogdb.abi.stub.entry_path import EntryPath
from exogdb.errors import (
    AnalysisError,
    FormatError,
    MemoryFault,
    TargetLostError,
    UnavailableError,
    UsageError,
)
from exogdb.target.analysed import keep_path
from exogdb.target.cpus import Cpu
from exogdb.target.memory import BLOCK_SIZE, RememberingMemory, VirtualMemory
from exogdb.target.msr.msrs import read_msr
from exogdb.target.profile import ProfileFile, find_profile, read_profile
from exogdb.target.symbols import find_addresses
from exogdb.x86.memory import ReadableMemory

__all__ = ["learn_entry_path", "read_entry_path"]

# Tried in this order when LSTAR itself cannot be read.
_USUAL_NAMES = ("syscall_entry", "syscall_entry_asm", "entry_SYSCALL_64")


@dataclass(frozen=True)
class _Remembered:
    path: EntryPath
    blocks: dict[int, bytes]
    profile: ProfileFile | None

    def is_current(self, memory: ReadableMemory) -> bool:
        """Whether the code is what it was. With page-table isolation user mode sees little more than the entry."""
        seen = dict(block for run in _adjacent(self.blocks) for block in _read_blocks(memory, run))
        is_same = all(data is None or data == self.blocks[number] for number, data in seen.items())
        return is_same and seen[self.path.entry // BLOCK_SIZE] is not None and self.profile == find_profile()


def _adjacent(numbers: Iterable[int]) -> list[range]:
    """`numbers` as runs of adjacent ones: 5 to 6 and 8 of 8, 5, 6."""
    runs: list[range] = []
    for number in sorted(numbers):
        if runs and runs[-1].stop == number:
            runs[-1] = range(runs[-1].start, number + 1)
        else:
            runs.append(range(number, number + 1))
    return runs


def _read_blocks(memory: ReadableMemory, numbers: range) -> Iterator[tuple[int, bytes | None]]:
    """Those blocks, read at once if that can be done: every stop waits for it. None for one that is not mapped."""
    try:
        data = memory.read(numbers.start * BLOCK_SIZE, len(numbers) * BLOCK_SIZE)
    except MemoryFault:
        for number in numbers:
            yield number, _read_or_none(memory, number)
        return
    for at, number in enumerate(numbers):
        yield number, data[at * BLOCK_SIZE :][:BLOCK_SIZE]


def _read_or_none(memory: ReadableMemory, number: int) -> bytes | None:
    try:
        return memory.read(number * BLOCK_SIZE, BLOCK_SIZE)
    except MemoryFault:
        return None


# By entry, and which of them each CPU was last seen to have.
_remembered: dict[int, _Remembered] = {}
_entry_of: dict[int, int] = {}


def read_entry_path(cpu: Cpu) -> EntryPath:
    """What `cpu` will do at SYSCALL. The guest must be stopped; nothing in it changes.

    Where LSTAR cannot be read, what stands in for it is the first of `doubts`.

    :raise AnalysisError: LSTAR is 0, or there is no code at its target.
    :raise UnavailableError: LSTAR cannot be read, and no symbol with a usual name can stand in for it.
    """
    memory = VirtualMemory(cpu)
    try:
        entry = read_msr(cpu, "IA32_LSTAR")
    except TargetLostError:
        raise
    except UnavailableError as error:
        entry, instead = _guess_entry(cpu, error, memory)
        path = _analyse(entry, memory)
        return replace(path, doubts=(f"{error.reason}; {instead}, which is a guess", *path.doubts))
    if not entry:
        raise AnalysisError(f"IA32_LSTAR of CPU {cpu.index} is 0: the kernel has not set a system-call entry yet")
    _entry_of[cpu.index] = entry
    return _analyse(entry, memory)


def learn_entry_path(cpu: Cpu) -> bool:
    """Analyse the path of `cpu` unless the one it had before is still there. False: there is none yet.

    Quick. The guest must be stopped, and nothing in it changes.
    """
    known = _remembered.get(_entry_of.get(cpu.index, 0))
    if known is not None and known.is_current(VirtualMemory(cpu)):
        return True
    try:
        read_entry_path(cpu)
    except TargetLostError:
        raise
    except (AnalysisError, UnavailableError):
        return False
    return True


def _guess_entry(cpu: Cpu, error: UnavailableError, memory: VirtualMemory) -> tuple[int, str]:
    """What may be the entry although LSTAR cannot be read, and what it is taken from."""
    before = _remembered.get(_entry_of.get(cpu.index, 0))
    if before is not None and before.is_current(memory):
        return before.path.entry, f"LSTAR is taken to be what it was before, {before.path.entry:#x}"
    named = next(iter(find_addresses(_USUAL_NAMES).items()), None)
    if named is None:
        raise error
    name, address = named
    return address, f"the entry is taken from the symbol {name}"


def _analyse(entry: int, memory: VirtualMemory) -> EntryPath:
    known = _remembered.get(entry)
    if known is not None and known.is_current(memory):
        return known.path
    remembering = RememberingMemory(memory)
    profile = find_profile()
    try:
        path = _analyse_by(profile, remembering, entry)
    except MemoryFault as error:
        raise AnalysisError(f"the entry stub at {entry:#x} cannot be read: {error}", entry) from error
    _remembered[entry] = _Remembered(path, remembering.blocks, profile)
    keep_path(path)
    return path


def _analyse_by(profile: ProfileFile | None, memory: ReadableMemory, entry: int) -> EntryPath:
    if profile is None:
        return find_entry_path(memory, entry)
    try:
        return apply_profile(read_profile(profile), str(profile.path), memory, entry)
    except FormatError as error:
        raise UsageError(f"`set exo profile {profile.path}`: {error}") from error
