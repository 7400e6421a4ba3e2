"""Running a piece of the kernel's code in a CPU emulator, on copies of its memory.

Nothing here touches the guest but to read it: every page is copied when the emulated code first needs it, writes
go to the copy, and each run starts from the pristine copies again. A run follows one system-call number from
the dispatcher's first instruction and records the basic blocks it passes and the memory it reads.
"""

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from enum import Enum
from importlib import import_module
from typing import Any

from exogdb.abi.stub.location import InFrame, InRegister, Location, OnStack
from exogdb.errors import MemoryFault
from exogdb.x86.memory import ReadableMemory

__all__ = [
    "ARGUMENT_VALUES",
    "Block",
    "Call",
    "DispatcherEntry",
    "Emulator",
    "Ending",
    "Snapshot",
    "TableRead",
    "Trace",
]

_PAGE = 4096
# The emulator's own addresses: in the lower half, where no kernel code or data is.
_STACK, _STACK_SIZE = 0x6EAD_0000_0000, 0x10000
_ENTRY_RSP = _STACK + 0x8000 - 8  # as after a call: 8 below a multiple of 16
_FRAME = _STACK + 0xC000
_RETURN = 0x6EAE_0000_0000
_MASK_52 = (1 << 52) - 1  # the emulator reports physical addresses, and x86 has 52 bits of them
_MAX_BLOCKS = 3000
_GENERAL = ("rdi", "rsi", "rdx", "rcx", "r8", "r9", "rax", "rbx", "rbp", "r10", "r11", "r12", "r13", "r14", "r15")

ARGUMENT_VALUES = tuple(0x5EED_0A26_0000_0000 | 0x1111_1111 * (index + 1) for index in range(6))
"""What the six arguments are in every run: values that code does not make by itself."""


@dataclass(frozen=True)
class DispatcherEntry:
    """A dispatcher's first instruction, and where the number and the six arguments are at that moment."""

    address: int
    number: Location
    arguments: tuple[Location, ...] = ()


@dataclass(frozen=True, order=True)
class Block:
    """Code that ran without a jump: addresses `start` to `end`, the latter excluded."""

    start: int
    end: int


@dataclass(frozen=True)
class Call:
    """A call that was not followed: its target, and the address after the call instruction."""

    target: int
    returns_to: int


@dataclass(frozen=True, order=True)
class TableRead:
    """A read of `size` bytes at `address`, outside the stack and the frame."""

    address: int
    size: int


class Ending(Enum):
    """Why a run ended."""

    CALL = "a call that is not followed"
    RETURN = "the dispatcher returned"
    FAULT = "an instruction or an address that the emulation cannot do"
    BUDGET = "too many instructions"
    REACHED = "the address that was asked for"


@dataclass
class Trace:
    """One run. `reads[i]` holds the position in `blocks` of the block that made the read, and the read.

    `after` is what runs once the call that was not followed has returned, `passed` the targets of calls that were
    passed over. `counters` are the addresses of 8-byte words that the code added 1 to.
    """

    number: int
    blocks: list[Block] = field(default_factory=list)
    reads: list[tuple[int, TableRead]] = field(default_factory=list)
    ending: Ending = Ending.RETURN
    call: Call | None = None
    after: list[Block] = field(default_factory=list)
    passed: set[int] = field(default_factory=set)
    counters: set[int] = field(default_factory=set)
    stuck_in: int | None = None
    """The outermost followed call that a fault or the budget happened in."""


@dataclass(frozen=True)
class Snapshot:
    """The emulated CPU at one address: registers, and the 8-byte stack words from rsp up."""

    registers: Mapping[str, int]
    stack: tuple[int, ...]

    @property
    def return_slot(self) -> int:
        """Bytes from rsp up to the dispatcher's own return address."""
        return _ENTRY_RSP - self.registers["rsp"]

    def is_dispatcher_return(self, value: int) -> bool:
        """Whether `value` stands for the address that the dispatcher returns to."""
        return value == _RETURN

    def locate(self, value: int) -> list[Location]:
        """Every place that holds `value`, registers first; stack offsets count from rsp here."""
        found: list[Location] = [InRegister(name) for name in _GENERAL if self.registers[name] == value]
        found += [OnStack(8 * index) for index, word in enumerate(self.stack) if word == value]
        return found

    def locate_frame(self, offset: int) -> list[Location]:
        """The registers that hold the frame's address, each as a way to the word at `offset` in it."""
        return [InFrame(name, offset) for name in _GENERAL if self.registers[name] == _FRAME]


class _Everything(frozenset[int]):
    """Contains every address but those it was made from."""

    def __contains__(self, address: object) -> bool:
        return not super().__contains__(address)


class Emulator:
    """An x86-64 CPU on copies of `memory`, ready to run a dispatcher again and again.

    `gs_base` is the per-CPU block's address, for code that uses it.
    """

    def __init__(self, memory: ReadableMemory, entry: DispatcherEntry, gs_base: int = 0) -> None:
        unicorn: Any = import_module("unicorn")
        self._memory = memory
        self._entry = entry
        self._gs_base = gs_base
        self._pristine: dict[int, bytes] = {}
        self._dirty: set[int] = set()
        self._error: type[Exception] = unicorn.UcError
        self._uc: Any = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
        self._ids = {
            name: getattr(unicorn.x86_const, f"UC_X86_REG_{name.upper()}") for name in (*_GENERAL, "rsp", "rip")
        }
        self._gs_id = unicorn.x86_const.UC_X86_REG_GS_BASE
        self._flags_id = unicorn.x86_const.UC_X86_REG_RFLAGS
        self._fetch: int = unicorn.UC_MEM_FETCH_UNMAPPED
        self._uc.mem_map(_STACK, _STACK_SIZE)
        self._uc.hook_add(unicorn.UC_HOOK_MEM_UNMAPPED, self._on_unmapped)
        self._uc.hook_add(unicorn.UC_HOOK_BLOCK, self._on_block)
        self._uc.hook_add(unicorn.UC_HOOK_MEM_READ, self._on_read)
        self._uc.hook_add(unicorn.UC_HOOK_MEM_WRITE, self._on_write)
        self._trace = Trace(0)
        self._follow: Set[int] = frozenset()
        self._skip: Set[int] = frozenset()
        self._open_calls: list[tuple[int, int]] = []  # (target, rsp at the target's first instruction)
        self._until = _RETURN
        self._resume: tuple[int, int] | None = None

    def run(self, number: int, follow: Set[int], skip: Set[int], until: int = _RETURN) -> Trace:
        """Follow `number` until the dispatcher returns, reaches `until`, or calls anything not in the sets.

        A call whose target is in `follow` is executed; one in `skip` returns 0 at once.
        """
        self._reset(number)
        self._trace = trace = Trace(number)
        self._follow, self._skip, self._until, self._open_calls = follow, skip, until, []
        self._go(self._entry.address)
        if trace.ending is Ending.REACHED and self._read("rip") != until:
            self._step_to(until)
        return trace

    def run_on(self, trace: Trace) -> None:
        """Add to `trace.after` what runs after its call, for a call that succeeds and for one that fails.

        Must directly follow the run that made `trace`.
        """
        call, stack = trace.call, bytes(self._uc.mem_read(_STACK, _STACK_SIZE))
        registers = {name: self._read(name) for name in self._ids}
        if call is None:
            return
        for result in (0, (1 << 64) - 1):
            self._uc.mem_write(_STACK, stack)
            for name, value in registers.items():
                self._uc.reg_write(self._ids[name], value)
            self._uc.reg_write(self._ids["rsp"], registers["rsp"] + 8)
            self._uc.reg_write(self._ids["rax"], result)
            self._trace, self._skip, self._open_calls = Trace(trace.number), _Everything(self._follow), []
            self._go(call.returns_to)
            trace.after += self._trace.blocks
            trace.passed |= self._trace.passed

    def _go(self, begin: int) -> None:
        """Run from `begin`, returning at once from calls that are passed over, until the trace ends."""
        at: int | None = begin
        while at is not None:
            self._resume = None
            try:
                self._uc.emu_start(at, _RETURN)
            except self._error:
                self._trace.ending = Ending.FAULT
                self._blame()
                return
            at = self._take_resume()

    def snapshot(self, number: int, address: int, follow: Set[int], skip: Set[int]) -> Snapshot | None:
        """The CPU when `number` first reaches `address`, calls followed where needed; None if it never does."""
        if self.run(number, follow, skip, until=address).ending is not Ending.REACHED:
            return None
        registers = {name: self._read(name) for name in (*_GENERAL, "rsp")}
        size = max(_ENTRY_RSP + 0x48 - registers["rsp"], 0)
        raw = bytes(self._uc.mem_read(registers["rsp"], size)) if size <= 0x8000 else b""
        words = (int.from_bytes(raw[at : at + 8], "little") for at in range(0, len(raw) - 7, 8))
        return Snapshot(registers, tuple(words))

    def code_read(self, block: Block) -> bytes:
        """The bytes of a block that a run passed, as they were copied from the guest."""
        pages = range(block.start & -_PAGE, block.end, _PAGE)
        data = b"".join(self._pristine[page & _MASK_52] for page in pages)
        return data[block.start % _PAGE :][: block.end - block.start]

    def _step_to(self, until: int) -> None:
        """From the start of the last block to `until` inside it."""
        block = self._trace.blocks[-1]
        # The emulator looks for `until` only when it translates, and this block is translated already.
        self._uc.ctl_remove_cache(block.start, block.end)
        try:
            self._uc.emu_start(block.start, until)
        except self._error:
            self._trace.ending = Ending.FAULT
            return
        finally:
            self._uc.ctl_remove_cache(block.start, block.end)
        if self._read("rip") != until:
            self._trace.ending = Ending.FAULT

    def _reset(self, number: int) -> None:
        for page in self._dirty & self._pristine.keys():
            self._uc.mem_write(page, self._pristine[page])
        self._dirty.clear()
        self._uc.mem_write(_STACK, bytes(_STACK_SIZE))
        # Noise that is neither a number nor an argument, so that no register matches by chance.
        for index, name in enumerate(_GENERAL):
            self._uc.reg_write(self._ids[name], 0x6EAF_0000_0000_0000 | index << 32 | 0x5A5A)
        self._uc.reg_write(self._ids["rsp"], _ENTRY_RSP)
        self._uc.reg_write(self._gs_id, self._gs_base)
        self._uc.reg_write(self._flags_id, 0x2)
        self._put(OnStack(0), _RETURN)
        for location, value in zip(self._entry.arguments, ARGUMENT_VALUES, strict=False):
            self._put(location, value)
        self._put(self._entry.number, number)

    def _put(self, location: Location, value: int) -> None:
        match location:
            case InRegister(name):
                self._uc.reg_write(self._ids[name], value)
            case OnStack(offset):
                self._uc.mem_write(_ENTRY_RSP + offset, value.to_bytes(8, "little"))
            case InFrame(pointer, offset):
                self._uc.reg_write(self._ids[pointer], _FRAME)
                self._uc.mem_write(_FRAME + offset, value.to_bytes(8, "little"))

    def _read(self, register: str) -> int:
        value: int = self._uc.reg_read(self._ids[register])
        return value

    def _take_resume(self) -> int | None:
        if self._resume is None:
            return None
        address, rsp = self._resume
        self._uc.reg_write(self._ids["rsp"], rsp)
        self._uc.reg_write(self._ids["rax"], 0)
        return address

    def _blame(self) -> None:
        if self._open_calls:
            self._trace.stuck_in = self._open_calls[0][0]

    def _stop(self, ending: Ending) -> None:
        self._trace.ending = ending
        self._uc.emu_stop()

    def _on_block(self, _uc: object, address: int, size: int, _data: object) -> None:
        if self._trace.ending is Ending.REACHED:
            return
        blocks = self._trace.blocks
        if len(blocks) >= _MAX_BLOCKS:
            self._blame()
            self._stop(Ending.BUDGET)
            return
        if blocks and address != blocks[-1].end and self._is_refused_call(address, blocks[-1].end):
            return
        blocks.append(Block(address, address + size))
        if address <= self._until < address + size:
            self._stop(Ending.REACHED)

    def _is_refused_call(self, address: int, returns_to: int) -> bool:
        """Whether the jump to `address` was a call that this run must not enter; stops the run if so."""
        rsp = self._read("rsp")
        while self._open_calls and rsp > self._open_calls[-1][1]:
            self._open_calls.pop()
        word = bytes(self._uc.mem_read(rsp, 8)) if _STACK <= rsp <= _STACK + _STACK_SIZE - 8 else b""
        if int.from_bytes(word, "little") != returns_to:
            return False
        if address in self._skip:
            self._trace.passed.add(address)
            self._resume = (returns_to, rsp + 8)
            self._uc.emu_stop()
            return True
        if address in self._follow:
            self._open_calls.append((address, rsp))
            return False
        self._trace.call = Call(address, returns_to)
        self._stop(Ending.CALL)
        return True

    def _on_read(self, _uc: object, _access: int, address: int, size: int, _value: int, _data: object) -> None:
        if not _STACK <= address < _STACK + _STACK_SIZE:
            self._trace.reads.append((len(self._trace.blocks) - 1, TableRead(_canonical(address), size)))

    def _on_write(self, _uc: object, _access: int, address: int, size: int, value: int, _data: object) -> None:
        if not _STACK <= address < _STACK + _STACK_SIZE:
            page = address & _MASK_52 & -_PAGE
            if size == 8 and page in self._pristine and address % 8 == 0:
                old = int.from_bytes(self._uc.mem_read(address & _MASK_52, 8), "little")
                if value & (1 << 64) - 1 == old + 1:
                    self._trace.counters.add(_canonical(address & _MASK_52))
            self._dirty.update(page & _MASK_52 for page in range(address & -_PAGE, address + size, _PAGE))

    def _on_unmapped(self, _uc: object, access: int, address: int, size: int, _value: int, _data: object) -> bool:
        first, last = address & _MASK_52 & -_PAGE, (address & _MASK_52) + max(size, 1) - 1
        is_data = access != self._fetch
        return all(self._copy_page(page, is_data) for page in range(first, last + 1, _PAGE))

    def _copy_page(self, page: int, is_data: bool) -> bool:
        if page in self._pristine:
            return True
        try:
            data = self._memory.read(_canonical(page), _PAGE)
        except MemoryFault:
            # What the kernel's state lacks just now (no process runs, say) reads as zero, so that the run gets
            # on to the comparisons; a wrong turn costs a good place, never a wrong stop.
            if not is_data:
                return False
            data = bytes(_PAGE)
        self._uc.mem_map(page, _PAGE)
        self._uc.mem_write(page, data)
        self._pristine[page] = data
        return True


def _canonical(address: int) -> int:
    """The virtual address of which the emulator reports the low 52 bits."""
    return address | 0xFFF << 52 if address >> 51 & 1 else address
